// A conversation: a tree of turns, of which one path is shown. Plain data, so that it can be stored as it is.
//
// {id, title, created, updated, model, settings, nodes: {id: node}, chosen: {parent id or "root": child id}}
// node: {id, parent, role, text, created}, and of the assistant {thinking, thinkingSeconds, stats, finish, error, model}

const ROOT = "root";

const newId = () => [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export function create(model, settings) {
  const now = Date.now();
  return {
    id: newId(), title: "", created: now, updated: now, model, settings: { ...settings }, nodes: {}, chosen: {},
  };
}

/** The turns that are shown, from the first on. */
export function path(conversation) {
  const found = [];
  for (let id = conversation.chosen[ROOT]; id; id = conversation.chosen[id]) found.push(conversation.nodes[id]);
  return found;
}

/** The turns that stand in the place of a node, itself among them. */
export const siblings = (conversation, node) =>
  Object.values(conversation.nodes)
    .filter((one) => one.parent === node.parent)
    .sort((one, other) => one.order - other.order);

/** A turn after `parent` (null for the first), which is shown from now on. */
export function add(conversation, parent, role, text = "") {
  const now = Date.now();
  const node = { id: newId(), parent, role, text, created: now, order: Object.keys(conversation.nodes).length };
  conversation.nodes[node.id] = node;
  choose(conversation, node);
  conversation.updated = now;
  if (!conversation.title && role === "user") conversation.title = titleOf(text);
  return node;
}

export function choose(conversation, node) {
  conversation.chosen[node.parent ?? ROOT] = node.id;
}

/** The first line of a text, cut at a word. */
export function titleOf(text) {
  const line = text.trim().split("\n")[0].replace(/\s+/g, " ");
  return line.length <= 60 ? line : `${line.slice(0, 60).replace(/\s+\S*$/, "")}…`;
}

/** What the model is sent to answer a turn of the user: no thinking, as it was not made to read its own. */
export function messages(conversation, node) {
  const found = [];
  for (let one = node; one; one = conversation.nodes[one.parent]) {
    if (one.role === "user" || one.text) found.unshift({ role: one.role, content: one.text });
  }
  const system = conversation.settings.system?.trim();
  return system ? [{ role: "system", content: system }, ...found] : found;
}

/** A conversation of its own, which goes on from a turn. */
export function branch(conversation, node) {
  const made = create(conversation.model, conversation.settings);
  made.title = conversation.title;
  const line = [];
  for (let one = node; one; one = conversation.nodes[one.parent]) line.unshift(one);
  let parent = null;
  for (const one of line) {
    const copy = add(made, parent, one.role, one.text);
    Object.assign(copy, { ...one, id: copy.id, parent, order: copy.order });
    parent = copy.id;
  }
  return made;
}

/** The path that is shown, as Markdown. */
export function toMarkdown(conversation) {
  const parts = [`# ${conversation.title || "Conversation"}`];
  const system = conversation.settings.system?.trim();
  if (system) parts.push("## System", system);
  for (const node of path(conversation)) {
    parts.push(node.role === "user" ? "## You" : `## ${node.model || "Model"}`);
    if (node.thinking) parts.push(`<details><summary>Thinking</summary>\n\n${node.thinking.trim()}\n\n</details>`);
    if (node.text.trim()) parts.push(node.text.trim());
  }
  return `${parts.join("\n\n")}\n`;
}

export const toJson = (conversations) => JSON.stringify({ format: "sambay-conversations", version: 1, conversations }, null, 1);

/** The conversations of a file, each checked and with ids of its own; throws an Error with one sentence. */
export function fromJson(text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    throw new Error("The file is not JSON: choose one that this page has exported.");
  }
  if (data?.format !== "sambay-conversations" || !Array.isArray(data.conversations)) {
    throw new Error("The file has no conversations of this page: choose one that it has exported as JSON.");
  }
  return data.conversations.map(checked);
}

const STRINGS = ["text", "thinking", "error", "model", "finish"];

function checked(given) {
  const wrong = () => new Error("A conversation in the file is damaged: its turns do not hang together.");
  if (typeof given?.nodes !== "object" || given.nodes === null || typeof given.chosen !== "object") throw wrong();
  const made = create(typeof given.model === "string" ? given.model : "", {});
  const settings = typeof given.settings === "object" && given.settings ? given.settings : {};
  for (const [name, value] of Object.entries(settings)) {
    if (["string", "number", "boolean"].includes(typeof value)) made.settings[name] = value;
  }
  const ids = new Map(Object.keys(given.nodes).map((id) => [id, newId()]));
  for (const [id, node] of Object.entries(given.nodes)) {
    const parent = node?.parent ?? null;
    if (!["user", "assistant"].includes(node?.role) || typeof node.text !== "string") throw wrong();
    if (parent !== null && !ids.has(parent)) throw wrong();
    const copy = { id: ids.get(id), parent: ids.get(parent) ?? null, role: node.role };
    for (const name of STRINGS) if (typeof node[name] === "string") copy[name] = node[name];
    for (const name of ["created", "order", "thinkingSeconds"]) copy[name] = Number.isFinite(node[name]) ? node[name] : 0;
    copy.stats = {};
    for (const [name, value] of Object.entries(node.stats ?? {})) if (Number.isFinite(value)) copy.stats[name] = value;
    made.nodes[copy.id] = copy;
  }
  for (const [parent, child] of Object.entries(given.chosen ?? {})) {
    const key = parent === ROOT ? ROOT : ids.get(parent);
    const node = made.nodes[ids.get(child)];
    if (key && node && (node.parent ?? ROOT) === key) made.chosen[key] = node.id;
  }
  for (const node of Object.values(made.nodes)) {
    // Up from each turn the root must come: a ring would never end.
    const seen = new Set();
    for (let one = node; one; one = made.nodes[one.parent]) {
      if (seen.has(one.id)) throw wrong();
      seen.add(one.id);
    }
  }
  made.title = typeof given.title === "string" ? given.title.slice(0, 200) : "";
  for (const name of ["created", "updated"]) if (Number.isFinite(given[name])) made[name] = given[name];
  return made;
}
