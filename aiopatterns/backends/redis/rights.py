"""The commands that this library sends to Redis, as a rule for its access control list.

A user of its own with no right but these can neither read what others keep on the server, nor
change its configuration or flush anything; it can see the names of all keys (``SCAN``). :func:`acl_rule` gives the line for an
administrator; :func:`missing_rights` says what a user that exists already lacks, without changing
anything: inside ``MULTI`` the server checks the rights to each command and only then queues it, and
``DISCARD`` forgets them all::

    MULTI  ->  SET key value  ->  QUEUED, or NOPERM ...  ->  DISCARD

Keys and channels are those of the namespace. Channels have to be all of them: a subscription to a
pattern is refused by Redis unless its very text is in the list.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiopatterns.backends.redis.connection import connect, pack
from aiopatterns.backends.redis.errors import RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiopatterns.backends.redis.client import RedisClient
    from aiopatterns.backends.redis.connection import Command, Reply

__all__ = ["acl_rule", "commands", "missing_rights"]

# Each command once, in a form that is complete: K is a key of ours, C a channel. Those whose first
# word is not all stand with a dot: the rights to them are given one by one.
_FORMS: Final = """
asking; bzpopmin K 0.1; client.setname ap; cluster.slots; del K;
discard; eval return(1) 1 K; evalsha 0 1 K; exists K; get K; hdel K f; hexists K f; hget K f;
hgetall K; hincrby K f 1; hkeys K; hlen K; hmget K f; hset K f v; hsetnx K f v; incrby K 1; info server;
lindex K 0; llen K; lpop K; lpos K v; lpush K v; lrange K 0 0; ltrim K 0 0; mget K; multi; pexpire K 1; ping;
psubscribe C; pttl K; publish C v; punsubscribe C; rpop K; rpush K v; sadd K v; scan 0; scard K; select 0;
set K v; sinter K; sismember K v; smembers K; smismember K v; spop K; srandmember K; srem K v;
subscribe C; sunionstore K K; time; unlink K; unsubscribe C; xadd K * f v; xdel K 1-1; xinfo.stream K; xlen K;
xrange K - +; xread STREAMS K 0; xrevrange K + -; xtrim K MAXLEN 1; zadd K 1 v; zcard K;
zcount K 0 1; zincrby K 1 v; zmscore K v; zpopmin K; zrange K 0 1; zrangebyscore K 0 1; zrem K v;
zremrangebyrank K 0 1; zrevrange K 0 1; zscore K v
"""
# Sent for a report only, or where there is a cluster; nothing breaks without.
_OPTIONAL: Final = frozenset({"asking", "cluster|slots", "client|setname"})
# They are what the others are asked inside of.
_FRAME: Final = frozenset({"multi", "discard"})


def commands() -> tuple[str, ...]:
    """Return the names of all commands, as an access control list has them."""
    return tuple(name for name, _ in _forms("K", "C"))


def acl_rule(user: str = "aiopatterns", *, namespace: str = "ap") -> str:
    """Return the ``ACL SETUSER`` line of a user with exactly the rights that are needed.

    Args:
        user: Its name.
        namespace: First part of all keys, as given to ``open_backend``.
    """
    allowed = " ".join(f"+{name}" for name in commands())
    keys = f"~{namespace}:* ~{{{namespace}:*"
    return f"ACL SETUSER {user} reset on >PASSWORD {keys} allchannels -@all {allowed}"


async def missing_rights(client: RedisClient) -> tuple[str, ...] | None:
    """Return the commands that the client's user may not use, or None if that cannot be told.

    It cannot be told for a user without the right to ``MULTI``. 2 round trips; nothing is changed.

    Args:
        client: An open one.

    Raises:
        BackendUnavailableError: Nobody answers.
    """
    connection = await connect(
        client.target, await client.route().locate(None), patience=client.timeout
    )
    loop = asyncio.get_running_loop()

    async def ask(*asked: Command) -> list[Reply]:
        waiters = [loop.create_future() for _ in asked]
        connection.send(b"".join(map(pack, asked)), waiters)
        return [await each for each in waiters]

    try:
        if any(isinstance(reply, RefusalError) for reply in await ask(("MULTI",), ("DISCARD",))):
            return None
        forms = [form for form in _wanted(client) if form[0] not in _FRAME]
        replies = await ask(("MULTI",), *(words for _, words in forms), ("DISCARD",))
    finally:
        connection.drop("all is asked")
        await connection.gone
    told = zip(forms, replies[1:], strict=False)
    return tuple(dict.fromkeys(name for (name, _), reply in told if _is_refused(reply)))


def _wanted(client: RedisClient) -> Iterator[tuple[str, Command]]:
    """Yield what to ask for, with both kinds of keys that there are."""
    key, channel = client.key("kv", "doctor"), client.key("ch", "doctor")
    for name, words in _forms(key, channel):
        if name not in _OPTIONAL:
            yield name, words
    yield "keys {...}", ("GET", client.tag("q", "doctor"))


def _is_refused(reply: Reply) -> bool:
    return isinstance(reply, RefusalError) and reply.code == "NOPERM"


def _forms(key: str, channel: str) -> Iterator[tuple[str, Command]]:
    """Yield each command's name in a rule, and its words on the wire."""
    replaced = {"K": key, "C": channel}
    for form in _FORMS.replace("\n", " ").split(";"):
        name, *arguments = form.split()
        yield name.replace(".", "|"), (*name.split("."), *(replaced.get(e, e) for e in arguments))
