"""The message record: what it refuses, what it keeps, and that it never changes."""

from __future__ import annotations

import copy
import pickle
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.messaging.message import KINDS, Message


def test_only_the_type_has_to_be_given():
    one, other = Message(type="order.created"), Message(type="order.created")
    assert one.id != other.id
    assert len(one.id) == 24
    assert (one.version, one.kind, one.attempt, one.hops) == (1, "event", 1, 0)
    assert (one.topic, one.headers, one.payload) == ("", {}, None)
    for name in ("key", "correlation_id", "causation_id", "reply_to", "deadline"):
        assert getattr(one, name) is None


def test_it_never_changes():
    given_headers = {"a": "b"}
    message = Message(type="order.created", headers=given_headers)
    given_headers["a"] = "c"
    assert message.headers == {"a": "b"}
    with pytest.raises(TypeError):
        cast("dict[str, str]", message.headers)["a"] = "c"
    with pytest.raises(AttributeError):
        setattr(message, "type", "other")


def test_it_is_copied_replaced_and_pickled():
    message = Message(
        type="order.created", id="7a", headers={"a": "b"}, deadline=1.5, payload=[{"x": 1}]
    )
    assert pickle.loads(pickle.dumps(message)) == message
    assert copy.copy(message) == message
    deep = copy.deepcopy(message)
    assert deep == message
    again = msgspec.structs.replace(message, attempt=2)
    assert (again.attempt, again.id, again.headers) == (2, "7a", {"a": "b"})
    assert again != message
    assert hash(again) == hash(message) == hash("7a")
    assert {message: 1}[deep] == 1


@pytest.mark.promise("messaging-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"type": ""}, ValueError, "type must be a non-empty string, not ''"),
        ({"type": b"a"}, TypeError, "type must be a non-empty string"),
        ({"id": ""}, ValueError, "id must be a non-empty string"),
        ({"id": 7}, TypeError, "id must be a non-empty string, not 7"),
        ({"version": 0}, ValueError, "version must be a whole number >= 1, not 0"),
        ({"version": True}, TypeError, "version must be a whole number >= 1, not True"),
        ({"version": 1.0}, TypeError, "version must be a whole number"),
        ({"kind": "shout"}, ValueError, "kind must be one of 'command', 'query', 'event', 'reply'"),
        ({"kind": ["event"]}, ValueError, "kind must be one of 'command'"),
        ({"topic": None}, TypeError, "topic must be text, not None"),
        ({"key": ""}, ValueError, "key must be a non-empty string"),
        ({"key": 7}, TypeError, "key must be a non-empty string"),
        ({"correlation_id": ""}, ValueError, "correlation_id must be a non-empty string"),
        ({"causation_id": b"a"}, TypeError, "causation_id must be a non-empty string"),
        ({"reply_to": ""}, ValueError, "reply_to must be a non-empty string"),
        ({"deadline": "1"}, TypeError, "deadline must be a number, not '1'"),
        ({"deadline": True}, TypeError, "deadline must be a number, not True"),
        ({"deadline": float("nan")}, ValueError, "deadline must be a number, not nan"),
        ({"deadline": float("inf")}, ValueError, "deadline must be a finite number, or None"),
        ({"deadline": float("-inf")}, ValueError, "deadline must be a finite number, or None"),
        ({"attempt": 0}, ValueError, "attempt must be a whole number >= 1"),
        ({"hops": -1}, ValueError, "hops must be a whole number >= 0"),
        ({"headers": None}, TypeError, "headers must be a mapping of text to text, not None"),
        ({"headers": {"": "a"}}, ValueError, "headers' keys must be a non-empty string"),
        ({"headers": {1: "a"}}, TypeError, "headers' keys must be a non-empty string"),
        ({"headers": {"a": 1}}, TypeError, r"headers\['a'\] must be text, not 1"),
    ],
)
def test_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        Message(**{"type": "order", **given})


class Text(str):
    __slots__ = ()


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        "",
        "a",
        Text("a"),
        Text(""),
        b"a",
        0,
        1,
        -1,
        2,
        True,
        False,
        1.5,
        float("nan"),
        float("inf"),
        "event",
        "reply",
        (),
        {},
    ]
)


@given(
    st.fixed_dictionaries(
        {"type": st.just("a")},
        optional={
            name: ODD
            for name in Message.__struct_fields__
            if name not in {"type", "headers", "payload"}
        },
    )
)
def test_the_quick_check_passes_nothing_that_the_full_one_refuses(fields):
    """Both accept the same, whatever the mixture of right and wrong fields."""

    def sound(name: str, value: Any) -> bool:
        if name in {"type", "id", "key", "correlation_id", "causation_id", "reply_to"}:
            optional = name not in {"type", "id"}
            return (optional and value is None) or (isinstance(value, str) and bool(value))
        if name in {"version", "attempt", "hops"}:
            least = 0 if name == "hops" else 1
            return isinstance(value, int) and not isinstance(value, bool) and value >= least
        if name == "kind":
            return value in KINDS
        if name == "topic":
            return isinstance(value, str)
        assert name == "deadline"
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return value is None or (number and abs(value) < float("inf"))

    if all(sound(name, value) for name, value in fields.items()):
        message = Message(**fields)
        assert {name: getattr(message, name) for name in fields} == fields
    else:
        with pytest.raises((TypeError, ValueError)):
            Message(**fields)
