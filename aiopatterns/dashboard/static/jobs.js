/* Jobs of a queue by state, one of them in detail, and dead letters; and what may be done to them. */

import { Table, button, card, chip, choices, field, h, nothing, pairs, write } from "./dom.js";
import { Problem, act, ask } from "./live.js";
import { ago, count, date, percent, tone } from "./format.js";
import { confirm, dialog, report } from "./talk.js";

const STATES = ["queued", "running", "scheduled", "waiting", "dead"];
const PAGE = 50;
const LETTERS = 200;
const PATIENCE = 250;
// Looks after which an overview that says something else is not only behind.
const LAGGING = 3;

const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value)).toString();

/** Everything that is known of one job, in a dialog. */
export async function detail(queue, id, again, actions) {
  let job;
  try {
    job = await ask(`jobs/${encodeURIComponent(queue)}/${encodeURIComponent(id)}`);
  } catch (problem) {
    dialog("Job", [h("p", {}, problem.message)], "narrow");
    return;
  }
  const rows = [["state", chip(job.state, tone(job.state))], ["queue", job.queue], ["id", h("code", {}, job.id)], ["attempts", count(job.attempts)]];
  if (job.enqueued_at != null) rows.push(["enqueued", `${date(job.enqueued_at)} (${ago(job.enqueued_at)})`]);
  if (job.at != null) rows.push([job.state === "dead" ? "died" : "due", `${date(job.at)} (${ago(job.at)})`]);
  if (job.progress != null) rows.push(["progress", percent(job.progress)]);
  if (job.correlation_id) rows.push(["correlation id", h("code", {}, job.correlation_id)]);
  if (job.dependencies?.length) rows.push(["waits for", h("code", {}, job.dependencies.join(" "))]);
  const body = [pairs(rows, "pairs left")];
  if (job.arguments != null) body.push(h("section", {}, h("h3", {}, "Arguments"), h("pre", { tabindex: 0 }, job.arguments)));
  if (job.error) {
    body.push(h("section", {}, h("h3", {}, "Error"), h("p", { class: "bad-text" }, `${job.error.type}: ${job.error.message}`),
      job.error.traceback ? h("pre", { tabindex: 0 }, job.error.traceback) : null));
  }
  const buttons = [];
  const does = (text, name, kind = "") => buttons.push(button(text, async () => {
    if (await order(name, { queue, ids: [id] }, job.name || id)) box.close(), again();
  }, kind));
  if (actions && job.state === "dead") does("Delete", "purge", "risk"), does("Requeue", "requeue", "main");
  else if (actions && STATES.includes(job.state)) does("Cancel job", "cancel", "risk");
  if (buttons.length) body.push(h("div", { class: "buttons" }, buttons));
  const { box } = dialog(job.name || (STATES.includes(job.state) ? "Job that cannot be read" : "Job"), body);
}

const DONE = { requeue: "requeued", cancel: "cancelled", purge: "deleted" };
const ASKED = {
  cancel: ["Cancel", "It ends without a result. A job that runs is asked to end.", "Cancel job", "risk"],
  purge: ["Delete", "It is gone for good, with its arguments and its error.", "Delete", "risk"],
};

/** Do something to jobs, after a question where it cannot be undone. */
async function order(name, body, what) {
  if (ASKED[name]) {
    const [verb, text, yes, kind] = ASKED[name];
    if (!(await confirm(`${verb} ${what}?`, text, yes, kind))) return false;
  }
  return report(act(name, body), ({ done }) => (done ? `${what}: ${DONE[name]}` : "Nothing had to be done: it has gone on meanwhile"));
}

/** A list that is asked for, not pushed: filters above, rows below, what went wrong between them. */
class Asked {
  constructor(live) {
    this.live = live;
    this.turn = 0;
    this.queue = h("select", { on: { change: () => this.load() } });
    this.hint = h("p", { class: "hint", role: "status" });
    this.without = nothing("No queue yet", "A queue shows up as soon as a worker serves it, or when it is named with --queue.");
  }

  /** Called for each overview: only the choice of queues is live, the rows stay under the reader's eyes. */
  show() {
    const { view } = this.live;
    if (!view) return;
    const names = view.queues.map((each) => each.name);
    this.without.hidden = names.length > 0;
    this.card.hidden = names.length === 0;
    choices(this.queue, names.map((each) => [each, each]), this.wanted ?? this.queue.value);
    if (names.includes(this.wanted)) this.wanted = undefined;
    this.adjust(view);
    if (names.length && (this.loaded === undefined || this.loaded !== this.queue.value)) this.load();
  }

  /** Opened from elsewhere, for a queue and perhaps a state. */
  open(options) {
    if (options.get("queue")) this.wanted = options.get("queue");
    if (STATES.includes(options.get("state")) && this.state) this.state.value = options.get("state");
    this.loaded = undefined;
    this.show();
  }

  /** Ask, and show the answer, if nothing else was asked for meanwhile. */
  async load() {
    const turn = (this.turn += 1);
    this.loaded = this.queue.value;
    if (!this.loaded) return;
    try {
      const found = await this.fetch();
      if (turn === this.turn) this.fill(found);
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      if (turn === this.turn) write(this.hint, problem.message);
    }
  }
}

