"""The HTTP cache: what is given out, what is asked, who gets what, and what is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import NoEndpointError, RequestRefusedError, UpstreamError
from aiopatterns.gateway.body import Body
from aiopatterns.gateway.httpcache import MOST_RENEWALS, PASSED_FOR, CacheStore
from aiopatterns.gateway.policy import HttpCache, Identity
from aiopatterns.gateway.request import Request, Response
from aiopatterns.gateway.routing import Route
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROUTE = Route("/api", to="http://shop", strip_prefix=True)


def ask(
    path: str = "/api/page",
    method: str = "GET",
    *,
    query: bytes = b"",
    user: str | None = None,
    host: bytes = b"shop",
    **headers: bytes,
) -> Request:
    named = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    request = Request(method, path.encode(), query, [(b"host", host), *named])
    request.host = host.decode()
    request.body = Body(None, 0)
    request.route = ROUTE
    if user is not None:
        request.identity = Identity(user, {}, "key")
    return request


def answer(body: bytes = b"page", *, status: int = 200, **headers: bytes) -> Response:
    named = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return Response(status, named, body)


class Chunks:
    """A body in chunks, each after a turn of the loop."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self.left = [*chunks]
        self.error = error
        self.closed = False

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        await sleep(0)
        if self.left:
            return self.left.pop(0)
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


class Service:
    """What is behind the cache."""

    def __init__(self, reply: Callable[[Request], Response], *, delay: float = 0.0) -> None:
        self.reply = reply
        self.delay = delay
        self.asked: list[Request] = []
        self.at_once = self.most_at_once = 0

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await sleep(self.delay)
            return self.reply(request)
        finally:
            self.at_once -= 1


def store(**policy: int) -> CacheStore:
    return CacheStore(HttpCache(**policy))


def says(response: Response, name: bytes) -> bytes | None:
    return dict(response.headers).get(name)


async def read(response: Response) -> bytes:
    if isinstance(response.body, bytes):
        return response.body
    body = b"".join([chunk async for chunk in response.body])
    await response.aclose()
    return body


def test_an_answer_is_asked_for_once_and_says_how_old_it_is():
    async def main() -> None:
        cache, service = store(), Service(lambda _: answer(cache_control=b"max-age=60", age=b"5"))
        first = await cache.answer(ask(), service)
        assert (first.status, first.body) == (200, b"page")
        assert says(first, b"cache-status") == b"aiopatterns; fwd=miss; stored"
        await sleep(10)
        second = await cache.answer(ask(), service)
        assert (second.status, second.body) == (200, b"page")
        assert says(second, b"age") == b"15"
        assert says(second, b"content-length") == b"4"
        assert says(second, b"cache-status") == b"aiopatterns; hit"
        assert len(service.asked) == 1
        await sleep(46)
        await cache.answer(ask(), service)
        assert len(service.asked) == 2
        figures = cache.statistics()
        assert (figures.hits, figures.misses, figures.size) == (1, 2, 1)
        assert 0 < figures.size_bytes < 2000

    simulate(main)


async def test_what_is_asked_for_tells_answers_apart():
    cache = store()
    service = Service(lambda r: answer(r.raw_path + r.query, cache_control=b"max-age=60"))
    for request in (
        ask("/api/a"),
        ask("/api/b"),
        ask("/api/a", query=b"x=1"),
        ask("/api/a", host=b"shop:81"),
        ask("/api/a", host=b"evil"),
    ):
        assert await read(await cache.answer(request, service)) == request.raw_path + request.query
    assert len(service.asked) == 5
    assert cache.statistics().size == 5


async def test_a_head_gets_the_head_of_what_is_in_stock():
    cache, service = store(), Service(lambda _: answer(cache_control=b"max-age=60"))
    await cache.answer(ask(method="HEAD"), service)
    assert cache.statistics().size == 0, "an answer to HEAD is not kept"
    await cache.answer(ask(), service)
    head = await cache.answer(ask(method="HEAD"), service)
    assert (head.body, says(head, b"content-length")) == (b"", b"4")
    assert [each.method for each in service.asked] == ["HEAD", "GET"]


