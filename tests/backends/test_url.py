from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends.url import OPTIONS, SCHEMES, Address, Target, masked, parse


@pytest.mark.parametrize(
    ("url", "addresses", "expected"),
    [
        ("redis://h", [("h", 6379)], {}),
        ("redis://h:1/2", [("h", 1)], {"database": 2}),
        ("redis://h?db=3", [("h", 6379)], {"database": 3}),
        ("redis://:p@h", [("h", 6379)], {"password": "p"}),
        ("redis://u:p%40%2F%3A@h", [("h", 6379)], {"username": "u", "password": "p@/:"}),
        ("redis://u:a:b@h", [("h", 6379)], {"username": "u", "password": "a:b"}),
        ("redis://[::1]:7", [("::1", 7)], {}),
        ("rediss://h", [("h", 6379)], {"tls": True}),
        ("unix:///a/b%20c.sock", [("/a/b c.sock", 0)], {}),
        ("unix://u:p@/a.sock?db=4", [("/a.sock", 0)], {"password": "p", "database": 4}),
        ("unix://a/b.sock", [("a/b.sock", 0)], {}),
        ("redis+sentinel://h/m", [("h", 26379)], {"service": "m"}),
        (
            "redis+sentinel://:p@a:1,b:2,[::2]:3/m%20x/5?sentinel_password=q&tls=1",
            [("a", 1), ("b", 2), ("::2", 3)],
            {"service": "m x", "database": 5, "password": "p", "tls": True},
        ),
        ("redis+cluster://a,b:2", [("a", 6379), ("b", 2)], {"tls": False}),
        ("redis+cluster://a?tls=0", [("a", 6379)], {"tls": False}),
        ("memory://", [], {}),
        ("embedded://", [], {"path": ""}),
        ("embedded:///var/x%20y", [], {"path": "/var/x y"}),
        ("embedded://data", [], {"path": "data"}),
    ],
)
def test_what_a_url_names(url, addresses, expected):
    target = parse(url)
    assert [tuple(each) for each in target.addresses] == addresses
    assert target.scheme == url.partition("://")[0]
    assert {name: getattr(target, name) for name in expected} == expected


def test_options_are_kept():
    target = parse("rediss://h?ca=/a&cert=/c&key=/k")
    assert [target.option(name) for name in ("ca", "cert", "key", "db")] == ["/a", "/c", "/k", ""]
    assert parse("redis+sentinel://h/m?sentinel_password=q").option("sentinel_password") == "q"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "no such scheme"),
        ("redis", "no such scheme"),
        ("redis:/h", "no such scheme"),
        ("localhost:6379", "no such scheme"),
        ("http://h", "no such scheme"),
        ("REDIS://h", "no such scheme"),
        ("memory", "no such scheme"),
        ("memory://x", "nothing may follow"),
        ("memory:///x", "nothing may follow"),
        ("redis://", "a host must follow"),
        ("redis://:p@", "a host must follow"),
        ("redis://:6379", "a host must follow"),
        ("redis://h:x", "Port"),
        ("redis://h:0", "1 to 65535"),
        ("redis://h:65536", "Port"),
        ("redis://h:-1", "Port"),
        ("redis://h,g", "names one server"),
        ("redis://h/x", "must be a number >= 0, not 'x'"),
        ("redis://h/-1", "must be a number >= 0"),
        ("redis://h/\u0663", "must be a number >= 0"),
        ("redis://h/1/2", "too much"),
        ("redis://h/1?db=1", "too much"),
        ("redis://h?db=", "option db must be given"),
        ("redis://h?dp=1", "option 'dp' is none of db"),
        ("redis://h?tls=1", "option 'tls' is none of"),
        ("redis+cluster://h?tls=yes", "option tls must be 0 or 1"),
        ("memory://?x=1", "is none of none at all"),
        ("redis://u@h", "a user needs a password"),
        ("redis://u:@h", "a user needs a password"),
        ("redis://:a#b@h", "%23"),
        ("redis://h h", "blanks"),
        ("redis://h\n", "cannot be printed"),
        ("redis://[::1", "cannot be read"),
        ("redis://:p/q@h", "%2F"),
        ("redis://:p?q@h", "%3F"),
        ("redis://:p℀@h", "cannot be read"),
        ("embedded://:p@h", "no user"),
        ("unix://", "path of a socket"),
        ("unix:///", "path of a socket"),
        ("redis+sentinel://h", "name of the master"),
        ("redis+sentinel://h/", "name of the master"),
        ("redis+sentinel://h/m/1/2", "too much"),
        ("redis+sentinel://h,/m", "a host must follow"),
        ("redis+cluster://h/1", "no numbered databases"),
    ],
)
def test_a_bad_url_is_refused_in_one_line(url, why):
    with pytest.raises(ValueError, match="url must be one of") as caught:
        parse(url)
    message = str(caught.value)
    assert why in message
    assert "\n" not in message
    assert all(f"{scheme}://" in message for scheme in SCHEMES)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("bad", [None, 5, b"redis://h", object()])
def test_only_text_is_a_url(bad):
    with pytest.raises(TypeError, match="url must be a string"):
        parse(bad)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h", "redis://h"),
        ("redis://:p@h/1", "redis://:***@h/1"),
        ("redis://u:p:q@h", "redis://u:***@h"),
        ("redis://u@h", "redis://u@h"),
        ("redis://:a/b?c@h?db=1", "redis://:***@h?db=1"),
        ("redis://:a#b@h", "redis://:***@h"),
        ("u:p@h", "u:***@h"),
        ("x://:p://q@h", "x:***@h"),
        ("redis+sentinel://h/m?sentinel_password=q&db=1", "redis+sentinel://h/m?sentinel_password=***&db=1"),
        ("redis+sentinel://h/m?sentinel_password", "redis+sentinel://h/m?sentinel_password***"),
    ],
)  # fmt: skip
def test_passwords_are_masked(url, shown):
    assert masked(url) == shown


SECRET = "s3cr3t"
secrets = st.text(st.sampled_from([*"@:/?#%&=,[] \n\\", "é", "a"]), max_size=5)


@pytest.mark.promise("backends-urls-masked")
@given(st.sampled_from([*SCHEMES, "http", ""]), secrets, secrets, st.sampled_from(["h", "", "h/m"]))
def test_no_secret_leaves(scheme, before, after, rest):
    """Also of URLs that are refused, and that no parser would take apart as it was meant."""
    password = f"{before}{SECRET}{after}"
    url = f"{scheme}://:{password}@{rest}"
    try:
        target = parse(url)
    except ValueError as error:
        assert SECRET not in str(error)
    else:
        assert SECRET not in repr(target)
        assert SECRET not in target.url


def test_the_repr_has_no_password():
    target = parse("redis+sentinel://u:s3cr3t@h/m?sentinel_password=s3cr3t")
    assert "s3cr3t" not in repr(target)
    assert "s3cr3t" not in target.url


def test_addresses_read_as_in_a_url():
    assert str(Address("h", 1)) == "h:1"
    assert str(Address("::1", 1)) == "[::1]:1"
    assert str(Address("/a.sock")) == "/a.sock"


def test_every_option_is_of_a_known_scheme():
    assert all(scheme in SCHEMES for schemes in OPTIONS.values() for scheme in schemes)
    assert Target("memory", "memory://").addresses == ()
