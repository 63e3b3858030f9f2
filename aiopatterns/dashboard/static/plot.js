/*
 * Lines over time as SVG, with the values under the pointer, by keys, and as a table.
 *
 * All plots of a page share one clock and one cursor: a look at one moment is a look at all of them.
 */

import { h, keep, mark, s, write } from "./dom.js";
import { NONE, time } from "./format.js";

const TALL = 176;
const EDGE = { left: 46, right: 8, top: 10, bottom: 24 };
const SHORTEST = 60;
const GAP = 6;
const LISTED = 30;

/** What all plots of a page have in common: how far back they look, and the moment that is looked at. */
export const shared = new EventTarget();
shared.window = 600;
shared.moment = null;

function point(moment) {
  shared.moment = moment;
  shared.dispatchEvent(new Event("moment"));
}

/** The least round number that is not below `value`, and whose half is one to read as well. */
function ceiling(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return (unit === 1 ? [1, 2, 4, 6, 8, 10] : [1, 2, 3, 4, 5, 6, 8, 10]).map((each) => each * unit).find((each) => each >= value * 0.999) ?? value;
}

/** The index of the time next to `moment`. */
function nearest(at, moment) {
  let low = 0;
  let high = at.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (at[middle] < moment) low = middle + 1;
    else high = middle;
  }
  return low > 0 && moment - at[low - 1] < at[low] - moment ? low - 1 : low;
}

/** The path of a line, and of what is under it; a gap in time or a missing value breaks both. */
function paths(at, values, x, y, base) {
  let line = "";
  let under = "";
  let begun = null;
  let last = null;
  const close = () => {
    if (begun !== null) under += `L${last} ${base}L${begun} ${base}Z`;
    begun = null;
  };
  for (let index = 0; index < at.length; index += 1) {
    if (values[index] == null) {
      close();
      continue;
    }
    if (begun !== null && at[index] - at[index - 1] > GAP) close();
    const [px, py] = [x(at[index]).toFixed(1), y(values[index]).toFixed(1)];
    line += `${begun === null ? "M" : "L"}${px} ${py}`;
    under += `${begun === null ? "M" : "L"}${px} ${py}`;
    begun ??= px;
    last = px;
  }
  close();
  return [line, under];
}

