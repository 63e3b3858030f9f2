"""The pages of the dashboard in a real Chromium: a person's path, and what may never happen on it."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TYPE_CHECKING

import httpx
import pytest
from playwright.sync_api import expect
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.dashboard.browser import PATIENCE, chromium, served, visit
from tests.dashboard.shop import TOKEN, Shop
from tests.dashboard.stage import EVIL, Stage, application

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

expect.set_options(timeout=PATIENCE)

pytestmark = [pytest.mark.real, pytest.mark.untraced]

STATIC = files("aiopatterns.dashboard") / "static"
SECTIONS = ("overview", "jobs", "dead", "workers", "patterns", "services", "flows", "events")
REFUSED = "Failed to load resource"

#: Texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3).
PALE = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (node) => {
    for (let each = node; each; each = each.parentElement) {
      const found = parts(getComputedStyle(each).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *:not(svg *)")]
    .filter((node) => node.checkVisibility() && [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim()))
    .map((node) => {
      const pair = [light(parts(getComputedStyle(node).color)), light(behind(node))].sort((a, b) => b - a);
      return [node.textContent.slice(0, 40), (pair[0] + 0.05) / (pair[1] + 0.05)];
    })
    .filter(([, contrast]) => contrast < 4.5);
}"""

#: Controls that a screen reader could not name, and ids that are there twice.
NAMELESS = """() => [
  ...[...document.querySelectorAll("button, input, select, a, dialog, [role=img], [tabindex='0']")]
    .filter((node) => node.checkVisibility())
    .filter((node) => !(node.getAttribute("aria-label") || node.labels?.length || node.textContent.trim()))
    .map((node) => node.outerHTML.slice(0, 80)),
  ...[...document.querySelectorAll("[id]")].map((node) => node.id).filter((id, at, all) => all.indexOf(id) !== at),
]"""


#: What is wrong with the layouts of many flows that chance has made, and with one in circles.
LAYOUTS = """async () => {
  const { layout } = await import("/ops/static/flow.js");
  let seed = 7;
  const dice = (most) => ((seed = (seed * 16807) % 2147483647), seed % most);
  const wrong = [];
  for (let round = 0; round < 60; round += 1) {
    const nodes = Array.from({ length: 1 + dice(24) }, (_, at) => ({ id: `n${at}`, state: "pending", label: "" }));
    const edges = Array.from({ length: dice(40) }, () => [dice(nodes.length), dice(nodes.length)])
      .filter(([a, b]) => a < b).map(([a, b]) => [`n${a}`, `n${b}`]);
    for (const upright of [false, true]) {
      const { boxes, ways, wide, tall } = layout({ nodes, edges }, upright);
      const [w, t] = upright ? [128, 46] : [160, 48];
      const place = new Map(boxes.map((each) => [each.id, each]));
      boxes.forEach((one, at) => boxes.slice(at + 1).forEach((other) => {
        if (Math.abs(one.x - other.x) < w && Math.abs(one.y - other.y) < t) wrong.push([round, one.id, other.id]);
      }));
      for (const each of boxes) if (each.x < w / 2 - 1 || each.y < t / 2 - 1 || each.x > wide || each.y > tall) wrong.push([round, each.id]);
      for (const [from, to] of ways) {
        const side = upright ? "y" : "x";
        if (place.get(from)[side] >= place.get(to)[side]) wrong.push([round, from, to]);
      }
      if (boxes.length !== nodes.length) wrong.push([round, "lost"]);
    }
  }
  const turning = { nodes: [{ id: "a" }, { id: "b" }, { id: "c" }], edges: [["a", "b"], ["b", "a"], ["b", "c"], ["c", "gone"], ["c", "c"]] };
  if (layout(turning, false).boxes.length !== 3) wrong.push("cycle");
  return wrong;
}"""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def fleet() -> Iterator[str]:
    """The address of a fleet that nobody changes, below a path of another application."""
    with served(Starlette(routes=[Mount("/ops", application(Stage()))])) as server:
        yield f"{server.url}/ops/"


@pytest.mark.promise("dashboard-small")
def test_the_page_is_small_and_brings_everything_itself():
    texts = {each.name: each.read_text("utf-8") for each in STATIC.iterdir()}
    template = (files("aiopatterns.dashboard") / "templates" / "dashboard.html").read_text("utf-8")
    assert sum(map(len, [*texts.values(), template])) < 150_000
    for name, text in {**texts, "dashboard.html": template}.items():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|@import", text
        ), name
    assert not re.search(r"<style|<script(?![^>]* src=)| on\w+=| style=", template)


