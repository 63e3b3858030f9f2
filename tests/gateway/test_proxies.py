"""Who is believed about the address of the client."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.gateway.proxies import TrustedProxies


def test_nobody_is_trusted_by_default():
    nobody = TrustedProxies(())
    assert not nobody
    assert not nobody.trusts("127.0.0.1")


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.0.0.1", True),
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("192.168.1.7", True),
        ("192.168.1.8", False),
        ("::1", True),
        ("::2", False),
        ("", False),
        ("unknown", False),
        ("10.0.0.1\n", False),
    ],
)
def test_networks_and_addresses(address, trusted):
    proxies = TrustedProxies(("10.0.0.0/8", "192.168.1.7", "::1"))
    assert proxies
    assert [proxies.trusts(address) for _ in range(2)] == [trusted, trusted]


@pytest.mark.promise("gateway-forwarded")
@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (None, "10.0.0.2"),
        (b"", "10.0.0.2"),
        (b"203.0.113.9", "203.0.113.9"),
        (b"6.6.6.6, 203.0.113.9, 10.0.0.5", "203.0.113.9"),
        (b"127.0.0.1, 203.0.113.9", "203.0.113.9"),
        (b"10.0.0.9, 10.0.0.5", "10.0.0.9"),
        (b"203.0.113.9:4711", "203.0.113.9"),
        (b"[2001:db8::1]:4711, 10.0.0.5", "2001:db8::1"),
        (b"2001:DB8:0::1", "2001:db8::1"),
        (b"203.0.113.9, nonsense, 10.0.0.5", "10.0.0.5"),
        (b"203.0.113.9, \xff\xfe", "10.0.0.2"),
        (b"203.0.113.9,", "10.0.0.2"),
        (b"[broken", "10.0.0.2"),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_has_written(chain, client):
    assert TrustedProxies(("10.0.0.0/8",)).client("10.0.0.2", chain) == client


def test_what_is_remembered_of_peers_is_bounded():
    proxies = TrustedProxies(("10.0.0.0/8",))
    for n in range(3_000):
        proxies.trusts(f"11.0.{n // 256}.{n % 256}")
    remembered: Any = proxies.trusts
    assert remembered.cache_info().currsize <= 1_024
