from __future__ import annotations

import socket
import ssl
import threading

import pytest

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.core.errors import BackendError, BackendUnavailableError

pytestmark = pytest.mark.real


def test_every_kind_of_reply(redis_server):
    with Wire(redis_server.url) as wire:
        assert wire.call("PING") == "PONG"
        assert wire.call("ECHO", b"\xff\r\n") == "\udcff\r\n"
        assert wire.call("ECHO", "") == ""
        assert wire.call("GET", "nothing") is None
        assert wire.call("EVAL", "return {1, {'a', false}, {}, 'b'}", 0) == [
            1,
            ["a", None],
            [],
            "b",
        ]
        assert wire.call("BLPOP", "nothing", 0.01) is None
        with pytest.raises(BackendError, match="unknown command"):
            wire.call("NONSENSE")
        assert wire.call("PING") == "PONG"


def test_password_and_database_of_the_url():
    with RedisServer(port=free_port(), config={"requirepass": "a/b"}) as server:
        host = server.tcp_url.removeprefix("redis://")
        with pytest.raises(BackendError, match="NOAUTH"):
            server.command("PING")
        with Wire(f"redis://:a%2Fb@{host}/3") as wire:
            wire.call("SET", "k", "3")
        with Wire(f"redis://default:a%2Fb@{host}") as wire:
            assert wire.call("GET", "k") is None
        with Wire(server.url.replace("unix://", "unix://:a%2Fb@") + "?db=3") as wire:
            assert wire.call("GET", "k") == "3"
        with pytest.raises(BackendError, match="WRONGPASS"):
            Wire(f"redis://:wrong@{host}")


def test_nobody_there(tmp_path):
    with pytest.raises(BackendUnavailableError, match=r"no Redis answers at .*none\.sock"):
        Wire(f"unix://{tmp_path}/none.sock")
    with pytest.raises(BackendUnavailableError, match=r"127\.0\.0\.1"):
        Wire(f"redis://:secret@127.0.0.1:{free_port()}")


def test_an_error_does_not_tell_the_password():
    with pytest.raises(BackendUnavailableError) as caught:
        Wire(f"redis://:secret@127.0.0.1:{free_port()}")
    assert "secret" not in str(caught.value)


def test_a_server_that_hangs_up_or_says_nothing():
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
    with Wire(url, timeout=0.05) as wire:
        with pytest.raises(BackendUnavailableError, match="timed out"):
            wire.call("PING")
    with Wire(url) as wire:
        for _ in range(2):
            listener.accept()[0].close()
        with pytest.raises(BackendUnavailableError):
            wire.call("PING")
    listener.close()


def test_rediss_speaks_tls_and_checks_the_name(monkeypatch):
    seen = []

    class Context:
        def wrap_socket(self, plain, server_hostname):
            seen.append(server_hostname)
            return plain

    monkeypatch.setattr(ssl, "create_default_context", Context)
    listener = socket.create_server(("127.0.0.1", 0))
    Wire(f"rediss://127.0.0.1:{listener.getsockname()[1]}").close()
    listener.close()
    assert seen == ["127.0.0.1"]


def test_it_can_be_used_from_any_thread(redis_server):
    got = []
    with Wire(redis_server.url) as wire:
        thread = threading.Thread(target=lambda: got.append(wire.call("PING")))
        thread.start()
        thread.join()
    assert got == ["PONG"]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
