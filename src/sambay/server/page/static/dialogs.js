// Questions that the page asks, each a promise of the answer.

import { setKey } from "./api.js";
import { h } from "./dom.js";

function ask(title, content, actions, wide = false) {
  return new Promise((resolve) => {
    const form = h("form", { method: "dialog" }, h("h2", { id: "dialog-title" }, title), content, h("div", { class: "actions" }, actions));
    const dialog = h("dialog", { "aria-labelledby": "dialog-title", class: wide ? "wide" : "" }, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// Enter presses the first button that submits, and this comes last.
const cancel = () => h("button", { type: "submit", value: "", class: "button", formnovalidate: true }, "Cancel");

/** Whether to do something that cannot be undone. */
export async function confirm(title, sentence, action) {
  const go = h("button", { type: "submit", value: "yes", class: "button danger" }, action);
  return (await ask(title, h("p", {}, sentence), [cancel(), go])) === "yes";
}

/** Something to be read. */
export async function tell(title, sentence) {
  await ask(title, h("p", {}, sentence), [h("button", { type: "submit", class: "button primary" }, "Close")]);
}

/** A line of text, or null. */
export async function askText(title, label, value) {
  const input = h("input", { id: "dialog-text", required: true, maxlength: 200, autocomplete: "off", autofocus: true });
  input.value = value;
  const field = h("div", { class: "field" }, h("label", { for: "dialog-text" }, label), input);
  const answer = ask(title, field, [h("button", { type: "submit", value: "yes", class: "button primary" }, "Save"), cancel()]);
  input.select();
  return (await answer) === "yes" ? input.value.trim() || null : null;
}

let asking = null;

/** The API key of the server; true if one was given. Asked once at a time. */
export function askKey(sentence = "A key that the server was started with. It is sent to this server only.") {
  asking ??= (async () => {
    const input = h("input", { id: "dialog-key", type: "password", required: true, autocomplete: "current-password", autofocus: true });
    const remember = h("input", { type: "checkbox", id: "dialog-remember" });
    const content = h(
      "div", { class: "stack" }, h("p", { class: "muted" }, sentence),
      h("div", { class: "field" }, h("label", { for: "dialog-key" }, "API key"), input),
      h("label", { class: "switch" }, remember, "Remember on this device"),
    );
    const go = h("button", { type: "submit", value: "yes", class: "button primary" }, "Continue");
    const given = (await ask("API key", content, [go, cancel()])) === "yes" && input.value.trim() !== "";
    if (given) setKey(input.value.trim(), remember.checked);
    asking = null;
    return given;
  })();
  return asking;
}

const SHORTCUTS = [
  ["Send", "Enter"],
  ["Break the line", "Shift+Enter"],
  ["Stop the reply", "Esc"],
  ["Edit the last message", "↑ in an empty message"],
  ["New conversation", "Ctrl+Shift+O"],
  ["Search conversations", "Ctrl+K"],
  ["Show or hide conversations", "Ctrl+B"],
  ["Settings", "Ctrl+,"],
  ["This list", "Ctrl+/"],
];

export async function showShortcuts() {
  if (document.querySelector("dialog[open]")) return;
  const mac = /Mac|iPhone|iPad/.test(navigator.platform);
  const rows = SHORTCUTS.map(([what, keys]) =>
    h("div", {}, h("dt", {}, what),
      h("dd", {}, keys.split("+").flatMap((key) => [h("kbd", {}, mac && key === "Ctrl" ? "⌘" : key), " "]))));
  await ask("Shortcuts", h("dl", { class: "shortcuts" }, rows), [h("button", { type: "submit", class: "button primary" }, "Close")]);
}
