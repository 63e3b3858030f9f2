"""What a client may say at all."""

from __future__ import annotations

import pytest

from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.gateway.intake import Intake
from aiopatterns.gateway.policy import Limits
from tests.gateway.memory import Client

intake = Intake(Limits())


def take(*args, using: Intake = intake, **rest):
    return using.take(Client(*args, **rest).scope)


def refusal(*args, **rest) -> RequestRefusedError:
    with pytest.raises(RequestRefusedError) as caught:
        take(*args, **rest)
    return caught.value


async def receive():
    raise AssertionError


def body(*headers, method: str = "POST", using: Intake = intake, **scope):
    scope = Client(method, "/", headers=headers, **scope).scope
    return using.body(using.take(scope), scope, receive)


def test_a_request_is_what_the_scope_says():
    made = take("PUT", "/caf%C3%A9/x?a=1&b", headers=[(b"accept", b"*/*")])
    assert (made.method, made.path, made.raw_path) == ("PUT", "/café/x", b"/caf%C3%A9/x")
    assert (made.query, made.host, made.scheme) == (b"a=1&b", "shop", "http")
    assert made.header(b"accept") == b"*/*"
    assert (made.client, made.peer, made.trusted) == ("9.9.9.9", "9.9.9.9", False)
    assert len(made.correlation_id) == 24
    assert made.identity is None


def test_servers_that_keep_no_raw_path_and_name_no_peer():
    scope = Client("GET", "/").scope | {"path": "/café 1", "raw_path": None, "client": None}
    made = intake.take(scope)
    assert (made.path, made.raw_path, made.client) == ("/café 1", b"/caf%C3%A9%201", "unknown")
    del scope["raw_path"]
    assert intake.take(scope).path == "/café 1"


def test_a_websocket_is_a_get():
    scope = Client("GET", "/ws").scope | {"type": "websocket", "scheme": "wss"}
    del scope["method"]
    made = intake.take(scope)
    assert (made.method, made.scheme) == ("GET", "https")


@pytest.mark.parametrize(
    ("sent", "host"),
    [
        (b"Shop.Example.ORG", "shop.example.org"),
        (b"shop:8080", "shop"),
        (b"shop.", "shop"),
        (b"10.0.0.7:80", "10.0.0.7"),
        (b"[::1]:80", "[::1]"),
        (b"a_b", "a_b"),
        (b"x", "x"),
    ],
)
def test_hosts(sent, host):
    assert take(host=sent).host == host


@pytest.mark.promise("gateway-framing")
@pytest.mark.parametrize(
    "sent",
    [b"", b"two hosts", b"a/b", b"a,b", b"user@a", b"a:b", b"a:80:80", b"-a", b"a" * 256, b"\xff"],
)
def test_hosts_that_are_none(sent):
    assert refusal(host=sent).status == 400


def test_without_a_host():
    scope = Client("GET", "/").scope | {"headers": []}
    with pytest.raises(RequestRefusedError, match="400"):
        intake.take(scope)


@pytest.mark.promise("gateway-sizes")
def test_sizes():
    small = Intake(Limits(max_body=10, max_headers=100, max_target=20))
    assert take("GET", "/" + "a" * 9 + "?" + "b" * 10, using=small)
    long = refusal("GET", "/" + "a" * 9 + "?" + "b" * 11, using=small)
    assert (long.status, long.headers) == (414, ((b"connection", b"close"),))
    assert take(headers=[(b"x", b"y" * 83)], using=small)
    for headers in ([(b"x", b"y" * 84)], [(b"x" * 85, b"")], [(b"x", b"")] * 19):
        large = refusal(headers=headers, using=small)
        assert (large.status, large.headers) == (431, ((b"connection", b"close"),))
    assert body((b"content-length", b"10"), using=small).length == 10
    with pytest.raises(RequestRefusedError) as caught:
        body((b"content-length", b"11"), using=small)
    assert (caught.value.status, caught.value.headers) == (413, ((b"connection", b"close"),))


BAD_HEADERS = [
    (b"a b", b"1"),
    (b"", b"1"),
    (b" a", b"1"),
    (b"a ", b"1"),
    (b"a:", b"1"),
    (b"a\r\nb", b"1"),
    (b"a\x00", b"1"),
    (b"A", b"1"),
    (b"\xe9", b"1"),
    (b"a(b)", b"1"),
    (b"a", b"1\r\nb: 2"),
    (b"a", b"1\nb: 2"),
    (b"a", b"1\r"),
    (b"a", b"\x00"),
    (b"a", b"1\x0b"),
    (b"a", b"\x7f"),
    (b"transfer-encoding\x0b", b"chunked"),
]


@pytest.mark.promise("gateway-framing")
@pytest.mark.parametrize("header", BAD_HEADERS)
def test_headers_that_another_server_may_read_otherwise(header):
    refused = refusal(headers=[header])
    assert (refused.status, refused.headers) == (400, ((b"connection", b"close"),))


def test_values_may_hold_tabs_and_other_octets():
    assert take(headers=[(b"a", b"x\ty"), (b"b", "é".encode()), (b"c", b"")])


