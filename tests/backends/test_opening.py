from __future__ import annotations

import subprocess
import sys
from typing import cast

import pytest

import aiopatterns.backends
from aiopatterns.backends import open_backend, resolve
from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.redis.backend import RedisBackend


@pytest.mark.parametrize(
    ("url", "kind", "scheme"),
    [
        ("memory://", MemoryBackend, "memory"),
        ("redis://nowhere.invalid", RedisBackend, "redis"),
        ("rediss://nowhere.invalid", RedisBackend, "redis"),
        ("unix:///nowhere.sock", RedisBackend, "redis"),
        ("redis+sentinel://nowhere.invalid/m", RedisBackend, "redis"),
        ("redis+cluster://nowhere.invalid", RedisBackend, "redis"),
        ("embedded://", RedisBackend, "redis"),
    ],
)
def test_every_scheme_opens_without_io(url, kind, scheme):
    backend = open_backend(url)
    assert type(backend) is kind
    assert backend.scheme == scheme
    assert backend.url == url


def test_the_password_is_masked_in_what_can_be_seen():
    backend = open_backend("redis://:s3cr3t@h/1")
    assert backend.url == "redis://:***@h/1"
    assert "s3cr3t" not in repr(backend)


@pytest.mark.parametrize("namespace", ["a", "shop:prod", "A.b-c_d/e", "x" * 100])
def test_namespaces(namespace):
    backend = open_backend("redis://h", namespace=namespace)
    assert isinstance(backend, RedisBackend)
    assert backend.client.key("kv", "a") == f"{namespace}:kv:a"
    open_backend("memory://", namespace=namespace)


@pytest.mark.parametrize("namespace", ["", "a b", "{a}", "a*", "a?", "a[", "a\\", "é", "x" * 101])
@pytest.mark.parametrize("url", ["memory://", "redis://h"])
def test_bad_namespaces_are_refused(url, namespace):
    with pytest.raises(ValueError, match="namespace must be"):
        open_backend(url, namespace=namespace)


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="namespace"):
        open_backend("memory://", namespace=cast("str", 5))
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="timeout"):
            open_backend("memory://", timeout=bad)
    with pytest.raises(ValueError, match="url must be"):
        open_backend("postgres://h")


def test_resolve_takes_backends_and_urls():
    backend = open_backend("memory://")
    assert resolve(backend) is backend
    assert resolve("memory://") is not resolve("memory://")
    assert type(resolve("redis://h")) is RedisBackend
    with pytest.raises(TypeError, match="backend must be a backend or a URL"):
        resolve(cast("str", 5))
    with pytest.raises(ValueError, match="url must be"):
        resolve("nowhere")


@pytest.mark.parametrize("missing", ["redis", "hiredis"])
def test_a_missing_extra_is_told_with_its_command(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    told = rf"redis:// needs {missing}: pip install 'aiopatterns\[redis\]'"
    with pytest.raises(ImportError, match=told) as caught:
        open_backend("redis://h")
    assert caught.value.name == missing
    open_backend("memory://")


def test_what_is_not_asked_for_is_not_imported():
    code = (
        "import sys, aiopatterns.backends as b; b.open_backend('memory://');"
        "assert not {'redis', 'hiredis'} & set(sys.modules), 'memory';"
        "b.open_backend('redis://h'); assert 'redis' not in sys.modules, 'one server'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_front_door_is_sorted():
    assert sorted(aiopatterns.backends.__all__, key=str.casefold) == sorted(
        aiopatterns.backends.__all__, key=str.casefold
    )
    assert all(hasattr(aiopatterns.backends, name) for name in aiopatterns.backends.__all__)
