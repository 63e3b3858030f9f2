"""One peer that calls: its packets and requests go to the node, the answers back to it.

A guest has proved that it knows the secret, and yet it may be broken, slow or flooding. So a
packet or a frame that none may send ends the connection; at most :data:`ANSWERING` of its requests
are answered at once and more are refused; and one that does not take what it asked for loses its
connection. While all that happens to one guest, the others notice nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, final

from anyio import create_task_group, fail_after

from aiopatterns.cluster.tcpframes import Frame, Kind
from aiopatterns.cluster.tcpwire import LOST, SILENT
from aiopatterns.cluster.transport import MAX_EXCHANGE, MAX_PACKET
from aiopatterns.core.errors import CodecError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from aiopatterns.cluster.tcpcounts import Counts
    from aiopatterns.cluster.tcpwire import Wire
    from aiopatterns.cluster.transport import Answer, Receive

__all__ = ["Guest"]

#: Requests of one guest that are answered at once.
ANSWERING: Final = 32
#: Seconds that the node has for an answer.
ANSWERED: Final = 30.0


@final
class Guest:
    """One peer that calls.

    Args:
        wire: The connection.
        receive: Takes a packet.
        answer: Answers a request.
        counts: Where things are counted.
    """

    __slots__ = ("_answer", "_answering", "_counts", "_receive", "_wire")

    def __init__(self, wire: Wire, *, receive: Receive, answer: Answer, counts: Counts) -> None:
        self._wire = wire
        self._receive = receive
        self._answer = answer
        self._counts = counts
        self._answering = 0

    async def run(self) -> None:
        """Take what it says until it hangs up or says what it must not; never raises.

        Cancellation: answers that are being made are cancelled.
        """
        async with create_task_group() as tasks:
            try:
                await self._listen(tasks)
            except CodecError:
                self._counts.malformed += 1
            except LOST:
                pass  # it has hung up
            tasks.cancel_scope.cancel()

    async def _listen(self, tasks: TaskGroup) -> NoReturn:
        while True:
            for frame in await self._wire.read(SILENT):
                await self._take(frame, tasks)

    async def _take(self, frame: Frame, tasks: TaskGroup) -> None:
        kind, number, payload = frame
        if kind is Kind.PACKET and len(payload) <= MAX_PACKET:
            self._counts.received += 1
            self._receive(payload)
        elif kind is not Kind.REQUEST:
            raise CodecError("a guest sends packets of some size, and requests")
        elif self._answering < ANSWERING:
            self._answering += 1
            tasks.start_soon(self._reply, frame, tasks)
        else:
            await self._wire.write(Frame(Kind.REFUSAL, number))

    async def _reply(self, request: Frame, tasks: TaskGroup) -> None:
        try:
            await self._wire.write(await self._answered(request))
        except LOST:
            tasks.cancel_scope.cancel()  # it does not take what it asked for
        finally:
            self._answering -= 1

    async def _answered(self, request: Frame) -> Frame:
        """Return what the node answers; whatever goes wrong there is a refusal."""
        try:
            with fail_after(ANSWERED):
                data = await self._answer(request.payload)
        except Exception:
            return Frame(Kind.REFUSAL, request.number)
        if len(data) > MAX_EXCHANGE:
            return Frame(Kind.REFUSAL, request.number)
        return Frame(Kind.ANSWER, request.number, data)
