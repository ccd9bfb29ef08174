// One reply of the model: from the request to the last piece, whether its conversation is on the screen or not.

import { ApiError, stream } from "./api.js";
import { messages } from "./conversation.js";
import { put } from "./store.js";

/** Milliseconds after which a reply that runs is kept once more. */
const KEEP = 1500;

/** Fields of the settings that go to the server as they are, where they are set. */
const SAMPLING = ["temperature", "top_p", "max_tokens", "seed"];

/** The body of the request that asks for an answer to a turn of the user. */
export function requestBody(conversation, node, model) {
  const { settings } = conversation;
  const body = { messages: messages(conversation, node), stream: true, stream_options: { include_usage: true } };
  if (model) body.model = model;
  for (const name of SAMPLING) if (settings[name] != null) body[name] = settings[name];
  if (settings.thinking === false) body.enable_thinking = false;
  else if (settings.max_thinking_tokens != null) body.max_thinking_tokens = settings.max_thinking_tokens;
  return body;
}

export class Reply {
  /** Called when something came, and when the reply is over. */
  onUpdate = () => {};
  onEnd = () => {};
  running = true;
  started = performance.now();
  #control = new AbortController();
  #kept = performance.now();
  #discarded = false;

  /**
   * @param conversation the node's
   * @param node the turn of the assistant that is written, still empty
   * @param model the name of the model, "" leaves the choice to the server
   */
  constructor(conversation, node, model) {
    Object.assign(this, { conversation, node, model });
  }

  /** End it; the server stops computing. */
  stop() {
    this.#control.abort();
  }

  /** End it, and keep nothing: its conversation is deleted. */
  discard() {
    this.#discarded = true;
    this.stop();
  }

  async run() {
    const { conversation, node } = this;
    const stats = { prompt: null, cached: null, tokens: null, first: null, seconds: null };
    let first = null;
    let last = null;
    let answering = null;
    try {
      const body = requestBody(conversation, conversation.nodes[node.parent], this.model);
      for await (const { reasoning, content, finish, usage } of stream(body, this.#control.signal)) {
        const now = performance.now();
        if (reasoning || content) {
          first ??= now;
          last = now;
        }
        if (reasoning) node.thinking = (node.thinking ?? "") + reasoning;
        if (content) {
          answering ??= now;
          node.text += content;
        }
        if (node.thinking && !node.text) node.thinkingSeconds = (now - first) / 1000;
        if (finish) node.finish = finish;
        if (usage) {
          stats.prompt = usage.prompt_tokens;
          stats.tokens = usage.completion_tokens;
          stats.cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
        }
        if (node.thinking && answering !== null) node.thinkingSeconds = (answering - first) / 1000;
        this.onUpdate();
        if (now - this.#kept > KEEP) this.#keep(now);
      }
    } catch (error) {
      if (error.name === "AbortError") node.finish = "stopped";
      else {
        node.error = error.message;
        node.finish = "error";
        this.failure = error instanceof ApiError ? error : null;
        if (!(error instanceof ApiError)) console.error(error);
      }
    }
    if (first !== null) {
      stats.first = (first - this.started) / 1000;
      stats.seconds = (last - first) / 1000;
    }
    node.stats = stats;
    this.running = false;
    this.#keep(performance.now());
    this.onEnd();
  }

  #keep(now) {
    if (this.#discarded) return;
    this.#kept = now;
    put(this.conversation).catch((error) => console.warn("The conversation was not kept:", error));
  }
}
