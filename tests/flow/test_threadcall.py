"""A call in a thread: claimed once, by the thread or by the caller who withdraws it."""

from __future__ import annotations

import threading

from aiopatterns.flow.threadcall import ThreadCall


def test_what_it_came_to():
    call = ThreadCall(divmod, (7, 3))
    call()
    assert (call.value, call.error) == ((2, 1), None)
    assert not call.withdraw()


def test_errors_of_any_kind_are_kept():
    for kind in (ValueError, StopIteration, SystemExit):

        def fail(kind=kind):
            raise kind

        call = ThreadCall(fail, ())
        call()
        assert isinstance(call.error, kind)


def test_a_withdrawn_call_does_nothing():
    ran: list[int] = []
    call = ThreadCall(ran.append, (1,))
    assert call.withdraw()
    assert not call.withdraw()
    call()
    assert not ran


def test_one_of_two_gets_the_claim():
    for _ in range(200):
        ran: list[int] = []
        call = ThreadCall(ran.append, (1,))
        thread = threading.Thread(target=call)
        thread.start()
        withdrawn = call.withdraw()
        thread.join()
        assert withdrawn != bool(ran)
