/* Workers, and everything else that publishes its figures: breakers, limiters, caches, pools, peers. */

import { Table, card, chip, choices, field, h, keep, nothing, write } from "./dom.js";
import { count, percent, plain, seconds, short, tone, words } from "./format.js";

const SECONDS = /^(p50|p95|p99|per|retry_after|.*seconds|.*elapsed|.*delay|.*latency)$/;
// Figures of a card at most; what is more is below a fold.
const SHOWN = 8;

const told = (name, value) => (typeof value === "number" && SECONDS.test(name) ? seconds(value) : plain(value));
const simple = (value) => value === null || typeof value !== "object";
const number = (figures, ...names) => names.map((each) => figures[each]).find((each) => typeof each === "number");

/** The share that says most of an owner: {what, share, bad}, or null. */
export function share(figures) {
  const [hits, misses] = [number(figures, "hits"), number(figures, "misses")];
  if (hits + misses > 0) return { what: "hits", share: hits / (hits + misses), bad: false };
  const free = number(figures, "available");
  const used = number(figures, "in_flight", "running", "held");
  const most = number(figures, "limit", "capacity") ?? free + used;
  if (used !== undefined && most > 0) return { what: "in use", share: Math.min(1, used / most), bad: used >= most };
  const failures = number(figures, "failure_ratio");
  return failures <= 1 ? { what: "failures", share: failures, bad: failures >= 0.5 } : null;
}

/** One owner: what it is in, its share as a bar, its figures; those that are many, or tables, below a fold. */
class Owner {
  constructor() {
    this.kind = h("p", { class: "kind" });
    this.name = h("h3");
    this.state = chip("");
    this.where = h("p", { class: "where" });
    this.fill = h("i");
    this.meter = h("div", { class: "meter" }, this.fill);
    this.part = h("b");
    this.what = h("span");
    this.share = h("p", { class: "hint share" }, this.part, " ", this.what);
    this.figures = h("dl", { class: "pairs" });
    this.members = h("ul", { class: "members" });
    this.inner = h("pre", { tabindex: 0 });
    this.more = h("details", {}, h("summary", {}, "more"), this.inner);
    this.node = h("article", { class: "card owner" }, this.kind, h("div", { class: "head" }, this.name, this.state), this.where,
      this.meter, this.share, this.figures, this.members, this.more);
    this.node.owner = this;
  }

  update(each) {
    const { state, ...figures } = each.figures;
    write(this.kind, words(each.kind));
    write(this.name, each.name);
    write(this.where, `${each.host} · pid ${each.pid} · up ${seconds(each.age)}`);
    this.state.hidden = typeof state !== "string";
    write(this.state, words(String(state)));
    this.state.className = `chip ${tone(state)}`;
    this.#bar(share(figures));
    const entries = Object.entries(figures).filter(([name]) => name !== "failure_ratio" && name !== "members");
    const shown = entries.filter(([, value]) => simple(value)).slice(0, SHOWN);
    keep(this.figures, shown.flatMap(([name, value]) => [["dt", name, words(name)], ["dd", name, told(name, value)]]),
      ([tag, name]) => `${tag} ${name}`, ([tag]) => h(tag), (node, [, , text]) => write(node, text));
    keep(this.members, Object.entries(figures.members ?? {}), ([name]) => name, () => h("li", {}, h("span"), chip("")), (node, [name, how]) => {
      write(node.firstChild, name);
      write(node.lastChild, words(String(how)));
      node.lastChild.className = `chip ${tone(how)}`;
    });
    const rest = entries.filter((one) => !shown.includes(one));
    this.more.hidden = rest.length === 0;
    if (this.more.open) write(this.inner, rest.map(([name, value]) => `${words(name)}: ${simple(value) ? told(name, value) : JSON.stringify(value, null, 2)}`).join("\n"));
  }

  #bar(found) {
    this.meter.hidden = this.share.hidden = !found;
    if (!found) return;
    this.fill.style.width = `${100 * found.share}%`;
    this.meter.classList.toggle("bad", found.bad);
    write(this.part, percent(found.share));
    write(this.what, found.what);
  }
}

/** All owners but workers, with a search and a choice of their kind. */
export class Patterns {
  constructor(live) {
    this.live = live;
    this.search = h("input", { type: "search", placeholder: "name or host", autocomplete: "off", on: { input: () => this.show() } });
    this.kind = h("select", { on: { change: () => this.show() } });
    this.cards = h("div", { class: "cards" });
    this.empty = nothing("Nothing is published yet",
      "Breakers, limiters, caches, pools, pipelines and peers show up here when their process tells of them by a StatisticsPublisher.");
    this.none = nothing("Nothing of that name", "Another word, or another kind, may find something.");
    this.filters = h("div", { class: "filters" }, field("Kind", this.kind, "field grow"), field("Search", this.search, "field grow"));
    this.node = h("div", { class: "stack" }, this.filters, this.cards, this.empty, this.none);
  }

  show() {
    const { view } = this.live;
    if (!view) return;
    const counts = new Map();
    for (const each of view.owners) counts.set(each.kind, (counts.get(each.kind) ?? 0) + 1);
    choices(this.kind, [["", "all kinds"], ...[...counts].sort().map(([kind, number]) => [kind, `${words(kind)} (${number})`])]);
    const wanted = this.search.value.trim().toLowerCase();
    const found = view.owners.filter((each) => ["", each.kind].includes(this.kind.value) && `${each.kind} ${each.name} ${each.host}`.toLowerCase().includes(wanted));
    this.empty.hidden = view.owners.length > 0;
    this.filters.hidden = view.owners.length === 0;
    this.none.hidden = found.length > 0 || view.owners.length === 0;
    keep(this.cards, found, (each) => `${each.kind} ${each.name} ${each.host} ${each.pid} ${each.number}`, () => new Owner().node,
      (node, each) => node.owner.update(each));
  }
}

/** The workers, one row each. */
export class Workers {
  constructor(live) {
    this.live = live;
    const known = (name, wide = "") => ({ head: words(name), kind: `number ${wide}`, cell: (each) => count(each.figures[name]) });
    const took = (name, wide = "") => ({ head: name, kind: `number ${wide}`, cell: (each) => seconds(each.figures[name]) });
    this.table = new Table({
      label: "Workers", key: (each) => `${each.host} ${each.pid} ${each.number}`, empty: "",
      columns: [
        { head: "worker", kind: "name", cell: (each) => each.name },
        { head: "host", kind: "words wide", cell: (each) => each.host },
        { head: "pid", kind: "number wide", cell: (each) => String(each.pid) },
        { head: "up", kind: "number", cell: (each) => seconds(each.age) },
        { head: "queues", kind: "words wide", cell: (each) => Object.keys(each.figures.queues ?? {}).join(", ") },
        known("running"), { head: "processed", kind: "number", cell: (each) => short(each.figures.processed) }, known("retried", "wide"),
        { head: "failed", kind: "number", cell: (each) => count(each.figures.failed), tone: (each) => (each.figures.failed ? "bad-text" : "") },
        took("p50", "wide"), took("p95", "wide"), took("p99", "wide"),
      ],
    });
    this.card = card("Workers", "processes that have told of themselves in the last 10 s", this.table.node);
    this.empty = nothing("No worker", "Start one with “aiopatterns worker”: it shows up within two seconds.");
    this.node = h("div", { class: "stack" }, this.card, this.empty);
  }

  show() {
    const { view } = this.live;
    if (!view) return;
    this.card.hidden = view.workers.length === 0;
    this.empty.hidden = view.workers.length > 0;
    this.table.update(view.workers);
  }
}