@pytest.mark.promise("dashboard-foreign")
def test_every_section_fits_reads_and_is_text(page, fleet):
    with visit(page, fleet):
        for wide, scheme in ((1280, "light"), (390, "dark")):
            page.set_viewport_size({"width": wide, "height": 900})
            page.emulate_media(color_scheme=scheme)
            evil = [_read_section(page, each) for each in SECTIONS]
            assert evil == [0, 1, 4, 0, 1, 0, 0, 1], (wide, scheme)


def _read_section(page: Page, section: str) -> int:
    """Look at a section with the eyes of everybody; returns how much markup is text there."""
    page.evaluate("name => (location.hash = name)", section)
    expect(page.get_by_role("tab", selected=True)).to_have_attribute("id", f"tab-{section}")
    page.locator("main .stack > *").first.wait_for()
    if section in {"jobs", "dead"}:
        page.locator("main tbody tr").first.get_by_role("button").first.click()
        page.get_by_role("dialog").wait_for()
        assert page.evaluate(PALE) == [], f"dialog of {section}"
        page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, section
    assert page.evaluate(PALE) == [], section
    assert page.evaluate(NAMELESS) == [], section
    assert page.locator("main img").count() == 0
    return page.locator("main").get_by_text(EVIL).count()


@pytest.mark.promise("dashboard-pages")
def test_a_fleet_that_runs_for_real(page):
    shop = Shop()
    with served(shop.application()) as server:
        with visit(page, shop.dashboard.address(server.url), expected=REFUSED):
            assert page.url == f"{server.url}/"  # the token is a cookie now
            expect(page.get_by_role("tab", name="Dead letters")).to_have_text("Dead letters1")
            page.keyboard.press("5")
            expect(page.get_by_role("article").filter(has_text="payments")).to_contain_text(
                "closed"
            )
            expect(page.get_by_role("article").filter(has_text="partner")).to_contain_text("in use")
            page.keyboard.press("7")
            picture = page.get_by_role("img", name="dag nightly: fetch ok, report running")
            expect(picture.locator("rect")).to_have_count(2)
            page.keyboard.press("3")
            page.get_by_role("button", name="send_receipt").click()
            dialog = page.get_by_role("dialog", name="send_receipt")
            expect(dialog).to_contain_text("the mail server refused order 41")
            expect(dialog).to_contain_text("password=***")
            shop.healthy = True
            dialog.get_by_role("button", name="Requeue").click()
            expect(page.get_by_text("No dead letter.")).to_be_visible()
            expect(page.get_by_role("tab", name="Dead letters")).to_have_text("Dead letters0")
            page.keyboard.press("8")
            expect(page.get_by_text("dashboard.acted")).to_be_visible()
            seen = page.content() + str(page.evaluate("[document.cookie, localStorage]"))
            assert TOKEN not in seen
            assert "hunter2" not in seen
        stranger = httpx.get(server.url)
        assert stranger.status_code == 401
        assert "token" in stranger.json()["error"]


@pytest.mark.promise("dashboard-pages")
def test_a_persons_path_by_pointer(page):
    stage = Stage()
    with served(application(stage)) as server, visit(page, server.url):
        _look_around(page)
        _read_a_job(page)
        _settle_dead_letters(page, stage)
        _pause_a_queue(page, stage)


def _look_around(page: Page) -> None:
    tiles = page.locator(".tile")
    expect(tiles).to_have_count(6)
    expect(tiles.first).to_contain_text("jobs/s")
    plot = page.get_by_role("img", name=re.compile("^Throughput: mail [0-9]"))
    assert len(plot.locator("path.line").first.get_attribute("d") or "") > 500
    plot.hover()
    tip = page.get_by_label("Throughput").locator(".tip")
    expect(tip).to_contain_text(re.compile(r"\d\d:\d\d:\d\dmail[0-9]"))
    expect(page.get_by_label("Lag").locator(".tip")).to_be_visible()  # one moment, in all plots
    page.get_by_text("Show as a table").first.click()
    expect(page.get_by_label("Throughput").locator(".points tbody tr")).to_have_count(30)
    page.get_by_label("Queue", exact=True).select_option("images")
    expect(page.get_by_role("img", name=re.compile("^Queue depth: images"))).to_be_visible()


