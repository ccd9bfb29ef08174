// What the learner has done, kept in this browser: ratings by topic, and a line for each problem that is done with.

import { $, h, save } from "./dom.js";
import { spark } from "./tutor-chart.js";
import { csv, kept } from "./tutor-common.js";

const MOST = 2000;

const read = () => {
  const found = kept.get("tutor", {});
  return {
    skills: found && typeof found.skills === "object" && found.skills ? found.skills : {},
    history: Array.isArray(found?.history) ? found.history : [],
  };
};

let { skills, history } = read();

/** What is known of the learner in a topic, as the server takes it; null for nothing. */
export const skillOf = (topic) => {
  const { rating, answered, right, level } = skills[topic] ?? {};
  return skills[topic] ? { rating, answered, right, level } : {};
};

/** Keep what the server says of the learner after a problem. */
export function record(task, skill, solved, hints, wrong) {
  ({ skills, history } = read()); // another tab may have gone on
  skills[task.topic] = skill;
  history.push({
    time: new Date().toISOString(), topic: task.topic, level: task.level, problem: task.question, solved, hints, wrong,
    rating: skill.rating,
  });
  history = history.slice(-MOST);
  kept.set("tutor", { skills, history });
}

export function forget() {
  [skills, history] = [{}, []];
  kept.set("tutor", null);
}

/** Draw the progress in all topics: [{name, title}]. */
export function draw(topics) {
  ({ skills, history } = read());
  $("topics").replaceChildren(
    ...topics.map(({ name, title }) => {
      const done = history.filter((one) => one.topic === name);
      const right = done.filter((one) => one.solved).length;
      const level = skills[name]?.next_level;
      const facts = done.length ? `${right} of ${done.length} right${level ? ` · level ${level}` : ""}` : "not yet tried";
      return h(
        "div",
        { class: `topic${done.length ? "" : " untouched"}` },
        h("span", { class: "name" }, title),
        h("span", { class: "facts muted small" }, facts),
        spark(done.map((one) => one.rating), title),
      );
    }),
  );
  const right = history.filter((one) => one.solved).length;
  $("total").textContent = history.length ? `${right} of ${history.length} right` : "";
  $("export").disabled = $("reset").disabled = history.length === 0;
}

export function download() {
  const rows = history.map((one) => [
    one.time, one.topic, one.level, one.problem, one.solved ? "yes" : "no", one.hints, one.wrong, Math.round(one.rating),
  ]);
  save("progress.csv", "text/csv", csv([["time", "topic", "level", "problem", "solved", "hints", "wrong_tries", "rating"], ...rows]));
}
