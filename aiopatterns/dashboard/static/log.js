/* The event log: what has changed, newest first, as it comes. */

import { button, card, choices, field, h, keep, nothing, write } from "./dom.js";
import { count, time } from "./format.js";

const LEVELS = ["debug", "info", "warning", "error"];
const SHOWN = 200;

export class Log {
  constructor(live) {
    this.live = live;
    this.level = h("select", { on: { change: () => this.show() } });
    choices(this.level, LEVELS.map((each) => [each, each === "debug" ? "all" : each === "error" ? "errors" : `${each} and above`]));
    this.search = h("input", { type: "search", placeholder: "event or words", autocomplete: "off", on: { input: () => this.show() } });
    this.stop = button("Pause", () => this.#hold());
    this.held = null;
    this.hint = h("p", { class: "hint", role: "status" });
    this.list = h("ol", { class: "log", role: "log", "aria-live": "off", "aria-label": "Events, newest first" });
    this.empty = nothing("Nothing has happened yet",
      "Workers that come and go, dead letters, queues that are paused, breakers that open: each is a line here.");
    this.card = card("Events", "newest first",
      h("div", { class: "filters" }, field("Level", this.level, "field grow"), field("Search", this.search, "field grow"), h("span", { class: "space" }), this.stop),
      this.hint, this.list);
    this.node = h("div", { class: "stack" }, this.card, this.empty);
  }

  #hold() {
    this.held = this.held ? null : [...this.live.log];
    write(this.stop, this.held ? "Resume" : "Pause");
    this.show();
  }

  show() {
    const all = this.held ?? this.live.log;
    this.empty.hidden = all.length > 0;
    this.card.hidden = all.length === 0;
    const least = LEVELS.indexOf(this.level.value);
    const wanted = this.search.value.trim().toLowerCase();
    const found = all.filter((each) => LEVELS.indexOf(each.level) >= least && `${each.event} ${each.text} ${each.source}`.toLowerCase().includes(wanted));
    const missed = this.held ? this.live.log.length - this.live.log.indexOf(this.held.at(-1)) - 1 : 0;
    write(this.hint, this.held ? `paused; ${count(missed)} came since` : found.length > SHOWN ? `the newest ${SHOWN} of ${count(found.length)}` : found.length ? "" : "Nothing of that kind.");
    keep(this.list, found.slice(-SHOWN).reverse(), (each) => each.number, (each) => h("li", { class: each.level },
      h("time", { datetime: new Date(each.at * 1000).toISOString() }, time(each.at)),
      h("span", {}, h("span", { class: "event" }, each.event), h("span", { class: "fields" }, `${each.text} (${each.source})`))), () => {});
  }
}