async def test_clients_that_have_it_already_get_a_304():
    cache = store()
    service = Service(
        lambda _: answer(cache_control=b"max-age=60", etag=b'"1"', content_type=b"text/plain")
    )
    await cache.answer(ask(), service)
    same = await cache.answer(ask(if_none_match=b'"0", "1"'), service)
    assert (same.status, same.body, says(same, b"etag")) == (304, b"", b'"1"')
    assert says(same, b"content-type") is says(same, b"content-length") is None
    other = await cache.answer(ask(if_none_match=b'"0"'), service)
    assert (other.status, other.body) == (200, b"page")
    assert len(service.asked) == 1


async def test_a_client_that_asks_for_what_is_not_in_stock_asks_the_service_itself():
    cache = store()
    service = Service(lambda _: answer(b"", status=304, etag=b'"1"', cache_control=b"max-age=60"))
    response = await cache.answer(ask(if_none_match=b'"1"'), service)
    assert response.status == 304
    assert service.asked[0].header(b"if-none-match") == b'"1"'
    assert cache.statistics().size == 0


@pytest.mark.parametrize(
    "request_",
    [
        ask(range=b"bytes=0-1"),
        ask(if_match=b'"1"'),
        ask(if_unmodified_since=b"Sun, 06 Nov 1994 08:49:37 GMT"),
        ask(cache_control=b"no-store"),
        ask(method="OPTIONS"),
    ],
)
async def test_requests_that_have_nothing_to_do_with_it(request_):
    cache, service = store(), Service(lambda _: answer(cache_control=b"max-age=60"))
    await cache.answer(ask(), service)
    await cache.answer(request_, service)
    assert service.asked[1] is request_
    assert cache.statistics().size == 1


async def test_a_get_with_a_body_is_not_answered_from_stock_and_leaves_nothing():
    cache, service = store(), Service(lambda _: answer(cache_control=b"max-age=60"))

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"poison"}

    request = ask()
    request.body = Body(receive, 100, 6)
    await cache.answer(request, service)
    assert cache.statistics().size == 0


async def test_only_if_cached():
    cache, service = store(), Service(lambda _: answer(cache_control=b"max-age=60"))
    with pytest.raises(RequestRefusedError) as caught:
        await cache.answer(ask(cache_control=b"only-if-cached"), service)
    assert caught.value.status == 504
    await cache.answer(ask(), service)
    assert (await cache.answer(ask(cache_control=b"only-if-cached"), service)).body == b"page"
    assert len(service.asked) == 1


@pytest.mark.promise("gateway-cache-vary")
async def test_variants_are_not_mixed_up():
    cache = store()
    service = Service(
        lambda r: answer(
            r.header(b"accept-language") or b"-",
            cache_control=b"max-age=60",
            vary=b"Accept-Language",
        )
    )
    for _ in range(2):
        for language in (b"de", b"en"):
            response = await cache.answer(ask(accept_language=language), service)
            assert response.body == language
        assert (await cache.answer(ask(), service)).body == b"-"
    assert len(service.asked) == 3


@pytest.mark.promise("gateway-cache-personal")
@pytest.mark.parametrize("who", [{"authorization": b"Bearer x"}, {"user": "ann"}])
async def test_nobody_gets_what_is_somebody_elses(who):
    cache = store()
    service = Service(
        lambda r: answer(r.header(b"x-name") or b"nobody", cache_control=b"max-age=60")
    )
    assert (await cache.answer(ask(x_name=b"ann", **who), service)).body == b"ann"
    assert (await cache.answer(ask(), service)).body == b"nobody"
    assert (await cache.answer(ask(x_name=b"bob", **who), service)).body == b"bob"
    assert (await cache.answer(ask(), service)).body == b"nobody"
    assert len(service.asked) == 3


