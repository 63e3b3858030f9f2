"""The terms of a fetcher."""

from __future__ import annotations

import dataclasses

import pytest

from aiopatterns.messaging.fetchterms import FetchTerms


def test_they_do_not_change():
    terms = FetchTerms(
        stream="s", group="g", consumer="c", prefetch=1, max_deliveries=1, claim_idle=1.0
    )
    field = "group"
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(terms, field, "other")
