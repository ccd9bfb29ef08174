// The turns of a conversation on the screen.

import { path, siblings } from "./conversation.js";
import { $, announce, copy, h, icon, iconButton } from "./dom.js";
import { Growing, show } from "./markdown.js";

const seconds = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
const number = (value) => value.toLocaleString("en");

function duration(value) {
  if (value == null) return "Thoughts";
  if (value < 60) return `Thought for ${seconds(value)}`;
  return `Thought for ${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

/** What a reply came to, in words: tokens, speed, time to the first token, what was at hand. */
export function statsLine({ tokens, seconds: spent, first, prompt, cached } = {}, finish = null) {
  const parts = [];
  if (finish === "stopped") parts.push("stopped");
  if (tokens) parts.push(`${number(tokens)} token${tokens === 1 ? "" : "s"}`);
  if (tokens > 1 && spent > 0) parts.push(`${((tokens - 1) / spent).toFixed(1)} tokens/s`);
  if (first) parts.push(`first after ${first < 1 ? `${Math.round(1000 * first)} ms` : seconds(first)}`);
  if (prompt) parts.push(`${number(cached ?? 0)} of ${number(prompt)} prompt tokens cached`);
  return parts.join(" · ");
}

/** Keeps the end in view while a reply grows, until the reader goes up. */
class Follower {
  #following = true;

  constructor(scroller, button) {
    Object.assign(this, { scroller, button });
    scroller.addEventListener("scroll", () => this.#look(), { passive: true });
    // The wheel says what the reader wants before the place changes: growth must not win against it.
    scroller.addEventListener("wheel", ({ deltaY }) => deltaY < 0 && this.#set(false), { passive: true });
    button.addEventListener("click", () => {
      this.#set(true);
      this.#toEnd();
      $("message").focus({ preventScroll: true });
    });
    const sizes = new ResizeObserver(() => this.grew());
    sizes.observe($("turns"));
    sizes.observe(scroller);
  }

  get #gap() {
    return this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight;
  }

  #look() {
    const up = this.scroller.scrollTop < (this.last ?? 0) - 2;
    this.last = this.scroller.scrollTop;
    if (this.#gap < 40) this.#set(true);
    else if (up) this.#set(false);
  }

  #set(following) {
    this.#following = following;
    this.button.hidden = following || this.#gap < 40;
  }

  #toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  grew() {
    if (this.#following) this.#toEnd();
    else this.button.hidden = this.#gap < 40;
  }

  follow() {
    this.#set(true);
    this.#toEnd();
  }
}

/** One turn of the model. */
class AssistantTurn {
  #thinking;
  #answer;
  #touched = false; // the reader has opened or closed the thinking
  #tick = null;
  #rendered = false;

  constructor(turns, conversation, node) {
    Object.assign(this, { turns, conversation, node });
    this.summary = h("span", {});
    this.thoughts = h("div", { class: "markdown thoughts" });
    this.details = h(
      "details", { class: "thinking", hidden: true },
      h("summary", { onclick: () => (this.#touched = true) }, icon("right"), this.summary), this.thoughts,
    );
    this.details.addEventListener("toggle", () => this.#showThinking());
    this.answer = h("div", { class: "markdown answer" });
    this.wait = h("p", { class: "waiting", hidden: true }, h("span", {}), h("span", {}), h("span", {}));
    this.trouble = h("div", { class: "trouble" });
    this.foot = h("footer", {});
    this.element = h(
      "article", { class: "turn assistant", "aria-label": "Reply", "data-id": node.id },
      this.details, this.answer, this.wait, this.trouble, this.foot,
    );
  }

  /** What is to be rendered: [[element, text]]. */
  settled() {
    const { node } = this;
    this.details.hidden = !node.thinking;
    this.summary.textContent = duration(node.thinkingSeconds);
    this.wait.hidden = true;
    this.#foot();
    this.#trouble();
    return node.text ? [[this.answer, node.text]] : [];
  }

  #showThinking() {
    if (!this.details.open || this.#rendered || this.reply?.running) return;
    this.#rendered = true;
    show([[this.thoughts, this.node.thinking ?? ""]]);
  }

  /** Follow a reply that runs. */
  attach(reply) {
    this.reply = reply;
    this.#thinking = new Growing(this.thoughts);
    this.#answer = new Growing(this.answer);
    this.wait.hidden = false;
    this.element.setAttribute("aria-busy", "true");
    this.#foot();
    reply.onUpdate = () => this.#update();
    reply.onEnd = () => this.#end();
    if (this.node.thinking || this.node.text) this.#update();
  }

  /** Another conversation is shown: the reply goes on, and nothing is drawn of it. */
  leave() {
    clearInterval(this.#tick);
    if (!this.reply?.running) return;
    this.reply.onUpdate = () => {};
    this.reply.onEnd = () => this.turns.onEnd(this.conversation, this.node, this.reply);
  }

  #update() {
    const { node } = this;
    this.wait.hidden = Boolean(node.thinking || node.text);
    this.details.hidden = !node.thinking;
    if (node.thinking && !node.text) {
      if (this.#tick === null) {
        this.details.classList.add("live");
        if (!this.#touched) this.details.open = true;
        announce("Thinking");
        this.#clock();
        this.#tick = setInterval(() => this.#clock(), 1000);
      }
      this.#thinking.update(node.thinking);
    }
    if (node.text) {
      this.#thinkingOver();
      this.#answer.update(node.text);
    }
  }

  #clock() {
    this.summary.textContent = `Thinking · ${Math.round((performance.now() - this.reply.started) / 1000)} s`;
  }

  /** The thinking is complete; resolves when all of it is shown. */
  async #thinkingOver() {
    if (this.#rendered) return;
    this.#rendered = true;
    clearInterval(this.#tick);
    this.#tick = null;
    this.details.classList.remove("live");
    this.summary.textContent = duration(this.node.thinkingSeconds);
    if (!this.#touched) this.details.open = false;
    await this.#thinking.finish(this.node.thinking ?? "");
  }

  async #end() {
    const { node } = this;
    this.wait.hidden = true;
    await Promise.all([this.#thinkingOver(), this.#answer.finish(node.text)]);
    this.element.removeAttribute("aria-busy");
    this.settled();
    announce(node.error ? "The reply failed" : node.finish === "stopped" ? "Stopped" : "Reply complete");
    this.turns.onEnd(this.conversation, node, this.reply);
  }

  #trouble() {
    const { node } = this;
    const again = (label = "Try again") =>
      h("button", { type: "button", class: "button small", onclick: () => this.turns.actions.retry(node) }, label);
    const row = (kind, sentence, button) =>
      h("div", { class: `note ${kind}`, role: kind === "bad" ? "alert" : null }, h("p", {}, sentence), button);
    const rows = [];
    if (node.error) rows.push(this.#failure(row, again));
    else if (node.finish === "length") {
      rows.push(row("", "The reply ends here because it reached the most tokens that it may have: allow more in the settings, or ask it to go on.", null));
    } else if (node.finish === "stopped" && !node.text && !node.thinking) rows.push(row("", "Stopped before the first word.", again()));
    else if (node.finish === "deadline") rows.push(row("warn", "The server broke off: its time for a reply was over.", again()));
    else if (!node.finish && !this.reply?.running) rows.push(row("warn", "The reply was broken off when the page was left.", again()));
    else if (node.finish && !node.text && node.finish !== "stopped") rows.push(row("", "The model ended without an answer.", again()));
    this.trouble.replaceChildren(...rows);
  }

  #failure(row, again) {
    const failure = this.reply?.failure;
    const button = again();
    let { error } = this.node;
    if (failure?.code === "context_length_exceeded") error += " Edit an earlier turn, or begin a new conversation.";
    if (failure?.retryAfter) {
      // Not before the server said: it would only refuse once more.
      let left = Math.ceil(failure.retryAfter);
      button.disabled = true;
      const count = () => {
        button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
        button.disabled = left > 0;
        if (left-- > 0) setTimeout(count, 1000);
      };
      count();
    }
    return row("bad", error, button);
  }

  #foot() {
    const { node } = this;
    if (this.reply?.running) {
      this.foot.replaceChildren();
      return;
    }
    const { actions } = this.turns;
    const stats = h("span", { class: "stats" }, statsLine(node.stats, node.finish));
    this.foot.replaceChildren(
      h("div", { class: "tools" },
        this.turns.switcher(this.conversation, node),
        node.text ? iconButton("copy", "Copy the reply", (event) => copy(node.text, event.currentTarget)) : null,
        iconButton("retry", "Answer again", () => actions.regenerate(node), { class: "icon-button regenerate" }),
        iconButton("branch", "Go on from here in a new conversation", () => actions.branch(node))),
      stats,
    );
  }
}

/** The turns of the conversation that is shown. */
export class Turns {
  #shown = new Map(); // of the model, by the id of their node

  /**
   * @param actions what the buttons do: {edit(node, text), regenerate(node), retry(node), branch(node), choose(node)}
   * @param onEnd called when a reply that was followed is over
   */
  constructor(actions, onEnd) {
    Object.assign(this, { actions, onEnd });
    this.follower = new Follower($("scroller"), $("to-end"));
  }

  /** Show the chosen path of a conversation, and follow its reply if one runs. */
  draw(conversation, reply) {
    const line = path(conversation);
    $("welcome").hidden = line.length > 0;
    const pairs = [];
    const shown = new Map();
    const elements = line.map((node) => {
      if (node.role === "user") return this.#user(conversation, node);
      // What is on the screen stays there: only its buttons may have changed.
      let turn = this.#shown.get(node.id);
      const known = turn?.node === node;
      if (!known) turn = new AssistantTurn(this, conversation, node);
      shown.set(node.id, turn);
      if (reply?.running && reply.node === node) {
        if (turn.reply !== reply) turn.attach(reply);
      } else {
        // What went wrong is still known of the last one: when to try again.
        if (reply?.node === node) turn.reply = reply;
        const wanted = turn.settled();
        if (!known) pairs.push(...wanted);
      }
      return turn.element;
    });
    for (const [id, turn] of this.#shown) if (shown.get(id) !== turn) turn.leave();
    this.#shown = shown;
    $("turns").replaceChildren(...elements);
    show(pairs).then(() => this.follower.grew());
    this.follower.follow();
  }

  switcher(conversation, node) {
    const all = siblings(conversation, node);
    if (all.length < 2) return null;
    const place = all.indexOf(node);
    const go = (step) => () => this.actions.choose(all[place + step]);
    return h(
      "span", { class: "switcher", role: "group", "aria-label": "Versions of this turn" },
      iconButton("left", "Version before", go(-1), { disabled: place === 0 }),
      h("span", { class: "small" }, `${place + 1} of ${all.length}`),
      iconButton("right", "Next version", go(1), { disabled: place === all.length - 1 }),
    );
  }

  #user(conversation, node) {
    const element = h("article", { class: "turn user", "aria-label": "You", "data-id": node.id });
    const text = h("div", { class: "bubble" }, node.text);
    const tools = h("div", { class: "tools" },
      this.switcher(conversation, node),
      iconButton("copy", "Copy the message", (event) => copy(node.text, event.currentTarget)),
      iconButton("pencil", "Edit the message", () => this.#edit(element, node), { class: "icon-button edit" }));
    element.append(text, h("footer", {}, tools));
    return element;
  }

  #edit(element, node) {
    const area = h("textarea", { "aria-label": "Edit the message", rows: Math.min(12, node.text.split("\n").length + 1) });
    area.value = node.text;
    const before = [...element.childNodes];
    const end = () => {
      element.replaceChildren(...before);
      element.classList.remove("editing");
      element.querySelector(".edit").focus();
    };
    const send = () => {
      if (area.value.trim()) this.actions.edit(node, area.value.trim());
    };
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        end();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    });
    element.classList.add("editing");
    element.replaceChildren(
      area,
      h("div", { class: "actions" },
        h("span", { class: "muted small" }, "The message before stays, as another version."),
        h("button", { type: "button", class: "button", onclick: end }, "Cancel"),
        h("button", { type: "button", class: "button primary", onclick: send }, "Send")),
    );
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }

  /** Edit the last message of the user, as if its button had been pressed. */
  editLast() {
    [...$("turns").querySelectorAll(".turn.user .edit")].at(-1)?.click();
  }
}
