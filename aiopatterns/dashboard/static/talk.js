/* Words between the page and a person: dialogs, questions, and what has come of them. */

import { button, h } from "./dom.js";

const STAYS = 5000;

/** Say something for a while, at the page's lower edge. */
export function toast(text, kind = "") {
  const line = h("p", { class: kind }, text);
  const place = document.getElementById("toast");
  place.append(line);
  place.hidePopover();
  place.showPopover(); // above a dialog that was opened before
  setTimeout(() => line.remove(), STAYS);
}

/** Wait for a change, and say what came of it; true if it was made. */
export async function report(change, words) {
  try {
    toast(words(await change));
    return true;
  } catch (problem) {
    toast(problem.message, "bad");
    return false;
  }
}

/** Open a dialog with a title and a body; resolves when it is closed. Esc and a click beside it close it. */
export function dialog(title, body, kind = "") {
  const back = document.activeElement;
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Close", on: { click: () => box.close() } }, "✕");
  const box = h("dialog", { class: kind, "aria-label": title, on: { click: (event) => event.target === box && box.close() } },
    h("div", { class: "sheet" }, h("div", { class: "top" }, h("h2", {}, title), close), ...body));
  document.body.append(box);
  box.showModal();
  const closed = new Promise((resolve) => {
    box.addEventListener("close", () => {
      box.remove();
      back?.focus();
      resolve(box.returnValue);
    });
  });
  return { box, closed };
}

/** Ask whether something is to be done; true if so. */
export async function confirm(title, text, yes, kind = "main") {
  const no = button("Back", () => box.close());
  const go = button(yes, () => box.close("yes"), kind);
  const { box, closed } = dialog(title, [h("p", {}, text), h("div", { class: "buttons" }, no, go)], "narrow");
  (kind === "main" ? go : no).focus();
  return (await closed) === "yes";
}

const KEYS = [
  ["1 … 8", "open a section"], ["← →", "go along the sections, or along a plot"], ["/", "search"],
  ["t", "change between light and dark"], ["?", "this help"], ["Esc", "close, or leave a field"],
];

/** What the keys do. */
export function help() {
  const rows = KEYS.map(([keys, text]) => [h("dt", {}, h("kbd", {}, keys)), h("dd", {}, text)]);
  dialog("Keys", [h("dl", { class: "keys" }, rows)], "narrow");
}
