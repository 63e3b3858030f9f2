from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, cast

import pytest

from aiopatterns.core.errors import ConfigError
from aiopatterns.core.rate import Rate
from aiopatterns.gateway.auth import APIKeyAuth
from aiopatterns.gateway.config import GatewayConfig, load_config
from aiopatterns.gateway.jwt import JWTAuth
from aiopatterns.gateway.policy import HttpCache, Limits, RoutePolicy, Timeouts

WHOLE = """
name = "front"
backend = "redis://:${REDIS_PASSWORD}@redis:6379/0"
namespace = "shop"
transport = "fast"

[limits]
max_body = 1000
trusted_proxies = ["10.0.0.0/8", "::1"]

[defaults]
bulkhead = 50
timeouts = { connect = 1, total = 20 }
rate_limit = { amount = 5, burst = 10 }

[auth.people]
jwks = "https://login.example.org/jwks"
algorithms = ["RS256", "ES256"]
issuer = "https://login.example.org"
audience = ["shop"]
leeway = 10

[auth.partners]
keys = { acme = "${ACME_KEY}", other = ["${file:old}", "new-key"] }
header = "X-Key"

[[routes]]
path = "/api/orders"
to = "orders"
methods = ["GET", "POST"]
host = "shop.example.org"
strip_prefix = true
auth = "people"

[[routes]]
path = "/"
to = "http://127.0.0.1:8001/v1"
auth = "partners"

[routes.policy]
cache = true
bulkhead = false
timeouts = { connect = 3 }
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("REDIS_PASSWORD", "very-secret-1")
    monkeypatch.setenv("ACME_KEY", "acme-secret-2")
    (tmp_path / "old").write_text("old-key\n")
    path = tmp_path / "gateway.toml"

    def write(text: str = WHOLE) -> Path:
        path.write_text(text)
        return path

    return write


def problems(path: Path, previous: GatewayConfig | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_config(path, previous=previous)
    assert raised.value.file == str(path)
    assert str(raised.value) == f"{path}: {'; '.join(raised.value.problems)}"
    assert raised.value.__cause__ is None
    return [*raised.value.problems]


def test_a_file_is_what_it_would_be_in_code(file):
    config = load_config(file())
    assert (config.name, config.transport, config.file) == ("front", "fast", file())
    assert config.registry is not None
    assert config.limits == Limits(max_body=1000, trusted_proxies=("10.0.0.0/8", "::1"))
    assert config.defaults.bulkhead == 50
    assert config.defaults.timeouts == Timeouts(connect=1, total=20)
    orders, rest = config.routes
    assert (orders.path, orders.to, orders.host) == ("/api/orders", "orders", "shop.example.org")
    assert orders.methods == frozenset({"GET", "HEAD", "POST"})
    assert (orders.strip_prefix, orders.policy) == (True, None)
    assert isinstance(orders.auth, JWTAuth)
    assert (rest.path, rest.to, rest.methods) == ("/", "http://127.0.0.1:8001/v1", None)
    assert isinstance(rest.auth, APIKeyAuth)
    assert repr(rest.auth) == "APIKeyAuth(3 keys)"
    assert rest.auth.header == b"x-key"
    assert "secret" not in repr(config)


def test_a_policy_is_laid_over_the_defaults_table_by_table(file):
    config = load_config(file())
    policy, defaults = config.routes[1].policy, config.defaults
    assert policy is not None
    assert policy.timeouts == Timeouts(connect=3, total=20)
    assert policy.cache == HttpCache()
    assert policy.bulkhead is None
    assert policy.rate_limit is defaults.rate_limit  # one limit, as the file says
    assert policy.retry is not None
    assert policy.retry is defaults.retry


def test_the_least_file(file):
    config = load_config(file('[[routes]]\npath = "/"\nto = "http://[::1]:80"'))
    assert config.registry is None
    assert (config.name, config.transport) == ("gateway", "aiohttp")
    assert config.limits == Limits()
    assert dataclasses.replace(config.defaults, retry=None) == RoutePolicy(retry=None)
    assert (config.routes[0].auth, config.routes[0].policy) == (None, None)


@pytest.mark.promise("gateway-config")
def test_all_mistakes_are_told_at_once_with_their_place(file):
    found = problems(
        file(
            """
            nmae = "x"
            transport = "quick"
            namespace = "{}"
            [limits]
            max_body = -1
            max_header = 5
            trusted_proxies = ["nowhere"]
            [defaults]
            bulkhead = 0
            timeouts = { total = "long" }
            [auth.people]
            jwks = "ftp://x"
            algorithms = ["none"]
            audience = false
            [auth.partners]
            keys = {}
            [auth.nobody]
            [[routes]]
            path = "api"
            to = "http://user@host"
            mehtods = ["GET"]
            auth = "peeple"
            policy = { retry = 5, timeouts = { idle = -1 } }
            [[routes]]
            host = "a:b"
            auth = 5
            """
        )
    )
    for number, (where, what) in enumerate(
        [
            ("namespace", "must be up to 100 letters"),
            ("transport", "must be one of 'aiohttp', 'fast', not 'quick'"),
            ("auth.people.issuer", "is missing"),
            ("auth.people.jwks", "must be an http(s) address"),
            ("auth.people.algorithms", "must be one of"),
            ("auth.partners.keys", "must have at least one client"),
            ("auth.nobody", "needs 'jwks', for tokens, or 'keys', for API keys"),
            ("defaults.timeouts.total", "must be a finite number > 0, not 'long'"),
            ("defaults.bulkhead", "must be a whole number >= 1, not 0"),
            ("routes[0].policy.retry", "must be a table, not 5"),
            ("routes[0].policy.timeouts.idle", "must be a finite number > 0, not -1"),
            ("routes[0].mehtods", "unknown key; did you mean 'methods'?"),
            ("routes[0].auth", "must be the name of an [auth.NAME] (nobody, partners, people)"),
            ("routes[0].path", "must begin with a slash"),
            ("routes[0].to", "must be a base URL"),
            ("routes[1].auth", "must be the name of an [auth.NAME]"),
            ("routes[1].path", "is missing"),
            ("routes[1].to", "is missing"),
            ("routes[1].host", "must be a name, or '*.' and a name"),
            ("limits.max_header", "unknown key; did you mean 'max_headers'?"),
            ("limits.max_body", "must be a whole number >= 0, not -1"),
            ("limits.trusted_proxies", "must be addresses or networks"),
            ("nmae", "unknown key; did you mean 'name'?"),
        ]
    ):
        assert found[number].startswith(f"{where}: {what}"), found[number]
    assert len(found) == 23


def test_a_file_that_is_no_toml(file, tmp_path):
    (found,) = problems(file("[[routes]\n"))
    assert found.startswith("not a TOML file: ")
    assert "line 1" in found
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    assert problems(tmp_path / "binary.toml") == ["not a TOML file: it is not UTF-8"]
    with pytest.raises(FileNotFoundError):
        load_config(tmp_path / "none.toml")


def test_a_file_without_routes_and_one_with_two_alike(file):
    assert problems(file("")) == ["routes: is missing; a gateway needs at least one"]
    twice = '[[routes]]\npath = "/a"\nto = "http://h"\n' * 2
    (found,) = problems(file(twice))
    assert found.startswith("routes: must differ, but two are for '/a'")


def test_services_and_shared_limits_need_a_backend(file):
    text = '[[routes]]\npath = "/"\nto = "orders"\n'
    (found,) = problems(file(text))
    assert (
        found == "routes[0].to: 'orders' is a service, and needs a 'backend' at the top of the file"
    )
    shared = "[defaults]\nrate_limit = { amount = 1, shared = 'api' }\n"
    assert len(problems(file(shared + text))) == 2
    config = load_config(file('backend = "memory://"\n' + shared + text))
    limit = cast("Any", config.defaults.rate_limit)
    assert "SharedRateLimit" in repr(limit)
    assert config.registry is not None
    assert config.registry._backend is limit.backend


def test_what_should_be_a_table_or_a_list_and_is_not(file):
    assert problems(file("defaults = 5\nlimits = 6\nauth = 7\nroutes = 8")) == [
        "auth: must be a table, not 7",
        "defaults: must be a table, not 5",
        "routes: must be tables, each headed [[routes]], not 8",
        "limits: must be a table, not 6",
    ]
    text = '[limits]\ntrusted_proxies = "::1"\n[[routes]]\npath = "/"\nto = "http://h"'
    (found,) = problems(file(text))
    assert found.startswith("limits.trusted_proxies: must be a tuple of networks")


# --------------------------------------------------------------------------------------- secrets


@pytest.mark.promise("gateway-secrets")
@pytest.mark.parametrize(
    "text",
    [
        'backend = "redis://:${REDIS_PASSWORD}@redis:port"',
        'backend = "redos://:${REDIS_PASSWORD}@redis"',
        'backend = "${REDIS_PASSWORD}"',
        'namespace = "{${REDIS_PASSWORD}}"',
        '[auth.a]\nkeys = { x = "${ACME_KEY} " }',
        '[auth.a]\nkeys = { x = "${ACME_KEY}", y = "${ACME_KEY}" }',
        '[auth.a]\nkeys = "${ACME_KEY}"',
        '[auth.a]\njwks = "https://x:${ACME_KEY}@host"\nalgorithms = ["RS256"]',
        '[auth.a]\njwks = "${ACME_KEY}"\nalgorithms = ["HS256"]\nissuer = false\naudience = false',
        '[auth.a]\njwks = { kty = "oct", k = "${ACME_KEY}" }\nalgorithms = ["RS256"]',
        '[[routes]]\npath = "${ACME_KEY}"\nto = "http://${REDIS_PASSWORD}@x"',
        '[defaults]\nbulkhead = "${ACME_KEY}"',
        '[limits]\ntrusted_proxies = ["${ACME_KEY}"]',
    ],
)
def test_no_problem_shows_a_secret(text, file):
    found = problems(file(text))
    assert found
    for secret in ("very-secret-1", "acme-secret-2"):
        assert not any(secret[at : at + 6] in each for at in range(8) for each in found), found


def test_a_secret_that_is_missing_is_told(file, monkeypatch):
    monkeypatch.delenv("ACME_KEY")
    assert "auth.partners.keys.acme: the environment variable ACME_KEY is not set" in problems(
        file()
    )


def test_keys_may_stand_in_the_file_or_in_another(file, tmp_path):
    checks = 'algorithms = ["HS256"]\nissuer = false\naudience = false\n'
    routes = '[[routes]]\npath = "/"\nto = "http://h"\nauth = "a"\n'
    key = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"
    (tmp_path / "jwks.json").write_text(f'{{"keys": [{{"kty": "oct", "k": "{key}"}}]}}')
    for jwks in (f'{{ kty = "oct", k = "{key}" }}', '"${file:jwks.json}"'):
        config = load_config(file(f"[auth.a]\njwks = {jwks}\n{checks}{routes}"))
        assert isinstance(config.routes[0].auth, JWTAuth)
    (tmp_path / "jwks.json").write_text("{not json")
    (found,) = problems(file(f'[auth.a]\njwks = "${{file:jwks.json}}"\n{checks}{routes}'))
    assert found == "auth.a.jwks: must be an address, a table, or a key set in JSON"


# ---------------------------------------------------------------------------------------- reload


def test_what_has_not_changed_is_the_same_object(file):
    before = load_config(file())
    after = load_config(
        file(WHOLE + '\n[[routes]]\npath = "/new"\nto = "http://new"\n'), previous=before
    )
    assert after is not before
    assert after.routes[:2] == before.routes
    assert len(after.routes) == 3
    assert after.registry is before.registry
    assert after.defaults is before.defaults
    assert after.limits == before.limits


def test_a_route_whose_auth_or_policy_or_defaults_changed_is_another(file):
    before = load_config(file())
    after = load_config(file(WHOLE.replace("leeway = 10", "leeway = 20")), previous=before)
    assert after.routes[0] is not before.routes[0]
    assert after.routes[0].auth is not before.routes[0].auth
    assert after.routes[1] is before.routes[1]
    after = load_config(file(WHOLE.replace("connect = 3", "connect = 4")), previous=before)
    assert after.routes[0] is before.routes[0]
    assert after.routes[1] is not before.routes[1]
    assert after.routes[1].auth is before.routes[1].auth
    (_, old), (_, new) = before.routes, after.routes
    assert old.policy is not None
    assert new.policy is not None
    assert new.policy.retry is old.policy.retry
    after = load_config(file(WHOLE.replace("total = 20", "total = 30")), previous=before)
    assert after.routes[0] is not before.routes[0]
    assert after.defaults.rate_limit is before.defaults.rate_limit
    assert after.routes[1].policy is not None
    assert after.routes[1].policy.timeouts == Timeouts(connect=3, total=30)


def test_a_secret_that_has_changed_makes_another_auth(file, monkeypatch):
    before = load_config(file())
    monkeypatch.setenv("ACME_KEY", "another-key")
    after = load_config(file(), previous=before)
    assert after.routes[1].auth is not before.routes[1].auth
    assert after.routes[0] is before.routes[0]


def test_what_changes_only_with_a_restart_is_refused(file):
    before = load_config(file())
    for name, old, new in [
        ("name", '"front"', '"back"'),
        ("transport", '"fast"', '"aiohttp"'),
        ("backend", "6379/0", "6379/1"),
        ("namespace", 'namespace = "shop"', ""),
    ]:
        found = problems(file(WHOLE.replace(old, new)), before)
        assert found == [f"{name}: changes only with a restart"]


def test_a_file_that_is_wrong_changes_nothing(file):
    before = load_config(file())
    assert problems(file(WHOLE.replace("max_body = 1000", "max_body = -1")), before)
    again = load_config(file(), previous=before)
    assert again.routes == before.routes


def test_rates_are_rates(file):
    config = load_config(
        file('[[routes]]\npath="/"\nto="http://h"\npolicy.rate_limit = {amount=3, per=60}')
    )
    assert config.routes[0].policy is not None
    assert config.routes[0].policy.rate_limit == Rate(3, per=60)
