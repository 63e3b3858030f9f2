"""Records: golden files, and bytes of strangers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.cluster import InstanceState, ServiceInstance
from aiopatterns.cluster.record import FORMAT, Record, read, written
from aiopatterns.core.errors import CodecError, UnknownVersionError

GOLDEN = sorted((Path(__file__).parent / "golden").glob("record-*.json"))
GOOD = {"format": 1, "state": "ready", "epoch": 1, "host": "localhost", "port": 80}


def encoded(**change: object) -> bytes:
    return json.dumps(GOOD | change).encode()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
@pytest.mark.promise("cluster-records")
def test_golden_records_are_read(path):
    golden = json.loads(path.read_text("utf-8"))
    record = read(golden["service"], golden["member"], golden["bytes"].encode())
    instance = ServiceInstance(golden["service"], id=golden["member"], **golden["instance"])
    state = None if golden["state"] == "left" else InstanceState(golden["state"])
    assert record == Record(instance, state, golden["epoch"])
    if golden["canonical"]:
        again = written(instance, golden["state"], epoch=golden["epoch"])
        assert again.decode() == golden["bytes"]


def test_there_are_golden_files_of_this_format():
    assert {path.stem.split("-")[1] for path in GOLDEN} == {f"v{FORMAT}"}


@given(
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,20}", fullmatch=True),
    st.integers(1, 65_535),
    st.just(0) | st.floats(1e-9, 1e9),
    st.none() | st.just("eu-1"),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.text("ab")),
    st.sampled_from(["starting", "ready", "draining", "left"]),
    st.integers(0, 2**53),
)
def test_whatever_was_written_is_read(name, port, weight, zone, metadata, state, epoch):
    instance = ServiceInstance(
        name, "localhost", port, id=name, weight=weight, zone=zone, metadata=metadata
    )
    found = read(name, name, written(instance, state, epoch=epoch))
    assert (found.instance, found.epoch) == (instance, epoch)
    assert found.state is (None if state == "left" else InstanceState(state))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\x00",
        b"null",
        b"{}",
        encoded(format="1"),
        encoded(state="paused"),
        encoded(state=7),
        encoded(epoch=1.5),
        encoded(host="http://users"),
        encoded(host=None),
        encoded(port=0),
        encoded(port=65_536),
        encoded(version="1 2"),
        encoded(weight=-1),
        encoded(weight="1"),
        encoded(weight=5e-324),
        encoded(weight=1e300),
        encoded(zone=""),
        encoded(metadata={"": "b"}),
        encoded(metadata={"a": 1}),
        encoded(metadata=[]),
    ],
)
@pytest.mark.promise("cluster-records")
def test_what_is_no_record_raises_one_error(data):
    with pytest.raises(CodecError):
        read("users", "a", data)


def test_a_newer_format_is_named():
    with pytest.raises(UnknownVersionError) as error:
        read("users", "a", encoded(format=2))
    assert error.value.version == 2


def test_a_member_that_can_be_no_id_is_of_no_instance():
    with pytest.raises(CodecError, match="record of 'a b' in service 'users' is of no instance"):
        read("users", "a b", encoded())


@given(st.binary(max_size=200))
@pytest.mark.promise("cluster-records")
def test_any_bytes_are_read_or_refused(data):
    with pytest.raises(CodecError):
        read("users", "a", data)


@given(
    st.dictionaries(
        st.sampled_from(
            ["format", "state", "epoch", "host", "port", "version", "weight", "zone", "metadata"]
        ),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.dictionaries(st.text(max_size=3), st.text(max_size=3) | st.integers(), max_size=2)
        | st.sampled_from(["left", "::1"]),
    )
)
@pytest.mark.promise("cluster-records")
def test_any_fields_are_read_or_refused(fields):
    data = json.dumps(GOOD | fields).encode()
    try:
        record = read("users", "a", data)
    except CodecError:
        return
    assert record.instance.id == "a"
