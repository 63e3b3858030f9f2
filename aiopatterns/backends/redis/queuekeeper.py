"""The keeper: renews a worker's lease from another thread while the event loop is blocked.

It has a blocking connection of its own, made with its first call and made anew after a failure,
and asks one question a call. It shares nothing with the loop's client but the way to the server.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final, final

from hiredis import Reader

from aiopatterns.backends.redis.connection import pack, tls_context
from aiopatterns.backends.redis.errors import LostError, RefusalError, UnsentError, translated
from aiopatterns.backends.redis.scripts import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aiopatterns.backends.redis.connection import Command
    from aiopatterns.backends.redis.errors import Failure
    from aiopatterns.backends.url import Address, Target

__all__ = ["Keeper"]

# Seconds that one socket operation may take; a call has a few, of which at most one waits.
_PATIENCE: Final = 1.5
_CHUNK: Final = 65_536
_RENEW: Final = Script("queue_renew")


@final
class Keeper:
    """Renews the lease of one worker; for one thread at a time.

    Args:
        target: User, password, database and TLS.
        locate: Finds the server that has the queue; awaited on a loop of the keeper's thread.
        tag: The queue's tag.
        worker: The worker.
        lease: Milliseconds from each call.
    """

    __slots__ = ("_command", "_locate", "_reader", "_socket", "_target")

    def __init__(
        self,
        target: Target,
        locate: Callable[[], Coroutine[Any, Any, Address]],
        *,
        tag: str,
        worker: str,
        lease: int,
    ) -> None:
        self._socket: socket.socket | None = None
        self._reader = Reader()
        self._target = target
        self._locate = locate
        self._command: Command = ("EVAL", _RENEW.text, 1, tag, worker, lease)

    def __call__(self) -> bool:
        """Renew; return whether the worker was still known.

        Raises:
            BackendUnavailableError: Nobody answers.
            BackendError: The server refuses.
        """
        failure: Failure
        try:
            reply = self._exchange(self._command)
        except OSError as error:
            failure = LostError(str(error))
        except (UnsentError, RefusalError) as error:
            failure = error
        else:
            return bool(reply == 1)
        self.close()
        raise translated(failure, self._target.url)

    def close(self) -> None:
        """Hang up; a later call connects anew."""
        taken, self._socket = self._socket, None
        if taken is not None:
            taken.close()

    def __del__(self) -> None:
        self.close()

    def _exchange(self, command: Command) -> object:
        """Send one command, connecting first if need be; return its reply."""
        if self._socket is None:
            self._socket = self._dial(asyncio.run(self._locate()))
            self._reader = Reader()
            self._greet()
        self._socket.sendall(pack(command))
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(_CHUNK)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._reader.feed(data)
        if isinstance(reply, Exception):
            raise RefusalError(str(reply))
        return reply

    def _dial(self, address: Address) -> socket.socket:
        if not address.port:
            local = socket.socket(socket.AF_UNIX)
            local.settimeout(_PATIENCE)
            try:
                local.connect(address.host)
            except BaseException:
                local.close()
                raise
            return local
        plain = socket.create_connection((address.host, address.port), _PATIENCE)
        if not self._target.tls:
            return plain
        return tls_context(self._target).wrap_socket(plain, server_hostname=address.host)

    def _greet(self) -> None:
        target = self._target
        if target.password:
            user = (target.username,) if target.username else ()
            self._exchange(("AUTH", *user, target.password))
        if target.database:
            self._exchange(("SELECT", target.database))
