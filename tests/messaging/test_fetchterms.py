"""The terms of a fetcher."""

from __future__ import annotations

import dataclasses

import pytest

from aiopatterns.core.errors import CodecError, UnknownVersionError
from aiopatterns.messaging import Envelopes, Message, Upcasters
from aiopatterns.messaging.fetchterms import FetchTerms


def test_they_do_not_change():
    terms = FetchTerms(
        stream="s", group="g", consumer="c", prefetch=1, max_deliveries=1, claim_idle=1.0
    )
    field = "group"
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(terms, field, "other")


def test_what_is_opened_is_in_its_newest_form():
    terms = FetchTerms(
        stream="s", group="g", consumer="c", prefetch=1, max_deliveries=1, claim_idle=1.0
    )
    envelopes = Envelopes()
    old = Message(type="order", payload={"id": 1})
    data = envelopes.encode(old)
    assert terms.opened(data, envelopes) == old
    upcasters = Upcasters().step("order", 1, lambda order: order | {"currency": "EUR"})
    knowing = dataclasses.replace(terms, upcasters=upcasters)
    new = knowing.opened(data, envelopes)
    assert (new.id, new.version, new.payload) == (old.id, 2, {"id": 1, "currency": "EUR"})
    with pytest.raises(CodecError):
        knowing.opened(b"x", envelopes)
    with pytest.raises(UnknownVersionError):
        knowing.opened(envelopes.encode(Message(type="order", version=3)), envelopes)
