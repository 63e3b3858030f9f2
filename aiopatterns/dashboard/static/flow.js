/*
 * A flow as a picture: layers by the longest way from a source, few crossings, arrows between.
 *
 *   a --> b --> d        layer of a node = longest path to it
 *     \-> c -->/         order in a layer = mean place of its neighbours (Sugiyama, Tagawa, Toda 1981)
 *
 * An arrow over several layers goes by a bend in each of them, so it never crosses a box. A cycle is
 * no reason to fail: what is left in one is put behind all others.
 */

import { s } from "./dom.js";
import { tone, words } from "./format.js";

const LYING = { wide: 160, tall: 48, gap: 40, letters: 17 };
const UPRIGHT = { wide: 128, tall: 46, gap: 30, letters: 12 };
const SLOT = 14;
const BEND = 10;
const SWEEPS = 8;
// A picture that is too large is drawn smaller, down to this; then it is moved under its frame.
const LEAST = 0.7;

const MARKS = {
  good: "M3 8.5 6.5 12 13 4.5", busy: "M8 2a6 6 0 1 1-.01 0", wait: "M6 4v8M10 4v8",
  bad: "M4 4l8 8M12 4l-8 8", dull: "M8 3a5 5 0 1 1-.01 0",
};

/** The layer of each node, by Kahn's algorithm. */
function layersOf(nodes, edges) {
  const layer = new Map(nodes.map((each) => [each.id, 0]));
  const missing = new Map(nodes.map((each) => [each.id, 0]));
  const after = new Map(nodes.map((each) => [each.id, []]));
  for (const [from, to] of edges) {
    missing.set(to, missing.get(to) + 1);
    after.get(from).push(to);
  }
  const ready = nodes.filter((each) => missing.get(each.id) === 0).map((each) => each.id);
  const placed = new Set(ready);
  for (const id of ready) {
    for (const next of after.get(id)) {
      layer.set(next, Math.max(layer.get(next), layer.get(id) + 1));
      missing.set(next, missing.get(next) - 1);
      if (missing.get(next) === 0) placed.add(next), ready.push(next);
    }
  }
  const last = Math.max(-1, ...[...placed].map((id) => layer.get(id)));
  for (const each of nodes) if (!placed.has(each.id)) layer.set(each.id, last + 1);
  return layer;
}

/** Rows of nodes and bends, one for each layer, and the way of each edge through them. */
function rowsOf(nodes, edges, layer) {
  const rows = [];
  const put = (id, at, bend) => (rows[at] ??= []).push({ id, at, bend, before: [], after: [] }) && rows[at].at(-1);
  const cells = new Map(nodes.map((each) => [each.id, put(each.id, layer.get(each.id), false)]));
  const ways = edges.map(([from, to]) => {
    const way = [cells.get(from)];
    for (let at = way[0].at + 1; at < layer.get(to); at += 1) way.push(put(`${from} ${to} ${at}`, at, true));
    way.push(cells.get(to));
    for (let index = 1; index < way.length; index += 1) {
      way[index].before.push(way[index - 1]);
      way[index - 1].after.push(way[index]);
    }
    return way;
  });
  return [rows, ways];
}

/** Order each row by the mean place of its neighbours, forth and back. */
function settle(rows) {
  const number = (row) => row.forEach((cell, place) => (cell.place = place - (row.length - 1) / 2));
  rows.forEach(number);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const [side, order] = sweep % 2 ? ["after", [...rows].reverse()] : ["before", rows];
    for (const row of order) {
      for (const cell of row) {
        const near = cell[side];
        cell.mean = near.length ? near.reduce((sum, each) => sum + each.place, 0) / near.length : cell.place;
      }
      row.sort((one, other) => one.mean - other.mean);
      number(row);
    }
  }
}

/** Move each cell of a row to where its neighbours are, as far as their order and their sizes allow. */
function align(row, side, room) {
  const wish = row.map((cell) => {
    const near = side(cell);
    return near.length ? near.reduce((sum, each) => sum + each.side, 0) / near.length : cell.side;
  });
  const apart = (one, other) => (room(one) + room(other)) / 2 + SLOT;
  const low = [...wish];
  const high = [...wish];
  for (let at = 1; at < row.length; at += 1) low[at] = Math.max(low[at], low[at - 1] + apart(row[at - 1], row[at]));
  for (let at = row.length - 2; at >= 0; at -= 1) high[at] = Math.min(high[at], high[at + 1] - apart(row[at], row[at + 1]));
  row.forEach((cell, at) => (cell.side = (low[at] + high[at]) / 2));
}

