"""Which route a request takes: host, then the longest prefix, then the method."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.errors import RequestRefusedError
from aiopatterns.gateway.policy import RoutePolicy
from aiopatterns.gateway.routing import Route, Router, checked_url


def router(*routes: Route) -> Router[str]:
    return Router(
        [
            (route, f"{route.host or ''}{route.path}{sorted(route.methods or [])}")
            for route in routes
        ]
    )


def of(*paths: str, **rest) -> Router[str]:
    return Router([(Route(path, to="s", **rest), path) for path in paths])


@pytest.mark.promise("gateway-routes")
@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", "/"),
        ("/x", "/"),
        ("/api", "/api"),
        ("/api/", "/api"),
        ("/apix", "/"),
        ("/api/other", "/api"),
        ("/api/users", "/api/users"),
        ("/api/users/", "/api/users"),
        ("/api/users/7/orders", "/api/users"),
        ("/api/usersx", "/api"),
        ("/api/users%2F7", "/api"),
        ("/deep/er/than/this", "/deep/er/than"),
        ("/deep/er", "/"),
        ("/API", "/"),
    ],
)
def test_the_longest_prefix_in_whole_segments_wins(path, found):
    assert of("/", "/api", "/api/users", "/deep/er/than").match("h", path, "GET") == found


def test_nothing_is_404():
    for path in ("/", "/x", "/apix"):
        with pytest.raises(RequestRefusedError) as caught:
            of("/api").match("h", path, "GET")
        assert caught.value.status == 404


@pytest.mark.promise("gateway-routes")
def test_another_method_is_405_with_those_that_are_allowed():
    found = router(
        Route("/a", to="s", methods=["GET"]),
        Route("/a", to="s", methods=["POST", "PUT"]),
        Route("/", to="s"),
    )
    assert found.match("h", "/a", "GET") == "/a['GET', 'HEAD']"
    assert found.match("h", "/a", "HEAD") == "/a['GET', 'HEAD']"
    assert found.match("h", "/a/b", "PUT") == "/a['POST', 'PUT']"
    with pytest.raises(RequestRefusedError) as caught:
        found.match("h", "/a", "DELETE")  # and not the route of a shorter prefix
    assert caught.value.status == 405
    assert caught.value.headers == ((b"allow", b"GET, HEAD, POST, PUT"),)


def test_a_route_of_all_methods_takes_those_that_are_left():
    found = router(Route("/a", to="s", methods=["GET"]), Route("/a", to="s"))
    assert found.match("h", "/a", "GET") == "/a['GET', 'HEAD']"
    assert found.match("h", "/a", "DELETE") == "/a[]"


@pytest.mark.promise("gateway-routes")
def test_hosts_go_from_exact_to_any():
    found = router(
        Route("/", to="s"),
        Route("/", to="s", host="shop.example.org"),
        Route("/", to="s", host="*.example.org"),
        Route("/", to="s", host="*.eu.example.org"),
        Route("/only", to="s", host="bare.org"),
    )

    def host(name: str, path: str = "/") -> str:
        return found.match(name, path, "GET").partition("/")[0]

    assert host("shop.example.org") == "shop.example.org"
    assert host("other.example.org") == "*.example.org"
    assert host("a.eu.example.org") == "*.eu.example.org"
    assert host("example.org") == ""
    assert host("badexample.org") == ""
    assert host("bare.org", "/only") == "bare.org"
    assert host("bare.org", "/else") == ""


def test_routes_for_the_same_requests_are_refused():
    same = "and the same methods"
    with pytest.raises(ValueError, match=same):
        of("/a", "/a/")
    with pytest.raises(ValueError, match=r"'/a' of h.org and the same methods"):
        of("/a", "/a", host="h.org", methods=["GET"])
    with pytest.raises(ValueError, match=same):
        router(Route("/a", to="s", methods=["GET", "PUT"]), Route("/a", to="s", methods=["PUT"]))


segments = st.lists(st.sampled_from(["a", "b", "c"]), max_size=4)


@given(st.sets(segments.map(lambda each: "/" + "/".join(each))), segments)
def test_as_the_plain_model_says(paths, asked):
    path = "/" + "/".join(asked)
    fitting = [each for each in paths if each == "/" or (path + "/").startswith(each + "/")]
    found = of(*paths)
    if not fitting:
        with pytest.raises(RequestRefusedError):
            found.match("h", path, "GET")
    else:
        assert found.match("h", path, "GET") == max(fitting, key=len)


async def aggregate(request):
    return {}


def test_a_route_says_what_it_is():
    route = Route("/api/users/", to="users", methods=["GET"], host="Shop.Example.ORG")
    assert route.path == "/api/users"
    assert route.segments == ["api", "users"]
    assert route.methods == frozenset({"GET", "HEAD"})
    assert route.host == "shop.example.org"
    assert repr(route) == "Route('/api/users', to='users', host='shop.example.org')"
    assert repr(Route("/", to=aggregate)).startswith("Route('/', to=<function aggregate")
    assert Route("/", to=aggregate, policy=RoutePolicy()).to is aggregate


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"path": ""}, ValueError, "path must be"),
        ({"path": 7}, TypeError, "path must be"),
        ({"path": "api"}, ValueError, "path must begin with a slash"),
        ({"path": "/a//b"}, ValueError, "path must begin"),
        ({"path": "/a/../b"}, ValueError, "path must begin"),
        ({"path": "/a/{id}"}, ValueError, "path must begin"),
        ({"path": "/a%20b"}, ValueError, "path must begin"),
        ({"path": "/a\n"}, ValueError, "path must begin"),
        ({"to": ""}, ValueError, "must be a non-empty"),
        ({"to": "two words"}, ValueError, "to must be letters"),
        ({"to": 7}, TypeError, "to must be a service name, a base URL or an async function"),
        ({"to": len}, None, ""),
        ({"to": "ftp://host"}, ValueError, "to must be a base URL"),
        ({"to": "http://"}, ValueError, "to must be a base URL"),
        ({"to": "http://h:0"}, ValueError, "to must be a base URL"),
        ({"to": "http://h:99999"}, ValueError, "to must be a base URL"),
        ({"to": "http://u:p@h"}, ValueError, "to must be a base URL"),
        ({"to": "http://h/?q=1"}, ValueError, "to must be a base URL"),
        ({"to": "http://h/a/../b"}, ValueError, "to must be a base URL"),
        ({"to": "http://h/#x"}, ValueError, "to must be a base URL"),
        ({"methods": "GET"}, TypeError, "methods must be several"),
        ({"methods": ["get"]}, ValueError, "methods must be names in upper case.*'get'"),
        ({"methods": []}, ValueError, r"methods must be names in upper case.*\[\]"),
        ({"methods": [7]}, TypeError, "methods must be"),
        ({"host": ""}, ValueError, "host must be"),
        ({"host": "h:80"}, ValueError, "host must be a name"),
        ({"host": "*"}, ValueError, "host must be a name"),
        ({"host": "a.*.org"}, ValueError, "host must be a name"),
        ({"strip_prefix": 1}, TypeError, "strip_prefix must be True or False"),
        ({"policy": 1}, TypeError, "policy must be None or a RoutePolicy"),
    ],
)
def test_what_a_route_may_not_be(wrong, error, message):
    values = {"path": "/", "to": "users", **wrong}
    if error is None:
        Route(**values)
        return
    with pytest.raises(error, match=message):
        Route(**values)


def test_a_plain_function_is_no_target():
    def plain(request):
        return {}

    with pytest.raises(TypeError, match="to must be an async function"):
        Route("/", to=plain)


def test_base_urls():
    for good in ("http://h", "https://h:8443/base", "http://[::1]:80", "http://10.0.0.7/"):
        assert checked_url("to", good) == good