@pytest.mark.promise("gateway-cache-personal")
@pytest.mark.parametrize("said", [b"public, max-age=60", b"s-maxage=60"])
async def test_what_is_for_all_is_for_those_with_a_name_too(said):
    cache, service = store(), Service(lambda _: answer(cache_control=said))
    for who in ({"user": "ann"}, {"user": "bob"}, {"authorization": b"x"}, {}):
        await cache.answer(ask(**who), service)
    assert len(service.asked) == 1


@pytest.mark.promise("gateway-cache-cookies")
async def test_no_cookie_is_given_to_another():
    cache = store()
    service = Service(lambda _: answer(cache_control=b"public, max-age=60", set_cookie=b"id=1"))
    for _ in range(2):
        response = await cache.answer(ask(), service)
        assert says(response, b"set-cookie") == b"id=1"
    assert len(service.asked) == 2
    assert cache.statistics().size == 0


async def test_what_the_gateway_told_the_first_client_is_told_to_no_other():
    cache = store()
    service = Service(lambda _: answer(cache_control=b"max-age=60", x_request_id=b"first"))
    await cache.answer(ask(), service)
    assert says(await cache.answer(ask(), service), b"x-request-id") is None


# -- bodies --------------------------------------------------------------------------------------


async def test_a_streamed_answer_is_kept_when_all_of_it_has_come():
    cache = store()
    body = Chunks(b"ab", b"cd")
    service = Service(lambda _: Response(200, [(b"cache-control", b"max-age=60")], body))
    assert (await cache.answer(ask(), service)).body == b"abcd"
    assert body.closed
    assert (await cache.answer(ask(), service)).body == b"abcd"


async def test_what_is_too_long_is_streamed_and_not_kept():
    cache = store(max_body=3)
    body = Chunks(b"ab", b"cd", b"ef")
    service = Service(lambda _: Response(200, [(b"cache-control", b"max-age=60")], body))
    response = await cache.answer(ask(), service)
    assert await read(response) == b"abcdef"
    assert body.closed
    assert cache.statistics().size == 0


async def test_what_breaks_off_is_not_kept():
    cache = store()
    broken = UpstreamError(name="a:1", kind="closed", sent=True)
    body = Chunks(b"ab", error=broken)
    service = Service(lambda _: Response(200, [(b"cache-control", b"max-age=60")], body))
    with pytest.raises(UpstreamError):
        await cache.answer(ask(), service)
    assert body.closed
    assert cache.statistics().size == 0


# -- one request for all -------------------------------------------------------------------------


async def together(cache: CacheStore, service: Service, *requests: Request) -> list[Response]:
    """Send requests at once; return their answers in order."""
    answers: dict[int, Response] = {}

    async def one(n: int, request: Request) -> None:
        answers[n] = await cache.answer(request, service)

    async with anyio.create_task_group() as tasks:
        for n, request in enumerate(requests):
            tasks.start_soon(one, n, request)
    return [answers[n] for n in range(len(requests))]


async def test_many_who_want_the_same_ask_once():
    cache = store()
    service = Service(lambda _: answer(cache_control=b"max-age=60"), delay=0.001)
    got = await together(cache, service, *[ask() for _ in range(50)])
    assert {each.body for each in got} == {b"page"}
    assert len(service.asked) == 1
    assert cache.statistics().collapsed == 49
    assert says(got[-1], b"cache-status") == b"aiopatterns; fwd=miss; collapsed"


async def test_those_who_want_another_variant_ask_by_themselves():
    cache = store()
    service = Service(
        lambda r: answer(r.header(b"a") or b"", cache_control=b"max-age=60", vary=b"a"), delay=0.001
    )
    got = await together(cache, service, *[ask(a=b"%d" % (n % 3)) for n in range(30)])
    assert [each.body for each in got] == [b"%d" % (n % 3) for n in range(30)]
    assert len(service.asked) == 3


async def test_those_with_and_without_a_name_do_not_wait_for_each_other():
    cache = store()
    service = Service(
        lambda r: answer(r.header(b"x") or b"-", cache_control=b"max-age=60"), delay=0.001
    )
    got = await together(
        cache, service, ask(), ask(user="ann", x=b"ann"), ask(user="bob", x=b"bob")
    )
    assert [each.body for each in got] == [b"-", b"ann", b"bob"]


