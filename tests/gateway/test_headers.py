"""What passes the gateway in either direction, and what it adds."""

from __future__ import annotations

import pytest

from aiopatterns.gateway.headers import (
    continued_trace,
    from_service,
    original_host,
    to_client,
    to_service,
    without_underscores,
)
from aiopatterns.gateway.policy import Identity
from aiopatterns.gateway.request import Request

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def request(*headers: tuple[bytes, bytes], trusted: bool = False) -> Request:
    made = Request("GET", b"/", b"", [(b"host", b"shop:8080"), *headers])
    made.peer = made.client = "9.9.9.9"
    made.trusted = trusted
    made.correlation_id = "id-1"
    return made


def sent(
    *headers: tuple[bytes, bytes], prefix: bytes | None = None, **rest
) -> list[tuple[bytes, bytes]]:
    return to_service(request(*headers, **rest), b"10.0.0.7:80", prefix)


def test_a_plain_request_gets_what_a_service_wants_to_know():
    found = sent((b"accept", b"*/*"), (b"cookie", b"a=1"), (b"cookie", b"b=2"))
    assert found[:3] == [(b"accept", b"*/*"), (b"cookie", b"a=1"), (b"cookie", b"b=2")]
    added = dict(found[3:])
    assert added.pop(b"traceparent").startswith(b"00-")
    assert added == {
        b"host": b"10.0.0.7:80",
        b"x-forwarded-for": b"9.9.9.9",
        b"x-forwarded-proto": b"http",
        b"x-forwarded-host": b"shop:8080",
        b"via": b"1.1 aiopatterns",
        b"x-request-id": b"id-1",
    }


@pytest.mark.promise("gateway-headers")
@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"proxy",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
        b"expect",
        b"forwarded",
        b"x-real-ip",
        b"x-original-url",
        b"x-rewrite-url",
        b"x-user-id",
        b"http2-settings",
    ],
)
def test_what_a_service_must_not_get_is_dropped(name):
    assert name not in dict(sent((name, b"spoofed")))


@pytest.mark.promise("gateway-headers")
def test_what_the_connection_header_names_is_dropped_but_not_what_has_to_arrive():
    found = dict(
        sent(
            (b"connection", b"keep-alive, X-Secret , cookie,authorization,x-request-id"),
            (b"x-secret", b"1"),
            (b"cookie", b"a=1"),
            (b"authorization", b"Bearer t"),
        )
    )
    assert b"x-secret" not in found
    assert found[b"cookie"] == b"a=1"
    assert found[b"authorization"] == b"Bearer t"
    assert found[b"x-request-id"] == b"id-1"


SPOOFS = [
    (b"x-forwarded-for", b"127.0.0.1"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"evil"),
    (b"x-forwarded-port", b"1"),
    (b"x-forwarded-prefix", b"/evil"),
    (b"forwarded", b"for=127.0.0.1"),
    (b"x-real-ip", b"127.0.0.1"),
    (b"x-user-id", b"admin"),
    (b"x-request-id", b"spoofed"),
]


@pytest.mark.promise("gateway-forwarded")
def test_a_stranger_is_not_believed_about_where_it_comes_from():
    found = sent(*SPOOFS)
    values = dict(found)
    assert values[b"x-forwarded-for"] == b"9.9.9.9"
    assert values[b"x-forwarded-proto"] == b"http"
    assert values[b"x-forwarded-host"] == b"shop:8080"
    assert values[b"x-request-id"] == b"id-1"
    assert not {b"x-forwarded-prefix", b"x-forwarded-port", b"forwarded", b"x-real-ip"} & set(
        values
    )
    assert b"x-user-id" not in values
    assert len(found) == len(values)


