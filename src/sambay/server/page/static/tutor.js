// The learner's page: a problem, hints, checked answers and steps, the worked solution, and the progress.

import { $, announce, h } from "./dom.js";
import { show } from "./markdown.js";
import { ask, fail, furnish, kept } from "./tutor-common.js";
import { download, draw, forget, record, skillOf } from "./tutor-progress.js";

let topics = [];
/** What is being worked on: {name or text, topic, title, level, question, markdown, hints, wrong, done, note, sure}. */
let task = null;
let running = null; // an AbortController, while the server works on a problem of the learner's own

const which = () => (task.name ? { name: task.name } : { text: task.text });

async function start() {
  try {
    const found = await ask("tutor/api/topics");
    topics = found.topics;
    $("topic").replaceChildren(...topics.map(({ name, title }) => h("option", { value: name }, title)));
    $("level").append(...Array.from({ length: found.levels }, (_, at) => h("option", { value: at + 1 }, `Level ${at + 1}`)));
  } catch (error) {
    fail(error);
    return;
  }
  const chosen = kept.get("tutor-choice", {});
  if (topics.some(({ name }) => name === chosen.topic)) $("topic").value = chosen.topic;
  if (chosen.level) $("level").value = chosen.level;
  draw(topics);
  const before = kept.get("tutor-task");
  if (before?.question && !before.done) await open(before, true);
}

/** Show a problem, with the hints that were taken before. */
async function open(next, again = false) {
  task = next;
  keep();
  const meta = task.name ? `${task.title} · level ${task.level} of 5` : "Your own problem";
  $("meta").textContent = meta;
  $("feedback").replaceChildren();
  $("hints").replaceChildren();
  $("solution").hidden = true;
  $("solution").replaceChildren();
  $("answer").value = $("working").value = "";
  $("sureness").hidden = !task.note || (task.sure && task.answered);
  $("sureness").textContent = task.note ?? "";
  enable(true);
  $("hint").disabled = false;
  $("hint").lastChild.textContent = "Hint";
  $("work").hidden = false;
  const items = task.hints.map((hint) => [addHint(), hint]);
  await show([[$("question"), task.markdown], ...items]);
  if (!again) {
    announce(`${meta}. ${task.question}`);
    $("answer").focus();
  }
}

function keep() {
  kept.set("tutor-task", task);
}

function addHint() {
  const content = h("div", { class: "markdown" });
  $("hints").append(h("li", {}, content));
  return content;
}

/** Whether the problem can be worked on; if not, it is done with. */
function enable(open) {
  for (const id of ["answer", "check", "working", "show"]) $(id).disabled = !open;
  $("hint").hidden = $("show").hidden = !open;
  $("next").hidden = open;
  $("next").textContent = task?.name ? "Next problem" : "Another problem";
}

async function generate() {
  fail(null);
  const topic = $("topic").value;
  const level = $("level").value ? Number($("level").value) : null;
  kept.set("tutor-choice", { topic, level });
  try {
    const found = await ask("tutor/api/problem", { topic, level, skill: skillOf(topic) });
    await open({ ...found, hints: [], wrong: 0, done: false });
  } catch (error) {
    fail(error);
  }
}

async function own() {
  fail(null);
  const text = $("own").value.trim();
  if (!text) return;
  running = new AbortController();
  $("own-start").disabled = true;
  $("own-start").textContent = "The model is solving it …";
  $("own-stop").hidden = false;
  try {
    const found = await ask("tutor/api/own", { text }, running.signal);
    await open({ ...found, question: text, topic: null, hints: [], wrong: 0, done: false });
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    running = null;
    $("own-start").disabled = false;
    $("own-start").textContent = "Work on it";
    $("own-stop").hidden = true;
  }
}

async function hint() {
  fail(null);
  $("hint").disabled = true;
  try {
    const found = await ask("tutor/api/hint", { ...which(), shown: task.hints.length });
    if (found.hint !== null) {
      task.hints.push(found.markdown);
      keep();
      await show([[addHint(), found.markdown]]);
      announce(`Hint ${found.number}: ${found.hint}`);
    }
    $("hint").disabled = !found.more;
    if (!found.more) {
      $("hint").lastChild.textContent = "No more hints";
      $("answer").focus();
    } else $("hint").focus();
  } catch (error) {
    $("hint").disabled = false;
    fail(error);
  }
}

async function check() {
  fail(null);
  const answer = $("answer").value;
  const working = $("working-box").open ? $("working").value : "";
  if (!answer.trim() && !working.trim()) {
    $("answer").focus();
    return;
  }
  $("check").disabled = true;
  try {
    const skill = task.name ? skillOf(task.topic) : null;
    const found = await ask("tutor/api/check", {
      ...which(), answer, working, hints: task.hints.length, wrong: task.wrong, skill,
    });
    tell(found);
    if (found.correct) {
      finish(found.skill, true);
    } else {
      if (answer.trim() && found.kind !== "unreadable") task.wrong += 1;
      keep();
      $("check").disabled = false;
      $("answer").focus();
      $("answer").select();
    }
  } catch (error) {
    $("check").disabled = false;
    fail(error);
  }
}

