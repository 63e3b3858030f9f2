"""Conformance of :class:`~aiopatterns.backends.protocols.PubSub`: who receives what, and gaps."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, cast

from anyio import Event, create_task_group, fail_after, move_on_after

from aiopatterns.backends.records import Notice
from aiopatterns.testing.conformance_base import PATIENCE, Conformance, refusal

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend, PubSub, Subscribed

__all__ = ["PubSubConformance"]


class PubSubConformance(Conformance):
    """Tests of live messages; see :class:`Conformance` for what a subclass brings."""

    async def test_nobody_listens(self, backend: Backend) -> None:
        """``publish`` returns "how many subscriptions received it": none."""
        assert await backend.pubsub.publish("news", b"1") == 0

    async def test_what_is_published_inside_the_block_arrives(self, backend: Backend) -> None:
        """``subscribe``: "When the block is entered, the subscription is in force"."""
        for number in range(5):
            async with backend.pubsub.subscribe("news") as notices:
                received = await backend.pubsub.publish("news", bytes([number]))
                assert received >= 0  # "as far as the server knows"
                assert await _next(notices) == ("news", bytes([number]))

    async def test_any_bytes_on_any_channel(self, backend: Backend) -> None:
        """A notice is "the channel that it was published on, and its bytes"."""
        channels = ["a", "a b", "a:b", "\u00e9\u4e2d", "x" * 1024, "{a}"]
        data = bytes(range(256)) * 100
        async with backend.pubsub.subscribe(*channels) as notices:
            for channel in channels:
                await backend.pubsub.publish(channel, data)
                notice = await _next(notices)
                assert (notice.channel, notice.data) == (channel, data)
            await backend.pubsub.publish("a", b"")
            assert (await _next(notices)).data == b""

    async def test_messages_of_a_publisher_keep_their_order(self, backend: Backend) -> None:
        """PubSub: "at most once, in order for each publisher"."""
        async with backend.pubsub.subscribe("news") as notices:
            for number in range(200):
                await backend.pubsub.publish("news", b"%d" % number)
            got = [int((await _next(notices)).data) for _ in range(200)]
            assert got == list(range(200))
            assert notices.gaps == 0

    async def test_all_subscriptions_receive(self, backend: Backend) -> None:
        """``publish``: "Give ``data`` to all who are subscribed now."."""
        pubsub = backend.pubsub
        async with pubsub.subscribe("a") as first, pubsub.subscribe("a", "b") as second:
            await pubsub.publish("a", b"1")
            await pubsub.publish("b", b"2")
            assert await _next(first) == ("a", b"1")
            assert await _next(second) == ("a", b"1")
            assert await _next(second) == ("b", b"2")
            async with pubsub.subscribe("a") as third:
                await pubsub.publish("a", b"3")
                assert await _next(third) == ("a", b"3")
            await pubsub.publish("a", b"4")
            assert [await _next(first) for _ in range(2)] == [("a", b"3"), ("a", b"4")]

    async def test_other_channels_stay_outside(self, backend: Backend) -> None:
        """``channels``: "Names, taken literally."."""
        async with backend.pubsub.subscribe("a.*", "b[cd]", "e?") as notices:
            for other in ("a.x", "a", "A.*", "bc", "ef", "other"):
                await backend.pubsub.publish(other, b"not for us")
            for ours in ("a.*", "b[cd]", "e?"):
                await backend.pubsub.publish(ours, b"for us")
            assert [(await _next(notices)).channel for _ in range(3)] == ["a.*", "b[cd]", "e?"]

    async def test_patterns_are_globs(self, backend: Backend) -> None:
        r"""``patterns``: "``*`` is any run of characters, ``?`` is one; ``\\`` escapes"."""
        fits = {
            "a.*": (["a.", "a.b", "a.b.c"], ["a", "xa.b"]),
            "?b": (["ab", "bb"], ["b", "aab"]),
            r"c\*": (["c*"], ["cc", "c"]),
            r"d\?": (["d?"], ["dd"]),
            "e[fg]": (["e[fg]"], ["ef", "eg"]),
            "h^-": (["h^-"], ["h"]),
        }
        for pattern, (inside, outside) in fits.items():
            async with backend.pubsub.subscribe(patterns=[pattern]) as notices:
                for channel in [*outside, *inside]:
                    await backend.pubsub.publish(channel, b"x")
                assert [(await _next(notices)).channel for _ in inside] == inside, pattern

    async def test_a_message_that_fits_several_times_arrives_once(self, backend: Backend) -> None:
        """``subscribe``: "A message that fits several times arrives once."."""
        subscription = backend.pubsub.subscribe("a.b", "a.b", patterns=["a.*", "*.b", "*"])
        async with subscription as notices:
            await backend.pubsub.publish("a.b", b"1")
            await backend.pubsub.publish("a.c", b"2")
            await backend.pubsub.publish("end", b"3")
            assert [(await _next(notices)).data for _ in range(3)] == [b"1", b"2", b"3"]

    async def test_many_are_published_in_order(self, backend: Backend) -> None:
        """``publish_many``: "Publish each of ``notices``, in order; return how many received each"."""
        pubsub = backend.pubsub
        async with pubsub.subscribe("a", "b") as both, pubsub.subscribe("a") as one:
            sent = [Notice("ab"[number % 2], b"%d" % number) for number in range(20)]
            received = await pubsub.publish_many([*sent, Notice("c", b"nobody")])
            assert [await _next(both) for _ in sent] == sent
            assert [await _next(one) for _ in sent[::2]] == sent[::2]
            assert len(received) == len(sent) + 1
            assert all(count >= 0 for count in received)  # "as far as the server knows"
            assert received[-1] == 0
            assert await pubsub.publish_many([]) == []

    async def test_a_slow_reader_loses_the_oldest(self, backend: Backend) -> None:
        """``subscribe``: a slow subscriber "loses the oldest messages beyond ``capacity``"."""
        pubsub, told = backend.pubsub, list[int]()
        slow = pubsub.subscribe("a", capacity=2, on_gap=lambda: told.append(1))
        async with pubsub.subscribe("end") as fence, slow as notices:
            assert notices.gaps == 0
            for number in range(5):
                await pubsub.publish("a", b"%d" % number)
            await pubsub.publish("end", b"")
            await _next(fence)  # whatever was published before has arrived as well
            assert [(await _next(notices)).data for _ in range(2)] == [b"3", b"4"]
            assert notices.gaps >= 1
            assert len(told) == notices.gaps
            await pubsub.publish("a", b"5")
            assert (await _next(notices)).data == b"5"
            assert len(told) == notices.gaps

    async def test_a_reader_in_time_loses_nothing_at_capacity_one(self, backend: Backend) -> None:
        """``capacity``: "Messages that wait for the reader at most, 1 or more."."""
        async with backend.pubsub.subscribe("a", capacity=1) as notices:
            for number in range(20):
                await backend.pubsub.publish("a", b"%d" % number)
                assert (await _next(notices)).data == b"%d" % number
            assert notices.gaps == 0

    async def test_a_cancelled_wait_loses_nothing(self, backend: Backend) -> None:
        """``__anext__``: "cancelling the wait loses none"."""
        async with backend.pubsub.subscribe("a") as notices:
            for number in range(20):
                with move_on_after(0.0 if number % 2 else self.life(0.01)):
                    raise AssertionError(f"nothing was published, but: {await anext(notices)}")
            got: list[Notice] = []
            for number in range(20):
                await backend.pubsub.publish("a", b"%d" % number)
                got = [*got, *await _at_once(notices)]
            got += [await _next(notices) for _ in range(20 - len(got))]
            assert [int(notice.data) for notice in got] == list(range(20))

    async def test_iteration_ends_with_the_subscription(self, backend: Backend) -> None:
        """``__aiter__``: "Iterate; ends when the subscription is closed."."""
        got: list[bytes] = []
        arrived = Event()

        async def read(notices: Subscribed) -> None:
            async for notice in notices:
                got.append(notice.data)
                arrived.set()

        with fail_after(PATIENCE):
            async with create_task_group() as group, backend.pubsub.subscribe("a") as notices:
                group.start_soon(read, notices)
                await backend.pubsub.publish("a", b"1")
                await arrived.wait()
        assert got == [b"1"]
        assert [notice async for notice in notices] == []

    async def test_nothing_arrives_after_the_block(self, backend: Backend) -> None:
        """The subscription ends with its block."""
        async with backend.pubsub.subscribe("a", patterns=["b*"]):
            pass
        await self.pause(1)
        assert await backend.pubsub.publish("a", b"1") == 0
        assert await backend.pubsub.publish("b", b"2") == 0

    async def test_bad_input_is_refused(self, backend: Backend) -> None:
        """At least a channel or a pattern; names of 1 to 1,024 bytes; a capacity of 1 or more."""
        pubsub = backend.pubsub
        for bad in ("", "x" * 1025):
            await refusal(pubsub.publish(bad, b""), (ValueError,), "channel")
            await refusal(_enter(pubsub, bad), (ValueError,), "channel")
            await refusal(_enter(pubsub, "a", patterns=[bad]), (ValueError,), "pattern")
        await refusal(pubsub.publish(cast("str", b"a"), b""), (TypeError,), "channel")
        await refusal(pubsub.publish("a", cast("bytes", "text")), (TypeError,), "data")
        for notice in (Notice("", b""), Notice("a", cast("bytes", "text"))):
            await refusal(pubsub.publish_many([notice]), (TypeError, ValueError))
        await refusal(_enter(pubsub), (ValueError,))
        await refusal(_enter(pubsub, "a", capacity=0), (ValueError,), "capacity")
        await refusal(_enter(pubsub, "a", capacity=1.5), (TypeError,), "capacity")


async def _next(notices: Subscribed) -> Notice:
    with fail_after(PATIENCE):
        return await anext(notices)


async def _at_once(notices: Subscribed) -> list[Notice]:
    """Wait for a message and be cancelled at once, be there one or not."""
    with move_on_after(0):
        return [await anext(notices)]
    return []


async def _enter(pubsub: PubSub, *channels: str, **options: Any) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(pubsub.subscribe(*channels, **options))
