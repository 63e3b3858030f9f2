"""Service: functions that answer, obey, listen and tick, run together under one name.

::

    orders = Service("orders")

    @orders.command("order.create")   told to do it      one replica
    @orders.query("order.get")        asked              one replica, answers
    @orders.event("user.*")           hears of it        one replica
    @orders.every(30)                 the clock          each replica

    async with orders.run(broker):    in an app
    await run_services([users, orders], broker)    as a process, until SIGTERM

Decorators only tag: a handler stays the function that it is, and is called in tests as any other.
How it is called is read from its signature once, when the service starts: with the payload, made
to the annotated type, and with ``ctx: Context`` before it if it wants that.

Guarantees:

* Of all replicas one gets each command, query and event.
* A handler gets what its annotation says, or is not called: a payload that does not fit is
  answered by a ``RemoteError`` of code ``bad_payload``, one of a version that the service's
  upcasters do not know by one of code ``unknown_version``.
* A handler is cancelled when whoever asked has given up: at the deadline of the message.
* Leaving normally tells the others first, then finishes what was accepted, within ``grace``.

Not guaranteed, as for any live message: that one arrives. What must not be lost belongs into a
``Stream`` or a ``JobQueue``.

Source: tags and injected context as in nameko, the verbs of introspection from NATS microservices.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, final

from aiopatterns.core.validate import instance as checked
from aiopatterns.core.validate import non_negative, optional_function, positive
from aiopatterns.messaging.broker import Broker
from aiopatterns.messaging.handlers import Handlers
from aiopatterns.messaging.host import Staging
from aiopatterns.messaging.servicerecords import ServiceHealth, ServiceState
from aiopatterns.messaging.servicerun import ServiceRun
from aiopatterns.messaging.tags import CONCURRENCY, Tag, tagged
from aiopatterns.messaging.topics import topic_name
from aiopatterns.messaging.versioning import optional_upcasters
from aiopatterns.resilience.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from aiopatterns.cluster.health import HealthChecker
    from aiopatterns.cluster.instance import ServiceInstance
    from aiopatterns.cluster.registry import ServiceRegistry
    from aiopatterns.messaging.intake import KeyOf
    from aiopatterns.messaging.versioning import Upcasters

    Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[Mapping[str, Any] | None]]

__all__ = ["Service"]

F = TypeVar("F", bound="Callable[..., object]")

# Who is asked over the broker has no port of its own; 1 is the lowest there is, and nobody's.
_NO_PORT: Final = 1


@final
class Service:
    """A name, and the functions that stand behind it.

    It is no owner: any number of runs of it may be open, in one process or in many.

    Args:
        name: One token of a topic; replicas have the same.
        version: What introspection and the registry tell.
        lifespan: A function that returns an async context manager; what it yields is
            ``ctx.state``. Entered by each run first, and left last.
        stack: A policy around every call of every handler that has none of its own. A bulkhead
            or a breaker in it is shared by all of them.
        needs: Names of services that have to answer before this one is ready.
        upcasters: Bring old messages to their newest form before handlers get them. ``key=`` of a
            handler sees them as they came.

    Raises:
        ValueError: A value is out of its range.
        TypeError: A value is of another type.

    Example::

        users = Service("users")


        @users.query("user.get")
        async def get_user(wanted: Wanted) -> User:
            return await load(wanted.id)


        async with users.run(broker):
            user = await broker.request("user.get", {"id": 17})
    """

    __slots__ = (
        "handlers",
        "lifespan",
        "name",
        "needs",
        "runs",
        "stack",
        "upcasters",
        "version",
    )

    def __init__(
        self,
        name: str,
        *,
        version: str = "",
        lifespan: Lifespan | None = None,
        stack: Policy | None = None,
        needs: Iterable[str] = (),
        upcasters: Upcasters | None = None,
    ) -> None:
        self.name: str = _token("name", name)
        self.version: str = checked("version", version, str, "text")
        self.lifespan: Lifespan | None = optional_function("lifespan", lifespan)
        if stack is not None:
            checked("stack", stack, Policy, "a Stack or another policy, or None")
        self.stack: Policy | None = stack
        self.needs: tuple[str, ...] = _needs(needs)
        self.upcasters: Upcasters | None = optional_upcasters(upcasters)
        self.handlers: Handlers = Handlers(name)
        #: The runs of it that are open in this process.
        self.runs: tuple[ServiceRun, ...] = ()

    @classmethod
    def from_object(cls, obj: object) -> Service:
        """Make a service of an object whose methods are tagged.

        Its name is the object's ``name``, or else that of its class in lower case. The attributes
        ``version``, ``lifespan``, ``stack``, ``needs`` and ``upcasters`` count if the object has
        them.

        Args:
            obj: An object whose class has methods under :func:`command`, :func:`query`,
                :func:`event` or :func:`every` of ``aiopatterns.messaging``.

        Raises:
            ValueError: No method is tagged, two have one topic, or an attribute is out of range.
            TypeError: An attribute is of another type, or a method cannot be called.

        Example::

            class Users:
                @query("user.get")
                async def get(self, wanted: Wanted) -> User: ...


            service = Service.from_object(Users())
        """
        options: dict[str, Any] = {
            name: getattr(obj, name)
            for name in ("version", "lifespan", "stack", "needs", "upcasters")
            if hasattr(obj, name)
        }
        service = cls(getattr(obj, "name", type(obj).__name__.lower()), **options)
        for tag, method in tagged(obj):
            service.handlers.add(tag, method)
        if not len(service.handlers):
            msg = (
                f"obj must have methods tagged with command, query, event or every of"
                f" aiopatterns.messaging; {type(obj).__name__} has none"
            )
            raise ValueError(msg)
        return service

    def __repr__(self) -> str:
        return f"Service({self.name!r}, handlers={len(self.handlers)})"

    def command(
        self,
        topic: str,
        *,
        stack: Policy | None = None,
        concurrency: int = CONCURRENCY,
        key: KeyOf | None = None,
    ) -> Callable[[F], F]:
        """Let a function do what is told on ``topic``; what it returns answers a request.

        Args:
            topic: Without wildcards; it has one command or query in a service.
            stack: The policy around each call, instead of the service's.
            concurrency: Messages in the handler at a time, in one replica.
            key: ``key(message)`` gives the key of a message: those of one key are handled one
                after the other.

        Returns:
            A decorator that gives the function back as it is. It takes ``(payload)``,
            ``(ctx, payload)``, ``(ctx: Context)`` or nothing; a plain ``def`` is called in a
            thread.

        Raises:
            ValueError: The topic is taken or is none, or a value is out of its range.
            TypeError: A value is of another type, or the function needs other arguments.
        """
        return self._adding(
            Tag(kind="command", topic=topic, stack=stack, concurrency=concurrency, key=key)
        )

    def query(
        self,
        topic: str,
        *,
        stack: Policy | None = None,
        concurrency: int = CONCURRENCY,
        key: KeyOf | None = None,
    ) -> Callable[[F], F]:
        """Let a function answer what is asked on ``topic``; as :meth:`command`."""
        return self._adding(
            Tag(kind="query", topic=topic, stack=stack, concurrency=concurrency, key=key)
        )

    def event(
        self,
        topic: str,
        *,
        stack: Policy | None = None,
        concurrency: int = CONCURRENCY,
        key: KeyOf | None = None,
    ) -> Callable[[F], F]:
        """Let a function hear what is published on ``topic``, which may be a pattern.

        Of all replicas one hears each event. Several handlers of a service may want the same, and
        each has it. Arguments are those of :meth:`command`. It hears what is published and
        nothing else: it never gets what is sent or requested, and what it returns is dropped.
        """
        return self._adding(
            Tag(kind="event", topic=topic, stack=stack, concurrency=concurrency, key=key)
        )

    def every(self, seconds: float, *, stack: Policy | None = None) -> Callable[[F], F]:
        """Let the clock call a function, on every replica; never twice at a time.

        Args:
            seconds: From one beginning to the next, above 0; the first is that long after the
                start.
            stack: The policy around each call, instead of the service's.

        Returns:
            A decorator that gives the function back as it is. It takes ``(ctx)`` or nothing.

        Raises:
            ValueError: ``seconds`` is out of range.
            TypeError: A value is of another type, or the function needs other arguments.
        """
        return self._adding(Tag(kind="timer", interval=seconds, stack=stack))

    def run(
        self,
        broker: Broker,
        registry: ServiceRegistry | None = None,
        *,
        instance: ServiceInstance | None = None,
        checker: HealthChecker | None = None,
        grace: float = 20.0,
        propagation: float = 0.2,
        wait: float = 30.0,
    ) -> ServiceRun:
        """Run it, for the time of an ``async with`` block.

        Args:
            broker: Where it listens. Opened and closed with the run if it is closed; so are the
                registry and the checker.
            registry: Where this replica registers, as long as it is ready.
            instance: As what; by default as an instance of this host whose metadata say that it
                is asked over the broker.
            checker: Health checks that :meth:`ServiceRun.health` counts. While they say no, or
                nothing yet, this replica is not among the ready ones of the registry.
            grace: Seconds that calls have to finish when the block ends normally, 0 or more.
            propagation: Seconds in which others hear that this replica leaves, while it still
                takes what they send.
            wait: Seconds that each of the services it needs has to answer.

        Returns:
            The run, ready when the block is entered.

        Raises:
            ValueError: A value is out of its range, the registry allows no such name, or
                ``instance`` is of another service.
            TypeError: A value is of another type.
        """
        checked("broker", broker, Broker, "a Broker")
        _check_guests(registry, instance, checker)
        if instance is None and registry is not None:
            instance = self._instance()
        if instance is not None and instance.service != self.name:
            msg = f"instance must be of service {self.name!r}, not of {instance.service!r}"
            raise ValueError(msg)
        staging = Staging(
            broker=broker,
            registry=registry,
            instance=instance,
            checker=checker,
            grace=non_negative("grace", grace),
            propagation=non_negative("propagation", propagation),
            wait=positive("wait", wait),
        )
        return ServiceRun(self, staging)

    def health(self) -> ServiceHealth:
        """Return whether it is well in this process; no I/O.

        Of several open runs, that of the first that is not well. Without any it is STOPPED.
        """
        if not self.runs:
            return ServiceHealth(self.name, "", ServiceState.STOPPED, connected=False)
        healths = [run.health() for run in self.runs]
        return next((each for each in healths if not each.ok), healths[0])

    # --------------------------------------------------------------------------- private core

    def _adding(self, tag: Tag) -> Callable[[F], F]:
        def add(fn: F) -> F:
            self.handlers.add(tag, fn)
            return fn

        return add

    def _instance(self) -> ServiceInstance:
        from aiopatterns.cluster.instance import ServiceInstance  # its room is large

        return ServiceInstance(
            self.name,
            socket.gethostname() or "localhost",
            _NO_PORT,
            version=self.version,
            metadata={"transport": "broker"},
        )


def _check_guests(registry: object, instance: object, checker: object) -> None:
    """Refuse what is of another type; their room is large, so it is loaded if there is one."""
    if registry is not None:
        from aiopatterns.cluster.registry import ServiceRegistry

        checked("registry", registry, ServiceRegistry, "a ServiceRegistry or None")
    if instance is not None:
        from aiopatterns.cluster.instance import ServiceInstance

        checked("instance", instance, ServiceInstance, "a ServiceInstance or None")
    if checker is not None:
        from aiopatterns.cluster.health import HealthChecker

        checked("checker", checker, HealthChecker, "a HealthChecker or None")


def _token(name: str, value: str) -> str:
    if "." in topic_name(name, value):
        msg = f"{name} must be one token of a topic, without dots, not {value!r}"
        raise ValueError(msg)
    return value


def _needs(given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        msg = f"needs must be names of services, not the single {given!r}"
        raise TypeError(msg)
    return tuple(_token("needs", each) for each in given)
