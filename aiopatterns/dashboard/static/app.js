/* The shell: sections as tabs, keys, dark and light, and how the connection is. */

import { h, mark, write } from "./dom.js";
import { count, time } from "./format.js";
import { Flows, Services } from "./fleet.js";
import { Dead, Jobs } from "./jobs.js";
import { Live } from "./live.js";
import { Log } from "./log.js";
import { Overview } from "./overview.js";
import { Patterns, Workers } from "./owners.js";
import { help } from "./talk.js";

const SECTIONS = [
  ["overview", "Overview", Overview], ["jobs", "Jobs", Jobs], ["dead", "Dead letters", Dead], ["workers", "Workers", Workers],
  ["patterns", "Patterns", Patterns], ["services", "Services", Services], ["flows", "Flows", Flows], ["events", "Events", Log],
];
const THEMES = ["auto", "light", "dark"];
const STORED = "aiopatterns-theme";
const STATES = { live: "live", away: "offline", connecting: "connecting" };

const live = new Live();
const panel = document.getElementById("panel");
const [backend, link, banner, theme, place, figures] = ["backend", "link", "banner", "theme", "place", "figures"].map((id) => document.getElementById(id));
const views = new Map(SECTIONS.map(([id, , View]) => [id, new View(live)]));
const tabs = new Map();
let current = null;

/** Open the section that the address names: #jobs?queue=mail&state=dead */
function route() {
  const [id, options] = location.hash.slice(1).split("?");
  const name = views.has(id) ? id : "overview";
  for (const [each, tab] of tabs) mark(tab, { "aria-selected": each === name, tabindex: each === name ? 0 : -1 });
  tabs.get(name).scrollIntoView({ block: "nearest", inline: "nearest" });
  mark(panel, { "aria-labelledby": `tab-${name}` });
  document.title = `${tabs.get(name).firstChild.textContent} · aiopatterns`;
  current = views.get(name);
  panel.replaceChildren(current.node);
  if (options && current.open) current.open(new URLSearchParams(options));
  current.show();
}

function go(name) {
  if (location.hash !== `#${name}`) location.hash = name;
}

function build() {
  const strip = document.getElementById("tabs");
  for (const [id, title] of SECTIONS) {
    const number = h("span", { class: "count", hidden: true });
    const tab = h("button", { type: "button", class: "tab", role: "tab", id: `tab-${id}`, "aria-controls": "panel", on: { click: () => go(id) } },
      h("span", {}, title), number);
    tabs.set(id, tab);
    strip.append(tab);
  }
  strip.addEventListener("keydown", (event) => along(event));
}

/** The arrow keys along the tabs, as the ARIA practices say. */
function along(event) {
  const ids = [...tabs.keys()];
  const now = ids.findIndex((id) => tabs.get(id) === document.activeElement);
  const to = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: ids.length - 1 }[event.key];
  if (to === undefined || now < 0) return;
  event.preventDefault();
  const id = ids[(to + ids.length) % ids.length];
  tabs.get(id).focus();
  go(id);
}

function dress(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  write(theme, name);
  mark(theme, { "aria-label": `Colours: ${name}` });
}

function turn() {
  const next = THEMES[(THEMES.indexOf(theme.textContent) + 1) % THEMES.length];
  dress(next);
  localStorage.setItem(STORED, next);
}

/** Search where the section has a search; elsewhere among the jobs. */
function seek() {
  if (!current.search) {
    go("jobs");
    route();
  }
  current.search.focus();
  current.search.select();
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const writing = event.target.closest("input, select, textarea");
  if (event.key === "Escape" && writing) event.target.blur();
  if (writing) return;
  const section = SECTIONS[Number(event.key) - 1];
  if (section) go(section[0]);
  else if (event.key === "?") help();
  else if (event.key === "t") turn();
  else if (event.key === "/") seek();
  else return;
  event.preventDefault();
}

function told() {
  const { view } = live;
  write(backend, view.backend);
  mark(backend, { title: view.backend });
  write(place, view.backend);
  write(figures, `figures of ${time(view.at)}`);
  const numbers = {
    dead: view.queues.reduce((sum, each) => sum + each.dead, 0), workers: view.workers.length, patterns: view.owners.length,
    services: view.services.length, flows: view.flows.length,
  };
  for (const [id, number] of Object.entries(numbers)) {
    const node = tabs.get(id).lastChild;
    node.hidden = number === 0;
    node.classList.toggle("bad", id === "dead");
    write(node, count(number));
  }
  current.show();
}

function connected() {
  write(link, STATES[live.state]);
  mark(link, { class: `link ${live.state}` });
  document.body.classList.toggle("stale", live.state === "away");
  banner.hidden = live.state !== "away";
  write(banner, live.view ? `${live.trouble} Figures are of ${time(live.view.at)}.` : live.trouble);
}

build();
dress(THEMES.includes(localStorage.getItem(STORED)) ? localStorage.getItem(STORED) : "auto");
theme.addEventListener("click", turn);
document.getElementById("help").addEventListener("click", help);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names a section, and this is none
  panel.focus();
});
document.addEventListener("keydown", key);
addEventListener("hashchange", route);
live.addEventListener("overview", told);
live.addEventListener("state", connected);
live.addEventListener("log", () => current === views.get("events") && current.show());
route();
live.start();
