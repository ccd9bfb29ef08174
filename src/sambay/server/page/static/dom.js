// Elements, icons and small services of the browser. Text goes in as text: nothing here reads HTML.

const SVG = "http://www.w3.org/2000/svg";

/** The element of an id. */
export const $ = (id) => document.getElementById(id);

/** An element: `h("button", {class: "button", onclick: run}, "Run")`. Functions are listeners, all else attributes. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** An icon of icons.svg; it says nothing to those who listen, so its button needs a label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.classList.add("icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `static/icons.svg#${name}`);
  svg.append(use);
  return svg;
}

export const iconButton = (name, label, onclick, attributes = {}) =>
  h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...attributes }, icon(name));

/** Tell those who listen; one sentence, seldom. */
export function announce(sentence) {
  $("status").textContent = sentence;
}

/** Copy a text, and say so on the button that was pressed. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No secure context (http on another host): the old way.
    const area = h("textarea", { class: "spoken-only", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  announce("Copied");
  const before = [...button.childNodes];
  if (button.classList.contains("done")) return;
  button.classList.add("done");
  button.replaceChildren(icon("check"), ...(button.classList.contains("icon-button") ? [] : ["Copied"]));
  setTimeout(() => {
    button.replaceChildren(...before);
    button.classList.remove("done");
  }, 1500);
}

/** Let the browser save a text as a file. */
export function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Small values that survive a reload, where the browser allows it. */
export const kept = {
  get(name, otherwise = null) {
    try {
      return JSON.parse(localStorage.getItem(`sambay-${name}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(name, value) {
    try {
      if (value == null) localStorage.removeItem(`sambay-${name}`);
      else localStorage.setItem(`sambay-${name}`, JSON.stringify(value));
    } catch {
      // Forbidden or full: it is forgotten with the page.
    }
  },
};
