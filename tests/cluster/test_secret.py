"""Secrets and seals: what fits, what does not, and what a recording is worth."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster.secret import PROOF_BYTES, SEAL_BYTES, Secret

ROLES: tuple[Literal["caller"], Literal["called"]] = ("caller", "called")


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize(
    ("value", "error"),
    [("", ValueError), (b"", ValueError), (7, TypeError), (["a"], TypeError)],
    ids=repr,
)
def test_a_wrong_secret_is_refused_by_name(value, error):
    with pytest.raises(error, match="secret must"):
        Secret(value)


def test_nothing_shows_the_secret():
    assert repr(Secret("hunter2")) == "Secret('***')"
    assert repr(Secret(None)) == "Secret(None)"
    assert Secret(None).known_to_all
    assert not Secret("hunter2").known_to_all


def test_equal_secrets_match_as_text_and_bytes():
    assert Secret("a").matches(Secret(b"a"))
    assert Secret(None).matches(Secret(None))
    assert not Secret("a").matches(Secret("b"))
    assert not Secret("a").matches(Secret(None))


@pytest.mark.parametrize("role", ROLES)
def test_a_proof_holds_for_its_secret_role_and_transcript(role):
    proof = Secret("a").proof(role, b"random")
    other: Literal["caller", "called"] = "called" if role == "caller" else "caller"
    assert len(proof) == PROOF_BYTES
    assert Secret("a").proves(role, b"random", proof)
    assert not Secret("a").proves(role, b"randon", proof)
    assert not Secret("a").proves(other, b"random", proof)
    assert not Secret("b").proves(role, b"random", proof)
    assert not Secret(None).proves(role, b"random", proof)
    assert not Secret("a").proves(role, b"random", proof[:-1])


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_frames_fit_in_their_order(frames):
    out, back = (Secret("a").seal("caller", b"random") for _ in range(2))
    for frame in frames:
        seal = out.next(frame)
        assert len(seal) == SEAL_BYTES
        assert back.fits(frame, seal)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda sent: sent[1:],
        lambda sent: [sent[0], *sent],
        lambda sent: sent[::-1],
        lambda sent: [(b"other", sent[0][1])],
        lambda sent: [(sent[0][0], bytes(SEAL_BYTES))],
        lambda sent: [(sent[0][0], b"")],
    ],
    ids=["left out", "repeated", "moved", "changed", "unsealed", "cut"],
)
def test_what_is_tampered_with_does_not_fit(tamper):
    out, back = (Secret("a").seal("caller", b"random") for _ in range(2))
    sent = [(frame, out.next(frame)) for frame in (b"one", b"two", b"three")]
    assert not all(back.fits(frame, seal) for frame, seal in tamper(sent))


def test_a_recording_fits_no_other_connection_and_no_other_direction():
    seal = Secret("a").seal("caller", b"random").next(b"frame")
    assert Secret("a").seal("caller", b"random").fits(b"frame", seal)
    assert not Secret("a").seal("called", b"random").fits(b"frame", seal)
    assert not Secret("a").seal("caller", b"others").fits(b"frame", seal)
    assert not Secret("b").seal("caller", b"random").fits(b"frame", seal)
