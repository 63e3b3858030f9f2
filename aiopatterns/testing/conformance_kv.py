"""Conformance of :class:`~aiopatterns.backends.protocols.Kv`: values, lives, atomic steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from anyio import create_task_group, fail_after

from aiopatterns.backends.records import ANYTHING, DELETE, Change
from aiopatterns.testing.conformance_base import PATIENCE, Conformance, refusal, timely

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aiopatterns.backends.protocols import Backend, Kv

__all__ = ["KvConformance"]

ALL_BYTES = bytes(range(256))
GREATEST = 2**63 - 1


class KvConformance(Conformance):
    """Tests of keys and values; see :class:`Conformance` for what a subclass brings."""

    async def test_an_absent_key_has_no_value(self, backend: Backend) -> None:
        """``get``: "Return the value of ``key``, or None."."""
        assert await backend.kv.get("absent") is None

    async def test_any_bytes_come_back_as_they_were(self, backend: Backend) -> None:
        """Kv: "Bytes under keys"."""
        values = {"all": ALL_BYTES, "empty": b"", "large": ALL_BYTES * 4096, "line": b"\r\n$-1\r\n"}
        for key, value in values.items():
            await backend.kv.set(key, value)
        for key, value in values.items():
            assert await backend.kv.get(key) == value

    async def test_any_text_of_1_to_1024_bytes_is_a_key(self, backend: Backend) -> None:
        """Names and keys "are text of at least one character and at most 1,024 bytes"."""
        keys = ["a", "A", "a b", "a:b", "a\nb", "{a}", "*", "\u00e9\u4e2d\U0001f600", "x" * 1024]
        await backend.kv.set_many({key: key.encode() for key in keys})
        for key in keys:
            assert await backend.kv.get(key) == key.encode()

    async def test_bad_keys_are_refused(self, backend: Backend) -> None:
        """Anything else "is a ``ValueError`` (``TypeError``) that names the parameter"."""
        kv = backend.kv
        for bad in ("", "x" * 1025, "\u00e9" * 513):
            for call in _calls_with_key(kv, bad):
                await refusal(call, (ValueError,), "key")
        for wrong in (None, b"bytes", 7):
            for call in _calls_with_key(kv, cast("str", wrong)):
                await refusal(call, (TypeError,), "key")

    async def test_values_that_are_no_bytes_are_refused(self, backend: Backend) -> None:
        """Values "are ``bytes``"."""
        kv = backend.kv
        for wrong in (None, "text", 7):
            value = cast("bytes", wrong)
            await refusal(kv.set("k", value), (TypeError,), "value")
            await refusal(kv.set_many({"k": value}), (TypeError,), "value")
            await refusal(kv.compare_and_set("k", None, value), (TypeError,), "value")
        await refusal(
            kv.compare_and_set("k", cast("bytes", "text"), b"v"), (TypeError,), "expected"
        )
        assert await kv.get("k") is None

    async def test_bad_lives_are_refused(self, backend: Backend) -> None:
        """Life "is in seconds, above 0"."""
        kv = backend.kv
        for bad in (0, -1, float("nan")):
            for call in _calls_with_ttl(kv, bad):
                await refusal(call, (ValueError,), "ttl")
        for wrong in ("1", True):
            for call in _calls_with_ttl(kv, cast("float", wrong)):
                await refusal(call, (TypeError,), "ttl")
        assert await kv.get("k") is None

    async def test_get_many_gives_those_that_exist_in_the_order_asked(
        self, backend: Backend
    ) -> None:
        """``get_many``: "those of ``keys`` that exist; the order is that of ``keys``"."""
        await backend.kv.set_many({"a": b"1", "b": b"2", "c": b""})
        found = await backend.kv.get_many(["c", "absent", "a", "b"])
        assert list(found.items()) == [("c", b""), ("a", b"1"), ("b", b"2")]

    async def test_no_keys_give_nothing(self, backend: Backend) -> None:
        """``get_many``: "Empty ``keys`` give an empty mapping and ask nobody."."""
        assert await backend.kv.get_many([]) == {}
        await backend.kv.set_many({})
        assert await backend.kv.delete() == 0

    async def test_a_thousand_keys_in_one_call(self, backend: Backend) -> None:
        """``set_many``: "Write all of ``values``"; delete: "return how many of them existed"."""
        values = {f"key-{number}": str(number).encode() for number in range(1_000)}
        await backend.kv.set_many(values)
        assert await backend.kv.get_many(list(values)) == values
        assert await backend.kv.delete(*values) == 1_000
        assert await backend.kv.get_many(list(values)) == {}

    async def test_set_replaces_value_and_life(self, backend: Backend) -> None:
        """``set``: "an old life ends with the old value"."""
        await backend.kv.set("k", b"old", ttl=self.life(1))
        await backend.kv.set("k", b"new")
        await backend.kv.set("l", b"old", ttl=self.life(1))
        await backend.kv.set_many({"l": b"new"})
        await self.pause(2)
        assert await backend.kv.get_many(["k", "l"]) == {"k": b"new", "l": b"new"}

    async def test_a_key_is_gone_to_every_reader(self, backend: Backend) -> None:
        """Kv: "A key is gone when its life is over, to every reader at once."."""
        kv, keys = backend.kv, ["a", "b", "c", "d", "e"]
        await kv.set_many(dict.fromkeys(keys, b"5"), ttl=self.life(1))
        await self.pause(2)
        assert await kv.get("a") is None
        assert await kv.get_many(keys) == {}
        assert await kv.delete("b") == 0
        assert await kv.incr("c") == 1
        assert not await kv.compare_and_set("d", b"5", b"6")
        assert await kv.compare_and_set("e", None, b"6")

    @timely
    async def test_a_key_is_there_until_its_life_is_over(self, backend: Backend) -> None:
        """Life is "in seconds": neither shorter nor longer."""
        key, other = self.name("k"), self.name("l")
        await backend.kv.set(key, b"v", ttl=self.life(3))
        await backend.kv.set_many({other: b"v"}, ttl=self.life(3))
        await self.pause(1)
        assert len(await backend.kv.get_many([key, other])) == 2
        await self.pause(3)
        assert await backend.kv.get_many([key, other]) == {}

    async def test_the_shortest_life_is_a_life(self, backend: Backend) -> None:
        """Life is "above 0, and is kept to the millisecond": a shorter one is no error."""
        await backend.kv.set("k", b"v", ttl=0.0001)
        await backend.kv.incr("n", ttl=0.0001)
        await backend.kv.compare_and_set("c", None, b"v", ttl=0.0001)
        await self.pause(1)
        assert await backend.kv.get_many(["k", "n", "c"]) == {}

    async def test_delete_counts_what_existed(self, backend: Backend) -> None:
        """``delete``: "Remove ``keys``; return how many of them existed."."""
        await backend.kv.set_many({"a": b"1", "b": b"2", "c": b"3"})
        assert await backend.kv.delete("a", "absent", "b") == 2
        assert await backend.kv.get_many(["a", "b", "c"]) == {"c": b"3"}

    async def test_incr_adds_to_the_whole_number(self, backend: Backend) -> None:
        """``incr``: "Add ``by`` to the whole number under ``key`` (0 if absent); return the sum."."""
        kv = backend.kv
        assert await kv.incr("n") == 1
        assert await kv.incr("n", 16) == 17
        assert await kv.get("n") == b"17"
        assert await kv.incr("n", -20) == -3
        assert await kv.get("n") == b"-3"
        await kv.set("n", b"40")
        assert await kv.incr("n", 2) == 42
        assert await kv.incr("n", 0) == 42

    async def test_incr_refuses_what_is_no_number(self, backend: Backend) -> None:
        """``incr`` raises ValueError if "what is stored is no whole number of at most 64 bits"."""
        for stored in (b"", b"abc", b"1.5", ALL_BYTES, str(GREATEST + 1).encode()):
            await backend.kv.set("n", stored)
            await refusal(backend.kv.incr("n"), (ValueError,))
            assert await backend.kv.get("n") == stored

    async def test_incr_refuses_a_sum_beyond_64_bits(self, backend: Backend) -> None:
        """``incr`` raises ValueError if "the sum is none", and the number stays."""
        kv = backend.kv
        assert await kv.incr("n", GREATEST) == GREATEST
        await refusal(kv.incr("n"), (ValueError,))
        assert await kv.get("n") == str(GREATEST).encode()
        assert await kv.incr("m", -GREATEST - 1) == -GREATEST - 1
        await refusal(kv.incr("m", -1), (ValueError,))
        await refusal(kv.incr("absent", GREATEST + 1), (ValueError,))
        for wrong in ("1", 1.0, True):
            await refusal(kv.incr("n", cast("int", wrong)), (TypeError,), "by")

    async def test_incr_is_atomic(self, backend: Backend) -> None:
        """Kv's atomic steps are ``compare_and_set`` and ``incr``."""
        sums: list[int] = []

        async def add() -> None:
            sums.append(await backend.kv.incr("n"))

        async with create_task_group() as group:
            for _ in range(100):
                group.start_soon(add)
        assert sorted(sums) == list(range(1, 101))

    async def test_incr_gives_a_life_to_a_new_key(self, backend: Backend) -> None:
        """``incr``: "``ttl`` is given to a key that this call creates"."""
        await backend.kv.incr("n", 5, ttl=self.life(1))
        await self.pause(2)
        assert await backend.kv.incr("n", 5) == 5

    @timely
    async def test_incr_leaves_an_existing_life(self, backend: Backend) -> None:
        """``incr``: "an existing life goes on"."""
        key, eternal = self.name("n"), self.name("m")
        await backend.kv.incr(key, ttl=self.life(2))
        await backend.kv.incr(key, ttl=600)
        await backend.kv.incr(key)
        await backend.kv.incr(eternal)
        await backend.kv.incr(eternal, ttl=self.life(1))
        await self.pause(3)
        assert await backend.kv.get_many([key, eternal]) == {eternal: b"2"}

    async def test_cas_writes_only_over_what_is_expected(self, backend: Backend) -> None:
        """``compare_and_set``: "Write ``value`` if ``key`` holds ``expected`` now"."""
        kv = backend.kv
        assert not await kv.compare_and_set("k", b"old", b"new")
        assert await kv.get("k") is None
        await kv.set("k", ALL_BYTES)
        assert not await kv.compare_and_set("k", ALL_BYTES[:-1], b"new")
        assert await kv.get("k") == ALL_BYTES
        assert await kv.compare_and_set("k", ALL_BYTES, b"new")
        assert await kv.get("k") == b"new"

    async def test_cas_knows_absent_from_empty(self, backend: Backend) -> None:
        """``compare_and_set``: "None means that it must be absent"."""
        kv = backend.kv
        assert not await kv.compare_and_set("k", b"", b"x")
        assert await kv.compare_and_set("k", None, b"")
        assert not await kv.compare_and_set("k", None, b"x")
        assert await kv.get("k") == b""
        assert await kv.compare_and_set("k", b"", b"x")

    async def test_cas_deletes(self, backend: Backend) -> None:
        """``compare_and_set``: "DELETE removes it"."""
        kv = backend.kv
        await kv.set("k", b"v")
        assert not await kv.compare_and_set("k", b"w", DELETE)
        assert await kv.get("k") == b"v"
        assert await kv.compare_and_set("k", b"v", DELETE)
        assert await kv.get("k") is None

    @timely
    async def test_cas_gives_the_new_value_its_life(self, backend: Backend) -> None:
        """``compare_and_set``: "ttl: Life of the new value."."""
        kv, mortal, eternal = backend.kv, self.name("m"), self.name("e")
        await kv.set(mortal, b"1")
        await kv.set(eternal, b"1", ttl=self.life(2))
        assert await kv.compare_and_set(mortal, b"1", b"2", ttl=self.life(2))
        assert await kv.compare_and_set(eternal, b"1", b"2")
        await self.pause(3)
        assert await kv.get_many([mortal, eternal]) == {eternal: b"2"}

    async def test_a_refused_cas_leaves_the_life(self, backend: Backend) -> None:
        """``compare_and_set`` that does not write changes nothing."""
        await backend.kv.set("k", b"v", ttl=self.life(1))
        await backend.kv.set("l", b"v")
        assert not await backend.kv.compare_and_set("k", b"w", b"x", ttl=600)
        assert not await backend.kv.compare_and_set("l", b"w", b"x", ttl=self.life(1))
        await self.pause(2)
        assert await backend.kv.get_many(["k", "l"]) == {"l": b"v"}

    async def test_cas_has_one_winner(self, backend: Backend) -> None:
        """``compare_and_set`` is an atomic step: of many with one expectation one writes."""
        won: list[int] = []

        async def contend(number: int) -> None:
            if await backend.kv.compare_and_set("k", None, str(number).encode()):
                won.append(number)

        async with create_task_group() as group:
            for number in range(50):
                group.start_soon(contend, number)
        assert len(won) == 1
        assert await backend.kv.get("k") == str(won[0]).encode()

    async def test_cas_notifies_if_it_wrote(self, backend: Backend) -> None:
        """``compare_and_set``: "the key, as UTF-8, is published there in the same atomic step"."""
        kv, key = backend.kv, "k\u00e9y"
        async with backend.pubsub.subscribe("changes") as notices:
            assert not await kv.compare_and_set(key, b"wrong", b"1", notify="changes")
            assert await kv.compare_and_set(key, None, b"1")
            assert await kv.compare_and_set(key, b"1", b"2", notify="changes")
            with fail_after(PATIENCE):
                assert await anext(notices) == ("changes", key.encode())
            assert await kv.get(key) == b"2"
            assert await kv.compare_and_set(key, b"2", DELETE, notify="changes")
            with fail_after(PATIENCE):
                assert await anext(notices) == ("changes", key.encode())
            assert await kv.get(key) is None
        await refusal(kv.compare_and_set(key, None, b"1", notify=""), (ValueError,), "notify")

    async def test_changes_write_what_may_be_written(self, backend: Backend) -> None:
        """``change_many``: "Make each of ``changes`` if its key holds what is expected"."""
        kv = backend.kv
        assert await kv.change_many([]) == []
        await kv.set_many({"a": b"1", "b": b"2", "c": b"3"})
        changes = [
            Change("a", b"x"),
            Change("b", b"x", expected=b"wrong"),
            Change("c", DELETE, expected=ANYTHING),
            Change("d", b"x", expected=None),
        ]
        assert await kv.change_many(changes) == [True, False, True, True]
        assert await kv.get_many(["a", "b", "c", "d"]) == {"a": b"x", "b": b"2", "d": b"x"}
        changes = [Change("b", b"y", expected=b"2"), Change("d", b"y", expected=None)]
        assert await kv.change_many(changes) == [True, False]
        assert await kv.get_many(["b", "d"]) == {"b": b"y", "d": b"x"}

    async def test_changes_give_their_lives(self, backend: Backend) -> None:
        """``Change``: "ttl: Life of the new value"."""
        kv = backend.kv
        await kv.set("k", b"v", ttl=self.life(1))
        await kv.change_many([Change("k", b"w"), Change("l", b"w", ttl=self.life(1))])
        await self.pause(2)
        assert await kv.get_many(["k", "l"]) == {"k": b"w"}

    async def test_many_changes_in_one_call(self, backend: Backend) -> None:
        """``change_many``: as many as there are."""
        keys = [f"key-{number}" for number in range(500)]
        assert all(await backend.kv.change_many([Change(key, b"v") for key in keys]))
        assert await backend.kv.get_many(keys) == dict.fromkeys(keys, b"v")

    async def test_changes_tell_if_they_wrote(self, backend: Backend) -> None:
        """``Change``: "notice: What is published; None for the key, as UTF-8"."""
        async with backend.pubsub.subscribe("changes") as notices:
            changes = [
                Change("k", b"v", expected=b"wrong", notify="changes", notice=b"never"),
                Change("l", b"v", notify="changes", notice=ALL_BYTES),
                Change("m", DELETE, notify="changes"),
            ]
            assert await backend.kv.change_many(changes) == [False, True, True]
            with fail_after(PATIENCE):
                told = {(await anext(notices)).data for _ in range(2)}
            assert told == {ALL_BYTES, b"m"}

    async def test_a_change_may_come_too_late(self, backend: Backend) -> None:
        """``Change``: "before: Nothing is written from that time on"."""
        now = await backend.time()
        changes = [Change("a", b"v", before=now - 1), Change("b", b"v", before=now + 600)]
        assert await backend.kv.change_many(changes) == [False, True]
        assert await backend.kv.get_many(["a", "b"]) == {"b": b"v"}

    async def test_a_scan_sees_every_key_with_the_prefix(self, backend: Backend) -> None:
        """``scan``: "a key that exists all the while is in one page at least"."""
        kv, keys = backend.kv, {f"s:{number}" for number in range(500)}
        await kv.set_many(dict.fromkeys((*keys, "s", "S:1", "other", "ss:1"), b"v"))
        for limit in (1, 7, 100, 10_000):
            assert await _scanned(kv, "s:", limit=limit) == keys
        assert await _scanned(kv, "s") == {*keys, "s", "ss:1"}
        assert await _scanned(kv, "nobody") == set()

    async def test_a_scan_takes_its_prefix_literally(self, backend: Backend) -> None:
        """``scan``: "What the keys begin with, taken literally"."""
        odd = ["*", "?", "[a]", "[^a]", "a\\", "a\\*", "{t}", "a-b", "\u00e9", " ", "\n"]
        await backend.kv.set_many({key: b"v" for each in odd for key in (f"{each}1", f"a{each}2")})
        for each in odd:
            assert await _scanned(backend.kv, each) == {
                key for other in odd for key in (f"{other}1", f"a{other}2") if key.startswith(each)
            }

    async def test_a_scan_while_keys_come_and_go(self, backend: Backend) -> None:
        """``scan``: "one that comes or goes meanwhile may be in one"."""
        kv, stays = backend.kv, {f"s:{number}" for number in range(0, 300, 3)}
        await kv.set_many({f"s:{number}": b"v" for number in range(300)})
        seen: set[str] = set()
        cursor, page = None, 0
        while cursor is not None or not page:
            keys, cursor = await kv.scan("s:", cursor=cursor, limit=10)
            seen.update(keys)
            page += 1
            await kv.delete(f"s:{3 * page + 1}", f"s:{3 * page + 2}")
            await kv.set(f"s:new-{page}", b"v")
            assert page < 10_000
        assert stays <= seen

    async def test_a_scan_sees_nothing_that_is_over(self, backend: Backend) -> None:
        """Kv: "A key is gone when its life is over, to every reader at once."."""
        await backend.kv.set_many({"s:1": b"v", "s:2": b"v"}, ttl=self.life(1))
        await backend.kv.set("s:3", b"v")
        await self.pause(2)
        assert await _scanned(backend.kv, "s:") == {"s:3"}

    async def test_bad_scans_are_refused(self, backend: Backend) -> None:
        """``scan`` names what is wrong."""
        kv = backend.kv
        for wrong in ("", "x" * 1025):
            await refusal(kv.scan(wrong), (ValueError,), "prefix")
        await refusal(kv.scan(cast("str", 7)), (TypeError,), "prefix")
        await refusal(kv.scan("s", cursor=""), (ValueError,), "cursor")
        await refusal(kv.scan("s", cursor=cast("str", 7)), (TypeError,), "cursor")
        for limit in (0, -1, 10_001):
            await refusal(kv.scan("s", limit=limit), (ValueError,), "limit")
        await refusal(kv.scan("s", limit=cast("int", "1")), (TypeError,), "limit")

    async def test_bad_changes_are_refused(self, backend: Backend) -> None:
        """Wrong parts are named, and nothing is changed."""
        text, good = cast("bytes", "text"), Change("k", b"v")
        wrong_values = {"value": text, "expected": text, "notice": text}
        wrong_names = {"key": "", "notify": "", "ttl": 0, "before": -1}
        for name, bad in wrong_values.items():
            await refusal(backend.kv.change_many([good, _with(name, bad)]), (TypeError,), name)
        for name, value in wrong_names.items():
            await refusal(backend.kv.change_many([good, _with(name, value)]), (ValueError,), name)
        assert await backend.kv.get("k") is None