def _read_a_job(page: Page) -> None:
    page.get_by_role("link", name="images").click()
    expect(page.get_by_role("tab", selected=True)).to_have_text("Jobs")
    expect(page.get_by_label("Queue", exact=True)).to_have_value("images")
    rows = page.locator("main tbody tr")
    expect(rows).to_have_count(50)
    page.get_by_role("button", name="More").click()
    expect(rows).to_have_count(60)
    expect(page.get_by_role("button", name="More")).to_be_hidden()
    page.get_by_label("Job", exact=True).fill("send_digest")
    expect(rows).to_have_count(19)
    rows.first.get_by_role("button").click()
    dialog = page.get_by_role("dialog", name="send_digest")
    expect(dialog).to_contain_text(EVIL)
    expect(dialog).to_contain_text("01Kq1 01Kq2")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(rows.first.get_by_role("button")).to_be_focused()


def _settle_dead_letters(page: Page, stage: Stage) -> None:
    page.get_by_role("tab", name="Dead letters").click()
    rows = page.locator("main tbody tr")
    expect(rows).to_have_count(3)
    rows.first.get_by_role("button", name="send_receipt").click()
    dialog = page.get_by_role("dialog", name="send_receipt")
    expect(dialog).to_contain_text("ConnectionRefusedError: [Errno 111]")
    dialog.get_by_role("button", name="Requeue").click()
    expect(rows).to_have_count(2)
    expect(page.locator("#toast")).to_contain_text("send_receipt: requeued")
    assert stage.orders == [("requeue", {"queue": "mail", "ids": ["01J000000"]})]
    page.get_by_role("button", name="Delete all").click()
    page.get_by_role("dialog").get_by_role("button", name="Back").click()
    expect(rows).to_have_count(2)
    page.get_by_role("button", name="Delete all").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete all").click()
    expect(page.get_by_text("No dead letter.")).to_be_visible()
    assert stage.orders[1:] == [("purge", {"queue": "mail", "all": True})]


def _pause_a_queue(page: Page, stage: Stage) -> None:
    page.get_by_role("tab", name="Overview").click()
    page.get_by_role("button", name="Pause queue images").click()
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(page.get_by_role("row", name="images").locator(".chip")).to_have_text("paused")
    page.get_by_role("button", name="Resume queue images").click()
    expect(page.get_by_role("row", name="images").locator(".chip")).to_have_text("working")
    assert [action for action, _ in stage.orders[2:]] == ["pause", "resume"]


@pytest.mark.promise("dashboard-pages")
def test_a_persons_path_by_keys(page, fleet):
    with visit(page, fleet):
        selected = page.get_by_role("tab", selected=True)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the figures")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#panel")).to_be_focused()
        page.get_by_role("tab", name="Overview").focus()
        for key, name in (("ArrowLeft", "Events"), ("Home", "Overview"), ("ArrowRight", "Jobs")):
            page.keyboard.press(key)
            expect(selected).to_have_text(name)
            expect(selected).to_be_focused()
        assert selected.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
        page.keyboard.press("/")
        expect(page.get_by_label("Job", exact=True)).to_be_focused()
        page.keyboard.type("4/?")  # these are letters now
        expect(page.get_by_label("Job", exact=True)).to_have_value("4/?")
        page.keyboard.press("Escape")
        page.keyboard.press("8")
        expect(selected).to_have_text("Events")
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("1")
        plot = page.get_by_role("img", name=re.compile("^Latency"))
        plot.focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        expect(page.get_by_label("Latency").locator(".spoken")).to_have_text(
            re.compile(r"^\d\d:\d\d:\d\d: p50 [\d.]+ ms, p99 [\d.]+ ms$")
        )


def test_light_and_dark_are_a_choice_that_stays(page, fleet):
    with visit(page, fleet):
        colour = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(colour)
        page.emulate_media(color_scheme="dark")
        dark = page.evaluate(colour)
        assert light != dark
        page.keyboard.press("t")  # auto -> light
        assert page.evaluate(colour) == light
        page.get_by_role("button", name="Colours: light").click()
        page.emulate_media(color_scheme="light")
        page.reload()
        expect(page.get_by_role("button", name="Colours: dark")).to_be_visible()
        assert page.evaluate(colour) == dark


def test_without_leave_nothing_can_be_changed(page):
    stage = Stage()
    stage.actions = False
    with served(application(stage)) as server, visit(page, server.url):
        expect(page.get_by_role("row", name="mail")).to_be_visible()
        expect(page.get_by_role("button", name=re.compile("Pause|Resume"))).to_have_count(0)
        page.keyboard.press("3")
        expect(page.locator("main tbody tr")).to_have_count(3)
        expect(page.get_by_role("button", name=re.compile("Delete|Requeue"))).to_have_count(0)
        page.locator("main tbody button.plain").first.click()
        expect(page.get_by_role("dialog").get_by_role("button")).to_have_count(1)  # that closes it