async def test_an_answer_that_is_always_asked_for_is_shared_by_those_who_ask_meanwhile():
    cache = store()

    def reply(request: Request) -> Response:
        if request.header(b"if-none-match"):
            return answer(b"", status=304, etag=b'"1"')
        return answer(cache_control=b"no-cache", etag=b'"1"')

    service = Service(reply, delay=0.001)
    await together(cache, service, *[ask() for _ in range(10)])
    assert len(service.asked) == 1
    got = await together(cache, service, *[ask() for _ in range(10)])
    assert {(each.status, each.body) for each in got} == {(200, b"page")}
    assert len(service.asked) == 2


def test_private_answers_are_not_lined_up_and_soon_not_even_waited_for():
    async def main() -> None:
        cache = store()
        service = Service(lambda _: answer(cache_control=b"private"), delay=1.0)
        await together(cache, service, *[ask() for _ in range(10)])
        assert service.most_at_once == 9, "the first alone, then all others at once"
        service.most_at_once = 0
        await together(cache, service, *[ask() for _ in range(10)])
        assert service.most_at_once == 10
        await sleep(PASSED_FOR)
        service.most_at_once = 0
        await together(cache, service, *[ask() for _ in range(10)])
        assert service.most_at_once == 9

    simulate(main)


async def test_an_error_reaches_all_who_wait_each_its_own():
    cache = store()
    errors: list[UpstreamError] = []

    def reply(_: Request) -> Response:
        raise UpstreamError(name="a:1", kind="connect", sent=False)

    service = Service(reply, delay=0.001)

    async def one() -> None:
        try:
            await cache.answer(ask(), service)
        except UpstreamError as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(one)
    assert len(errors) == len({id(each) for each in errors}) == 5
    assert len(service.asked) == 1


async def test_one_who_is_cancelled_is_replaced_by_one_who_waits():
    cache = store()
    service = Service(lambda _: answer(cache_control=b"max-age=60"), delay=0.01)
    scope, bodies = anyio.CancelScope(), []

    async def first() -> None:
        with scope:
            await cache.answer(ask(), service)

    async def other() -> None:
        bodies.append((await cache.answer(ask(), service)).body)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(other)
        tasks.start_soon(other)
        await sleep(0.001)
        scope.cancel()
    assert bodies == [b"page", b"page"]
    assert len(service.asked) == 2


async def test_more_variants_than_are_told_apart_pass():
    cache = store()
    names = iter(range(100))
    service = Service(
        lambda _: answer(
            cache_control=b"max-age=60", vary=b",".join(b"x%d" % next(names) for _ in range(6))
        ),
        delay=0.001,
    )
    await cache.answer(ask(), service)
    got = await together(cache, service, *[ask(cache_control=b"no-cache") for _ in range(3)])
    assert [each.body for each in got] == [b"page"] * 3


# -- stale ---------------------------------------------------------------------------------------


def test_a_stale_answer_is_confirmed():
    async def main() -> None:
        cache = store()

        def reply(request: Request) -> Response:
            if request.header(b"if-none-match") == b'"1"':
                return answer(b"", status=304, cache_control=b"max-age=100", etag=b'"1"')
            return answer(cache_control=b"max-age=60", etag=b'"1"', last_modified=b"x")

        service = Service(reply)
        await cache.answer(ask(), service)
        await sleep(61)
        response = await cache.answer(ask(if_none_match=b'"other"'), service)
        assert (response.status, response.body) == (200, b"page")
        assert service.asked[1].header_list(b"if-none-match") == b'"1"'
        assert service.asked[1].header(b"if-modified-since") == b"x"
        assert says(response, b"age") == b"0"
        await sleep(99)
        assert (await cache.answer(ask(if_none_match=b'"1"'), service)).status == 304
        assert len(service.asked) == 2
        assert cache.statistics().confirmed == 1

    simulate(main)


