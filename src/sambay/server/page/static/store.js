// Conversations in IndexedDB: whole ones, and an index that the list is drawn from. Other tabs hear of changes.

const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("sambay") : null;

let opened = null;
const memory = new Map(); // where the browser forbids storage

function open() {
  opened ??= new Promise((resolve) => {
    let request;
    try {
      request = indexedDB.open("sambay", 1);
    } catch {
      resolve(null);
      return;
    }
    request.onupgradeneeded = () => {
      request.result.createObjectStore("conversations", { keyPath: "id" });
      request.result.createObjectStore("index", { keyPath: "id" });
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
    request.onblocked = () => resolve(null);
  });
  return opened;
}

async function transact(mode, work) {
  const database = await open();
  const transaction = database.transaction(["conversations", "index"], mode);
  const request = work(transaction.objectStore("conversations"), transaction.objectStore("index"));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

const entry = ({ id, title, updated }) => ({ id, title, updated });

/** Whether conversations survive a reload. */
export const lasting = async () => (await open()) !== null;

/** [{id, title, updated}], the latest first. */
export async function list() {
  const all = (await open()) ? await transact("readonly", (_, index) => index.getAll()) : [...memory.values()].map(entry);
  return all.sort((one, other) => other.updated - one.updated);
}

export async function load(id) {
  if (!(await open())) return structuredClone(memory.get(id));
  return transact("readonly", (conversations) => conversations.get(id));
}

export async function loadAll() {
  if (!(await open())) return [...memory.values()];
  return transact("readonly", (conversations) => conversations.getAll());
}

/** Keep a conversation as it is now. */
export async function put(conversation) {
  if (!(await open())) {
    memory.set(conversation.id, structuredClone(conversation));
  } else {
    await transact("readwrite", (conversations, index) => {
      index.put(entry(conversation));
      return conversations.put(conversation);
    });
  }
  channel?.postMessage({ changed: conversation.id });
}

export async function remove(id) {
  if (!(await open())) memory.delete(id);
  else
    await transact("readwrite", (conversations, index) => {
      index.delete(id);
      return conversations.delete(id);
    });
  channel?.postMessage({ changed: id });
}

/** The entries of conversations in which all the words occur. */
export async function search(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = (await loadAll()).filter((one) => {
    const text = [one.title, ...Object.values(one.nodes).map((node) => node.text)].join("\n").toLowerCase();
    return words.every((word) => text.includes(word));
  });
  return found.map(entry).sort((one, other) => other.updated - one.updated);
}

/** Call back with the id of what another tab has changed. */
export function onChange(call) {
  channel?.addEventListener("message", ({ data }) => call(data.changed));
}