@pytest.mark.promise("gateway-forwarded")
def test_the_list_of_a_trusted_proxy_is_continued():
    values = dict(
        sent(
            (b"x-forwarded-for", b"203.0.113.9"),
            (b"x-forwarded-for", b"10.0.0.5"),
            (b"x-forwarded-host", b"public.example.org"),
            trusted=True,
        )
    )
    assert values[b"x-forwarded-for"] == b"203.0.113.9, 10.0.0.5, 9.9.9.9"
    assert values[b"x-forwarded-host"] == b"public.example.org"
    assert dict(sent(trusted=True))[b"x-forwarded-for"] == b"9.9.9.9"
    assert original_host(request(trusted=True)) == b"shop:8080"
    assert original_host(Request("GET", b"/", b"", [])) == b""


def test_who_it_is_goes_along():
    made = request()
    for subject, value in [
        ("ann", b"ann"),
        ("anné\r\n", b"ann%C3%A9%0D%0A"),
        ("a:b/c@d", b"a:b/c@d"),
    ]:
        made.identity = Identity(subject, {}, "jwt")
        assert dict(to_service(made, b"h", None))[b"x-user-id"] == value


def test_the_prefix_that_was_stripped_goes_along():
    assert dict(sent(prefix=b"/api"))[b"x-forwarded-prefix"] == b"/api"


def test_proxies_on_the_way_are_all_told():
    found = sent((b"via", b"1.0 one"), (b"via", b"1.1 two"))
    assert dict(found)[b"via"] == b"1.0 one, 1.1 two, 1.1 aiopatterns"


def test_a_trace_is_continued_with_a_fresh_span():
    values = dict(sent((b"traceparent", TRACE), (b"tracestate", b"a=1")))
    version, trace, span, flags = values[b"traceparent"].split(b"-")
    assert (version, trace, flags) == (b"00", b"0af7651916cd43dd8448eb211c80319c", b"01")
    assert span != b"b7ad6b7169203331"
    assert len(span) == 16
    assert values[b"tracestate"] == b"a=1"
    assert b"tracestate" not in dict(sent((b"traceparent", TRACE)))


@pytest.mark.parametrize(
    "received",
    [
        b"",
        b"00",
        TRACE[:-1],
        TRACE.upper(),
        b"ff" + TRACE[2:],
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-" + b"0" * 16 + b"-01",
        TRACE + b"x",
    ],
)
def test_a_trace_that_is_none_begins_anew(received):
    assert continued_trace(received) is None
    values = dict(sent((b"traceparent", received), (b"tracestate", b"a=1")))
    version, trace, span, flags = values[b"traceparent"].split(b"-")
    assert (version, len(trace), len(span), flags) == (b"00", 32, 16, b"00")
    assert b"tracestate" not in values


def test_a_later_version_of_traces_is_continued_as_ours():
    continued = continued_trace(b"cc" + TRACE[2:] + b"-more")
    assert continued is not None
    assert continued.startswith(b"00-0af7651916cd43dd8448eb211c80319c-")


@pytest.mark.promise("gateway-headers")
def test_what_a_second_connection_header_names_is_dropped_too():
    found = sent((b"connection", b"close"), (b"x-hop", b"1"), (b"connection", b"x-hop"))
    assert b"x-hop" not in dict(found)


@pytest.mark.promise("gateway-headers")
def test_answers_lose_what_is_of_one_connection():
    answered = [
        (b"content-type", b"text/plain"),
        (b"connection", b"close"),
        (b"connection", b"x-hop, content-type"),
        (b"x-hop", b"1"),
        (b"keep-alive", b"timeout=5"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"date", b"Wed"),
        (b"server", b"secret/1.0"),
        (b"x-request-id", b"theirs"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
    ]
    assert to_client(answered, "id-1") == [
        (b"content-type", b"text/plain"),
        (b"set-cookie", b"a=1"),
        (b"set-cookie", b"b=2"),
        (b"x-request-id", b"id-1"),
    ]
    kept = dict(from_service(answered))
    assert b"date" in kept
    assert not {b"x-hop", b"connection", b"transfer-encoding"} & set(kept)


@pytest.mark.promise("gateway-headers")
def test_names_with_underscores_are_taken_for_nothing():
    assert without_underscores([(b"x_user_id", b"admin"), (b"a", b"b")]) == [(b"a", b"b")]
