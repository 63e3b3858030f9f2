"""Several Redis servers as one: a cluster, and a primary with its replica and Sentinels.

What happens when a slot moves or a primary dies cannot be shown with one server, nor with a
stand-in. Both kinds are up in about two seconds, on free ports of 127.0.0.1 (they must reach each
other), and go with us however we end.

::

    RedisCluster    node 0: slots 0..5460    node 1: 5461..10922    node 2: 10923..16383
    RedisSentinel   primary ---> replica,  watched by three Sentinels (two must agree)
"""

from __future__ import annotations

import socket
import tempfile
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.redis.binaries import find_binary
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.backends.redis.process import ServerProcess, Startable, delete
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.core.clock import rng, yield_now
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError
from aiopatterns.core.validate import count, in_range, positive, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from aiopatterns.backends.redis.process import Pauses
    from aiopatterns.backends.redis.wire import Reply

__all__ = ["RedisCluster", "RedisSentinel"]

SLOTS: Final = 16384
_PAUSE: Final = 0.02
# Cluster nodes also listen 10,000 above; all of it is below what systems hand out by themselves.
_PORTS: Final = (15000, 22000)
_BUS: Final = 10000
_SENTINELS: Final = 3
_QUORUM: Final = 2


@final
class RedisCluster(Startable):
    """A cluster of private servers, all slots shared out evenly.

    Args:
        nodes: How many, at least 3.
        version: Take the first installed server whose version begins so.
        config: Further directives for each node.
        start_timeout: Seconds within which all nodes must agree.

    Example::

        async with RedisCluster() as cluster, open_backend(cluster.url) as backend:
            await cluster.move_slot("{ap:q:mail}:jobs", to=2)
    """

    __slots__ = ("_config", "_nodes", "_number", "_start_timeout", "_version")

    def __init__(
        self,
        nodes: int = 3,
        *,
        version: str | None = None,
        config: Mapping[str, str] | None = None,
        start_timeout: float = 30.0,
    ) -> None:
        self._number = count("nodes", nodes, minimum=3)
        self._version = version
        self._config = {"cluster-enabled": "yes", **(config or {})}
        self._start_timeout = positive("start_timeout", start_timeout)
        self._nodes: tuple[RedisServer, ...] = ()

    @property
    def url(self) -> str:
        """Where it is: a URL with all nodes.

        Raises:
            ClosedError: It was not started.
        """
        hosts = (each.tcp_url.removeprefix("redis://") for each in self.nodes)
        return f"redis+cluster://{','.join(hosts)}"

    @property
    def nodes(self) -> tuple[RedisServer, ...]:
        """The servers.

        Raises:
            ClosedError: It was not started.
        """
        if not self._nodes:
            raise ClosedError("the cluster is not started; use it inside 'with RedisCluster():'")
        return self._nodes

    def owner(self, key: str) -> int:
        """Return the number of the node that has the key's slot now."""
        slot = _number(self.nodes[0].command("CLUSTER", "KEYSLOT", key))
        for first, last, port in _ranges(self.nodes[0].command("CLUSTER", "SLOTS")):
            if first <= slot <= last:
                return [each.tcp_url for each in self.nodes].index(f"redis://127.0.0.1:{port}")
        raise BackendError(f"no node has slot {slot}")

    async def move_slot(self, key: str, *, to: int) -> None:
        """Move the slot of ``key`` to another node, key by key, as an operator would, under load.

        Cancellation: the slot stays half moved; both nodes go on serving it.

        Args:
            key: Any key of the slot.
            to: Number of the node.

        Raises:
            ValueError: There is no such node.
        """
        target = self.nodes[int(in_range("to", to, 0, len(self.nodes) - 1))]
        source = self.nodes[self.owner(key)]
        if target is source:
            return
        slot = _number(source.command("CLUSTER", "KEYSLOT", key))
        there, here = (str(each.command("CLUSTER", "MYID")) for each in (target, source))
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", here)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", there)
        address = target.tcp_url.removeprefix("redis://").split(":")
        while keys := _texts(source.command("CLUSTER", "GETKEYSINSLOT", slot, 10)):
            source.command("MIGRATE", *address, "", 0, 5000, "KEYS", *keys)
            await yield_now()
        for node in (target, source, *self.nodes):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", there)

    def _starting(self) -> Pauses:
        if self._nodes:
            raise RuntimeError(f"the cluster at {self.url} runs already")
        try:
            for port in _free_ports(self._number):
                node = RedisServer(port=port, version=self._version, config=self._config)
                self._nodes += (node,)
                yield from node._starting()
            self._introduce()
            yield from _until(self._agree, self._start_timeout, "cluster")
        except BaseException:
            self._end()
            raise

    def _introduce(self) -> None:
        """Share out the slots, and let each know one other; the rest is gossip."""
        first = self._nodes[0].tcp_url.removeprefix("redis://").split(":")
        for number, node in enumerate(self._nodes):
            begin, end = (SLOTS * each // self._number for each in (number, number + 1))
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.command("CLUSTER", "ADDSLOTS", *range(begin, end))
            if number:
                node.command("CLUSTER", "MEET", *first)

    def _agree(self) -> bool:
        """Whether every node sees every slot served."""
        wanted = ("cluster_state:ok", f"cluster_known_nodes:{self._number}\r")
        infos = [str(node.command("CLUSTER", "INFO")) for node in self._nodes]
        return all(each in info for info in infos for each in wanted)

    def _stopping(self) -> Pauses:
        self._end()
        yield from ()

    def _forget(self) -> None:
        """All of it went with the nodes."""

    def _end(self) -> None:
        for node in self._nodes:
            node.stop()
        self._nodes = ()


@final
class RedisSentinel(Startable):
    """A primary, its replica, and three Sentinels that watch them.

    Args:
        service: What the Sentinels call the pair.
        version: Take the first installed server whose version begins so.
        config: Further directives for both servers.
        down_after: Seconds without an answer until a Sentinel holds the primary for dead.
        start_timeout: Seconds within which all must know each other.

    Example::

        async with RedisSentinel() as pair, open_backend(pair.url) as backend:
            pair.primary.kill()  # the replica takes over in about 1 s
    """

    __slots__ = (
        "_config",
        "_down_after",
        "_home",
        "_sentinels",
        "_servers",
        "_service",
        "_start_timeout",
        "_version",
    )

    def __init__(
        self,
        service: str = "main",
        *,
        version: str | None = None,
        config: Mapping[str, str] | None = None,
        down_after: float = 0.5,
        start_timeout: float = 30.0,
    ) -> None:
        self._service = text("service", service)
        self._version = version
        # A new replica would otherwise wait 5 s for others that might want a copy, too.
        self._config = {"repl-diskless-sync-delay": "0", **(config or {})}
        self._down_after = positive("down_after", down_after)
        self._start_timeout = positive("start_timeout", start_timeout)
        self._servers: tuple[RedisServer, ...] = ()
        self._sentinels: dict[int, ServerProcess] = {}
        self._home: Path | None = None

    @property
    def url(self) -> str:
        """Where it is: a URL with all Sentinels and the service.

        Raises:
            ClosedError: It was not started.
        """
        self._open()
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._sentinels)
        return f"redis+sentinel://{hosts}/{self._service}"

    @property
    def servers(self) -> tuple[RedisServer, RedisServer]:
        """Both servers; the first was the primary at the start."""
        first, second = self._open()
        return first, second

    @property
    def primary(self) -> RedisServer:
        """The server that is the primary now, as most Sentinels say."""
        votes = [self._vote(port) for port in self._sentinels]
        return max(self._open(), key=lambda server: votes.count(server.tcp_url))

    @property
    def replica(self) -> RedisServer:
        """The other one."""
        first, second = self.servers
        return second if self.primary is first else first

    def _open(self) -> tuple[RedisServer, ...]:
        if not self._servers:
            raise ClosedError("nothing is started; use it inside 'with RedisSentinel():'")
        return self._servers

    def _vote(self, port: int) -> str:
        host, primary = _texts(_ask(port, "SENTINEL", "get-master-addr-by-name", self._service))
        return f"redis://{host}:{primary}"

    def _starting(self) -> Pauses:
        if self._servers:
            raise RuntimeError(f"what is at {self.url} runs already")
        ports = _free_ports(2 + _SENTINELS)
        try:
            for port in ports[:2]:
                server = RedisServer(port=port, version=self._version, config=self._config)
                self._servers += (server,)
                yield from server._starting()
            self._servers[1].command("REPLICAOF", "127.0.0.1", ports[0])
            self._home = Path(tempfile.mkdtemp(prefix="ap-"))
            for port in ports[2:]:
                yield from self._watch(port, primary=ports[0])
            yield from _until(self._know_each_other, self._start_timeout, "Sentinels")
        except BaseException:
            self._end()
            raise

    def _watch(self, port: int, *, primary: int) -> Pauses:
        """Start a Sentinel."""
        home = self._home
        assert home is not None
        place = home / str(port)
        place.mkdir()
        conf = place / "sentinel.conf"
        conf.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {place}\n"
            f"sentinel monitor {self._service} 127.0.0.1 {primary} {_QUORUM}\n"
            f"sentinel down-after-milliseconds {self._service} {int(self._down_after * 1000)}\n"
            f"sentinel failover-timeout {self._service} 2000\n",
            "utf-8",
        )
        program = str(find_binary(version=self._version).path)
        command = [program, str(conf), "--sentinel"]
        sentinel = ServerProcess.spawn(command, log=place / "log", scratch=home)
        self._sentinels[port] = sentinel
        yield from sentinel.starting("Sentinel", lambda: _answers(port), self._start_timeout)

    def _know_each_other(self) -> bool:
        """Whether each Sentinel sees the others and the replica, and the replica its primary."""
        for port in self._sentinels:
            others = _ask(port, "SENTINEL", "SENTINELS", self._service)
            replicas = _ask(port, "SENTINEL", "REPLICAS", self._service)
            if (_size(others), _size(replicas)) != (_SENTINELS - 1, 1):
                return False
        return "master_link_status:up" in str(self._servers[1].command("INFO", "replication"))

    def _stopping(self) -> Pauses:
        self._end()
        yield from ()

    def _forget(self) -> None:
        """All of it went with the processes."""

    def _end(self) -> None:
        for sentinel in self._sentinels.values():
            sentinel.kill()
        for server in self._servers:
            server.stop()
        self._sentinels.clear()
        self._servers = ()
        if self._home is not None:
            delete(self._home)
            self._home = None


