"""A process that consumes a stream and notes what it does, a line for each message.

``streamworker.py URL LEDGER [key]``; SIGTERM stops it as a service does, a second one ends
it at once.
"""

from __future__ import annotations

import os
import signal
import sys

import anyio

from aiopatterns.messaging import Message, Stream, StreamConsumer

CLAIM_IDLE = 1.0


async def main(*words: str) -> None:
    url, ledger, *more = words
    file = os.open(ledger, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    consumer = StreamConsumer(
        Stream("faults", url), group="g", prefetch=20, claim_idle=CLAIM_IDLE, grace=5.0
    )

    async def handler(message: Message) -> None:
        await anyio.sleep(message.payload["seconds"])
        os.write(file, f"{message.key} {message.payload['n']} {os.getpid()}\n".encode())

    async def obey() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                consumer.stop()
                break  # from here on nobody listens: a second one does what the system does

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(obey)
        key = (lambda message: message.key) if more else None
        await consumer.run(handler, concurrency=10, key=key)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
