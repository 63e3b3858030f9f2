"""What went wrong, and whether the command may have run.

Failures of a command are *values* inside the client: they are what a waiter is given in place of a
reply, so nobody has to retrieve an exception that belongs to a waiter who is gone. Only where a
command leaves the client one becomes an exception of the library's tree, with the masked URL.

===============================  =========================  ==================================
reply                            the command                what the client does
===============================  =========================  ==================================
``LOADING READONLY TRYAGAIN      did not run                sends it again, soon, whatever its
CLUSTERDOWN MASTERDOWN BUSY``                               class
``MOVED ASK``                    did not run                sends it to the node named
``NOSCRIPT``                     did not run                sends the script's text
:class:`Unsent`                  never left this process    sends it again, whatever its class
:class:`Lost`                    may have run               sends it again if it is repeatable
any other error                  was refused                :class:`BackendError`
===============================  =========================  ==================================
"""

from __future__ import annotations

from typing import Final, final

from aiopatterns.core.errors import BackendError, BackendUnavailableError

__all__ = ["FAILURES", "Failure", "Lost", "Refusal", "Unsent", "translated"]

# Prefixes of replies that say: not now, and nothing has happened.
_LATER: Final = ("LOADING", "READONLY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "BUSY")
# Cures for refusals that a reader can do something about.
_CURES: Final = {
    "OOM": "the server is full: free memory or raise maxmemory",
    "NOAUTH": "put the password into the URL: scheme://user:password@host",
    "WRONGPASS": "the user or the password in the URL is wrong",
    "NOPERM": "the user in the URL lacks the right to run this command",
    "READONLY": "the server is a replica: connect to the master",
    "LOADING": "the server is still reading its data",
    "MISCONF": "the server cannot save to disk: free disk space, or see its log",
}


@final
class Refusal(Exception):  # noqa: N818 - a reply, made by the parser for every `-ERR ...`
    """An error reply of the server."""

    @property
    def code(self) -> str:
        """The first word, ``"ERR"`` for instance."""
        return str(self).partition(" ")[0]

    @property
    def later(self) -> bool:
        """Whether the server only says: not now."""
        return self.code in _LATER


@final
class Lost(Exception):  # noqa: N818 - a value in place of a reply
    """The connection broke after the command was sent: it may have run."""


@final
class Unsent(Exception):  # noqa: N818 - a value in place of a reply
    """There was no connection: the command never left this process."""


Failure = Refusal | Lost | Unsent
FAILURES: Final = frozenset({Refusal, Lost, Unsent})


def translated(failure: Failure, url: str) -> BackendError:
    """Return the library's error for ``failure``."""
    if not isinstance(failure, Refusal):
        return BackendUnavailableError(f"no Redis answers at {url}: {failure}")
    cure = _CURES.get(failure.code)
    message = f"Redis at {url} refused: {failure}" + (f" ({cure})" if cure else "")
    return BackendUnavailableError(message) if failure.later else BackendError(message)
