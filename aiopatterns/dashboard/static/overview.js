/* The first page: the figures that matter most, four plots, and the queues. */

import { Table, button, card, choices, field, h, write } from "./dom.js";
import { act } from "./live.js";
import { confirm, report } from "./talk.js";
import { NONE, count, seconds, short } from "./format.js";
import { Plot, drawSpark, shared, spark } from "./plot.js";

// Lines in one plot: more cannot be told apart; all others are one line.
const LINES = 4;
const SPANS = [[120, "2 min"], [600, "10 min"]];

const sum = (rows) => rows.reduce((total, each) => total + each, 0);
const most = (rows) => rows.reduce((top, each) => (each != null && !(top >= each) ? each : top), null);

/** Join series of one clock into one, moment by moment. */
function joined(series, join) {
  const long = Math.max(0, ...series.map((each) => each.length));
  return Array.from({ length: long }, (_, at) => {
    const found = series.map((each) => each[at]).filter((each) => each != null);
    return found.length ? join(found) : null;
  });
}

/** One line for each name; where there are too many, the largest, and the others as one. */
function lines(names, series, join, rest) {
  const all = names.map((name) => ({ name, values: series(name) }));
  if (all.length <= LINES + 1) return all;
  all.sort((one, other) => (other.values.at(-1) ?? 0) - (one.values.at(-1) ?? 0));
  const others = all.slice(LINES);
  const kept = all.slice(0, LINES).sort((one, other) => names.indexOf(one.name) - names.indexOf(other.name));
  return [...kept, { name: `${others.length} ${rest}`, values: joined(others.map((each) => each.values), join) }];
}

function tile(name) {
  const value = h("dd", {}, NONE);
  return { node: h("div", { class: "tile" }, h("dt", {}, name), value), value };
}

function say(one, words, unit = "", bad = false) {
  one.node.classList.toggle("bad", bad);
  if (one.said === words + unit) return;
  one.said = words + unit;
  one.value.replaceChildren(words, ...(unit ? [h("small", {}, unit)] : []));
}

