"""Golden messages: samples of old versions, and what becomes of them."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from aiopatterns.core.errors import CodecError
from aiopatterns.messaging import Upcasters
from aiopatterns.testing import GoldenMessages


def priced(order):
    return order | {"currency": "EUR"}


def steps(*, second=None) -> Upcasters:
    upcasters = Upcasters().step("order", 1, priced)
    return upcasters if second is None else upcasters.step("order", 2, second)


@pytest.fixture
def golden(tmp_path):
    golden = GoldenMessages(tmp_path / "golden")
    golden.record("order", 1, {"id": 17})
    golden.check(steps(), update=True)
    return golden


def test_a_sample_is_written_once(tmp_path):
    golden = GoldenMessages(str(tmp_path / "a" / "b"))
    path = golden.record("order/é", 1, {"id": 17}, name="the first")
    assert path.parent == tmp_path / "a" / "b"
    assert path.name == "order%2F%C3%A9.v1.the%20first.json"
    before = path.read_bytes()
    assert golden.record("order/é", 1, {"id": 18}, name="the first") == path
    assert path.read_bytes() == before
    assert json.loads(before) == {
        "type": "order/é",
        "version": 1,
        "payload": {"id": 17},
        "becomes": [],
    }


@pytest.mark.promise("messaging-golden-helper")
def test_what_becomes_of_a_sample_is_written_down_and_stays(golden, tmp_path):
    path = tmp_path / "golden" / "order.v1.sample.json"
    first: dict[str, Any] = {
        "type": "order",
        "version": 2,
        "payload": {"id": 17, "currency": "EUR"},
    }
    assert json.loads(path.read_bytes())["becomes"] == [first]
    assert golden.check(steps()) == 1

    newer = steps(second=lambda order: order | {"lines": ()})
    message = "no sample of order v2"
    with pytest.raises(AssertionError, match=message) as info:
        golden.check(newer)
    assert "order.v1.sample.json does not say what becomes of it as order v3: look" in str(
        info.value
    )
    golden.record("order", 2, {"id": 1, "currency": "USD"})
    assert golden.check(newer, update=True) == 2
    second = {"type": "order", "version": 3, "payload": first["payload"] | {"lines": []}}
    assert json.loads(path.read_bytes())["becomes"] == [first, second]
    assert golden.check(newer) == 2


@pytest.mark.promise("messaging-golden-helper")
def test_a_step_that_changes_its_mind_is_found(golden, tmp_path):
    path = tmp_path / "golden" / "order.v1.sample.json"
    before = path.read_bytes()
    other = Upcasters().step("order", 1, lambda order: order | {"currency": "USD"})
    with pytest.raises(AssertionError, match=r"it became order v2 .*EUR.*, and now order v2 .*USD"):
        golden.check(other, update=True)
    with pytest.raises(AssertionError, match="it became order v2, but no step leads there any"):
        golden.check(Upcasters())
    assert path.read_bytes() == before


@pytest.mark.promise("messaging-golden-helper")
def test_samples_that_do_not_upcast_are_all_named(golden, tmp_path):
    def broken(order):
        raise KeyError("lines")

    (tmp_path / "golden" / "nonsense.json").write_text("{")
    (tmp_path / "golden" / "zero.json").write_text('{"type":"a","version":0,"payload":1}')
    (tmp_path / "golden" / "more.json").write_text('{"type":"a","version":1,"payload":1,"x":2}')
    with pytest.raises(AssertionError) as info:
        golden.check(steps(second=broken))
    text = str(info.value)
    assert "nonsense.json: not a json Sample" in text
    assert "zero.json: not a json Sample: Expected `int` >= 1" in text
    assert "more.json: not a json Sample" in text
    assert "order.v1.sample.json: 1 of 1 samples: order v2 to order v3: the step raised" in text


def test_a_step_that_writes_to_its_input_is_found(golden):
    def writing(order):
        order["currency"] = "EUR"
        return order

    with pytest.raises(AssertionError, match="the step changes what it is given"):
        golden.check(Upcasters().step("order", 1, writing))


def test_what_json_cannot_hold_is_refused(golden, tmp_path):
    with pytest.raises(CodecError):
        golden.record("order", 1, object(), name="other")
    assert len(list((tmp_path / "golden").iterdir())) == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda g: GoldenMessages(cast("str", 7)), TypeError, "folder must be a path"),
        (lambda g: g.record("", 1, {}), ValueError, "type must be a non-empty string"),
        (lambda g: g.record("order", 0, {}), ValueError, "version must be a whole number >= 1"),
        (lambda g: g.record("order", 1, {}, name=""), ValueError, "name must be a non-empty"),
    ],
)
def test_bad_input(golden, call, error, message):
    with pytest.raises(error, match=message):
        call(golden)


def test_an_empty_folder_has_no_samples(tmp_path):
    assert GoldenMessages(tmp_path).check(Upcasters()) == 0
    assert GoldenMessages(tmp_path / "none").check(Upcasters()) == 0
