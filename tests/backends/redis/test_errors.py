from __future__ import annotations

import pytest

from aiopatterns.backends.redis.errors import (
    FAILURES,
    LostError,
    RefusalError,
    UnsentError,
    translated,
)
from aiopatterns.core.errors import BackendError, BackendUnavailableError

URL = "redis://:***@h"


@pytest.mark.parametrize(
    "reply",
    [
        "LOADING Redis is loading the dataset in memory",
        "READONLY You can't write against a read only replica.",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "CLUSTERDOWN The cluster is down",
        "MASTERDOWN Link with MASTER is down",
        "BUSY Redis is busy running a script.",
        "@user_script: 5: -READONLY You can't write against a read only replica.",
        "ERR Error running script (call to f_6): @user_script:1: @user_script: 1: -READONLY You can't",
        "ERR Script attempted to access a non local key in a cluster node script: 0, on line:12.",
        "ERR Unable to execute command: undeclared keys were accessed during rehashing of the slot",
    ],
)
def test_not_now_is_unavailable(reply):
    failure = RefusalError(reply)
    assert failure.later
    error = translated(failure, URL)
    assert type(error) is BackendUnavailableError
    assert reply in str(error)
    assert URL in str(error)


@pytest.mark.parametrize(
    ("reply", "cure"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "raise maxmemory"),
        ("NOAUTH Authentication required.", "into the URL"),
        ("WRONGPASS invalid username-password pair", "password in the URL is wrong"),
        ("NOPERM this user has no permissions", "lacks the right"),
        ("ERR The user executing the script can't run this command or subcommand", "doctor --acl"),
        (
            "ERR Error running script (call to f_6): @user_script: 16: -OOM command",
            "raise maxmemory",
        ),
        ("MISCONF Redis is configured to save RDB snapshots", "see its log"),
        ("MOVED 1 h:1", "redis+cluster://"),
        ("ERR unknown command", ""),
        ("WRONGTYPE Operation against a key", ""),
        ("", ""),
    ],
)
def test_a_refusal_is_an_error_with_a_cure(reply, cure):
    failure = RefusalError(reply)
    assert not failure.later
    error = translated(failure, URL)
    assert type(error) is BackendError
    assert str(error).startswith(f"Redis at {URL} refuses: {reply}")
    assert cure in str(error)


@pytest.mark.parametrize("kind", [LostError, UnsentError])
def test_no_answer_is_unavailable(kind):
    error = translated(kind("why"), URL)
    assert type(error) is BackendUnavailableError
    assert str(error) == f"no Redis answers at {URL}: why"
    assert kind in FAILURES