export class Overview {
  constructor(live) {
    this.live = live;
    this.tiles = Object.fromEntries([["pace", "Throughput"], ["late", "Latency, p99"], ["queued", "Queued"],
      ["running", "Running"], ["dead", "Dead letters"], ["workers", "Workers"]].map(([id, name]) => [id, tile(name)]));
    this.choice = h("select", { on: { change: () => this.show() } });
    this.plots = {
      pace: new Plot({ title: "Throughput", hint: "jobs done in a second", format: short, empty: "No queue yet", least: 2 }),
      late: new Plot({ title: "Latency", hint: "", format: seconds, empty: "No job was done yet", least: 0.001 }),
      depth: new Plot({ title: "Queue depth", hint: "jobs that a worker could take", format: short, empty: "No queue yet", least: 2 }),
      lag: new Plot({ title: "Lag", hint: "entries of streams that nobody has claimed", format: short, empty: "No consumer is published", least: 2 }),
    };
    this.spans = h("div", { class: "segment", role: "group", "aria-label": "How far back the plots go" },
      SPANS.map(([value, text]) => h("button", { type: "button", "aria-pressed": String(value === shared.window), on: { click: (event) => this.#span(value, event.target) } }, text)));
    this.queues = this.#queues();
    this.streams = new Table({
      label: "Groups of consumers", key: (each) => `${each.name}/${each.group}`, empty: "",
      columns: [
        { head: "stream", kind: "name", cell: (each) => each.name },
        { head: "group", kind: "name", cell: (each) => each.group },
        { head: "lag", kind: "number strong", cell: (each) => count(each.lag) },
        { head: "in hand", kind: "number", cell: (each) => count(each.pending) },
      ],
    });
    this.streamCard = card("Streams", "groups of consumers and what they have to do", this.streams.node);
    this.node = h("div", { class: "stack" },
      h("dl", { class: "tiles" }, Object.values(this.tiles).map((each) => each.node)),
      h("div", { class: "filters" }, field("Queue", this.choice), h("span", { class: "space" }), this.spans),
      h("div", { class: "grid" }, Object.values(this.plots).map((each) => each.node)),
      card("Queues", "how many jobs are where", this.queues.node), this.streamCard);
  }

  #span(value, pressed) {
    shared.window = value;
    for (const each of this.spans.children) each.setAttribute("aria-pressed", String(each === pressed));
    this.show();
  }

  #queues() {
    const number = (head, name, wide = "") => ({ head, kind: `number ${wide}`, cell: (each) => count(each[name]) });
    return new Table({
      label: "Queues", key: (each) => each.name,
      empty: "No queue yet. A queue shows up as soon as a worker serves it, or when it is named with --queue.",
      columns: [
        { head: "queue", kind: "name", make: () => h("a", { class: "plain" }), show: (node, each) => {
          write(node, each.name);
          node.href = `#jobs?queue=${encodeURIComponent(each.name)}`;
        } },
        { head: "state", cell: (each) => state(each)[0], chip: (each) => state(each)[1] },
        { head: "last 2 min", kind: "wide", make: spark, show: (node, each) => drawSpark(node, this.live.history.of(`throughput ${each.name}`)) },
        { head: "jobs/s", kind: "number strong", cell: (each) => short(each.throughput) },
        { head: "p50", kind: "number wide", cell: (each) => seconds(each.p50) },
        { head: "p99", kind: "number wide", cell: (each) => seconds(each.p99) },
        number("queued", "queued"), number("scheduled", "scheduled", "wide"), number("waiting", "waiting", "wide"), number("running", "running", "wide"),
        { head: "dead", kind: "number", cell: (each) => count(each.dead), tone: (each) => (each.dead ? "bad-text" : "") },
        number("workers", "workers", "wide"),
        { head: "", kind: "acts", make: (row) => button("Pause", () => pause(row.item), "small"), show: (node, each) => {
          node.hidden = !this.live.view.actions;
          write(node, each.paused ? "Resume" : "Pause");
          node.setAttribute("aria-label", `${node.textContent} queue ${each.name}`);
        } },
      ],
    });
  }

  show() {
    const { view, history } = this.live;
    if (!view) return;
    const all = view.queues;
    choices(this.choice, [["", "all queues"], ...all.map((each) => [each.name, each.name])]);
    const one = this.choice.value;
    const chosen = all.filter((each) => !one || each.name === one);
    say(this.tiles.pace, short(sum(chosen.map((each) => each.throughput))), "jobs/s");
    const [late, unit] = seconds(most(chosen.map((each) => each.p99))).split(" ");
    say(this.tiles.late, late, unit ?? "");
    for (const each of ["queued", "running"]) say(this.tiles[each], short(sum(chosen.map((queue) => queue[each]))));
    const dead = sum(chosen.map((each) => each.dead));
    say(this.tiles.dead, short(dead), "", dead > 0);
    say(this.tiles.workers, one ? count(sum(chosen.map((each) => each.workers))) : count(view.workers.length));
    this.#plot(view, history, chosen.map((each) => each.name));
    this.queues.update(all);
    this.streamCard.hidden = view.streams.length === 0;
    this.streams.update(view.streams);
  }

  #plot(view, history, names) {
    const { pace, late, depth, lag } = this.plots;
    const series = (what) => (name) => history.of(`${what} ${name}`);
    pace.update(history.at, lines(names, series("throughput"), sum, "other queues"));
    depth.update(history.at, lines(names, series("queued"), sum, "other queues"));
    const slowest = (what) => ({ name: what, values: joined(names.map(series(what)), most) });
    write(late.node.querySelector(".hint"), names.length > 1 ? "seconds of an attempt, of the slowest queue" : "seconds of an attempt");
    late.update(history.at, names.length ? [slowest("p50"), slowest("p99")] : []);
    const groups = view.streams.map((each) => `${each.name}/${each.group}`);
    lag.update(history.at, lines(groups, series("lag"), sum, "other groups"));
  }
}

/** In a word, how a queue is. */
export function state(queue) {
  if (queue.paused) return ["paused", "wait"];
  if (queue.workers === 0) return queue.queued ? ["no worker", "bad"] : ["idle", ""];
  return queue.running || queue.throughput ? ["working", "good"] : ["idle", ""];
}

async function pause(queue) {
  const name = queue.paused ? "resume" : "pause";
  if (!queue.paused && !(await confirm(`Pause ${queue.name}?`, "No worker is given a job of this queue until it is resumed; jobs that run end as usual.", "Pause"))) return;
  await report(act(name, { queue: queue.name }), () => `${queue.name}: ${queue.paused ? "resumed" : "paused"}`);
}
