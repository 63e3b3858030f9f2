"""Targets: ``module:name``, by which a command line or a supervisor names a queue.

What is named is a queue, or a function that makes one for the backend that it is given: a queue
whose backend is said when its workers are started, and not where it is defined.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from aiopatterns.core.validate import text
from aiopatterns.jobs.queue import JobQueue

__all__ = ["BACKEND", "load_queue"]

#: Environment variable with the URL for a target that is a function of one.
BACKEND: Final = "AIOPATTERNS_BACKEND"


def load_queue(target: str, backend: str | None = None) -> JobQueue:
    """Import the queue that ``target`` names, also from the current folder.

    Args:
        target: Such as ``"shop.jobs:jobs"``; the name may have dots.
        backend: URL for a target that is a function of one; the queue is what it returns. None
            takes the one in the environment, :data:`BACKEND`.

    Raises:
        ValueError: It has another form, there is no such module, it has no such name, or that is
            no JobQueue; or ``backend`` is given to a queue, or not given to a function.
        Exception: What importing the module raises.
    """
    module, colon, name = text("target", target).partition(":")
    if not (module and colon and name):
        raise _refused(target, "it must have the form module:name, as in shop.jobs:jobs")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    if not _exists(module):
        raise _refused(target, f"there is no module {module!r} here or installed")
    found: object = import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if callable(found) and not isinstance(found, (JobQueue, type)):
        url = os.environ.get(BACKEND) if backend is None else backend
        if url is None:
            why = f"it is a function of a backend, and neither backend nor {BACKEND} names one"
            raise _refused(target, why)
        found = found(url)
    elif backend is not None and isinstance(found, JobQueue):
        raise _refused(target, f"its backend is {found.backend.url}, so none may be given")
    if not isinstance(found, JobQueue):
        kind = type(found).__name__
        seen = "has no such name" if found is None else f"holds a {kind} there, no JobQueue"
        raise _refused(target, f"the module {seen}")
    return found


def _exists(module: str) -> bool:
    """Whether there is such a module; its packages are imported for that."""
    if module.startswith("."):
        return False
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        return False


def _refused(target: str, why: str) -> ValueError:
    return ValueError(f"target must name a queue, not {target!r}: {why}")
