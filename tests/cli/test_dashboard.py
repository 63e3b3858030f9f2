"""The command, as a process and by its parts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, ProxyHandler, build_opener

import pytest

from aiopatterns.cli import dashboard
from aiopatterns.cli.app import main
from aiopatterns.cli.exits import DONE, FAILED, USAGE

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.real, pytest.mark.timeout(40)]


def test_it_prints_one_address_and_ends_by_a_signal(redis_url):
    command = [sys.executable, "-W", "error", "-m", "aiopatterns", "dashboard"]
    with subprocess.Popen(
        [*command, "--backend", redis_url, "--port", "0", "--queue", "mail"],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), process.communicate()
            base, _, token = address.partition("/?token=")
            browser = build_opener(ProxyHandler({}), HTTPCookieProcessor())
            with pytest.raises(HTTPError, match="401"):
                browser.open(f"{base}/api/overview", timeout=10)
            with browser.open(address, timeout=10) as page:
                assert page.url == f"{base}/"
                assert b"<!doctype html>" in page.read()
            with browser.open(f"{base}/api/overview", timeout=10) as answer:
                assert b'"name":"mail"' in answer.read()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (DONE, "ended\n", "")
    assert len(token) >= 43


def told(capsys, *argv: str) -> tuple[int, str]:
    code = main(["dashboard", *argv])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return code, err


def test_what_is_wrong_is_one_line_and_a_code(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, err = told(capsys, "--backend", "redis://127.0.0.1:1", "--port", port)
    assert code == FAILED
    assert f"cannot listen at port {port}" in err
    code, err = told(capsys, "--backend", "redis://u:geheim@127.0.0.1:1", "--port", "0")
    assert code == FAILED
    assert "geheim" not in err
    assert told(capsys, "--backend", "memory://")[0] == USAGE
    assert told(capsys, "--backend", "nothing://")[0] == USAGE
    assert told(capsys)[0] == USAGE
    assert told(capsys, "--backend", "redis://x", "--port", "70000")[0] == USAGE
    assert told(capsys, "--backend", "redis://x", "--port", "0", "--allow-host", "")[0] == USAGE


def test_an_address_that_nobody_can_read_is_one_line(redis_url, capsys, monkeypatch):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["dashboard", "--backend", redis_url, "--port", "0"]) == FAILED
    assert capsys.readouterr().err == "aiopatterns: No space left on device\n"


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.1", ("127.0.0.1",)),
        ("0.0.0.0", ()),
        ("::", ()),
        ("::1", ("::1",)),
        ("[::1]", ("::1",)),
        ("10.1.2.3", ("10.1.2.3",)),
        ("ops.example", ("ops.example",)),
        ("", ()),
    ],
)
def test_the_name_of_an_address_is_allowed_unless_it_is_every_one(host, names):
    assert dashboard._names(host) == names