/** Say what came of an answer and of the steps. */
function tell({ correct, kind, message, note, working }) {
  const notes = [];
  if (message) {
    const almost = !correct && ["form", "unfinished", "unreduced", "rounded", "intermediate", "unreadable"].includes(kind);
    const title = correct ? "Right" : almost ? "Not quite" : "Not yet";
    notes.push(h("div", { class: `note ${correct ? "good" : almost ? "warn" : "bad"}`, "data-kind": kind }, h("strong", {}, title), message));
  }
  if (note) notes.push(h("p", { class: "note warn small" }, note));
  if (working) {
    const marks = { true: "✓", false: "✗", start: "·", note: "·", unread: "?" };
    const words = { true: "holds", false: "does not hold", start: "first equation", note: "not checked", unread: "not read" };
    const lines = working.lines.map(({ text, state, message: said }) =>
      h(
        "li",
        { class: state === "note" ? "note-line" : state },
        h("span", { class: "mark", "aria-hidden": "true" }, marks[state]),
        h("span", {}, h("code", {}, text), h("span", { class: "spoken-only" }, `: ${words[state]}`)),
        said ? h("span", { class: "said" }, said) : null,
      ),
    );
    notes.push(h("div", { class: `note ${working.first_wrong === null ? "" : "warn"}` }, working.message));
    notes.push(h("ol", { class: "lines", "aria-label": "Your steps" }, ...lines));
  }
  $("feedback").replaceChildren(...notes);
  $("feedback").scrollIntoView({ block: "nearest" });
}

async function solution() {
  fail(null);
  $("show").disabled = true;
  try {
    const skill = task.name ? skillOf(task.topic) : null;
    const found = await ask("tutor/api/solution", { ...which(), skill });
    await unfold(found);
    finish(found.skill, false);
  } catch (error) {
    $("show").disabled = false;
    fail(error);
  }
}

async function unfold({ steps, reply, note, sure, votes }) {
  const texts = [];
  const content = (text, attributes = {}) => {
    const element = h("div", { class: "markdown", ...attributes });
    texts.push([element, text]);
    return element;
  };
  const items = steps.map(({ markdown, detail }) =>
    h(
      "li",
      {},
      content(markdown),
      detail.length
        ? h("details", {}, h("summary", {}, "in detail"), h("div", { class: "detail" }, ...detail.map((line) => content(line))))
        : null,
    ),
  );
  const differing = votes.length > 1
    ? h(
        "table",
        {},
        h("caption", { class: "small muted" }, "What the model's attempts came to"),
        ...votes.map(({ answer, count }) => h("tr", {}, h("td", {}, content(`\\(${answer}\\)`)), h("td", { class: "muted" }, `${count} ×`))),
      )
    : null;
  $("solution").replaceChildren(
    h("h3", {}, "Worked solution"),
    ...(note ? [h("p", { class: `note small ${sure ? "" : "warn"}` }, note)] : []),
    ...(items.length ? [h("ol", {}, ...items)] : []),
    ...(reply ? [content(reply, { class: "markdown reply" })] : []),
    ...(differing ? [differing] : []),
  );
  $("solution").hidden = false;
  await show(texts);
}

/** The problem is done with. */
function finish(skill, solved) {
  task.done = true;
  keep();
  if (skill && task.topic) record(task, skill, solved, task.hints.length, task.wrong);
  draw(topics);
  enable(false);
  $("next").focus();
}

function tab(isOwn) {
  $("tab-practice").setAttribute("aria-pressed", String(!isOwn));
  $("tab-own").setAttribute("aria-pressed", String(isOwn));
  $("practice-form").hidden = isOwn;
  $("own-form").hidden = !isOwn;
}

const submits = (id, run) =>
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });

submits("practice-form", generate);
submits("own-form", own);
submits("answer-form", check);
$("own-stop").addEventListener("click", () => running?.abort());
$("hint").addEventListener("click", hint);
$("show").addEventListener("click", solution);
$("next").addEventListener("click", () => {
  if (task?.name) {
    generate();
  } else {
    tab(true);
    $("own").focus();
    $("own").select();
  }
});
$("tab-practice").addEventListener("click", () => tab(false));
$("tab-own").addEventListener("click", () => {
  tab(true);
  $("own").focus();
});
$("export").addEventListener("click", download);
$("reset").addEventListener("click", () => $("reset-dialog").showModal());
$("reset-dialog").addEventListener("close", () => {
  if ($("reset-dialog").returnValue !== "yes") return;
  forget();
  draw(topics);
  announce("Your progress is removed.");
});
furnish(start);
start();
