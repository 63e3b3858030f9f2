"""What went wrong, and whether the command may have run.

Inside the client a failure is a *value*: a waiter is given it in place of a reply, so that nobody
has to retrieve an exception whose waiter is gone. Only where a command leaves the client it
becomes an error of the library's tree, with the masked URL.

===============================  ===================  ========================================
in place of a reply              the command          what the client does
===============================  ===================  ========================================
``LOADING READONLY TRYAGAIN      did not run          sends it again, soon, whatever its class
CLUSTERDOWN MASTERDOWN BUSY``
a script whose slot moves        did not run          the same
``MOVED ASK`` of a cluster       did not run          sends it to the node that is named
``NOSCRIPT``                     did not run          sends the script's text
:class:`UnsentError`                  never left here      sends it again, whatever its class
:class:`LostError`                    may have run         sends it again if it is repeatable
any other refusal                was refused          raises :class:`BackendError`
===============================  ===================  ========================================

That a script did not run when its slot moves is the scripts' own doing: one that could miss a key
after it has written something asks for two that never exist before (``lua/whole.lua``).
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final, TypeAlias, final

from aiopatterns.core.errors import BackendError, BackendUnavailableError

__all__ = ["FAILURES", "Failure", "LostError", "RefusalError", "UnsentError", "translated"]

# Refusals that say: not now, and nothing has happened.
_LATER: Final = frozenset({"LOADING", "READONLY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "BUSY"})
# What a script of ours says, before it has done anything, while its slot moves to another node.
_MOVING: Final = ("access a non local key", "accessed during rehashing of the slot")
# How Redis 6.2 quotes the refusal of a command inside a script: `... @user_script: 16: -OOM ...`.
_QUOTED: Final = re.compile(r"@user_script: \d+: -([A-Z]+) ")
# What a script is told, without a code, whose user may not do what it does.
_UNPERMITTED: Final = "user executing the script can't"
# What a reader can do about a refusal.
_CURES: Final = MappingProxyType(
    {
        "OOM": "it is full: free memory or raise maxmemory",
        "NOAUTH": "put the password into the URL: scheme://user:password@host",
        "WRONGPASS": "the user or the password in the URL is wrong",
        "NOPERM": "the user in the URL lacks the right to this command, key or channel:"
        " `aiopatterns doctor --acl` prints all that are needed",
        "READONLY": "it is a replica: connect to the master",
        "LOADING": "it is still reading its data",
        "MISCONF": "it cannot save to disk: see its log",
        "MOVED": "it belongs to a cluster: use redis+cluster://",
    }
)


@final
class RefusalError(Exception):
    """An error reply of the server, made by the parser; its first word is the :attr:`code`."""

    @property
    def code(self) -> str:
        """The first word, such as ``"ERR"`` or ``"OOM"``, also of what a script was refused."""
        if _UNPERMITTED in str(self):
            return "NOPERM"
        quoted = _QUOTED.search(str(self))
        return quoted[1] if quoted else str(self).partition(" ")[0]

    @property
    def later(self) -> bool:
        """Whether the server only says: not now. Nothing has happened."""
        return self.code in _LATER or any(each in str(self) for each in _MOVING)


@final
class LostError(Exception):
    """The connection broke, or was silent too long, after the command was sent."""


@final
class UnsentError(Exception):
    """There was no connection."""


Failure: TypeAlias = RefusalError | LostError | UnsentError
FAILURES: Final = frozenset({RefusalError, LostError, UnsentError})


def translated(failure: Failure, url: str) -> BackendError:
    """Return the library's error for ``failure``."""
    if not isinstance(failure, RefusalError):
        return BackendUnavailableError(f"no Redis answers at {url}: {failure}")
    cure = _CURES.get(failure.code)
    message = f"Redis at {url} refuses: {failure}" + (f" ({cure})" if cure else "")
    return BackendUnavailableError(message) if failure.later else BackendError(message)
