from __future__ import annotations

import hashlib
from importlib.resources import files

import pytest

from aiopatterns.backends.redis.scripts import Script
from aiopatterns.backends.redis.wire import Wire

NAMES = sorted(
    each.name.removesuffix(".lua")
    for each in files("aiopatterns.backends.redis").joinpath("lua").iterdir()
    if each.name.endswith(".lua")
)


def test_a_script_is_read_when_it_is_needed():
    script = Script("kv_incr")
    assert vars(script) == {"name": "kv_incr"}
    assert "redis.call" in script.text
    assert script.sha == hashlib.sha1(script.text.encode()).hexdigest()
    assert script.text is script.text
    assert repr(script) == "Script('kv_incr')"


def test_a_script_that_is_not_there():
    with pytest.raises(FileNotFoundError):
        _ = Script("no_such_script").text
    with pytest.raises(ValueError, match="name"):
        Script("")


def test_includes_are_replaced():
    assert NAMES
    assert all("-- include" not in Script(name).text for name in NAMES)


@pytest.mark.real
def test_the_server_agrees_on_the_names(redis_url):
    with Wire(redis_url) as wire:
        for name in NAMES:
            script = Script(name)
            assert wire.call("SCRIPT", "LOAD", script.text) == script.sha
