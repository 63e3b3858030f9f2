"""Every error survives a trip to another process with all it knows."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

from aiopatterns.core import errors
from aiopatterns.core.errors import (
    AioPatternsError,
    CycleError,
    JobFailedError,
    RejectedError,
    RemoteError,
    RequestRefusedError,
    TimeoutExceededError,
)

FIELDS: dict[str, dict[str, Any]] = {
    "QuorumError": {"got": 1, "need": 2, "errors": {"a": "lost"}},
    "RejectedError": {"name": "billing", "retry_after": 1.5},
    "CircuitOpenError": {"name": "billing", "retry_after": 1.5, "cause": "OSError('lost')"},
    "TimeoutExceededError": {"timeout": 2.0},
    "WorkerCrashedError": {"attempts": 3},
    "UnknownVersionError": {"version": 9},
    "JobError": {"job_id": "7"},
    "JobFailedError": {"job_id": "7", "type": "ValueError", "attempts": 5},
    "Reject": {"reason": "bad address"},
    "RetryLater": {"delay": 5.0},
    "NoHandlersError": {"topic": "orders.created"},
    "RemoteError": {"type": "ValueError", "code": "E1", "retryable": True, "details": {"a": 1}},
    "ConflictError": {"key": "user:1"},
    "CheckpointExpiredError": {"checkpoint": "12-0"},
    "SecretMismatchError": {"address": "10.0.0.7:7000"},
    "ConfigError": {"file": "gateway.toml", "problems": ("routes[0].to: unknown key",)},
    "RequestRefusedError": {
        "reason": "too large",
        "status": 413,
        "headers": ((b"connection", b"close"),),
    },
    "UpstreamError": {"name": "10.0.0.7:80", "kind": "timeout", "sent": True},
    "SagaError": {"outcomes": ("done", "compensated")},
    "TwoPhaseError": {"gid": "g1"},
    "DagError": {"run": ("a", "run")},
    "CycleError": {"path": ("a", "b", "a")},
}
CLASSES = [getattr(errors, name) for name in errors.__all__]
every = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def fields_of(cls):
    """The fields of the nearest base that has some."""
    return next((FIELDS[base.__name__] for base in cls.__mro__ if base.__name__ in FIELDS), {})


def made(cls):
    takes_message = "message" in inspect.signature(cls).parameters
    return cls("what happened", **fields_of(cls)) if takes_message else cls(**fields_of(cls))


def test_the_list_is_complete_and_sorted():
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, BaseException)
    }
    assert defined == set(errors.__all__)
    assert errors.__all__ == sorted(errors.__all__)
    assert all(issubclass(cls, AioPatternsError) for cls in CLASSES)


@pytest.mark.promise("core-errors-picklable")
@every
@pytest.mark.parametrize(
    "trip",
    [
        *(lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in range(6)),
        copy.copy,
        copy.deepcopy,
    ],
    ids=[*(f"pickle{p}" for p in range(6)), "copy", "deepcopy"],
)
def test_fields_message_and_notes_survive(cls, trip):
    error = made(cls)
    error.add_note("while paying")
    back = trip(error)
    assert type(back) is cls
    assert (str(back), back.args, back.__dict__) == (str(error), error.args, error.__dict__)
    assert back.__notes__ == ["while paying"]


@every
def test_fields_are_kept_and_every_error_says_something(cls):
    error = made(cls)
    for name, value in fields_of(cls).items():
        assert getattr(error, name) == value
    silent = {"QuorumError", "UnknownVersionError", "CycleError"}
    silent |= {"ConfigError", "RequestRefusedError", "UpstreamError"}
    bare = cls(**FIELDS[cls.__name__]) if cls.__name__ in silent else cls()
    plain = {"AioPatternsError", "ClosedError", "BackendError", "BackendUnavailableError"}
    assert str(bare) or cls.__name__ in plain | {"CodecError", "Reject", "RemoteError", "DagError"}


def test_texts_without_a_message():
    assert str(RejectedError(name="billing")) == "billing refused the call"
    assert str(RejectedError()) == "RejectedError refused the call"
    assert str(TimeoutExceededError(timeout=2)) == "timed out after 2 s"
    assert str(JobFailedError("no", job_id="7", type="ValueError", attempts=2)) == (
        "job 7 failed after 2 attempts: ValueError: no"
    )
    assert str(RemoteError("no")) == "no"
    assert str(RequestRefusedError(status=401)) == "401"
    assert str(RequestRefusedError("no key", status=401)) == "401: no key"
    assert str(CycleError(path=["a", "b", "a"])) == "these tasks wait for each other: a -> b -> a"


def test_a_timeout_of_ours_is_caught_as_a_timeout():
    with pytest.raises(TimeoutError):
        raise TimeoutExceededError(timeout=1)
    assert str(TimeoutExceededError("slow", timeout=1)) == "slow"
