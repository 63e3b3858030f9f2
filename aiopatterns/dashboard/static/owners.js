/* Workers, and everything else that publishes its figures: breakers, limiters, caches, pools, peers. */

import { Table, card, chip, h, keep, nothing, pairs, write } from "./dom.js";
import { count, figure, percent, plain, seconds, tone, words } from "./format.js";

const SECONDS = /^(p50|p95|p99|.*seconds|.*age|.*delay|.*latency|.*lag_time|wait)$/;
const PLURALS = { breaker: "Breakers", limiter: "Limiters", cache: "Caches", pool: "Pools", peer: "Peers", consumer: "Consumers", registry: "Registries" };

const told = (name, value) => (typeof value === "number" && SECONDS.test(name) ? seconds(value) : plain(value));
const simple = (value) => value === null || typeof value !== "object";
const number = (figures, ...names) => names.map((each) => figures[each]).find((each) => typeof each === "number");
const place = (each) => `${each.host} · pid ${each.pid}`;

/** The share that says most of an owner: [what, share, whether it is bad], or null. */
export function share(kind, figures) {
  const [hits, misses] = [number(figures, "hits"), number(figures, "misses")];
  if (hits !== undefined && misses !== undefined && hits + misses > 0) return ["hits", hits / (hits + misses), false];
  const free = number(figures, "available");
  const used = number(figures, "in_flight", "running", "held");
  const most = number(figures, "limit", "capacity") ?? (free !== undefined && used !== undefined ? free + used : undefined);
  if (used !== undefined && most > 0) return ["in use", Math.min(1, used / most), used >= most];
  const failures = number(figures, "failure_rate", "error_rate");
  if (failures !== undefined && failures <= 1) return ["failures", failures, failures >= 0.5];
  return null;
}

/** One owner: what it is in, its share as a bar, its figures; those that are tables below a fold. */
class Owner {
  constructor() {
    this.name = h("h3");
    this.state = chip("");
    this.where = h("p", { class: "where" });
    this.fill = h("i");
    this.meter = h("div", { class: "meter" }, this.fill);
    this.share = h("p", { class: "hint" });
    this.figures = h("dl", { class: "pairs" });
    this.inner = h("pre", { tabindex: 0 });
    this.more = h("details", {}, h("summary", {}, "more"), this.inner);
    this.node = h("article", { class: "card owner" }, h("div", { class: "head" }, this.name, this.state), this.where,
      this.meter, this.share, this.figures, this.more);
    this.node.owner = this;
  }

  update(each) {
    const { state, ...figures } = each.figures;
    write(this.name, each.name);
    write(this.where, `${place(each)} · for ${seconds(each.age)}`);
    this.state.hidden = typeof state !== "string";
    write(this.state, words(String(state)));
    this.state.className = `chip ${tone(state)}`;
    const found = share(each.kind, figures);
    this.meter.hidden = this.share.hidden = !found;
    if (found) {
      this.fill.style.width = `${100 * found[1]}%`;
      this.meter.classList.toggle("bad", found[2]);
      write(this.share, `${percent(found[1])} ${found[0]}`);
    }
    const entries = Object.entries(figures);
    keep(this.figures, entries.filter(([, value]) => simple(value)).flatMap(([name, value]) => [["dt", name, words(name)], ["dd", name, told(name, value)]]),
      ([tag, name]) => `${tag} ${name}`, ([tag]) => h(tag), (node, [, , text]) => write(node, text));
    const rest = entries.filter(([, value]) => !simple(value));
    this.more.hidden = rest.length === 0;
    if (this.more.open) write(this.inner, rest.map(([name, value]) => `${words(name)}: ${JSON.stringify(value, null, 2)}`).join("\n"));
    else write(this.inner, "");
  }
}

/** All owners but workers, by kind, with a search. */
export class Patterns {
  constructor(live) {
    this.live = live;
    this.search = h("input", { type: "search", placeholder: "kind, name or host", autocomplete: "off", "aria-label": "Search patterns", on: { input: () => this.show() } });
    this.groups = h("div", { class: "stack" });
    this.empty = nothing("Nothing is published yet",
      "Breakers, limiters, caches, pools, pipelines and peers show up here when their process publishes them.");
    this.none = h("p", { class: "empty" }, "Nothing of that name.");
    this.filters = h("div", { class: "filters" }, this.search);
    this.node = h("div", { class: "stack" }, this.filters, this.groups, this.empty, this.none);
  }

  show() {
    const { view } = this.live;
    if (!view) return;
    const wanted = this.search.value.trim().toLowerCase();
    const found = view.owners.filter((each) => `${each.kind} ${each.name} ${each.host}`.toLowerCase().includes(wanted));
    this.empty.hidden = view.owners.length > 0;
    this.filters.hidden = view.owners.length === 0;
    this.none.hidden = found.length > 0 || view.owners.length === 0;
    const kinds = [...new Set(found.map((each) => each.kind))].sort();
    keep(this.groups, kinds, (kind) => kind, (kind) => this.#group(kind), (node, kind) => {
      const owners = found.filter((each) => each.kind === kind);
      write(node.number, count(owners.length));
      keep(node.cards, owners, (each) => `${each.name} ${each.host} ${each.pid} ${each.number}`, () => new Owner().node,
        (one, each) => one.owner.update(each));
    });
  }

  #group(kind) {
    const number = h("span", { class: "count" });
    const cards = h("div", { class: "cards" });
    const title = PLURALS[kind] ?? `${kind.charAt(0).toUpperCase()}${words(kind.slice(1))}`;
    const node = h("section", { class: "group", "aria-label": title }, h("div", { class: "kind" }, h("h2", {}, title), number), cards);
    return Object.assign(node, { number, cards });
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
        { head: "pid", kind: "number", cell: (each) => String(each.pid) },
        { head: "up", kind: "number", cell: (each) => seconds(each.age) },
        { head: "queues", kind: "words wide", cell: (each) => Object.keys(each.figures.queues ?? {}).join(", ") },
        known("running"), known("processed"), known("retried", "wide"),
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
