from __future__ import annotations

import errno
import socket
from typing import Any, cast

import pytest

from aiopatterns.cli.port import listen, url_of


@pytest.mark.real
def test_a_port_is_taken_once_and_told():
    with listen("127.0.0.1", 0, backlog=1) as first:
        port = first.getsockname()[1]
        assert url_of(first) == f"http://127.0.0.1:{port}"
        with pytest.raises(OSError, match=f"cannot listen at port {port}: .*127.0.0.1") as info:
            listen("127.0.0.1", port, backlog=1)
    assert info.value.errno == errno.EADDRINUSE


def test_a_name_without_a_number_of_the_system_is_an_error_of_the_same_kind(monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(OSError, match="cannot listen at port 80") as info:
        listen("::1", 80, backlog=1)
    assert (info.value.errno, info.value.filename) == (errno.EINVAL, "::1")


class Listening:
    def __init__(self, host: str) -> None:
        self._host = host

    def getsockname(self) -> tuple[str, int]:
        return self._host, 80


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("fe80::1%eth0", "http://[fe80::1%eth0]:80"),
    ],
)
def test_what_is_told_is_an_address_that_is_answered(host, url):
    assert url_of(cast("socket.socket", Listening(host))) == url
