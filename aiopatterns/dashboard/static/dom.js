/* Elements without a framework: made, filled and kept. All text goes in as text nodes, never as markup. */

const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") for (const [kind, call] of Object.entries(value)) node.addEventListener(kind, call);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((each) => each != null));
  return node;
}

/** An HTML element; `props` are attributes, and `on` its listeners. */
export const h = (tag, props = {}, ...children) => fill(document.createElement(tag), props, children);

/** An SVG element. */
export const s = (tag, props = {}, ...children) => fill(document.createElementNS(SVG, tag), props, children);

/** Set a node's text, if it is another one: what has not changed is not touched. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Set attributes, if they are others. */
export function mark(node, props) {
  for (const [name, value] of Object.entries(props)) {
    if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
}

/** Make `parent` hold one node for each item, by key: nodes of items that stay are kept, with their focus. */
export function keep(parent, items, key, make, update) {
  const known = (parent.kept ??= new Map());
  const seen = new Set();
  let place = parent.firstChild;
  for (const item of items) {
    const id = key(item);
    if (seen.has(id)) continue;
    seen.add(id);
    if (!known.has(id)) known.set(id, make(item));
    const node = known.get(id);
    update(node, item);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  for (const [id, node] of known) {
    if (!seen.has(id)) {
      node.remove();
      known.delete(id);
    }
  }
}

/** A choice among words: sets the options anew only if they are others, and keeps what is chosen. */
export function choices(select, options, chosen = select.value) {
  const wanted = options.map(([value, text]) => `${value}\n${text}`).join("\n\n");
  if (select.wanted !== wanted) {
    select.wanted = wanted;
    select.replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
  }
  const found = options.some(([value]) => value === chosen) ? chosen : options[0]?.[0] ?? "";
  if (select.value !== found) select.value = found;
}

/** A labelled field; the label is its name also for those to whom the words around it are read. */
export function field(text, input, kind = "field") {
  mark(input, { "aria-label": text });
  return h("label", { class: kind }, text, input);
}

/** A button that says what it does. */
export const button = (text, click, kind = "") => h("button", { type: "button", class: `button ${kind}`, on: { click } }, text);

/** A card with a title, a hint and what is below. */
export function card(title, hint, ...body) {
  return h("section", { class: "card", "aria-label": title },
    h("div", { class: "head" }, h("h2", {}, title), h("span", { class: "hint" }, hint)), ...body);
}

/** What stands where nothing is yet. */
export const nothing = (title, text, kind = "empty full") => h("p", { class: kind }, h("b", {}, title), text);

/** A word in a coloured pill; the word tells, the colour only helps. */
export const chip = (text, tone = "") => h("span", { class: `chip ${tone}` }, text);

/** Names and values. `rows`: [name, value] where a value is text or a node. */
export function pairs(rows, kind = "pairs") {
  return h("dl", { class: kind }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/**
 * A table whose rows stay the same nodes from one update to the next; its roles are written down, for
 * on a phone its rows may be no rows to look at.
 *
 * columns: {head, kind, cell(item), tone(item)} for text; {head, make(row), show(node, item)} for
 * anything else, where `row.item` is the item of the moment. A `chip` column paints its text.
 */
export class Table {
  constructor({ label, columns, key, empty, kind = "" }) {
    this.columns = columns;
    this.key = key;
    this.body = h("tbody", { role: "rowgroup" });
    this.empty = h("p", { class: "empty", hidden: true }, empty);
    const heads = columns.map((each) => h("th", { scope: "col", role: "columnheader", class: (each.kind ?? "").replace(/mono|strong|words/g, "").trim() }, each.head));
    this.frame = h("div", { class: "scroll", role: "group", "aria-label": label },
      h("table", { role: "table", class: kind }, h("caption", {}, label), h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads)), this.body));
    this.node = h("div", {}, this.frame, this.empty);
  }

  update(items) {
    this.frame.hidden = items.length === 0;
    this.empty.hidden = items.length > 0;
    keep(this.body, items, this.key, () => this.#row(), (row, item) => this.#show(row, item));
    if (this.frame.scrollWidth > this.frame.clientWidth + 1) mark(this.frame, { tabindex: 0 });
    else this.frame.removeAttribute("tabindex");
  }

  #row() {
    const row = h("tr", { role: "row" });
    row.parts = this.columns.map((column) => {
      const inner = column.make?.(row) ?? (column.chip ? h("span", { class: "chip" }) : null);
      const cell = h("td", { role: "cell", class: column.kind ?? "" }, inner);
      row.append(cell);
      return inner ?? cell;
    });
    return row;
  }

  #show(row, item) {
    row.item = item;
    this.columns.forEach((column, at) => {
      const part = row.parts[at];
      if (column.show) column.show(part, item);
      if (!column.cell) return;
      write(part, column.cell(item));
      if (column.chip) mark(part, { class: `chip ${column.chip(item)}` });
      else if (column.tone) mark(part, { class: `${column.kind ?? ""} ${column.tone(item)}`.trim() });
    });
  }
}
