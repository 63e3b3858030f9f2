"""What of an ASGI request its span is made of."""

from __future__ import annotations

import pytest

from aiopatterns.core.httptrace import serving
from aiopatterns.core.tracing import NO_SPAN, Request, install_tracer
from tests.core.test_tracing import PARENT, Noted, Tracing


@pytest.mark.promise("telemetry-off")
def test_nothing_is_read_while_nobody_traces():
    assert serving({}) is NO_SPAN


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, Request("server", "GET", "/a")),
        (
            {"scheme": "https", "server": ("shop", 443), "headers": [(b"traceparent", b"x\xe9")]},
            Request("server", "GET", "/a", "https", "shop", 443, "x\xe9"),
        ),
        (
            {"server": None, "headers": [(b"host", b"h"), (b"traceparent", PARENT.encode())]},
            Request("server", "GET", "/a", origin=PARENT),
        ),
        ({"server": ("/run/x.sock", None)}, Request("server", "GET", "/a", host="/run/x.sock")),
    ],
)
def test_the_request_of_a_scope(more, wanted):
    scope = {"type": "http", "method": "GET", "path": "/a", "headers": [], **more}
    with install_tracer(Tracing()):
        span = serving(scope)
    assert isinstance(span, Noted)
    assert span.step == wanted