@pytest.mark.promise("gateway-framing")
@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"5"), (b"content-length", b"6")],
        [(b"content-length", b"5"), (b"content-length", b"5")],
        [(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
        [(b"host", b"a"), (b"host", b"a")],
        [(b"host", b"a"), (b"host", b"b")],
    ],
)
def test_two_of_what_there_is_one_of(headers):
    refused = refusal("POST", headers=headers)
    assert (refused.status, refused.headers) == (400, ((b"connection", b"close"),))
    assert take(headers=[(b"cookie", b"a"), (b"cookie", b"b")])


@pytest.mark.promise("gateway-framing")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"content-length", b"5"), (b"transfer-encoding", b"chunked")], 400),
        ([(b"content-length", b"0"), (b"transfer-encoding", b"identity")], 400),
        ([(b"content-length", b"")], 400),
        ([(b"content-length", b"+5")], 400),
        ([(b"content-length", b"-5")], 400),
        ([(b"content-length", b"5, 5")], 400),
        ([(b"content-length", b"0x5")], 400),
        ([(b"content-length", b"5 ")], 400),
        ([(b"content-length", b"1e3")], 400),
        ([(b"content-length", b"9" * 30)], 400),
        ([(b"content-length", b"\xb2")], 400),
        ([(b"content-length", b"9" * 19)], 413),
        ([(b"transfer-encoding", b"gzip")], 501),
        ([(b"transfer-encoding", b"gzip, chunked")], 501),
        ([(b"transfer-encoding", b"chunked, chunked")], 501),
        ([(b"transfer-encoding", b"identity")], 501),
        ([(b"transfer-encoding", b"xchunked")], 501),
        ([(b"transfer-encoding", b"chunked;q=1")], 501),
        ([(b"transfer-encoding", b"")], 501),
    ],
)
def test_framing_that_is_not_one(headers, status):
    with pytest.raises(RequestRefusedError) as caught:
        body(*headers)
    assert (caught.value.status, caught.value.headers) == (status, ((b"connection", b"close"),))


def test_chunks_are_of_the_newer_versions():
    with pytest.raises(RequestRefusedError) as caught:
        body((b"transfer-encoding", b"chunked"), http_version="1.0")
    assert (caught.value.status, caught.value.headers) == (400, ((b"connection", b"close"),))


def test_which_bodies_are_empty():
    assert body(method="GET").empty
    assert body(http_version="1.0").empty
    assert body((b"content-length", b"0")).empty
    assert body((b"content-length", b"0")).length == 0
    assert body((b"content-length", b"007")).length == 7
    assert not body((b"content-length", b"5"), method="GET").empty
    assert not body((b"transfer-encoding", b"chunked")).empty
    assert not body((b"transfer-encoding", b"Chunked")).empty
    assert body((b"transfer-encoding", b"chunked")).length is None
    assert not body(method="GET", http_version="2").empty  # only reading tells


@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("TRACE", 501),
        ("CONNECT", 501),
        ("get", 400),
        ("GE T", 400),
        ("", 400),
        ("A" * 40, 400),
        ("Ä", 400),
    ],
)
def test_methods_that_are_not_served(method, status):
    assert refusal(method).status == status


def test_methods_that_are():
    for method in (
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "OPTIONS",
        "PROPFIND",
        "M-SEARCH",
    ):
        assert take(method).method == method


def test_paths_and_queries_are_checked():
    assert refusal("GET", b"/a/%2e%2e/b").status == 400
    assert refusal("GET", b"/a?b\r\nc").status == 400


@pytest.mark.promise("gateway-forwarded")
def test_only_trusted_proxies_are_believed():
    spoof = [(b"x-forwarded-for", b"127.0.0.1"), (b"x-forwarded-proto", b"https")]
    made = take(headers=spoof)
    assert (made.client, made.scheme, made.trusted) == ("9.9.9.9", "http", False)
    trusting = Intake(Limits(trusted_proxies=("9.9.9.0/24",)))
    made = take(headers=spoof, using=trusting)
    assert (made.client, made.scheme, made.trusted) == ("127.0.0.1", "https", True)
    made = take(headers=[(b"x-forwarded-proto", b"gopher")], using=trusting)
    assert (made.client, made.scheme) == ("9.9.9.9", "http")
    made = take(headers=spoof, peer=("8.8.8.8", 1), using=trusting)
    assert (made.client, made.trusted) == ("8.8.8.8", False)


@pytest.mark.parametrize("sent", [b"", b"a b", b"x" * 129, b"{}", b"a\xff", b'"'])
def test_request_ids_that_are_none_are_replaced(sent):
    assert len(take(headers=[(b"x-request-id", sent)]).correlation_id) == 24


def test_a_request_id_is_kept():
    assert take(headers=[(b"x-request-id", b"Ab-1_2.3:4/5")]).correlation_id == "Ab-1_2.3:4/5"


@pytest.mark.promise("gateway-headers")
def test_names_with_underscores_are_not_there():
    made = take(headers=[(b"x_user_id", b"admin"), (b"content_length", b"5"), (b"a", b"b")])
    assert made.headers == [(b"host", b"shop"), (b"a", b"b")]
    assert made.header(b"x_user_id") is None
