"""The record of one serving process."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from typing import cast

import pytest

from aiopatterns.cluster import ServiceInstance


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.1", "10.0.0.1:80"),
        ("users.internal", "users.internal:80"),
        ("::1", "[::1]:80"),
        ("[fe80::1%eth0]", "[fe80::1%eth0]:80"),
    ],
)
def test_address(host, address):
    assert ServiceInstance("users", host, 80).address == address


def test_an_id_is_made_for_each_and_the_rest_has_defaults():
    one, two = (ServiceInstance("users", "localhost", 80) for _ in range(2))
    assert one.id != two.id
    assert ServiceInstance("users", "localhost", 80, id=None).id not in {"", one.id, two.id}
    assert (one.version, one.weight, one.zone, dict(one.metadata)) == ("", 1, None, {})


def test_metadata_is_a_copy_that_nobody_changes():
    given = {"rack": "7"}
    record = ServiceInstance("users", "localhost", 80, metadata=given)
    given["rack"] = "8"
    assert record.metadata == {"rack": "7"}
    with pytest.raises(TypeError):
        cast("dict[str, str]", record.metadata)["rack"] = "9"


def test_a_record_is_made_of_another_as_of_any_data():
    record = ServiceInstance("users", "localhost", 80, weight=2, metadata={"rack": "7"})
    other = replace(record, weight=0)
    assert (other.id, other.weight, other.metadata) == (record.id, 0, record.metadata)
    for name in record.__slots__:
        with pytest.raises(FrozenInstanceError):
            setattr(record, name, 3)
    match record:
        case ServiceInstance("users", host, port, zone=None):
            assert (host, port) == ("localhost", 80)


def test_records_are_hashed_compared_copied_and_pickled():
    record = ServiceInstance(
        "users", "localhost", 80, version="1.2", weight=2, zone="a", metadata={"rack": "7"}
    )
    for other in (copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert other == record
        assert hash(other) == hash(record)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"service": ""}, ValueError, "service must be a non-empty string"),
        ({"service": "a b"}, ValueError, "service must be letters, digits"),
        ({"service": "a" * 256}, ValueError, "at most 255"),
        ({"service": 1}, TypeError, "service must be"),
        ({"host": "http://users"}, ValueError, "host must be a host name or an address"),
        ({"host": "users:80"}, ValueError, "host must be"),
        ({"host": ""}, ValueError, "host must be"),
        ({"host": None}, TypeError, "host must be text"),
        ({"port": 0}, ValueError, "port must be a whole number >= 1"),
        ({"port": 65_536}, ValueError, "port must be from 1 to 65535"),
        ({"port": "80"}, TypeError, "port must be"),
        ({"id": "a b"}, ValueError, "id must be"),
        ({"version": "1 2"}, ValueError, "version must be"),
        ({"version": None}, TypeError, "version must be text"),
        ({"weight": -1}, ValueError, "weight must be a finite number >= 0"),
        ({"weight": float("nan")}, ValueError, "weight must be"),
        ({"weight": 5e-324}, ValueError, "weight must be 0, or from 1e-09 to 1000000000.0"),
        ({"weight": 1e300}, ValueError, "weight must be 0, or from"),
        ({"zone": ""}, ValueError, "zone must be"),
        ({"metadata": [1]}, TypeError, "metadata must be a mapping"),
        ({"metadata": {"a": 1}}, TypeError, r"metadata\['a'\] must be text"),
        ({"metadata": {1: "a"}}, TypeError, "metadata's keys must be"),
    ],
)
@pytest.mark.promise("cluster-bad-input")
def test_bad_input_names_the_field(change, error, text):
    with pytest.raises(error, match=text):
        ServiceInstance(**{"service": "users", "host": "localhost", "port": 80} | change)