def _until(done: Callable[[], bool], timeout: float, what: str) -> Pauses:
    """Pause until ``done``."""
    for _ in range(int(timeout / _PAUSE)):
        if done():
            return
        yield _PAUSE
    raise BackendUnavailableError(f"the {what} did not come to an agreement within {timeout} s")


def _free_ports(number: int) -> list[int]:
    """Return ports that nobody listens on now, with their companions 10,000 above."""
    low, high = _PORTS
    candidates = rng().sample(range(low, high), high - low)
    free = (port for port in candidates if _is_free(port) and _is_free(port + _BUS))
    return [*islice(free, number)]


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def _ask(port: int, *words: str) -> Reply:
    with Wire(f"redis://127.0.0.1:{port}") as wire:
        return wire.call(*words)


def _answers(port: int) -> bool:
    with suppress(BackendUnavailableError):
        return _ask(port, "PING") == "PONG"
    return False


def _ranges(reply: Reply) -> Iterator[tuple[int, int, int]]:
    """Yield first slot, last slot and the port of the node that has them."""
    for each in reply if isinstance(reply, list) else ():
        match each:
            case [int(first), int(last), [str(), int(port), *_], *_]:
                yield first, last, port
            case _:
                raise BackendError(f"a range of slots that is none: {each!r}")


def _texts(reply: Reply) -> list[str]:
    return [str(each) for each in reply] if isinstance(reply, list) else []


def _size(reply: Reply) -> int:
    return len(reply) if isinstance(reply, list) else 0


def _number(reply: Reply) -> int:
    assert isinstance(reply, int)
    return reply