/** Where everything stands: {wide, tall, boxes: [{id, x, y}], ways: [[from, to, cells]]}. */
export function layout(flow, upright) {
  const known = new Set(flow.nodes.map((each) => each.id));
  const edges = flow.edges.filter(([from, to]) => known.has(from) && known.has(to) && from !== to);
  const [rows, ways] = rowsOf(flow.nodes, edges, layersOf(flow.nodes, edges));
  settle(rows);
  const box = upright ? UPRIGHT : LYING;
  const [along, across] = upright ? [box.tall, box.wide] : [box.wide, box.tall];
  const room = (cell) => (cell.bend ? BEND : across);
  for (const row of rows) for (const cell of row) cell.side = cell.place * (across + SLOT);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const side = [(cell) => cell.before, (cell) => cell.after, (cell) => [...cell.before, ...cell.after]][sweep % 3];
    for (const row of sweep % 2 ? [...rows].reverse() : rows) align(row, side, room);
  }
  const cells = rows.flat();
  const first = Math.min(...cells.map((cell) => cell.side - room(cell) / 2));
  const breadth = Math.max(...cells.map((cell) => cell.side + room(cell) / 2)) - first;
  const length = rows.length * along + (rows.length - 1) * box.gap;
  for (const cell of cells) {
    const far = cell.at * (along + box.gap) + along / 2;
    [cell.x, cell.y] = upright ? [cell.side - first, far] : [far, cell.side - first];
  }
  return {
    wide: upright ? breadth : length,
    tall: upright ? length : breadth,
    boxes: cells.filter((cell) => !cell.bend),
    ways: ways.map((way) => [way[0].id, way.at(-1).id, way]),
  };
}

/** The arrow of one way: out of a box, through the bends, into a box. */
function arrow(way, upright) {
  const half = (upright ? UPRIGHT.tall : LYING.wide) / 2;
  const last = way.length - 1;
  const points = way.flatMap((cell, index) => {
    const enter = [cell.x - (upright ? 0 : half), cell.y - (upright ? half : 0)];
    const leave = [cell.x + (upright ? 0 : half), cell.y + (upright ? half : 0)];
    return index === 0 ? [leave] : index === last ? [enter] : [enter, leave];
  });
  points.at(-1)[upright ? 1 : 0] -= 6;
  let d = `M${points[0]}`;
  for (let index = 1; index < points.length; index += 1) {
    const [[ax, ay], [bx, by]] = [points[index - 1], points[index]];
    const [mx, my] = [(ax + bx) / 2, (ay + by) / 2];
    const bend = index % 2 === 1;
    d += !bend ? `L${bx} ${by}` : upright ? `C${ax} ${my} ${bx} ${my} ${bx} ${by}` : `C${mx} ${ay} ${mx} ${by} ${bx} ${by}`;
  }
  const [x, y] = points.at(-1);
  const head = upright ? `M${x - 4} ${y - 1}h8l-4 7z` : `M${x - 1} ${y - 4}v8l7-4z`;
  return [d, head];
}

function drawn(place, node, size) {
  const kind = tone(node.state);
  const [x, y] = [place.x - size.wide / 2, place.y - size.tall / 2];
  const label = node.label || node.id;
  const short = label.length <= size.letters ? label : `${label.slice(0, size.letters - 1)}…`;
  return s("g", { class: `node ${kind}` },
    s("title", {}, `${label}: ${words(node.state)}`),
    s("rect", { x, y, width: size.wide, height: size.tall, rx: 10 }),
    s("g", { transform: `translate(${x + 10} ${y + size.tall / 2 - 8})` }, s("path", { class: "mark", d: MARKS[kind] })),
    s("text", { class: "what", x: x + 34, y: y + size.tall / 2 - 3 }, short),
    s("text", { class: "how", x: x + 34, y: y + size.tall / 2 + 13 }, words(node.state)));
}

/** The picture; `upright` runs from top to bottom, for narrow pages. */
export function picture(flow, upright = false) {
  const plan = layout(flow, upright);
  const nodes = new Map(flow.nodes.map((each) => [each.id, each]));
  const arrows = plan.ways.flatMap(([from, to, way]) => {
    const ends = [nodes.get(from), nodes.get(to)].map((each) => tone(each.state));
    const kind = ends[1] === "bad" ? "failed" : ends[0] === "good" ? "done" : "";
    const [line, head] = arrow(way, upright);
    return [s("path", { class: `edge ${kind}`, d: line }), s("path", { class: `tipmark ${kind}`, d: head })];
  });
  const told = flow.nodes.map((each) => `${each.label || each.id} ${words(each.state)}`).join(", ");
  const size = upright ? UPRIGHT : LYING;
  const svg = s("svg", {
    viewBox: `-2 -2 ${plan.wide + 4} ${plan.tall + 4}`, width: plan.wide + 4,
    role: "img", "aria-label": `${flow.kind} ${flow.name}: ${told}`,
  }, ...arrows, ...plan.boxes.map((place) => drawn(place, nodes.get(place.id), size)));
  svg.style.setProperty("--since", `-${performance.now() % 1400}ms`); // what turns goes on where it was
  svg.style.minWidth = `${LEAST * plan.wide}px`;
  return svg;
}
