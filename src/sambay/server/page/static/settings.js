// The panel of settings: the system prompt and the sampling of a conversation, the theme and the key of the page.

import { hasKey } from "./api.js";
import { askKey } from "./dialogs.js";
import { h, kept } from "./dom.js";

const NUMBERS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, hint: "0 always takes the likeliest token; higher is more varied." },
  { name: "top_p", label: "Top-p", min: 0.01, max: 1, step: 0.01, hint: "Only the likeliest tokens that make up this probability." },
  { name: "max_tokens", label: "Most tokens", min: 1, max: 1_000_000, step: 1, own: "4,096", hint: "Thinking and answer together." },
  { name: "max_thinking_tokens", label: "Most tokens of thinking", min: 0, max: 1_000_000, step: 1, own: "no limit", hint: "Then the model has to answer." },
  { name: "seed", label: "Seed", min: 0, max: 2 ** 31 - 1, step: 1, own: "random", hint: "The same seed gives the same reply." },
];

/** Settings that a new conversation begins with: those that were chosen last. */
export const lastSettings = () => kept.get("settings", {});

export function applyTheme(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    // As theme.js reads it, before anything else runs.
    localStorage.setItem("sambay-theme", theme);
  } catch {
    // Forbidden: it holds until the page is left.
  }
}

function theme() {
  return document.documentElement.dataset.theme ?? "system";
}

/** Show the panel for some settings; `changed` is called with each new version of them. */
export function openSettings(settings, changed) {
  const current = { ...settings };
  const change = (name, value) => {
    if (value == null || value === "") delete current[name];
    else current[name] = value;
    kept.set("settings", current);
    changed({ ...current });
  };

  const system = h("textarea", {
    id: "set-system", rows: 4, placeholder: "You are a patient teacher. Answer in short steps.",
    onchange: (event) => change("system", event.target.value.trim()),
  });
  system.value = current.system ?? "";

  const thinking = h("input", {
    type: "checkbox", id: "set-thinking", checked: current.thinking !== false,
    onchange: (event) => change("thinking", event.target.checked ? null : false),
  });

  const fields = NUMBERS.map(({ name, label, min, max, step, hint, own = "model's own" }) => {
    const input = h("input", {
      id: `set-${name}`, type: "number", inputmode: "decimal", min, max, step: step < 1 ? "any" : step, placeholder: own,
      "aria-describedby": `hint-${name}`,
      onchange: ({ target }) => {
        if (target.validity.badInput || !target.checkValidity()) target.reportValidity();
        else change(name, target.value === "" ? null : Number(target.value));
      },
    });
    if (current[name] != null) input.value = current[name];
    return h("div", { class: "field" }, h("label", { for: input.id }, label), input, h("span", { class: "hint", id: `hint-${name}` }, hint));
  });

  const themes = h(
    "fieldset", { class: "choices" }, h("legend", { class: "label" }, "Theme"),
    ...["system", "light", "dark"].map((one) =>
      h("label", {}, h("input", { type: "radio", name: "theme", value: one, checked: one === theme(), onchange: () => applyTheme(one) }),
        one[0].toUpperCase() + one.slice(1)),
    ),
  );

  const dialog = h(
    "dialog", { class: "settings", "aria-labelledby": "settings-title", onclose: () => dialog.remove() },
    h("h2", { id: "settings-title" }, "Settings"),
    h("div", { class: "field" }, h("label", { for: "set-system" }, "System prompt"), system,
      h("span", { class: "hint" }, "Comes before this conversation and before new ones.")),
    h("label", { class: "switch" }, thinking, "Think before answering"),
    h("div", { class: "numbers" }, fields),
    themes,
    h("div", { class: "actions" },
      h("button", { type: "button", class: "button quiet", onclick: () => askKey() }, hasKey() ? "Change the API key" : "API key"),
      h("button", {
        type: "button", class: "button quiet", onclick: () => {
          for (const name of Object.keys(current)) delete current[name];
          kept.set("settings", {});
          changed({});
          dialog.close();
        },
      }, "Reset"),
      h("button", { type: "button", class: "button primary", onclick: () => dialog.close() }, "Done")),
  );
  closesOutside(dialog);
  document.body.append(dialog);
  dialog.showModal();
}

/** A click beside a dialog closes it. */
export function closesOutside(dialog) {
  dialog.addEventListener("pointerdown", (event) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    const { clientX: x, clientY: y, target } = event;
    if (target === dialog && (x < left || x > right || y < top || y > bottom)) dialog.close();
  });
}