def test_a_304_about_something_else_is_asked_for_in_full():
    async def main() -> None:
        cache, tags = store(), iter([b'"1"', b'"2"', b'"2"'])

        def reply(request: Request) -> Response:
            tag = next(tags)
            if request.header(b"if-none-match"):
                return answer(b"", status=304, etag=tag)
            return answer(tag, cache_control=b"max-age=60", etag=tag)

        service = Service(reply)
        await cache.answer(ask(), service)
        await sleep(61)
        assert (await cache.answer(ask(), service)).body == b'"2"'
        assert service.asked[2].header(b"if-none-match") is None

    simulate(main)


def test_a_304_that_forbids_to_keep_is_given_out_all_the_same():
    async def main() -> None:
        cache = store()

        def reply(request: Request) -> Response:
            if request.header(b"if-none-match"):
                return answer(b"", status=304, cache_control=b"no-store", etag=b'"1"')
            return answer(cache_control=b"max-age=60", etag=b'"1"')

        service = Service(reply)
        await cache.answer(ask(), service)
        await sleep(61)
        response = await cache.answer(ask(), service)
        assert (response.status, response.body) == (200, b"page")

    simulate(main)


def test_stale_while_revalidate_waits_for_nothing():
    async def main() -> None:
        cache = store()
        pages = iter([b"old", b"new", b"newer"])
        service = Service(
            lambda _: answer(next(pages), cache_control=b"max-age=60, stale-while-revalidate=60"),
            delay=1.0,
        )
        async with anyio.create_task_group() as tasks:
            cache.open(tasks)
            await cache.answer(ask(), service)
            await sleep(61)
            began = anyio.current_time()
            for method in ("HEAD", "GET", "GET"):
                response = await cache.answer(ask(method=method), service)
                assert response.body == (b"" if method == "HEAD" else b"old")
            assert anyio.current_time() == began
            await sleep(1.5)
            assert (await cache.answer(ask(), service)).body == b"new"
            assert [each.method for each in service.asked] == ["GET", "GET"]
            await sleep(121)
            assert (await cache.answer(ask(), service)).body == b"newer"
            figures = cache.statistics()
            assert (figures.stale, figures.hits) == (3, 4)
            cache.close()

    simulate(main)


def test_without_a_place_for_it_a_stale_answer_is_waited_for():
    async def main() -> None:
        cache, pages = store(), iter([b"old", b"new"])
        service = Service(
            lambda _: answer(next(pages), cache_control=b"max-age=60, stale-while-revalidate=60")
        )
        await cache.answer(ask(), service)
        await sleep(61)
        assert (await cache.answer(ask(), service)).body == b"new"

    simulate(main)


@pytest.mark.parametrize("trouble", ["error", "500", "hangs", "private"])
def test_a_renewal_that_comes_to_nothing_is_tried_again_after_a_pause(trouble):
    async def main() -> None:
        cache = CacheStore(HttpCache(), patience=5.0)
        good = [True]

        def reply(_: Request) -> Response:
            if good[0]:
                return answer(cache_control=b"max-age=60, stale-while-revalidate=600")
            if trouble == "error":
                raise UpstreamError(name="a:1", kind="connect", sent=False)
            return answer(status=500 if trouble == "500" else 200, cache_control=b"private")

        service = Service(reply)
        async with anyio.create_task_group() as tasks:
            cache.open(tasks)
            await cache.answer(ask(), service)
            await sleep(61)
            good[0] = trouble == "hangs"
            service.delay = 100.0 if trouble == "hangs" else 0.0
            for _ in range(100):
                assert (await cache.answer(ask(), service)).body == b"page"
                await sleep(0.1)
            assert 2 <= len(service.asked) <= 12
            tasks.cancel_scope.cancel()

    simulate(main)


def test_only_so_many_are_renewed_at_once():
    async def main() -> None:
        cache = store()
        service = Service(lambda _: answer(cache_control=b"max-age=60, stale-while-revalidate=600"))
        async with anyio.create_task_group() as tasks:
            cache.open(tasks)
            paths = [f"/api/{n}" for n in range(MOST_RENEWALS + 10)]
            for path in paths:
                await cache.answer(ask(path), service)
            await sleep(61)
            service.delay = 1.0
            for path in paths:
                await cache.answer(ask(path), service)
            await sleep(0.5)
            assert service.at_once == MOST_RENEWALS
            tasks.cancel_scope.cancel()

    simulate(main)