/** One plot in a card. `format` makes words of a value; the axis goes to `least` at least. */
export class Plot {
  constructor({ title, hint, format, empty, least }) {
    this.title = title;
    this.least = least;
    this.format = format;
    this.lines = [];
    this.at = [];
    this.back = s("g");
    this.unders = s("g");
    this.strokes = s("g");
    this.cursor = s("line", { class: "cursor", y1: EDGE.top, y2: TALL - EDGE.bottom });
    this.dots = s("g");
    this.over = s("g", { visibility: "hidden" }, this.cursor, this.dots);
    this.picture = s("svg", { "aria-hidden": "true" }, this.back, this.unders, this.strokes, this.over);
    this.tip = h("div", { class: "tip", hidden: true });
    this.when = h("b");
    this.values = h("ul");
    this.tip.append(this.when, this.values);
    this.void = h("div", { class: "void" }, empty);
    this.spoken = h("span", { class: "spoken", "aria-live": "polite" });
    this.frame = h("div", {
      class: "plot", tabindex: 0, role: "img",
      on: {
        pointermove: (event) => this.#pointed(event),
        pointerdown: (event) => this.#pointed(event),
        pointerleave: () => point(null),
        keydown: (event) => this.#keyed(event),
        blur: () => point(null),
      },
    }, this.picture, this.void, this.tip);
    this.legend = h("ul", { class: "legend" });
    this.list = h("table", {}, h("caption", {}, title), h("thead"), h("tbody"));
    this.table = h("details", { on: { toggle: () => this.#tabled() } },
      h("summary", {}, "Show as a table"), h("div", { class: "points", tabindex: 0 }, this.list));
    this.node = h("section", { class: "card", "aria-label": title },
      h("div", { class: "head" }, h("h2", {}, title), h("span", { class: "hint" }, hint)),
      this.frame, this.spoken, this.legend, this.table);
    shared.addEventListener("moment", () => this.#pointer());
    new ResizeObserver(() => this.#draw()).observe(this.frame);
  }

  /** Show these lines, {name, values}, over the times `at`. */
  update(at, lines) {
    const from = Math.max(0, at.findIndex((each) => each >= at.at(-1) - shared.window));
    this.at = at.slice(from);
    this.lines = lines.map((each, index) => ({
      name: each.name, tone: `tone-${Math.min(index + 1, 5)}`, values: each.values.slice(from),
    }));
    this.#draw();
    this.#tabled();
  }

  #draw() {
    const wide = this.frame.clientWidth;
    if (wide === 0) return;
    const end = this.at.at(-1) ?? 0;
    const span = Math.max(SHORTEST, Math.min(shared.window, end - (this.at[0] ?? end)));
    const most = Math.max(0, ...this.lines.flatMap((line) => line.values.filter((each) => each != null)));
    const top = Math.max(this.least, most > 0 ? ceiling(most) : 0);
    const base = TALL - EDGE.bottom;
    this.x = (moment) => wide - EDGE.right - ((end - moment) / span) * (wide - EDGE.left - EDGE.right);
    this.y = (value) => base - (value / top) * (base - EDGE.top);
    this.moment = (px) => end - ((wide - EDGE.right - px) / (wide - EDGE.left - EDGE.right)) * span;
    mark(this.picture, { viewBox: `0 0 ${wide} ${TALL}` });
    const blank = !this.lines.some((line) => line.values.some((each) => each != null));
    this.void.hidden = !blank;
    this.#axes(wide, base, span, blank ? null : top);
    keep(this.unders, this.lines, (each) => each.name, () => s("path"), (node, each) => {
      const [line, under] = paths(this.at, each.values, this.x, this.y, base);
      each.path = line;
      mark(node, { class: `under ${each.tone}`, d: this.lines.length === 1 ? under : "" });
    });
    keep(this.strokes, this.lines, (each) => each.name, () => s("path"),
      (node, each) => mark(node, { class: `line ${each.tone}`, d: each.path }));
    keep(this.legend, this.lines, (each) => each.name, () => h("li", {}, h("i"), h("span"), h("b")), (node, each) => {
      mark(node, { class: each.tone });
      write(node.children[1], each.name);
      write(node.children[2], this.#words(each.values.at(-1)));
    });
    mark(this.frame, { "aria-label": this.#summary() });
    this.#pointer();
  }

  #axes(wide, base, span, top) {
    const marks = [s("line", { class: "base", x1: EDGE.left, x2: wide - EDGE.right, y1: base, y2: base })];
    for (const share of top === null ? [] : [0.5, 1]) {
      const y = this.y(top * share);
      marks.push(s("line", { class: "gridline", x1: EDGE.left, x2: wide - EDGE.right, y1: y, y2: y }),
        s("text", { x: EDGE.left - 8, y: y + 4, "text-anchor": "end" }, this.format(top * share)));
    }
    if (top !== null) marks.push(s("text", { x: EDGE.left - 8, y: base + 4, "text-anchor": "end" }, "0"));
    for (const [share, words, anchor] of [[1, `${ago(span)} ago`, "start"], [0.5, ago(span / 2), "middle"], [0, "now", "end"]]) {
      const x = EDGE.left + (1 - share) * (wide - EDGE.left - EDGE.right);
      marks.push(s("text", { x, y: TALL - 6, "text-anchor": anchor }, words));
    }
    this.back.replaceChildren(...marks);
  }

  #words(value) {
    return value == null ? NONE : this.format(value);
  }

  #summary() {
    const now = this.lines.map((each) => `${each.name} ${this.#words(each.values.at(-1))}`).join(", ");
    return `${this.title}: ${now || "nothing yet"}. Arrow keys read earlier values.`;
  }

  #pointed(event) {
    if (this.at.length) point(this.moment(event.clientX - this.frame.getBoundingClientRect().left));
  }

  #keyed(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") point(null);
    if (step === undefined || !this.at.length) return;
    event.preventDefault();
    const now = shared.moment === null ? this.at.length : nearest(this.at, shared.moment);
    const index = Math.min(this.at.length - 1, Math.max(0, now + step));
    point(this.at[index]);
    const told = this.lines.map((each) => `${each.name} ${this.#words(each.values[index])}`);
    write(this.spoken, `${time(this.at[index])}: ${told.join(", ")}`);
  }

  #pointer() {
    const shown = shared.moment !== null && this.at.length > 0 && this.lines.length > 0 && this.x !== undefined;
    this.tip.hidden = !shown;
    mark(this.over, { visibility: shown ? "visible" : "hidden" });
    if (!shown) return;
    const index = nearest(this.at, shared.moment);
    const x = this.x(this.at[index]);
    mark(this.cursor, { x1: x, x2: x });
    const told = this.lines.filter((each) => each.values[index] != null);
    keep(this.dots, told, (each) => each.name, () => s("circle", { r: 4 }),
      (node, each) => mark(node, { class: `dot ${each.tone}`, cx: x, cy: this.y(each.values[index]) }));
    write(this.when, time(this.at[index]));
    keep(this.values, this.lines, (each) => each.name, () => h("li", {}, h("i"), h("span"), h("b")), (node, each) => {
      mark(node, { class: each.tone });
      write(node.children[1], each.name);
      write(node.children[2], this.#words(each.values[index]));
    });
    const wide = this.frame.clientWidth;
    const left = x > wide / 2 ? x - this.tip.offsetWidth - 12 : x + 12;
    this.tip.style.left = `${Math.max(0, Math.min(left, wide - this.tip.offsetWidth))}px`;
  }

  /** The last points, newest first; made only where somebody reads them. */
  #tabled() {
    if (!this.table.open) return;
    const rows = this.at.map((at, index) => index).slice(-LISTED).reverse();
    this.list.tHead.replaceChildren(h("tr", {}, h("th", { scope: "col" }, "time"),
      this.lines.map((each) => h("th", { scope: "col", class: "number" }, each.name))));
    this.list.tBodies[0].replaceChildren(...rows.map((index) => h("tr", {}, h("td", {}, time(this.at[index])),
      this.lines.map((each) => h("td", { class: "number" }, this.#words(each.values[index]))))));
  }
}

const ago = (span) => (span < 120 ? `${Math.round(span)} s` : `${+(span / 60).toFixed(span < 180 ? 1 : 0)} min`);

/** A small line without axes. */
export const spark = () => s("svg", { class: "spark", viewBox: "0 0 92 22", "aria-hidden": "true" }, s("path"));

export function drawSpark(node, values) {
  const found = values.slice(-120);
  const most = Math.max(1e-9, ...found);
  const step = 90 / Math.max(1, found.length - 1);
  const d = found.map((each, index) => `${index ? "L" : "M"}${(1 + index * step).toFixed(1)} ${(20 - (18 * (each ?? 0)) / most).toFixed(1)}`);
  mark(node.firstChild, { d: d.join("") });
}
