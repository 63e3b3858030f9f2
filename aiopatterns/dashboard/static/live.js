/*
 * What the server tells, as it tells it; and what to think of its silence.
 *
 *   EventSource --overview, outage, log--> here --> whoever listens
 *        silence for 4 s --> ask GET api/overview --> figures | 401 | 503 | nobody there
 *
 * The picture is as old as its last overview; the page says so, and comes back by itself.
 */

const ROOT = document.documentElement.dataset.root ?? "";
const WHAT = ["throughput", "p50", "p99", "queued"];
const SILENCE = 4000;
const SOON = 500;
const KEPT = 600;
const LOGGED = 500;
const LOCKED = "The token is no longer valid: open the address that the command has printed.";

export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Ask the server; what it refuses is a Problem with its words. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(`${ROOT}/api/${path}`, { ...options, cache: "no-store" });
  } catch {
    throw new Problem(0, "The dashboard's server does not answer.");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(answer.status, found.error ?? `The server answered ${answer.status}.`);
  return found;
}

/** Ask for a change; `--allow-actions` decides whether it is made. */
export const act = (name, body) => ask(`actions/${name}`, {
  method: "POST", headers: { "Content-Type": "application/json", "X-Aiopatterns-Action": "1" }, body: JSON.stringify(body),
});

/** Series of points over time: one clock for all of them, and null where one has no value. */
export class History {
  constructor() {
    this.at = [];
    this.series = new Map();
  }

  add(at, values) {
    if (at <= this.at.at(-1)) return;
    this.at.push(at);
    for (const name of Object.keys(values)) {
      if (!this.series.has(name)) this.series.set(name, new Array(this.at.length - 1).fill(null));
    }
    for (const [name, points] of this.series) points.push(values[name] ?? null);
    if (this.at.length <= KEPT) return;
    this.at.shift();
    for (const [name, points] of this.series) {
      points.shift();
      if (points.every((each) => each === null)) this.series.delete(name);
    }
  }

  /** Take what the server has kept, {at, queues: {name: {throughput, ...}}, streams}, unless it is less. */
  take(kept) {
    if (kept.at.length < this.at.length) return;
    this.at = kept.at;
    this.series = new Map();
    for (const [name, plots] of Object.entries(kept.queues)) {
      for (const what of WHAT) this.series.set(`${what} ${name}`, plots[what]);
    }
    for (const [name, lags] of Object.entries(kept.streams)) this.series.set(`lag ${name}`, lags);
  }

  of(name) {
    return this.series.get(name) ?? [];
  }
}

/** The points of one overview, by series. */
function points(view) {
  const found = {};
  for (const each of view.queues) {
    for (const what of WHAT) found[`${what} ${each.name}`] = each[what];
  }
  for (const each of view.streams) found[`lag ${each.name}/${each.group}`] = each.lag;
  return found;
}

/** The connection. Events: `overview`, `log`, `state`. */
export class Live extends EventTarget {
  constructor() {
    super();
    this.view = null;
    this.history = new History();
    this.log = [];
    this.noted = 0;
    this.state = "connecting";
    this.trouble = "";
    this.wait = 1000;
    this.next = performance.now() + SILENCE / 2;
  }

  start() {
    this.#connect();
    setInterval(() => this.#watch(), 1000);
    document.addEventListener("visibilitychange", () => this.#seen());
  }

  /** Nobody looks at a hidden page: the server need not look either. */
  #seen() {
    this.next = performance.now() + SILENCE;
    if (document.hidden) this.source?.close();
    else if (this.source?.readyState === EventSource.CLOSED) this.#connect();
  }

  async #connect() {
    await ask("history").then((kept) => this.history.take(kept), () => {});
    this.source?.close();
    this.source = new EventSource(`${ROOT}/api/live`);
    this.source.addEventListener("overview", (event) => this.#show(JSON.parse(event.data)));
    this.source.addEventListener("error", () => this.#broken());
    this.source.addEventListener("outage", (event) => this.#away(JSON.parse(event.data).error));
    this.source.addEventListener("log", (event) => this.#note(JSON.parse(event.data), Number(event.lastEventId)));
  }

  #show(view) {
    this.wait = 1000;
    this.next = performance.now() + SILENCE;
    this.view = view;
    this.history.add(view.at, points(view));
    this.#become("live", "");
    this.dispatchEvent(new Event("overview"));
  }

  /** The connection has ended: ask soon. */
  #broken() {
    if (this.next !== Infinity) this.next = Math.min(this.next, performance.now() + SOON);
  }

  /** The server is there, and looks in vain. */
  #away(error) {
    this.next = performance.now() + SILENCE;
    this.#become("away", `${error}.`);
  }

  /** A new connection tells again what the one before has told. */
  #note(line, number) {
    if (number <= this.noted) return;
    this.noted = number;
    this.log.push({ ...line, number });
    if (this.log.length > LOGGED) this.log.shift();
    this.dispatchEvent(new Event("log"));
  }

  #become(state, trouble) {
    if (state === this.state && trouble === this.trouble) return;
    this.state = state;
    this.trouble = trouble;
    this.dispatchEvent(new Event("state"));
  }

  /** Where nothing was heard for a while, ask why; ask less and less often. */
  async #watch() {
    if (document.hidden || performance.now() < this.next) return;
    this.next = Infinity;
    try {
      this.#show(await ask("overview"));
      if (this.source?.readyState === EventSource.CLOSED) this.#connect();
    } catch (problem) {
      this.next = performance.now() + this.wait;
      this.wait = Math.min(this.wait * 1.5, 10000);
      this.#become("away", problem.status === 401 ? LOCKED : problem.status ? `${problem.message}.` : problem.message);
    }
  }
}