@pytest.mark.parametrize("trouble", ["error", "rejected", "500", "refused"])
def test_stale_if_error(trouble):
    async def main() -> None:
        cache = store()
        good = [True]

        def reply(_: Request) -> Response:
            if good[0]:
                return answer(cache_control=b"max-age=60, stale-if-error=60")
            if trouble == "error":
                raise UpstreamError(name="a:1", kind="connect", sent=False)
            if trouble == "rejected":
                raise NoEndpointError(name="shop")
            if trouble == "refused":
                raise RequestRefusedError("no", status=503)
            return answer(status=500)

        service = Service(reply, delay=0.001)
        await cache.answer(ask(), service)
        await sleep(61)
        good[0] = False
        got = await together(cache, service, *[ask() for _ in range(5)])
        assert {each.body for each in got} == {b"page"}
        assert len(service.asked) == 2
        again = await cache.answer(ask(), service)
        assert says(again, b"cache-status") == b"aiopatterns; hit; detail=stale-if-error"
        assert len(service.asked) == 2, "a service that has failed is left alone for a second"
        await sleep(60)
        if trouble == "500":
            assert (await cache.answer(ask(), service)).status == 500
        else:
            with pytest.raises((UpstreamError, NoEndpointError, RequestRefusedError)):
                await cache.answer(ask(), service)

    simulate(main)


def test_an_error_of_the_client_is_no_reason_for_a_stale_answer():
    async def main() -> None:
        cache = store()
        service = Service(lambda _: answer(cache_control=b"max-age=60, stale-if-error=60"))
        await cache.answer(ask(), service)
        await sleep(61)

        def reply(_: Request) -> Response:
            raise RequestRefusedError("too large", status=413)

        service.reply = reply
        with pytest.raises(RequestRefusedError):
            await cache.answer(ask(), service)

    simulate(main)


# -- changes -------------------------------------------------------------------------------------


@pytest.mark.promise("gateway-cache-changes")
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(("status", "gone"), [(200, True), (303, True), (503, True), (404, False)])
async def test_a_change_makes_it_forget(method, status, gone):
    cache, service = store(), Service(lambda _: answer(cache_control=b"max-age=60"))
    await cache.answer(ask(), service)
    await cache.answer(ask("/api/other"), service)
    await cache.answer(ask(method=method), Service(lambda _: answer(status=status)))
    assert cache.statistics().size == (1 if gone else 2)
    assert cache.statistics().invalidations == gone


async def test_a_change_of_which_nobody_knows_what_came_makes_it_forget():
    cache, service = store(), Service(lambda _: answer(cache_control=b"max-age=60"))
    await cache.answer(ask(), service)

    def reply(_: Request) -> Response:
        raise UpstreamError(name="a:1", kind="timeout", sent=True)

    with pytest.raises(UpstreamError):
        await cache.answer(ask(method="POST"), Service(reply))
    assert cache.statistics().size == 0


@pytest.mark.parametrize(
    ("location", "gone"),
    [
        (b"/api/users/1", True),
        (b"/users/1", True),
        (b"http://shop/users/1", True),
        (b"http://elsewhere/users/1", False),
        (b"users/1", False),
        (b"http://[", False),
    ],
)
async def test_what_an_answer_says_it_is_about_is_forgotten_too(location, gone):
    cache, service = store(), Service(lambda _: answer(cache_control=b"max-age=60"))
    await cache.answer(ask("/api/users/1"), service)
    created = Service(lambda _: answer(status=201, location=location))
    await cache.answer(ask("/api/users", "POST"), created)
    assert cache.statistics().size == (0 if gone else 1)