def test_where_nothing_is_the_page_says_what_to_do(page):
    stage = Stage()
    stage.empty, stage.lines = True, []
    said = {
        "overview": "No queue yet",
        "jobs": "No queue yet",
        "dead": "No queue yet",
        "workers": "No worker",
        "patterns": "Nothing is published yet",
        "services": "No service is known",
        "flows": "No flow runs",
        "events": "Nothing has happened yet",
    }
    with served(application(stage)) as server, visit(page, server.url, wide=390):
        for section, text in said.items():
            page.evaluate("name => (location.hash = name)", section)
            expect(page.locator("main").get_by_text(text).first).to_be_visible()
            assert page.evaluate(PALE) == [], section


@pytest.mark.promise("dashboard-outage")
def test_an_outage_is_told_and_ends_by_itself(page):
    stage = Stage()
    with served(application(stage)) as server, visit(page, server.url, expected=REFUSED):
        banner, link = page.locator("#banner"), page.locator("#link")
        expect(banner).to_be_hidden()
        stage.away = "nobody answers at redis.internal:6379"
        expect(banner).to_have_text(
            re.compile(r"^nobody answers at redis.internal:6379. Figures are of [0-9:]{8}.$")
        )
        expect(link).to_have_text("offline")
        expect(page.locator(".tile").first).to_contain_text("jobs/s")  # the last that is known
        page.keyboard.press("2")
        expect(page.locator("main .hint[role=status]")).to_have_text(stage.away)
        stage.away = ""
        expect(link).to_have_text("live")
        expect(banner).to_be_hidden()
        server.stop()
        expect(banner).to_contain_text("The dashboard's server does not answer.")
        server.start()
        expect(link).to_have_text("live")
        stage.locked = True
        expect(banner).to_have_text(re.compile("^The token is no longer valid"))


def test_a_hidden_page_asks_for_nothing_and_tells_no_line_twice(page):
    stage = Stage()
    hide = """hidden => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    with served(application(stage)) as server, visit(page, server.url):
        page.keyboard.press("8")
        expect(page.locator(".log li")).to_have_count(3)
        assert stage.viewers == 1
        page.evaluate(hide, True)
        _until(page, lambda: stage.viewers == 0)
        stage.lines.append({**stage.lines[0], "text": "worker mail-2 has joined"})
        page.evaluate(hide, False)
        expect(page.locator(".log li")).to_have_count(4)
        expect(page.locator(".log li").first).to_contain_text("mail-2")


def _until(page: Page, true: Callable[[], bool]) -> None:
    """Wait for the server, while the page goes on."""
    for _ in range(PATIENCE // 50):
        if true():
            return
        page.wait_for_timeout(50)
    pytest.fail("it never came true")


def test_flows_are_laid_out_without_overlap_and_arrows_run_forward(page, fleet):
    page.goto(f"{fleet}static/icon.svg")  # modules need an origin, and no page
    assert page.evaluate(LAYOUTS) == []


def test_figures_in_words(page, fleet):
    page.goto(f"{fleet}static/icon.svg")
    told: dict[str, list[tuple[object, str]]] = {
        "seconds": [
            (None, "\u2013"),
            (0, "0 s"),
            (0.00042, "420 µs"),
            (0.0125, "12.5 ms"),
            (0.9996, "1 s"),
            (59.96, "60 s"),
            (250, "4 min 10 s"),
            (7500, "2 h 5 min"),
            (273600, "3 d 4 h"),
        ],
        "short": [(None, "\u2013"), (0, "0"), (12.34, "12.3"), (1384, "1,384"), (120310, "120.3K")],
        "plain": [(None, "\u2013"), (True, "yes"), ("x", "x"), ([1], "[1]"), (1234, "1,234")],
        "percent": [(0.874, "87 %"), (None, "\u2013")],
        "tone": [("done", "good"), ("Half_Open", "wait"), ("no such state", "dull")],
    }
    for name, rows in told.items():
        found = page.evaluate(
            "async ([name, values]) => { const all = await import('/ops/static/format.js'); return values.map(all[name]); }",
            [name, [value for value, _ in rows]],
        )
        assert found == [text for _, text in rows], name
