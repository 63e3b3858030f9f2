"""Sagas, transactions, replicas and versions as users write them, under both checkers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from aiopatterns.data import (
    Decision,
    HybridClock,
    LastWriteWins,
    Merge,
    Position,
    ReplicaRouter,
    ReplicaSession,
    Resolution,
    Saga,
    SagaResult,
    SagaStatistics,
    SqliteLog,
    SqliteParticipant,
    SqliteSagaStore,
    TwoPhaseCommit,
    TwoPhaseStatistics,
    Versioned,
    VersionVector,
    resolve,
    three_way,
)


@dataclass
class Order:
    total: int
    paid: bool = False


checkout = Saga("checkout", SqliteSagaStore("sagas.db"), context=Order, timeout=10)


async def release(order: Order) -> None:
    order.total = 0


@checkout.step(compensate=release)
async def reserve(order: Order) -> None:
    order.total += 1


@checkout.step(after=[reserve], pivot=True)
async def pay(order: Order) -> None:
    order.paid = True


@checkout.step
def mail(order: Order) -> str:  # a plain function is called in a thread
    return f"{order.total}"


async def sagas() -> None:
    result = await checkout.run(Order(20), id="order-1")
    assert_type(result, SagaResult[Order])
    assert_type(result.context.paid, bool)
    assert_type(await checkout.find("order-1"), SagaResult[Order] | None)
    assert_type(checkout.statistics(), SagaStatistics)
    assert_type(mail(Order(1)), str)  # a step stays the function it was
    async with checkout.recovery(interval=5):
        pass


bank, shop = SqliteParticipant("bank", "bank.db"), SqliteParticipant("shop", "shop.db")
transfers = TwoPhaseCommit(SqliteLog("decisions.db"), participants=[bank, shop], timeout=10)


async def transactions() -> None:
    async with transfers.transaction() as tx:
        await tx[bank].execute("INSERT INTO entries VALUES (?)", (-10,))
        await tx[shop].execute("INSERT INTO entries VALUES (?)", (10,))
        assert_type(tx.gid, str)
    assert_type(await transfers.outcome(tx.gid), Decision | None)
    assert_type(transfers.statistics(), TwoPhaseStatistics)


class Shelf:
    """A database of a user's own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.notes: list[str] = []

    async def position(self) -> Position:
        return Position(len(self.notes))

    async def lag(self) -> float:
        return 0.0


router = ReplicaRouter(Shelf("primary"), [Shelf("copy")], max_wait=0)


async def replicas() -> None:
    async with router, router.session() as session:
        assert_type(session, ReplicaSession)
        async with router.write() as place:
            assert_type(place, Shelf)
            place.notes.append("hello")
        async with router.read(max_lag=60) as place:
            assert_type(place.notes, list[str])
        assert_type(await session.token(), str)


def versions() -> None:
    clock = HybridClock("a")
    first = Versioned.first("user:1", {"name": "Ann"}, stamp=clock.now())
    second = first.next({"name": "Anna"}, stamp=clock.now())
    found = resolve(first, second, strategy=LastWriteWins())
    assert_type(found, Resolution)
    assert_type(found.winner, Versioned | None)
    resolve(first, second, strategy=Merge(three_way), base=first)
    assert_type(VersionVector({"a": 1}).increment("a"), VersionVector)
    value: Any = second.value
    assert value
