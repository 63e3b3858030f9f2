"""ASGI applications: owners that live as long as the application does.

FastAPI, Starlette and every ASGI server have a *lifespan*: an async context manager around all
requests. Owners are that already, so nothing is needed but to enter several in order::

    app = FastAPI(lifespan=lifespan(jobs, Worker(jobs)))        opened in order, closed in reverse


    @app.post("/thumbnails")
    async def create(jobs: Annotated[JobQueue, Depends(provide(jobs))]) -> ...

No framework is imported here.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from aiopatterns.core.validate import function

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

__all__ = ["lifespan", "provide"]

T = TypeVar("T")


def lifespan(
    *owners: AbstractAsyncContextManager[Any],
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return a lifespan that opens ``owners`` in order and closes them in reverse.

    Args:
        owners: Queues, workers, caches and other owners, backends, or any async context managers
            that can be entered again.

    Returns:
        What ``FastAPI(lifespan=...)`` and ``Starlette(lifespan=...)`` take. It may be entered again
        after it was left, also on another loop, as test clients do.

    Raises:
        TypeError: One of them is no async context manager.

    Example::

        app = FastAPI(lifespan=lifespan(jobs, Worker(jobs)))
    """
    for each in owners:
        _check(each)

    @asynccontextmanager
    async def entered(app: Any) -> AsyncGenerator[None]:
        del app
        async with AsyncExitStack() as stack:
            for each in owners:
                await stack.enter_async_context(each)
            yield

    return entered


def provide(owner: T) -> Callable[[], T]:
    """Return a dependency that gives ``owner``, so that tests can replace it.

    Args:
        owner: A queue, or anything else that handlers use.

    Returns:
        What ``Depends`` takes; ``app.dependency_overrides`` knows it by identity, so keep it.

    Example::

        get_jobs = provide(jobs)


        @app.post("/reports")
        async def create(jobs: Annotated[JobQueue, Depends(get_jobs)]) -> str: ...
    """

    def provided() -> T:
        return owner

    return provided


def _check(owner: object) -> None:
    """Refuse what cannot be entered."""
    for verb in ("__aenter__", "__aexit__"):
        try:
            function(verb, getattr(type(owner), verb, None))
        except TypeError:
            msg = f"owners must be async context managers, as JobQueue is, not {owner!r}"
            raise TypeError(msg) from None
