"""The tree of all errors that this library raises on its own behalf.

A user's own exception always leaves bare and identical; these classes are for what *we* have
to say. Each is an ordinary exception with typed fields (keywords of its constructor), survives
pickling with all fields and notes, and is raised as a fresh instance every time, so that no two
callers ever share a traceback.

::

    AioPatternsError
    |-- RejectedError(name, retry_after)        refused before it started; safe to send elsewhere
    |   |-- CircuitOpenError                    the breaker is open
    |   |   `-- CircuitIsolatedError            ... because an operator forced it
    |   |-- BulkheadFullError                   no permit and no room in the queue
    |   |-- RateLimitedError                    no token within the allowed wait
    |   |-- OverloadedError                     shed by an adaptive limit or a throttle
    |   |-- QueueFullError                      a bounded queue refused the item
    |   `-- NoEndpointError                     nobody is left to ask
    |-- TimeoutExceededError  (TimeoutError)    one of our timeouts; a user's TimeoutError is not ours
    |-- QuorumError(got, need, errors)          fewer answers than needed
    |-- ClosedError                             used outside its ``async with``
    |-- WorkerCrashedError(attempts)            a worker process died under the call
    |-- LoadAbortedError(key)                   a cache's loader cancelled itself
    |-- BackendError                            state could not be read or written
    |   `-- BackendUnavailableError             ... because nobody answers
    |-- CodecError                              bytes that are not what they should be
    |   `-- UnknownVersionError(version)        ... written by a newer release
    |-- JobError
    |   |-- JobFailedError(job_id, type, message, attempts)
    |   |-- JobCancelledError(job_id)
    |   `-- JobNotFoundError(job_id)
    |-- Reject(reason)                          raised by handlers: dead at once
    |-- RetryLater(delay)                       raised by handlers: again later, no attempt counted
    |-- NoHandlersError(topic)                  nobody listens
    |-- RemoteError(type, message, code, retryable, details)
    |-- SecretMismatchError(address)  (ConnectionAbortedError)   a peer has another secret
    |-- ConfigError(file, problems)  (ValueError)   a configuration file is wrong, all of it said
    |-- RequestRefusedError(status, reason, headers)             the gateway answers instead
    |-- UpstreamError(name, kind, sent)         a service behind the gateway gave no answer
    |-- ConflictError(key)                      concurrent versions that nobody may decide
    |-- CheckpointExpiredError(checkpoint)      the change log no longer reaches back that far
    |-- SagaError(outcomes)                     a saga ended in compensation
    |-- TwoPhaseError(gid)
    |   |-- OutcomeUnknownError                 the decision is not known yet; recovery will tell
    |   `-- HeuristicOutcomeError               a participant decided against the coordinator
    `-- DagError(run)
        `-- CycleError(path)                    tasks that wait for each other
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "AioPatternsError",
    "BackendError",
    "BackendUnavailableError",
    "BulkheadFullError",
    "CheckpointExpiredError",
    "CircuitIsolatedError",
    "CircuitOpenError",
    "ClosedError",
    "CodecError",
    "ConfigError",
    "ConflictError",
    "CycleError",
    "DagError",
    "HeuristicOutcomeError",
    "JobCancelledError",
    "JobError",
    "JobFailedError",
    "JobNotFoundError",
    "LoadAbortedError",
    "NoEndpointError",
    "NoHandlersError",
    "OutcomeUnknownError",
    "OverloadedError",
    "QueueFullError",
    "QuorumError",
    "RateLimitedError",
    "Reject",
    "RejectedError",
    "RemoteError",
    "RequestRefusedError",
    "RetryLater",
    "SagaError",
    "SecretMismatchError",
    "TimeoutExceededError",
    "TwoPhaseError",
    "UnknownVersionError",
    "UpstreamError",
    "WorkerCrashedError",
]


class AioPatternsError(Exception):
    """Base of every error of this library.

    Args:
        message: One line that says what happened and what to do about it.

    Picklable: type, message, typed fields and notes survive; traceback and cause do not.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild without calling the constructor, whose keywords differ in every class."""
        return _rebuild, (type(self), self.args, self.__dict__.copy())

    @classmethod
    def _blank(cls, args: tuple[object, ...], state: Mapping[str, object]) -> Self:
        error = cls.__new__(cls)
        error.args = args
        error.__dict__.update(state)
        return error


def _rebuild(
    cls: type[AioPatternsError], args: tuple[object, ...], state: Mapping[str, object]
) -> AioPatternsError:
    return cls._blank(args, state)


class RejectedError(AioPatternsError):
    """The call was refused before it started, so it may safely be sent elsewhere or later.

    Args:
        message: What refused, and why.
        name: Name of the policy or queue that refused.
        retry_after: Seconds until trying again makes sense, if that is known.
    """

    def __init__(
        self, message: str = "", *, name: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(message or f"{name or type(self).__name__} refused the call")
        self.name = name
        self.retry_after = retry_after


class CircuitOpenError(RejectedError):
    """The circuit breaker is open: the dependency failed too often lately.

    Args:
        message: What refused, and why.
        name: Name of the breaker.
        retry_after: Seconds until trying again makes sense, if that is known.
        cause: The ``repr`` of the error that opened the circuit, if there is one.
    """

    def __init__(
        self,
        message: str = "",
        *,
        name: str = "",
        retry_after: float | None = None,
        cause: str | None = None,
    ) -> None:
        super().__init__(message, name=name, retry_after=retry_after)
        self.cause = cause


class CircuitIsolatedError(CircuitOpenError):
    """The circuit breaker was forced open by an operator and stays so until released."""


class BulkheadFullError(RejectedError):
    """No permit was free and the waiting line was full, or the wait was longer than allowed."""


class RateLimitedError(RejectedError):
    """No token is available within the allowed wait; ``retry_after`` says when one will be."""


class OverloadedError(RejectedError):
    """Shed to protect the service: the adaptive limit or throttle is reached."""


class QueueFullError(RejectedError):
    """A bounded queue or channel has no room and its policy is to refuse."""


class NoEndpointError(RejectedError):
    """No endpoint of the service is left to send the call to."""


class TimeoutExceededError(AioPatternsError, TimeoutError):
    """One of our timeouts expired. A ``TimeoutError`` of the user's own code is never converted.

    Args:
        message: What timed out.
        timeout: The budget in seconds that was exceeded, if one number says it.
    """

    def __init__(self, message: str = "", *, timeout: float | None = None) -> None:
        super().__init__(message or f"timed out after {timeout} s")
        self.timeout = timeout


class QuorumError(AioPatternsError):
    """Fewer calls succeeded than were needed.

    Args:
        message: What was asked.
        got: Number of successes.
        need: Number of successes that were required.
        errors: The failures, by the key or position of the call.
    """

    def __init__(
        self,
        message: str = "",
        *,
        got: int,
        need: int,
        errors: Mapping[object, Exception],
    ) -> None:
        super().__init__(message or f"{got} of {need} needed calls succeeded")
        self.got = got
        self.need = need
        self.errors = errors


class ClosedError(AioPatternsError):
    """Used before its ``async with`` was entered or after it was left; the text shows the fix."""


class WorkerCrashedError(AioPatternsError):
    """A worker process died (killed, out of memory, hard crash) while it ran the call.

    Args:
        message: Which call, and how the process ended.
        attempts: How often the call was tried in a fresh process.
    """

    def __init__(self, message: str = "", *, attempts: int = 1) -> None:
        super().__init__(message or f"the worker process died {attempts} times under this call")
        self.attempts = attempts


class LoadAbortedError(AioPatternsError):
    """A cache's loader raised a cancellation that nobody had asked for; its callers go on.

    Args:
        message: What was loaded.
        key: The key, as text.
    """

    def __init__(self, message: str = "", *, key: str = "") -> None:
        super().__init__(message or f"the load of {key!r} cancelled itself")
        self.key = key


class BackendError(AioPatternsError):
    """The backend answered, but could not do what was asked. Passwords in its URL are masked."""


class BackendUnavailableError(BackendError):
    """The backend does not answer (refused, unreachable, timed out)."""


class CodecError(AioPatternsError):
    """Bytes that do not decode to what was expected, or a value that cannot be encoded."""


class UnknownVersionError(CodecError):
    """Written in a version that this release does not know.

    Args:
        message: What could not be read.
        version: The version that was found.
    """

    def __init__(self, message: str = "", *, version: int) -> None:
        super().__init__(message or f"version {version} is not known to this release")
        self.version = version


class JobError(AioPatternsError):
    """Base of what waiting for a job can raise.

    Args:
        message: What happened.
        job_id: Id of the job, or of the item's handle.
    """

    def __init__(self, message: str = "", *, job_id: str = "") -> None:
        super().__init__(message or f"job {job_id or '?'}: {type(self).__name__}")
        self.job_id = job_id


class JobFailedError(JobError):
    """The job failed for good.

    Args:
        message: The message of the job's own error.
        job_id: Id of the job.
        type: Type name of the job's own error.
        attempts: How often it was tried.
    """

    def __init__(
        self, message: str = "", *, job_id: str = "", type: str = "", attempts: int = 1
    ) -> None:
        super().__init__(
            f"job {job_id} failed after {attempts} attempts: {type}: {message}", job_id=job_id
        )
        self.message = message
        self.type = type
        self.attempts = attempts


class JobCancelledError(JobError):
    """The job or pool item was cancelled before it finished."""


class JobNotFoundError(JobError):
    """No such job: never enqueued, or its result has expired."""


class Reject(AioPatternsError):  # noqa: N818 - a verb that handlers raise, as in the contract
    """Raised by a handler: never try this again.

    Args:
        reason: Kept with the dead letter.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class RetryLater(AioPatternsError):  # noqa: N818 - a verb that handlers raise, as in the contract
    """Raised by a handler: run again after ``delay`` seconds; costs no attempt.

    Args:
        delay: Seconds to wait.
    """

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(f"again in {delay} s")
        self.delay = delay