async def _scanned(kv: Kv, prefix: str, *, limit: int = 1_000) -> set[str]:
    """Return the keys of all pages."""
    found: set[str] = set()
    keys, cursor = await kv.scan(prefix, limit=limit)
    found.update(keys)
    while cursor is not None:
        keys, cursor = await kv.scan(prefix, cursor=cursor, limit=limit)
        found.update(keys)
    return found


def _with(name: str, value: Any) -> Change:
    """Return a change with one wrong part."""
    return Change("k", b"v")._replace(**{name: value})


def _calls_with_key(kv: Kv, key: str) -> list[Coroutine[Any, Any, object]]:
    return [
        kv.get(key),
        kv.get_many(["good", key]),
        kv.set(key, b"v"),
        kv.set_many({"good": b"v", key: b"v"}),
        kv.delete("good", key),
        kv.incr(key),
        kv.compare_and_set(key, None, b"v"),
    ]


def _calls_with_ttl(kv: Kv, ttl: float) -> list[Coroutine[Any, Any, object]]:
    return [
        kv.set("k", b"v", ttl=ttl),
        kv.set_many({"k": b"v"}, ttl=ttl),
        kv.incr("k", ttl=ttl),
        kv.compare_and_set("k", None, b"v", ttl=ttl),
    ]
