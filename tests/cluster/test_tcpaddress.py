"""Addresses of peers: what is one, and who can get there."""

from __future__ import annotations

from errno import ENETUNREACH
from socket import AF_INET, AF_INET6

import pytest

from aiopatterns.cluster import tcpaddress
from aiopatterns.cluster.tcpaddress import at_loopback, everywhere, host_and_port, joined, outward


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("10.0.0.7:7000", "10.0.0.7", 7000),
        ("localhost:1", "localhost", 1),
        ("a.example:65535", "a.example", 65_535),
        ("[::1]:7000", "::1", 7000),
        ("[fe80::1%eth0]:7000", "fe80::1%eth0", 7000),
    ],
    ids=str,
)
def test_an_address_is_host_and_port(address, host, port):
    assert host_and_port("seed", address) == (host, port)
    assert joined(host, port) == address


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize(
    "address",
    [
        "", "here", ":7000", "here:", "here:x", "here:0", "here:65536", "here:-1", "::1:7000",
        "http://here:7000", "here:7000/x", "here:7000 ", "here: 7000", "here:\u0663", "[::1]",
        "[here]:7000", "a" * 300 + ":7000",
    ],
    ids=ascii,
)  # fmt: skip
def test_what_is_no_address_is_refused_by_name(address):
    with pytest.raises(ValueError, match='seed must be "host:port"'):
        host_and_port("seed", address)


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize("address", [7000, None, ("here", 7000), b"here:7000"], ids=repr)
def test_what_is_no_text_is_refused_by_name(address):
    with pytest.raises(TypeError, match="seed must be text"):
        host_and_port("seed", address)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
        ("LOCALHOST", True), ("0.0.0.0", False), ("::", False), ("10.0.0.7", False),
        ("a.example", False), ("localhost.example", False), ("::ffff:10.0.0.7", False),
    ],
)  # fmt: skip
def test_only_this_machine_reaches_loopback(host, expected):
    assert at_loopback(host) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [("0.0.0.0", True), ("::", True), ("127.0.0.1", False), ("localhost", False)],
)
def test_some_hosts_are_no_place_to_call(host, expected):
    assert everywhere(host) is expected


class Machine:
    """A socket of a machine that has a way to others, or none."""

    def __init__(self, lost: bool):
        self.lost = lost

    def __call__(self, family, _kind):
        self.family = family
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def connect(self, _address):
        if self.lost:
            raise OSError(ENETUNREACH, "Network is unreachable")

    def getsockname(self):
        return {AF_INET: ("10.0.0.7", 4711), AF_INET6: ("fd00::7", 4711, 0, 0)}[self.family]


@pytest.mark.parametrize(("host", "found"), [("0.0.0.0", "10.0.0.7"), ("::", "fd00::7")])
def test_who_listens_everywhere_is_found_where_it_calls_from(monkeypatch, host, found):
    monkeypatch.setattr(tcpaddress, "socket", Machine(lost=False))
    assert outward(host) == found


def test_a_machine_without_a_way_to_others_asks_for_its_address(monkeypatch):
    monkeypatch.setattr(tcpaddress, "socket", Machine(lost=True))
    with pytest.raises(OSError, match=r"advertise must be given: .* host '0\.0\.0\.0'"):
        outward("0.0.0.0")
