// The chat page: what happens when something is pressed.

import { models, setKey } from "./api.js";
import * as tree from "./conversation.js";
import { askKey, showShortcuts } from "./dialogs.js";
import { $, announce, h, kept } from "./dom.js";
import { Reply } from "./reply.js";
import { lastSettings, openSettings } from "./settings.js";
import { Sidebar, toggleSidebar } from "./sidebar.js";
import * as store from "./store.js";
import { Turns } from "./turns.js";

const EXAMPLES = [
  "What is 3/4 + 1/6?",
  "Solve 3x + 5 = 20",
  "A shop takes 15% off a price of 80. What does it cost now?",
  "A train travels 60 km per hour. How far does it travel in 3 hours?",
];

let conversation = tree.create("", lastSettings());
const replies = new Map(); // by conversation; those that are over stay until the next

const page = {
  async open(id) {
    const found = replies.get(id)?.conversation ?? (await store.load(id));
    if (found) showConversation(found);
    else startNew();
  },
  /** The conversation as this page has it, if it is at work on it. */
  running: (id) => (conversation.id === id ? conversation : replies.get(id)?.conversation),
  renamed(id, title) {
    if (conversation.id === id) setTitle(title);
  },
  removed(id) {
    replies.get(id)?.discard();
    replies.delete(id);
    if (conversation.id === id) startNew();
  },
};

const sidebar = new Sidebar(page);
const turns = new Turns({ edit, regenerate, retry: regenerate, branch, choose }, ended);
const message = $("message");
const picker = $("model");

const current = () => replies.get(conversation.id);
const busy = () => Boolean(current()?.running);

// --- what is shown ---------------------------------------------------------------------------------------------------

function setTitle(title) {
  $("title").textContent = title || "New conversation";
  document.title = title ? `${title} · sambay` : "sambay";
}

function showConversation(next) {
  const same = next.id === conversation.id;
  conversation = next;
  sidebar.current = next.id;
  setTitle(next.title);
  if (next.model && [...picker.options].some((one) => one.value === next.model)) picker.value = next.model;
  const hash = Object.keys(next.nodes).length ? `#${next.id}` : "";
  if (location.hash !== hash) {
    // A new conversation gets its address with its first turn; from one to another there is a way back.
    history[same ? "replaceState" : "pushState"](null, "", hash || location.pathname + location.search);
  }
  showThinking();
  turns.draw(next, current());
  showBusy();
}

function startNew() {
  showConversation(tree.create(picker.value, lastSettings()));
  message.focus();
}

function showBusy() {
  $("stop").hidden = !busy();
  $("send").hidden = busy();
  $("send").disabled = !message.value.trim();
}

function showThinking() {
  const on = conversation.settings.thinking !== false;
  $("thinking").setAttribute("aria-pressed", String(on));
  $("thinking").title = on ? "The model thinks before it answers" : "The model answers at once";
}

// --- turns -----------------------------------------------------------------------------------------------------------

/** Have a turn of the user answered. */
function answer(node) {
  const reply = new Reply(conversation, tree.add(conversation, node.id, "assistant"), picker.value);
  reply.node.model = conversation.model = picker.value;
  replies.set(conversation.id, reply);
  showConversation(conversation);
  store.put(conversation).then(() => sidebar.draw());
  reply.run();
  // The button that was pressed may be gone; a keyboard that covers the screen is not called up for that.
  if (document.activeElement === document.body && !matchMedia("(pointer: coarse)").matches) message.focus({ preventScroll: true });
}

function send(text) {
  if (busy() || !text.trim()) return;
  const last = tree.path(conversation).at(-1);
  const node = tree.add(conversation, last?.id ?? null, "user", text.trim());
  message.value = "";
  fit();
  kept.set("draft", null);
  answer(node);
}

function edit(node, text) {
  if (busy()) current().stop();
  answer(tree.add(conversation, node.parent, "user", text));
}

function regenerate(node) {
  if (busy()) return;
  answer(conversation.nodes[node.parent]);
}

function choose(node) {
  tree.choose(conversation, node);
  store.put(conversation);
  turns.draw(conversation, current());
  document.querySelector(`[data-id="${node.id}"] .switcher button:not(:disabled)`)?.focus({ preventScroll: true });
}

async function branch(node) {
  const made = tree.branch(conversation, node);
  await store.put(made);
  showConversation(made);
  sidebar.draw();
  announce("A new conversation goes on from here");
  message.focus();
}

