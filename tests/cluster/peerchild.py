"""One peer in a process of its own: does what it is told line by line, and answers in lines.

Run: python -m tests.cluster.peerchild NAME PORT ADVERTISE SEED...
"""

from __future__ import annotations

import json
import sys

import anyio

from aiopatterns.cluster.peer import PeerNode
from aiopatterns.cluster.swim import Swim
from aiopatterns.cluster.tcp import TCPTransport

SWIM = Swim(probe=0.25, timeout=0.1, gossip=0.05, suspicion=2.0, sync=1.0)
SECRET = "all peers of the test"


async def obey(node: PeerNode, command: dict, got: list) -> object:
    """Do one thing and return what there is to say."""
    match command["do"]:
        case "members":
            return {name: member.state.value for name, member in node.members.items()}
        case "broadcast":
            await node.broadcast(command["message"])
        case "send":
            await node.send(command["to"], command["message"])
        case "got":
            return got
    return "done"


async def main(*arguments: str) -> None:
    name, port, advertise, *seeds = arguments
    transport = TCPTransport("127.0.0.1", int(port), advertise=advertise)
    node = PeerNode(name, transport=transport, seeds=seeds, swim=SWIM, secret=SECRET)
    got: list = []
    node.on_message(lambda sender, message: got.append([sender, message]))
    async with node:
        print(json.dumps("open"), flush=True)
        async for line in anyio.wrap_file(sys.stdin):
            print(json.dumps(await obey(node, json.loads(line), got)), flush=True)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