class NoHandlersError(AioPatternsError):
    """Nobody handles this topic.

    Args:
        message: What was sent.
        topic: The topic that has no handler.
    """

    def __init__(self, message: str = "", *, topic: str = "") -> None:
        super().__init__(message or f"no handler listens on {topic!r}")
        self.topic = topic


class RemoteError(AioPatternsError):
    """The handler on the other side raised.

    Args:
        message: The remote message.
        type: Type name of the remote error.
        code: A stable code the remote gave, if any.
        retryable: Whether the remote says that trying again may help.
        details: Further data of the remote error.
    """

    def __init__(
        self,
        message: str = "",
        *,
        type: str = "",
        code: str | None = None,
        retryable: bool = False,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(f"{type}: {message}" if type else message)
        self.message = message
        self.type = type
        self.code = code
        self.retryable = retryable
        self.details: dict[str, object] = dict(details or {})


class SecretMismatchError(AioPatternsError, ConnectionAbortedError):
    """A peer was reached and closed the connection, or was left: the two do not share a secret.

    Args:
        message: What the two have.
        address: Where the peer was asked.
    """

    def __init__(self, message: str = "", *, address: str = "") -> None:
        super().__init__(
            message or f"the peer at {address!r} has another secret; all peers need the same one"
        )
        self.address = address


class ConfigError(AioPatternsError, ValueError):
    """A configuration file cannot be used; nothing was changed or started.

    Args:
        message: What is wrong, in one line.
        file: Which file.
        problems: Everything that is wrong, each with its place in the file. No secret is in it.
    """

    def __init__(self, message: str = "", *, file: str, problems: Sequence[str]) -> None:
        super().__init__(message or f"{file}: {'; '.join(problems)}")
        self.file = file
        self.problems: tuple[str, ...] = tuple(problems)


class RequestRefusedError(AioPatternsError):
    """An HTTP request is answered with an error by the gateway itself.

    Any stage may raise it. The client sees the status, the reason and the headers, nothing else.

    Args:
        reason: One line for the client, without details of what is behind the gateway.
        status: Status of the answer, 400 to 599.
        headers: Headers of the answer, such as ``Retry-After``; names in lower case.
    """

    def __init__(
        self, reason: str = "", *, status: int, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(f"{status}: {reason}" if reason else str(status))
        self.reason = reason
        self.status = status
        self.headers: tuple[tuple[bytes, bytes], ...] = tuple(headers)


class UpstreamError(AioPatternsError):
    """A service behind the gateway gave no answer that can be passed on.

    Args:
        message: What happened.
        name: The endpoint, as ``host:port``.
        kind: ``"connect"``: no connection; ``"timeout"``: no answer, or no more of it, in time;
            ``"invalid"``: an answer that breaks the rules of HTTP; ``"closed"``: the connection
            ended before the answer did.
        sent: Whether the service may have seen some of the request.
    """

    def __init__(
        self,
        message: str = "",
        *,
        name: str,
        kind: Literal["connect", "timeout", "invalid", "closed"],
        sent: bool,
    ) -> None:
        super().__init__(message or f"{name}: no answer ({kind})")
        self.name = name
        self.kind: Literal["connect", "timeout", "invalid", "closed"] = kind
        self.sent = sent


class ConflictError(AioPatternsError):
    """Concurrent versions of one key, and the strategy in force leaves the choice to a person.

    Args:
        message: What is in conflict.
        key: The key.
    """

    def __init__(self, message: str = "", *, key: str = "") -> None:
        super().__init__(message or f"concurrent versions of {key!r}")
        self.key = key


class CheckpointExpiredError(AioPatternsError):
    """The change log was trimmed past this checkpoint; a full synchronisation is needed.

    Args:
        message: What was asked.
        checkpoint: The checkpoint that is gone.
    """

    def __init__(self, message: str = "", *, checkpoint: str = "") -> None:
        super().__init__(message or f"the log no longer reaches back to {checkpoint!r}")
        self.checkpoint = checkpoint


class SagaError(AioPatternsError):
    """A step failed and the saga was compensated.

    Args:
        message: Which saga, and which step failed.
        outcomes: The end of every step, in order.
    """

    def __init__(self, message: str = "", *, outcomes: Sequence[object] = ()) -> None:
        super().__init__(message or "the saga was compensated")
        self.outcomes: tuple[object, ...] = tuple(outcomes)


class TwoPhaseError(AioPatternsError):
    """A distributed transaction was aborted.

    Args:
        message: Why.
        gid: Global id of the transaction.
    """

    def __init__(self, message: str = "", *, gid: str = "") -> None:
        super().__init__(message or f"transaction {gid} was aborted")
        self.gid = gid


class OutcomeUnknownError(TwoPhaseError):
    """The decision is not known to the caller; recovery completes it either way."""


class HeuristicOutcomeError(TwoPhaseError):
    """A participant decided against the coordinator's decision; a person has to look."""


class DagError(AioPatternsError):
    """A task graph is wrong, or a run of it has no result to give.

    Args:
        message: What is wrong, with the names of the tasks.
        run: The run in which it happened, if there was one.
    """

    def __init__(self, message: str = "", *, run: object = None) -> None:
        super().__init__(message)
        self.run = run


class CycleError(DagError):
    """Tasks that wait for each other.

    Args:
        path: The tasks of the cycle in order, the first repeated at the end.
    """

    def __init__(self, *, path: Sequence[str]) -> None:
        super().__init__(f"these tasks wait for each other: {' -> '.join(path)}")
        self.path: tuple[str, ...] = tuple(path)