export class Jobs extends Asked {
  constructor(live) {
    super(live);
    this.rows = [];
    this.state = h("select", { on: { change: () => this.load() } });
    choices(this.state, STATES.map((each) => [each, each]));
    this.search = h("input", { type: "search", placeholder: "name of the job", autocomplete: "off", spellcheck: "false", on: { input: () => this.#typed() } });
    this.more = button("More", () => this.#onward());
    this.table = new Table({
      label: "Jobs", key: (each) => each.id, empty: "No job in this state.",
      columns: [
        { head: "job", kind: "name", make: (row) => h("button", { type: "button", class: "plain", on: { click: () => this.#open(row.item) } }), show: (node, each) => write(node, each.name || "unreadable") },
        { head: "id", kind: "id mono wide", cell: (each) => each.id },
        { head: "attempts", kind: "number", cell: (each) => count(each.attempts) },
        { head: "enqueued", kind: "number", cell: (each) => ago(each.enqueued_at) },
        { head: "due / died", kind: "number wide", cell: (each) => ago(each.at) },
      ],
    });
    this.card = card("Jobs", "as of the last look; the list stands still while it is read",
      h("div", { class: "filters" }, field("Queue", this.queue, "field grow"), field("State", this.state, "field grow"),
        field("Job", this.search, "field grow"), h("span", { class: "space" }), button("Refresh", () => this.load())),
      this.hint, this.table.node, h("div", { class: "buttons" }, this.more));
    this.node = h("div", { class: "stack" }, this.card, this.without);
  }

  adjust() {}

  #typed() {
    clearTimeout(this.pause);
    this.pause = setTimeout(() => this.load(), PATIENCE);
  }

  #open(job) {
    detail(job.queue ?? this.queue.value, job.id, () => this.load(), this.live.view.actions);
  }

  fetch(after = "") {
    return ask(`jobs?${query({ queue: this.queue.value, state: this.state.value, name: this.search.value.trim(), after, limit: PAGE })}`);
  }

  fill(page, before = []) {
    this.rows = [...before, ...page.jobs];
    this.after = page.after;
    this.more.hidden = !page.after;
    this.table.update(this.rows);
    const found = `${count(this.rows.length)} ${this.rows.length === 1 ? "job" : "jobs"} ${this.state.value}`;
    write(this.hint, page.after ? `${found}, and there may be more` : this.rows.length ? found : "");
  }

  async #onward() {
    const turn = (this.turn += 1);
    try {
      const page = await this.fetch(this.after);
      if (turn === this.turn) this.fill(page, this.rows);
    } catch (problem) {
      write(this.hint, problem.message);
    }
  }
}

export class Dead extends Asked {
  constructor(live) {
    super(live);
    const acts = (row) => h("span", {},
      button("Delete", () => this.#order("purge", row.item), "small risk"), button("Requeue", () => this.#order("requeue", row.item), "small"));
    this.table = new Table({
      label: "Dead letters", kind: "letters", key: (each) => each.id, empty: "No dead letter. Jobs that have failed for good are kept here.",
      columns: [
        { head: "job", kind: "name", make: (row) => h("button", { type: "button", class: "plain", on: { click: () => this.#open(row.item) } }), show: (node, each) => write(node, each.name || "unreadable") },
        { head: "error", kind: "words", cell: (each) => `${each.error.type}: ${each.error.message}` },
        { head: "attempts", kind: "number wide", cell: (each) => count(each.attempts) },
        { head: "died", kind: "number", cell: (each) => ago(each.died_at) },
        { head: "", kind: "acts", make: acts, show: (node) => (node.hidden = !this.live.view.actions) },
      ],
    });
    this.all = [button("Delete all", () => this.#every("purge"), "risk"), button("Requeue all", () => this.#every("requeue"))];
    this.card = card("Dead letters", "jobs that have failed for good, newest first",
      h("div", { class: "filters" }, field("Queue", this.queue, "field grow"), h("span", { class: "space" }), this.all,
        button("Refresh", () => this.load())), this.hint, this.table.node);
    this.node = h("div", { class: "stack" }, this.card, this.without);
  }

  /** The list stands still; where the queue has others by now, say so. An overview may be a look behind. */
  adjust(view) {
    for (const each of this.all) each.hidden = !view.actions;
    const now = view.queues.find((each) => each.name === this.queue.value)?.dead;
    this.looks = this.known === undefined || now === this.known ? 0 : this.looks + 1;
    if (this.looks > LAGGING) write(this.hint, `${count(now)} by now: refresh to see them`);
  }

  #open(letter) {
    detail(letter.queue ?? this.queue.value, letter.id, () => this.load(), this.live.view.actions);
  }

  async #order(name, letter) {
    if (await order(name, { queue: this.queue.value, ids: [letter.id] }, letter.name || letter.id)) this.load();
  }

  async #every(name) {
    const queue = this.queue.value;
    const [title, text, yes, kind] = name === "purge"
      ? [`Delete all dead letters of ${queue}?`, "They are gone for good, with their arguments and errors.", "Delete all", "risk"]
      : [`Requeue all dead letters of ${queue}?`, "They run as soon as a worker is free, with all their attempts before them.", "Requeue all", "main"];
    if (!(await confirm(title, text, yes, kind))) return;
    const done = (answer) => `${count(answer.done)} ${answer.done === 1 ? "job" : "jobs"} of ${queue}: ${DONE[name]}`;
    if (await report(act(name, { queue, all: true }), done)) this.load();
  }

  fetch() {
    return ask(`dead?${query({ queue: this.queue.value, limit: LETTERS })}`);
  }

  fill(page) {
    const letters = page.letters;
    this.table.update(letters);
    this.known = letters.length < LETTERS ? letters.length : this.live.view.queues.find((each) => each.name === this.queue.value)?.dead;
    this.looks = 0;
    for (const each of this.all) each.disabled = letters.length === 0;
    write(this.hint, letters.length ? `the newest ${count(letters.length)}` : "");
  }
}
