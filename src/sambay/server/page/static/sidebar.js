// The list of conversations: search, rename, export, delete.

import { fromJson, toJson, toMarkdown } from "./conversation.js";
import { askText, confirm, tell } from "./dialogs.js";
import { $, h, icon, save } from "./dom.js";
import * as store from "./store.js";

const narrow = matchMedia("(max-width: 52rem)");

const shownNow = () =>
  narrow.matches ? document.body.classList.contains("with-sidebar") : !document.body.classList.contains("without-sidebar");

/** Show or hide the list: beside the conversation, or over it where the window is narrow. */
export function toggleSidebar(shown = !shownNow()) {
  document.body.classList.toggle("with-sidebar", shown && narrow.matches);
  document.body.classList.toggle("without-sidebar", !shown && !narrow.matches);
  $("scrim").hidden = !(shown && narrow.matches);
  $("sidebar-open").setAttribute("aria-expanded", String(shown));
  $("stage").inert = shown && narrow.matches;
  if (shown && narrow.matches) $("sidebar-close").focus();
  else if (narrow.matches) $("sidebar-open").focus({ preventScroll: true });
}

const DAY = 24 * 3600 * 1000;

function ageOf(updated) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (updated >= midnight) return "Today";
  if (updated >= midnight - DAY) return "Yesterday";
  if (updated >= midnight - 7 * DAY) return "Last seven days";
  return new Date(updated).toLocaleDateString(undefined, { month: "long", year: "numeric" });
}

const fileName = (title, kind) => `${(title || "conversation").replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 50) || "conversation"}.${kind}`;

export class Sidebar {
  #current = null;
  #drawn = 0;

  /** `page` opens conversations (`page.open(id)`) and is told what became of them (`page.renamed`, `page.removed`). */
  constructor(page) {
    this.page = page;
    $("search").addEventListener("input", () => this.draw());
    $("search").addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown" || event.key === "Enter") {
        const first = $("conversations").querySelector("a");
        if (event.key === "Enter") first?.click();
        else first?.focus();
        event.preventDefault();
      }
    });
    $("conversations").addEventListener("keydown", (event) => {
      const links = [...$("conversations").querySelectorAll("a")];
      const place = links.indexOf(document.activeElement);
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (place < 0 || !step) return;
      (links[place + step] ?? (step < 0 ? $("search") : links[place])).focus();
      event.preventDefault();
    });
    $("sidebar-open").addEventListener("click", () => toggleSidebar());
    $("sidebar-close").addEventListener("click", () => toggleSidebar(false));
    $("scrim").addEventListener("click", () => toggleSidebar(false));
    narrow.addEventListener("change", () => {
      document.body.classList.remove("with-sidebar", "without-sidebar");
      $("scrim").hidden = true;
      $("stage").inert = false;
      $("sidebar-open").setAttribute("aria-expanded", String(!narrow.matches));
    });
    $("sidebar-open").setAttribute("aria-expanded", String(!narrow.matches));
    $("export-all").addEventListener("click", () => this.#exportAll());
    $("import").addEventListener("click", () => $("file").click());
    $("file").addEventListener("change", () => this.#import());
    store.onChange(() => this.draw());
  }

  get current() {
    return this.#current;
  }

  set current(id) {
    this.#current = id;
    for (const link of $("conversations").querySelectorAll("a")) this.#mark(link);
  }

  #mark(link) {
    if (link.dataset.id === this.#current) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }

  async draw() {
    const query = $("search").value.trim();
    const turn = ++this.#drawn;
    const entries = query ? await store.search(query) : await store.list();
    if (turn !== this.#drawn) return; // a later one is on its way
    const rows = [];
    let age = null;
    for (const entry of entries) {
      if (ageOf(entry.updated) !== age) {
        age = ageOf(entry.updated);
        rows.push(h("li", { class: "age" }, age));
      }
      rows.push(this.#row(entry));
    }
    if (!rows.length) rows.push(h("li", { class: "none muted small" }, query ? "Nothing found." : "What you ask is kept here."));
    const focused = document.activeElement?.closest?.("#conversations li")?.querySelector("a")?.dataset.id;
    $("conversations").replaceChildren(...rows);
    if (focused) $("conversations").querySelector(`a[data-id="${focused}"]`)?.focus({ preventScroll: true });
  }

  #row(entry) {
    const title = entry.title || "New conversation";
    const link = h("a", { href: `#${entry.id}`, "data-id": entry.id, title }, title);
    link.addEventListener("click", (event) => {
      event.preventDefault();
      this.page.open(entry.id);
      if (narrow.matches) toggleSidebar(false);
    });
    this.#mark(link);
    const more = h("button", {
      type: "button", class: "icon-button", "aria-label": `More about ${title}`, "aria-haspopup": "true",
      onclick: () => this.#menu(more, entry),
    }, icon("dots"));
    return h("li", { class: "row" }, link, more);
  }

  #menu(button, entry) {
    const menu = $("menu");
    const item = (label, run, kind = "") =>
      h("button", {
        type: "button", class: `item ${kind}`, onclick: () => {
          menu.hidePopover();
          button.focus();
          run();
        },
      }, label);
    menu.replaceChildren(
      item("Rename", () => this.#rename(entry)),
      item("Export as Markdown", async () => {
        save(fileName(entry.title, "md"), "text/markdown", toMarkdown(await store.load(entry.id)));
      }),
      item("Export as JSON", async () => {
        save(fileName(entry.title, "json"), "application/json", toJson([await store.load(entry.id)]));
      }),
      item("Delete", () => this.#remove(entry), "danger"),
    );
    menu.showPopover();
    const { right, bottom, top } = button.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = menu;
    menu.style.left = `${Math.max(8, Math.min(right - width, innerWidth - width - 8))}px`;
    menu.style.top = `${bottom + height + 8 > innerHeight ? Math.max(8, top - height - 4) : bottom + 4}px`;
    menu.firstElementChild.focus();
  }

  async #rename(entry) {
    const title = await askText("Rename", "Title", entry.title);
    if (title === null) return;
    const conversation = this.page.running(entry.id) ?? (await store.load(entry.id));
    if (!conversation) return;
    conversation.title = title;
    await store.put(conversation);
    this.page.renamed(entry.id, title);
    this.draw();
  }

  async #remove(entry) {
    const sentence = `“${entry.title || "New conversation"}” will be gone from this browser.`;
    if (!(await confirm("Delete the conversation?", sentence, "Delete"))) return;
    this.page.removed(entry.id);
    await store.remove(entry.id);
    await this.draw();
  }

  async #exportAll() {
    const all = await store.loadAll();
    if (!all.length) await tell("Nothing to export", "There are no conversations yet.");
    else save(`sambay-${new Date().toISOString().slice(0, 10)}.json`, "application/json", toJson(all));
  }

  async #import() {
    const [file] = $("file").files;
    $("file").value = "";
    if (!file) return;
    try {
      const found = fromJson(await file.text());
      for (const conversation of found) await store.put(conversation);
      await this.draw();
      if (found.length) this.page.open(found.at(-1).id);
    } catch (error) {
      await tell("Import", error.message);
    }
  }
}
