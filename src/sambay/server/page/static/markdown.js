// Markdown in the page. The server renders it; what it sends is the only HTML that is ever read here, through the one
// policy that the page allows.

import { render } from "./api.js";
import { copy, h, icon } from "./dom.js";

const policy = globalThis.trustedTypes?.createPolicy("sambay", { createHTML: (html) => html }) ?? {
  createHTML: (html) => html,
};

/** Milliseconds between two renderings of a reply that grows. */
const PACE = 100;

/** Characters that are rendered in one request, about. */
const BATCH = 100_000;

function nodesOf(html) {
  const template = document.createElement("template");
  template.innerHTML = policy.createHTML(html);
  for (const figure of template.content.querySelectorAll("figure.code")) {
    const button = h("button", { type: "button", class: "button quiet small copy-code" }, icon("copy"), "Copy");
    figure.prepend(h("figcaption", {}, h("span", {}, figure.dataset.language), button));
  }
  // White space between blocks would be nodes to compare.
  return [...template.content.childNodes].filter((node) => node.nodeType !== Node.TEXT_NODE || node.data.trim());
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.(".copy-code");
  if (button) copy(button.closest("figure").querySelector("code").textContent, button);
});

/** Show texts in elements, few requests for many: [[element, text]]. */
export async function show(pairs) {
  let length = 0;
  const batches = Object.groupBy(pairs, ([, text]) => Math.floor((length += text.length) / BATCH));
  await Promise.all(Object.values(batches).map(showBatch));
}

async function showBatch(pairs) {
  try {
    const parts = await render(pairs.map(([, text]) => ({ text })));
    pairs.forEach(([element], number) => element.replaceChildren(...nodesOf(parts[number].blocks.join(""))));
  } catch {
    for (const [element, text] of pairs) plain(element, text);
  }
}

/** A text as it stands, where the server cannot be asked. */
function plain(element, text) {
  element.replaceChildren(h("p", { class: "plain" }, text));
}

/**
 * A text that grows in an element. Finished blocks stay the nodes that they are; of the open one only that changes which
 * is different, so that a selection, a scrolled table and the eye stay where they were.
 */
export class Growing {
  #element;
  #text = "";
  #begin = 0; // of what is still open, in the text
  #kept = 0; // nodes of finished blocks
  #running = null;
  #dirty = false;
  #over = false;

  constructor(element) {
    this.#element = element;
    element.replaceChildren();
  }

  /** The whole text so far. */
  update(text) {
    this.#text = text;
    this.#dirty = true;
    this.#running ??= this.#run();
  }

  /** The text is complete; resolves when all of it is shown. */
  async finish(text) {
    this.#text = text;
    this.#over = true;
    await this.#running;
    await this.#draw(false);
  }

  async #run() {
    while (this.#dirty && !this.#over) {
      this.#dirty = false;
      const start = performance.now();
      await this.#draw(true);
      const spent = performance.now() - start;
      // A slow server is asked less often: rendering takes a fifth of the time at most.
      await new Promise((resolve) => setTimeout(resolve, Math.max(PACE - spent, 4 * spent)));
    }
    this.#running = null;
  }

  async #draw(growing) {
    if (this.#begin === this.#text.length) return;
    try {
      const [{ blocks, open, rest }] = await render([{ text: this.#text.slice(this.#begin), growing }]);
      const done = blocks.flatMap(nodesOf);
      replace(this.#element, this.#kept, [...done, ...nodesOf(open)]);
      this.#kept += done.length;
      this.#begin += rest;
    } catch {
      replace(this.#element, this.#kept, [h("p", { class: "plain" }, this.#text.slice(this.#begin))]);
    }
  }
}

/** Make the children of an element from a place on like some new ones, changing as little as can be. */
function replace(parent, from, wanted) {
  wanted.forEach((node, number) => {
    const there = parent.childNodes[from + number];
    if (!there) parent.append(node);
    else if (!become(there, node)) there.replaceWith(node);
  });
  while (parent.childNodes.length > from + wanted.length) parent.lastChild.remove();
}

/** Make a node like another, if they are of the same kind. */
function become(node, wanted) {
  if (node.nodeType !== wanted.nodeType || node.nodeName !== wanted.nodeName) return false;
  if (node.nodeType === Node.TEXT_NODE) {
    if (node.data === wanted.data) return true;
    // Text that only grew keeps its selection.
    if (wanted.data.startsWith(node.data)) node.appendData(wanted.data.slice(node.data.length));
    else node.data = wanted.data;
    return true;
  }
  if (node.isEqualNode(wanted)) return true;
  if (node.nodeName === "math" || node.attributes.length !== wanted.attributes.length) return false;
  for (const { name, value } of wanted.attributes) if (node.getAttribute(name) !== value) return false;
  replace(node, 0, [...wanted.childNodes]);
  return true;
}
