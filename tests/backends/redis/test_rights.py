from __future__ import annotations

import asyncio
import re
from importlib.resources import files

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.backend import RedisBackend
from aiopatterns.backends.redis.binaries import installed_binaries
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.backends.redis.rights import acl_rule, commands, missing_rights
from aiopatterns.core.errors import BackendError
from aiopatterns.testing.clusters import RedisCluster
from aiopatterns.testing.conformance import cases

WORD = re.compile(r"['\"]([A-Z]+)['\"]")
pytestmark = pytest.mark.real

# The preferred server always, the other versions of the matrix in the long form.
FIRST, *OTHERS = dict.fromkeys(each.version for each in installed_binaries())
VERSIONS = [FIRST, *(pytest.param(each, marks=pytest.mark.stress) for each in OTHERS)]


def admit(server, *further):
    """Make the user of the rule, and return the URL with which to be it."""
    server.command(*acl_rule().replace(">PASSWORD", ">secret").split())
    if further:
        server.command("ACL", "SETUSER", "aiopatterns", *further)
    return server.url.replace("unix://", "unix://aiopatterns:secret@")


@pytest.fixture(scope="module", params=VERSIONS)
def guarded(request):
    with RedisServer(version=request.param) as server:
        yield server, admit(server)


@pytest.mark.promise("backends-least-privilege")
@pytest.mark.parametrize("case", cases(), ids=str)
def test_every_protocol_works_with_the_rights_of_the_rule(guarded, case):
    server, url = guarded
    server.command("FLUSHALL")
    server.command("ACL", "LOG", "RESET")

    async def main():
        async with open_backend(url) as backend:
            await case(backend)

    asyncio.run(main())
    assert server.command("ACL", "LOG") == []


def test_the_rule_has_all_commands_of_the_sources_and_no_other(guarded):
    server, _ = guarded
    here = files("aiopatterns.backends.redis")
    aside = {"rights.py", "wire.py", "embedded.py", "probe.py", "keys.py", "errors.py"}
    texts = [each.read_text("utf-8") for each in here.joinpath("lua").iterdir()]
    texts += [
        each.read_text("utf-8")
        for each in here.iterdir()
        if each.name.endswith(".py") and each.name not in aside
    ]
    reply = server.command("COMMAND")
    assert isinstance(reply, list)
    known = {str(each[0]).upper() for each in reply if isinstance(each, list)}
    named = known & {word for text in texts for word in WORD.findall(text)}
    granted = {name.partition("|")[0].upper() for name in commands()}
    assert named - granted <= {"AUTH", "READONLY"}  # open to all; the word of an error
    # Made of a letter and a word; sent by the check itself.
    assert granted - named <= {"PSUBSCRIBE", "PUNSUBSCRIBE", "MULTI", "DISCARD"}
    assert len(commands()) == len(set(commands()))


def test_others_keys_are_out_of_reach(guarded):
    server, url = guarded
    server.command("SET", "others", "1")

    async def main():
        async with open_backend(url) as backend:
            assert isinstance(backend, RedisBackend)
            client = backend.client
            for command in (
                ("GET", "others"),
                ("KEYS", "*"),
                ("FLUSHALL",),
                ("CONFIG", "GET", "*"),
            ):
                with pytest.raises(BackendError, match="NOPERM"):
                    await client.read(*command)
            assert await missing_rights(client) == ()

    asyncio.run(main())


def ask(url):
    async def main():
        async with open_backend(url) as backend:
            assert isinstance(backend, RedisBackend)
            return await missing_rights(backend.client)

    return asyncio.run(main())


def test_what_a_user_lacks_is_named_and_nothing_is_changed(guarded):
    server, _ = guarded
    server.command("FLUSHALL")
    url = admit(server, "-set", "-xinfo", "-evalsha")
    assert ask(url) == ("evalsha", "set", "xinfo|stream")
    url = admit(server, "resetkeys", "~ap:*")
    assert ask(url) == ("keys {...}",)
    url = admit(server, "resetchannels", "&others")
    assert "publish" in (ask(url) or ())
    url = admit(server, "-client|setname" if server.version > "7" else "-client", "-asking")
    assert ask(url) == ()
    assert server.command("DBSIZE") == 0
    admit(server)


def test_who_may_not_ask_is_not_told(guarded):
    server, _ = guarded
    assert ask(admit(server, "-multi")) is None
    admit(server)


def test_it_is_told_in_a_cluster():
    with RedisCluster() as cluster:
        assert ask(cluster.url) == ()
        assert all(each.command("DBSIZE") == 0 for each in cluster.nodes)


def test_user_and_namespace_are_those_asked_for():
    rule = acl_rule("shop", namespace="shop/eu")
    assert rule.startswith("ACL SETUSER shop reset on >PASSWORD ~shop/eu:* ~{shop/eu:* ")
    assert "+@" not in rule
    assert "+set " in rule
