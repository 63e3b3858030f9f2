/* Services with their instances, and flows as pictures. */

import { Table, card, chip, h, keep, nothing, write } from "./dom.js";
import { count, tone, words } from "./format.js";
import { picture } from "./flow.js";

const NARROW = 620;

/** Services: a card each, a row for every instance. */
export class Services {
  constructor(live) {
    this.live = live;
    this.cards = h("div", { class: "stack" });
    this.empty = nothing("No service is known", "Services show up when a process tells of its ServiceRegistry by a StatisticsPublisher.");
    this.node = h("div", { class: "stack" }, this.cards, this.empty);
  }

  show() {
    const { view } = this.live;
    if (!view) return;
    this.empty.hidden = view.services.length > 0;
    keep(this.cards, view.services, (each) => each.service, (each) => this.#card(each.service), (node, each) => {
      const good = each.instances.filter((one) => !one.stale && tone(one.state) === "good").length;
      write(node.querySelector(".hint"), `${good} of ${count(each.instances.length)} up`);
      node.table.update(each.instances);
    });
  }

  #card(service) {
    const table = new Table({
      label: `Instances of ${service}`, key: (each) => each.id, empty: "No instance is registered.",
      columns: [
        { head: "instance", kind: "name mono", cell: (each) => each.id },
        { head: "state", cell: (each) => (each.stale ? "stale" : words(each.state)), chip: (each) => (each.stale ? "bad" : tone(each.state)) },
        { head: "address", kind: "words mono", cell: (each) => (each.host ? `${each.host}:${each.port}` : "–") },
        { head: "zone", kind: "wide", cell: (each) => each.zone || "–" },
        { head: "version", kind: "wide", cell: (each) => each.version || "–" },
      ],
    });
    return Object.assign(card(service, " ", table.node), { table });
  }
}

/** Flows: a picture each, drawn anew when something in it is another. */
export class Flows {
  constructor(live) {
    this.live = live;
    this.cards = h("div", { class: "stack" });
    this.empty = nothing("No flow runs", "Graphs of tasks, pipelines and sagas are drawn here while their process tells of them by a StatisticsPublisher.");
    this.node = h("div", { class: "stack" }, this.cards, this.empty);
    new ResizeObserver(() => this.show()).observe(this.node);
  }

  show() {
    const { view } = this.live;
    if (!view) return;
    const upright = this.node.clientWidth < NARROW;
    this.empty.hidden = view.flows.length > 0;
    keep(this.cards, view.flows, (each) => `${each.kind} ${each.name} ${each.id}`, (each) => this.#card(each), (node, each) => {
      const drawn = JSON.stringify([upright, each]);
      if (node.drawn === drawn) return;
      node.drawn = drawn;
      node.frame.replaceChildren(picture(each, upright));
      const states = Map.groupBy(each.nodes, (one) => one.state);
      node.legend.replaceChildren(...[...states].map(([state, ones]) => chip(`${ones.length} ${words(state)}`, tone(state))));
    });
  }

  #card(flow) {
    const frame = h("div", { class: "flow", tabindex: 0, role: "group", "aria-label": `Picture of ${flow.name}` });
    const legend = h("span", { class: "chips" });
    const node = card(flow.name, [flow.kind, flow.id].filter(Boolean).join(" · "), frame);
    node.firstChild.append(legend);
    return Object.assign(node, { frame, legend });
  }
}
