"""The command, as a process: files that are right and wrong, signals, reloads."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from aiopatterns.cli.app import main
from aiopatterns.cli.exits import DONE, FAILED, USAGE

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.real, pytest.mark.timeout(40)]

ROUTE = '[[routes]]\npath = "/{path}"\nto = "{to}"\nstrip_prefix = true\n'


class Slow(BaseHTTPRequestHandler):
    """A service whose /slow takes a while, and which says what it was asked."""

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(0.7)
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@pytest.fixture
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def running(file: Path, *argv: str) -> Generator[tuple[subprocess.Popen[str], str]]:
    """The command, and the address that it tells."""
    command = [sys.executable, "-W", "error", "-m", "aiopatterns", "gateway", str(file)]
    with subprocess.Popen(
        [*command, "--port", "0", *argv],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("aiopatterns gateway: http://"), process.communicate()
            process.stdout.readline()
            yield process, first.split()[2].rstrip(",")
        finally:
            process.kill()


def got(url: str) -> tuple[int, bytes]:
    try:
        with urlopen(url, timeout=10) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def said(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        ([], USAGE, "the following arguments are required: FILE"),
        (["nowhere.toml"], FAILED, "No such file or directory: nowhere.toml"),
        (["{right}", "--port", "65536"], USAGE, "--port: must be a port from 0 to 65535"),
        (["{right}", "--grace", "-1"], USAGE, "--grace: must be a number of seconds >= 0"),
        (["{wrong}"], USAGE, "routes[0].to: is missing"),
        (["{wrong}"], USAGE, "routes[0].pth: unknown key; did you mean 'path'?"),
        (["{right}", "--port", "{taken}"], FAILED, "cannot listen at port {taken}: "),
    ],
)
def test_what_is_wrong_is_one_line(
    argv: list[str], code: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right, wrong = tmp_path / "right.toml", tmp_path / "wrong.toml"
    right.write_text(ROUTE.format(path="a", to="http://127.0.0.1:9"))
    wrong.write_text('[[routes]]\npath = "/"\npth = 1\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = {"right": right, "wrong": wrong, "taken": taken.getsockname()[1]}
        assert main(["gateway", *(each.format_map(names) for each in argv)]) == code
        assert text.format_map(names) in said(capsys)


def test_an_extra_that_is_missing_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(ROUTE.format(path="a", to="http://127.0.0.1:9"))
    there = importlib.util.find_spec
    monkeypatch.setattr(
        "aiopatterns.gateway.aioclient.find_spec",
        lambda name: None if name == "uvicorn" else there(name),
    )
    assert main(["gateway", str(file), "--port", "0"]) == FAILED
    assert "pip install 'aiopatterns[gateway]'" in said(capsys)


def test_a_file_can_be_looked_at_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(ROUTE.format(path="a", to="http://127.0.0.1:9"))
    assert main(["gateway", str(file), "--check"]) == DONE
    assert capsys.readouterr().out == f"{file}: 1 routes, nothing is wrong\n"


def test_an_address_that_nobody_can_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(ROUTE.format(path="a", to="http://127.0.0.1:9"))
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["gateway", str(file), "--port", "0"]) == FAILED
    assert said(capsys) == "aiopatterns: No space left on device"


@pytest.mark.promise("gateway-reload")
def test_a_hangup_puts_the_file_in_force_and_a_wrong_one_changes_nothing(
    service: str, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(ROUTE.format(path="one", to=service))
    with running(file) as (process, url):
        assert got(f"{url}/one/x") == (200, b"/x")
        file.write_text(ROUTE.format(path="two", to=service))
        process.send_signal(signal.SIGHUP)
        until(lambda: got(f"{url}/two/x") == (200, b"/x"))
        assert got(f"{url}/one/x")[0] == 404
        file.write_text("[[routes]]\n")
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        log = process.stdout.readline()
        assert "aiopatterns.gateway.reload" in log
        while "reload_failed" not in log:
            log = process.stdout.readline()
        assert "routes[0].path: is missing" in log
        assert got(f"{url}/two/x") == (200, b"/x")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("ended\n")


@pytest.mark.promise("gateway-sigterm")
def test_a_sigterm_answers_what_was_accepted(service: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(ROUTE.format(path="a", to=service))
    answers: list[tuple[int, bytes]] = []
    with running(file) as (process, url):
        threads = [
            threading.Thread(target=lambda: answers.append(got(f"{url}/a/slow"))) for _ in range(20)
        ]
        for each in threads:
            each.start()
        until(lambda: _established(url) >= 20)
        process.send_signal(signal.SIGTERM)
        for each in threads:
            each.join()
        out, err = process.communicate(timeout=20)
    assert answers == [(200, b"/slow")] * 20
    assert (process.returncode, err) == (0, "")
    assert out.endswith("ended\n")


def test_a_second_signal_ends_it_at_once(service: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(ROUTE.format(path="a", to=service.replace("127.0.0.1", "localhost")))
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, running(file, "--grace", "30") as (process, url):
        file.write_text(ROUTE.format(path="a", to=f"http://127.0.0.1:{silent.getsockname()[1]}"))
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        assert "aiopatterns.gateway.reloaded" in process.stdout.readline()
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /a/ HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            asked, _ = silent.accept()
            with asked:
                process.send_signal(signal.SIGINT)
                time.sleep(0.3)
                assert process.poll() is None
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("ended\n")


def until(condition: object) -> None:
    """Wait until a condition holds."""
    assert callable(condition)
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never was so")


def _established(url: str) -> int:
    """Connections to an address that are open, by the system's own table."""
    port = int(url.rpartition(":")[2])
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(
        line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines
    )
