"""What runs inside a worker process, run here: frames, answers, refusals."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from aiopatterns.core.errors import RemoteError
from aiopatterns.flow import child


def boom():
    raise ValueError("no")


def body(frame):
    size = child.HEADER.unpack(frame[: child.HEADER.size])[0]
    assert len(frame) == child.HEADER.size + size
    return memoryview(frame)[child.HEADER.size :]


class Loud(Exception):
    def __reduce__(self):
        return (Loud, (1, 2, 3, lambda: 4))


class Unreadable:
    def __reduce__(self):
        return (boom, ())


class Silent:
    def __call__(self):
        return 1

    def __repr__(self):
        return "S" * 200


def refuse_to_travel():
    raise Loud("loud")


@pytest.fixture
def served(monkeypatch):
    """A link to ``serve``, which runs in a thread here."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(child, "_end_with_parent", lambda: None)
    ours, theirs = socket.socketpair()
    threads = []

    def start(initializer=None):
        thread = threading.Thread(target=child.serve, args=(theirs, initializer))
        thread.start()
        threads.append(thread)
        return ours

    yield start
    ours.close()
    for thread in threads:
        thread.join(5)
    theirs.close()


def receive(link):
    size = child.HEADER.unpack(link.recv(8, socket.MSG_WAITALL))[0]
    return memoryview(link.recv(size, socket.MSG_WAITALL))


def test_calls_are_answered_until_the_end_of_the_stream(served):
    link = served()
    assert child.unpack_reply(receive(link)) is None
    link.sendall(child.pack_call(len, ("abc",)))
    assert child.unpack_reply(receive(link)) == 3
    link.sendall(child.pack_call(boom, ()))
    with pytest.raises(ValueError, match="no") as caught:
        child.unpack_reply(receive(link))
    assert "boom" in caught.value.__notes__[0]
    link.sendall(struct.pack("!Q", 100) + b"half")


def test_an_initializer_that_fails_is_the_first_answer(served):
    with pytest.raises(ValueError, match="no"):
        child.unpack_reply(receive(served(boom)))


def test_a_parent_that_is_gone_ends_it_quietly(served):
    link = served()
    receive(link)
    link.sendall(child.pack_call(time.sleep, (0.01,)))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    link.close()


def test_a_call_that_cannot_be_read_is_refused():
    frame = child.pack_call(len, (Unreadable(),))
    with pytest.raises(TypeError, match=r"cannot be read in the worker process.*: no") as caught:
        child.unpack_reply(body(child._answer_frame(bytearray(body(frame)))))
    assert "ValueError: no" in caught.value.__notes__[0]


def test_errors_that_cannot_travel_are_replaced():
    with pytest.raises(RemoteError, match="Loud: loud") as caught:
        child.unpack_reply(body(child._answer(refuse_to_travel, ())))
    assert caught.value.type == "Loud"
    assert "refuse_to_travel" in caught.value.__notes__[0]


class Speechless(Exception):
    """Cannot travel, and cannot say why."""

    def __init__(self, *, needed):
        self.needed = needed

    def __str__(self):
        raise LookupError("no words")


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


def speechless():
    raise Speechless(needed=1)


def freeze():
    raise Frozen(3)


def consequence():
    try:
        boom()
    except ValueError as error:
        raise KeyError("outer") from error


def test_errors_that_refuse_to_tell_or_to_be_changed_are_answers_too():
    with pytest.raises(RemoteError, match=r"its message cannot be made: .*no words"):
        child.unpack_reply(body(child._answer(speechless, ())))
    with pytest.raises(RemoteError) as caught:
        child.unpack_reply(body(child._answer(freeze, ())))
    assert caught.value.type == "Frozen"


def test_the_note_tells_what_an_error_is_the_consequence_of():
    with pytest.raises(KeyError) as caught:
        child.unpack_reply(body(child._answer(consequence, ())))
    assert "ValueError: no" in caught.value.__notes__[0]


def test_values_that_cannot_travel_are_named():
    with pytest.raises(TypeError, match="_lambda_maker returned cannot be sent"):
        child.unpack_reply(body(child._answer(_lambda_maker, ())))


def _lambda_maker():
    return lambda: 1


def test_what_cannot_be_packed_is_named():
    with pytest.raises(TypeError, match="top level of a module"):
        child.pack_call(lambda: 1, ())
    with pytest.raises(TypeError, match=r"argument 1 of S{80}\.\.\. cannot be sent"):
        child.pack_call(Silent(), (lambda: 1,))
    with pytest.raises(TypeError, match=r"argument 2 of print .*lambda.*; define it at the top"):
        child.pack_call(print, (1, lambda: 1))
    with pytest.raises(TypeError, match=r"argument 1 of print cannot be sent.*\)$"):
        child.pack_call(print, (threading.Lock(),))


def test_what_only_fails_together_is_told_too(monkeypatch):
    monkeypatch.setattr(child, "_unpicklable", lambda value: None)
    with pytest.raises(TypeError, match="the call of len cannot be sent"):
        child.pack_call(len, (lambda: 1,))


def _hold(link, path):
    Path(path).write_text(str(os.getpid()))
    child.serve(link, None)


def _parent(path):
    """Start a worker process that is busy, tell its pid, and be killed."""
    ours, theirs = socket.socketpair()
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=_hold, args=(theirs, path))
    worker.start()
    theirs.close()
    receive(ours)
    ours.sendall(child.pack_call(time.sleep, (60,)))
    time.sleep(60)


def _running(pid):
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it never came true")


def test_a_busy_worker_process_ends_with_its_parent(tmp_path):
    path = tmp_path / "pid"
    parent = multiprocessing.get_context("spawn").Process(target=_parent, args=(str(path),))
    parent.start()
    _until(lambda: path.exists() and path.read_text())
    time.sleep(0.2)
    pid = path.read_text()
    assert _running(pid)
    parent.kill()
    parent.join()
    _until(lambda: not _running(pid))