function ended(of, node, reply) {
  sidebar.draw();
  if (of.id !== conversation.id) return;
  showBusy();
  if (reply.failure?.status === 401) {
    askKey(node.error).then(async (given) => {
      if (!given) return;
      await loadModels();
      regenerate(node);
    });
  }
}

// --- the server ------------------------------------------------------------------------------------------------------

async function loadModels() {
  try {
    const found = await models();
    const wanted = conversation.model || kept.get("model");
    picker.replaceChildren(...found.map(({ id }) => h("option", { value: id }, id)));
    if (found.some(({ id }) => id === wanted)) picker.value = wanted;
    picker.disabled = found.length < 2;
    picker.title = found.length < 2 ? "The only model that is served" : "The model that answers";
  } catch (error) {
    picker.replaceChildren(h("option", { value: "" }, "no model"));
    if (error.status === 401) {
      setKey(null);
      if (await askKey()) await loadModels();
    } else {
      announce(error.message);
      setTimeout(loadModels, 5000);
    }
  }
}

// --- what is pressed -------------------------------------------------------------------------------------------------

/** As high as its text; browsers that can do it by themselves need no help. */
function fit() {
  if (CSS.supports("field-sizing", "content")) return;
  message.style.height = "auto";
  message.style.height = `${message.scrollHeight}px`;
}

message.addEventListener("input", () => {
  fit();
  kept.set("draft", message.value || null);
  showBusy();
});
message.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send(message.value);
  } else if (event.key === "ArrowUp" && !message.value && !busy()) {
    event.preventDefault();
    turns.editLast();
  }
});
$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send(message.value);
});
$("stop").addEventListener("click", () => {
  current()?.stop();
  message.focus();
});
$("new").addEventListener("click", () => {
  if (document.body.classList.contains("with-sidebar")) toggleSidebar(false);
  startNew();
});
$("shortcuts").addEventListener("click", showShortcuts);
$("settings-open").addEventListener("click", settings);
$("thinking").addEventListener("click", () => {
  const { thinking, ...others } = conversation.settings;
  changeSettings(thinking === false ? others : { ...others, thinking: false });
  kept.set("settings", conversation.settings);
});
picker.addEventListener("change", () => {
  conversation.model = picker.value;
  kept.set("model", picker.value);
});
$("welcome")
  .querySelector("ul")
  .append(...EXAMPLES.map((text) => h("li", {}, h("button", { type: "button", class: "example", onclick: () => send(text) }, text))));

function settings() {
  if (!document.querySelector("dialog[open]")) openSettings(conversation.settings, changeSettings);
}

function changeSettings(changed) {
  conversation.settings = changed;
  showThinking();
  if (Object.keys(conversation.nodes).length) store.put(conversation);
}

document.addEventListener("keydown", (event) => {
  const open = document.querySelector("dialog[open], :popover-open");
  if (event.key === "Escape" && !open) {
    if (document.body.classList.contains("with-sidebar")) toggleSidebar(false);
    else if (busy()) current().stop();
    return;
  }
  if (!(event.ctrlKey || event.metaKey) || event.altKey || open) return;
  const key = event.key.toLowerCase();
  const run = {
    k: () => {
      toggleSidebar(true);
      $("search").focus();
      $("search").select();
    },
    b: () => toggleSidebar(),
    ",": settings,
    "/": showShortcuts,
    ...(event.shiftKey ? { o: startNew } : {}),
  }[key];
  if (run && (key === "o" || !event.shiftKey || key === "/")) {
    event.preventDefault();
    run();
  }
});

store.onChange(async (id) => {
  // Another tab went on with it; what this one is writing wins.
  if (id !== conversation.id || busy()) return;
  const found = await store.load(id);
  if (found && found.updated > conversation.updated) showConversation(found);
});

// --- the beginning ---------------------------------------------------------------------------------------------------

message.value = kept.get("draft", "");
fit();
showBusy();
showThinking();
sidebar.draw();
loadModels();
if (location.hash.length > 1) page.open(location.hash.slice(1));
addEventListener("popstate", () => {
  const id = location.hash.slice(1);
  if (id) page.open(id);
  else startNew();
});
store.lasting().then((lasting) => {
  if (!lasting) $("welcome").append(h("p", { class: "muted small" }, "This browser forbids storage: conversations end with this page."));
});