@pytest.mark.promise("gateway-cache-changes")
async def test_what_was_asked_for_before_a_change_is_not_kept_after_it():
    cache = store()
    value = [b"old"]
    slow = anyio.Event()

    async def reading(_: Request) -> Response:
        read = value[0]
        await slow.wait()
        return answer(read, cache_control=b"max-age=60")

    async def writing(_: Request) -> Response:
        value[0] = b"new"
        return answer(status=204)

    async def quick(_: Request) -> Response:
        return answer(value[0], cache_control=b"max-age=60")

    bodies: list[object] = []

    async def reader() -> None:
        bodies.append((await cache.answer(ask(), reading)).body)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader)
        await anyio.wait_all_tasks_blocked()
        await sleep(0.001)
        await cache.answer(ask(method="PUT"), writing)
        await sleep(0.001)
        # Who comes after the change does not wait for what was asked for before it.
        assert (await cache.answer(ask(), quick)).body == b"new"
        slow.set()
    assert bodies == [b"old"]
    assert (await cache.answer(ask(), quick)).body == b"new"


def test_readers_never_see_what_is_older_than_a_change_they_saw_the_end_of():
    async def main() -> None:
        cache, value = store(), [0]
        ends = [0]

        async def service(request: Request) -> Response:
            if request.method == "PUT":
                await sleep(0.003)
                value[0] += 1
                await sleep(0.003)
                return answer(status=204)
            seen = value[0]
            await sleep(0.002 * (seen % 3))
            return answer(b"%d" % seen, cache_control=b"max-age=60", etag=b'"%d"' % seen)

        async def write() -> None:
            for _ in range(5):
                await cache.answer(ask(method="PUT"), service)
                ends[0] += 1
                await sleep(0.004)

        async def look() -> None:
            for _ in range(12):
                known = ends[0]
                body = await read(await cache.answer(ask(), service))
                assert int(body) >= known
                await sleep(0.002)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            for _ in range(3):
                tasks.start_soon(look)

    explore(main, range(40))


# -- whatever happens ----------------------------------------------------------------------------


@pytest.mark.promise("gateway-cache-cancel")
def test_cancelled_anywhere_it_leaves_nothing():
    def scenario() -> Trial:
        cache = store()
        bodies: list[Chunks] = []

        async def service(request: Request) -> Response:
            await sleep(0)
            if request.header(b"if-none-match"):
                return answer(b"", status=304, etag=b'"1"')
            body = Chunks(b"ab", b"cd")
            bodies.append(body)
            return Response(200, [(b"cache-control", b"no-cache"), (b"etag", b'"1"')], body)

        async def work() -> None:
            for _ in range(2):
                await cache.answer(ask(), service)
            await cache.answer(ask("/api/other", "PUT"), Service(lambda _: answer(status=204)))

        async def check() -> None:
            assert all(body.closed for body in bodies)
            assert (await cache.answer(ask(), service)).body == b"abcd"

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=4)


@pytest.mark.promise("gateway-cache-fail-everywhere")
def test_a_service_that_fails_at_any_call_leaves_nothing():
    def scenario(fault: Callable[[], None]) -> Trial:
        cache = store()

        async def service(_: Request) -> Response:
            await sleep(0)
            fault()
            return answer(cache_control=b"no-cache", etag=b'"1"')

        async def work() -> None:
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(cache.answer, ask(), service)
            await cache.answer(ask(), service)

        async def check() -> None:
            fine = Service(lambda _: answer(cache_control=b"no-cache", etag=b'"1"'))
            assert (await cache.answer(ask(), fine)).body == b"page"

        return Trial(work(), check)

    fail_everywhere(scenario, minimum=2)


def test_a_flood_of_addresses_stays_within_its_bounds():
    async def main() -> None:
        cache = store(max_body=1000, max_size=100, max_bytes=50_000)
        service: Callable[[Request], Awaitable[Response]] = Service(
            lambda _: answer(b"x" * 700, cache_control=b"max-age=60", vary=b"accept")
        )
        for n in range(1000):
            await cache.answer(ask(f"/api/{n}", query=b"q" * 100, accept=b"%d" % n), service)
            figures = cache.statistics()
            assert figures.size <= 100
            assert figures.size_bytes <= 50_000
        assert cache.statistics().evictions > 0

    simulate(main)
