// What the learner's and the teacher's page share: the key, the theme, and what to say of a failure.

import { request, setKey } from "./api.js";
import { $, announce, kept } from "./dom.js";

/** What the server answers to some JSON. */
export async function ask(path, body, signal) {
  return (await request(path, { body, signal })).json();
}

/** Say in the page that something went wrong; null takes it away again. */
export function fail(error) {
  const place = $("failure");
  place.hidden = !error;
  place.textContent = error ? sentence(error.message) : "";
  if (error?.status === 401) {
    $("key-form").hidden = false;
    $("key").focus();
  }
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");

/** The form of the key, and the button of the theme. `again` is called when there is a new key. */
export function furnish(again) {
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey($("key").value.trim(), false);
    $("key-form").hidden = true;
    fail(null);
    again();
  });
  const themes = ["system", "light", "dark"];
  const button = $("theme");
  const show = () => {
    const theme = document.documentElement.dataset.theme ?? "system";
    button.textContent = theme === "system" ? "Auto" : theme === "light" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Theme: ${theme}`);
    button.title = button.getAttribute("aria-label");
  };
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % themes.length];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      if (next === "system") localStorage.removeItem("sambay-theme");
      else localStorage.setItem("sambay-theme", next);
    } catch {
      // Storage is forbidden: it lasts as long as the page.
    }
    show();
    announce(`Theme: ${next}`);
  });
  show();
}

/** A cell that no spreadsheet takes for a formula, in quotes where it needs them. */
export function cell(value) {
  let text = String(value ?? "");
  if (/^\s*[=+\-@]|^[\t\r\n]/.test(text) && !/^[-+]?\d+([.,]\d+)?%?$/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export const csv = (rows) => `\ufeff${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;

export { kept };
