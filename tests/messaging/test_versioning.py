"""Upcasters: what is refused when a step is registered, and what old payloads become."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.errors import CodecError, UnknownVersionError
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.versioning import Form, Upcast, Upcasters


def adding(key, value=0):
    return lambda payload: payload | {key: value}


def three_steps() -> Upcasters:
    """Order 1 to 3, then under another name, which goes on by itself."""
    return (
        Upcasters()
        .step("order", 1, adding("currency", "EUR"))
        .step("order", 2, adding("lines"))
        .step("order", 3, adding("renamed"), to=("purchase", 1))
        .step("purchase", 1, adding("last"))
    )


@pytest.mark.promise("messaging-upcasters")
def test_every_old_version_leads_to_the_newest():
    upcasters = three_steps()
    assert upcasters.upcast("order", 1, {}) == (
        "purchase",
        2,
        {"currency": "EUR", "lines": 0, "renamed": 0, "last": 0},
    )
    assert upcasters.upcast("order", 3, {}) == ("purchase", 2, {"renamed": 0, "last": 0})
    assert upcasters.upcast("purchase", 1, {}) == ("purchase", 2, {"last": 0})
    newest = {"as": "it is"}
    found = upcasters.upcast("purchase", 2, newest)
    assert found == Upcast("purchase", 2, newest)
    assert found.payload is newest
    assert upcasters.forms() == (("order", 1), ("order", 2), ("order", 3), ("purchase", 1))
    assert repr(upcasters) == "Upcasters(4 steps)"
    assert str(upcasters.forms()[0]) == "order v1"


def test_a_type_without_steps_upcasts_to_itself():
    assert Upcasters().upcast("user", 7, [1]) == ("user", 7, [1])
    assert three_steps().upcast("user", 1, None) == ("user", 1, None)


@pytest.mark.promise("messaging-upcasters")
def test_versions_that_nobody_knows():
    upcasters = Upcasters().step("order", 3, adding("a")).step("order", 4, adding("b"))
    with pytest.raises(UnknownVersionError, match="order v6 is newer than order v5") as info:
        upcasters.upcast("order", 6, {})
    assert info.value.version == 6
    with pytest.raises(UnknownVersionError, match="order v2 is older than the first version known"):
        upcasters.upcast("order", 2, {})
    with pytest.raises(UnknownVersionError, match="order v4 is newer than order v3"):
        three_steps().upcast("order", 4, {})
    with pytest.raises(UnknownVersionError):
        upcasters.trail("order", 6, {})
    with pytest.raises(UnknownVersionError):
        upcasters.upcast_message(Message(type="order", version=6))


def test_a_message_is_upcast_with_all_that_belongs_to_it():
    upcasters = three_steps()
    old = Message(type="order", version=2, id="7a", topic="t", headers={"a": "b"}, payload={"x": 1})
    new = upcasters.upcast_message(old)
    assert (new.type, new.version, new.payload) == (
        "purchase",
        2,
        {"x": 1, "lines": 0, "renamed": 0, "last": 0},
    )
    assert (new.id, new.topic, new.headers) == ("7a", "t", {"a": "b"})
    assert upcasters.upcast_message(new) is new


def test_the_trail_shows_each_form():
    trail = three_steps().trail("order", 2, {})
    assert [each[:2] for each in trail] == [
        ("order", 2),
        ("order", 3),
        ("purchase", 1),
        ("purchase", 2),
    ]
    assert trail[1].payload == {"lines": 0}
    assert trail[-1] == three_steps().upcast("order", 2, {})
    assert three_steps().trail("user", 1, 5) == (("user", 1, 5),)


@pytest.mark.promise("messaging-upcasters")
@pytest.mark.parametrize(
    ("step", "message"),
    [
        (("order", 1), "version must be one without a step, but order v1 becomes order v2"),
        (("order", 3), "version must be one without a step, but order v3 becomes purchase v1"),
        (("order", 4), "version must be 3, the newest of 'order' so far, not 4"),
        (("purchase", 3), "version must be 2, the newest of 'purchase' so far, not 3"),
        (
            ("purchase", 2, ("purchase", 4)),
            "to must be the version after purchase v2, not purchase",
        ),
        (
            ("purchase", 2, ("purchase", 2)),
            "to must be the version after purchase v2, not purchase",
        ),
        (("purchase", 2, ("purchase", 1)), "to must be the version after .* no gaps, no cycles"),
        (
            ("user", 1, ("purchase", 3)),
            "to must be a known version of 'purchase', up to 2, not pur",
        ),
        (("user", 1, ("order", 4)), "to must be a known version of 'order', up to 3, not order v4"),
        (("purchase", 2, ("order", 1)), "to must not lead back, but order v1 becomes purchase v2"),
        (("purchase", 2, ("order", 3)), "to must not lead back, but order v3 .*: a cycle"),
    ],
)
def test_gaps_cycles_and_second_ways_are_refused(step, message):
    upcasters = three_steps()
    before = upcasters.upcast("order", 1, {})
    name, version, *to = step
    with pytest.raises(ValueError, match=message):
        upcasters.step(name, version, adding("x"), to=to[0] if to else None)
    assert upcasters.upcast("order", 1, {}) == before
    assert len(upcasters.forms()) == 4
    assert upcasters.upcast("user", 9, 1) == ("user", 9, 1)  # nothing was noted of it


def test_two_types_may_become_one():
    upcasters = three_steps()
    upcasters.step("sale", 5, adding("sale"), to=("purchase", 1))
    upcasters.step("deal", 1, adding("deal"), to=("purchase", 2))
    assert upcasters.upcast("sale", 5, {}) == ("purchase", 2, {"sale": 0, "last": 0})
    upcasters.step("purchase", 2, adding("more"))
    assert upcasters.upcast("deal", 1, {}) == ("purchase", 3, {"deal": 0, "more": 0})
    assert upcasters.upcast("order", 1, {}).version == 3


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_whatever_is_registered_leads_to_the_newest_in_order(moves, data):
    """Steps by chance, over four types; what was accepted is compared with a walk of the steps."""
    upcasters = Upcasters()
    accepted: dict[tuple[str, int], tuple[str, int]] = {}
    for move in moves:
        start = (f"t{move}", data.draw(st.integers(1, 3)))
        to = data.draw(st.none() | st.tuples(st.sampled_from(["t0", "t1", "t2", "t3"]), st.just(1)))
        target = to or (start[0], start[1] + 1)

        def fn(payload, target=target):
            return [*payload, target]

        try:
            upcasters.step(*start, fn, to=to)
        except ValueError:
            continue
        accepted[start] = target
    for start in accepted:
        expected, form = [], start
        while form in accepted:
            form = accepted[form]
            expected.append(form)
            assert len(expected) <= len(accepted), "a cycle"
        assert upcasters.upcast(*start, []) == (*form, expected)
    assert list(upcasters.forms()) == list(accepted)
    for name, version in accepted:  # no version between the first and the last lacks its step
        versions = [v for n, v in [*accepted, *accepted.values()] if n == name]
        assert set(range(min(versions), max(versions))) <= {v for n, v in accepted if n == name}
        assert version <= max(versions)


class Broken(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.promise("messaging-upcasters")
def test_whatever_a_step_does_with_a_payload_one_kind_of_error_comes():
    def broken(payload):
        raise Broken

    upcasters = Upcasters().step("a", 1, lambda payload: payload["x"]).step("b", 1, broken)
    with pytest.raises(CodecError, match="a v1 to a v2: the step raised KeyError: 'x'") as info:
        upcasters.upcast("a", 1, {})
    assert isinstance(info.value.__cause__, KeyError)
    with pytest.raises(CodecError, match="the step raised TypeError"):
        upcasters.upcast("a", 1, 7)
    with pytest.raises(CodecError, match="b v1 to b v2: the step raised Broken"):
        upcasters.upcast("b", 1, {})
    with pytest.raises(CodecError, match="a v1 to a v2: the step returned nothing"):
        upcasters.upcast("a", 1, {"x": None})
    assert Upcasters().step("a", 1, lambda payload: payload).upcast("a", 1, None) == ("a", 2, None)


def test_samples_are_checked_all_at_once():
    upcasters = three_steps()
    samples = {("order", 1): {"id": 17}, ("purchase", 2): {}, ("other", 1): 5}
    before = copy.deepcopy(samples)
    found = upcasters.check(samples)
    assert samples == before
    assert found[Form("order", 1)] == upcasters.upcast("order", 1, {"id": 17})
    assert found[Form("purchase", 2)] == ("purchase", 2, {})
    assert found[Form("other", 1)] == ("other", 1, 5)

    def writing(payload):
        payload["x"] = 1
        return payload

    upcasters.step("note", 1, writing)
    with pytest.raises(CodecError) as info:
        upcasters.check({("order", 1): 7, ("order", 2): {}, ("note", 1): {}, ("purchase", 9): {}})
    text = str(info.value)
    assert text.startswith("3 of 4 samples: order v1 to order v2: the step raised TypeError")
    assert "note v1 to note v2: the step changes what it is given" in text
    assert "purchase v9 is newer than purchase v2" in text


@pytest.mark.promise("messaging-bad-input")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda u: u.step("", 1, dict), ValueError, "type must be a non-empty string"),
        (lambda u: u.step(7, 1, dict), TypeError, "type must be a non-empty string"),
        (lambda u: u.step("a", 0, dict), ValueError, "version must be a whole number >= 1"),
        (lambda u: u.step("a", "1", dict), TypeError, "version must be a whole number >= 1"),
        (lambda u: u.step("a", 1, None), TypeError, "fn must be a function, not None"),
        (lambda u: u.step("a", 1, dict, to="b"), TypeError, "to must be a tuple of a type and a v"),
        (lambda u: u.step("a", 1, dict, to=("b",)), TypeError, "to must be a tuple"),
        (lambda u: u.step("a", 1, dict, to=("b", 0)), ValueError, r"to\[1\] must be a whole"),
        (lambda u: u.step("a", 1, dict, to=(1, 1)), TypeError, r"to\[0\] must be a non-empty"),
        (lambda u: u.upcast("", 1, {}), ValueError, "type must be a non-empty string, not"),
        (lambda u: u.upcast("a", 0, {}), ValueError, "version must be a whole number >= 1, not 0"),
        (lambda u: u.check([]), TypeError, "samples must be a mapping of"),
        (lambda u: u.check({"a": 1}), TypeError, "samples' keys must be a tuple"),
        (lambda u: u.check({("a", 0): 1}), ValueError, r"samples' keys\[1\] must be a whole"),
    ],
)
def test_bad_input(call, error, message):
    upcasters = Upcasters()
    with pytest.raises(error, match=message):
        call(upcasters)
    assert upcasters.forms() == ()


def test_an_async_step_is_refused():
    async def later(payload):
        return payload

    with pytest.raises(TypeError, match="fn must be a plain function, not the async function"):
        Upcasters().step("a", 1, later)
