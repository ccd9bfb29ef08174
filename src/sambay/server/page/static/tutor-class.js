// The teacher's page: a table of answers in, grades and drawings out.

import { request } from "./api.js";
import { $, announce, h, save } from "./dom.js";
import { bars, histogram, standalone } from "./tutor-chart.js";
import { fail, furnish } from "./tutor-common.js";

const MOST_ROWS = 300; // in the page; the CSV has them all
const MOST_BARS = 25;

let running = null;
let graded = null; // {csv, summary, rows, name}

async function assess() {
  const file = $("file").files[0];
  if (!file) return;
  fail(null);
  running = new AbortController();
  busy(true);
  try {
    const last = await follow(file, running.signal);
    graded = { ...last, name: file.name.replace(/\.[^.]*$/, "") };
    $("results").hidden = $("table-card").hidden = false;
    draw();
    $("results").focus();
    announce(`${graded.summary.correct} of ${graded.summary.graded} answers are right`);
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
  } finally {
    running = null;
    busy(false);
  }
}

/** Send the table, show how far it is, and return the last line of the answer. */
async function follow(file, signal) {
  const response = await request(`tutor/api/assess?votes=${$("votes").value}`, { raw: file, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { value, done } = await reader.read();
    if (done) throw new Error("The connection broke off: try again");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.filter((one) => one.trim())) {
      const found = JSON.parse(line);
      if (found.state === "done") return found;
      if (found.state === "failed") throw new Error(found.error.message);
      $("doing").textContent = found.state === "solving"
        ? `The model solves problem ${found.done + 1} of ${found.total}`
        : `Graded ${found.done} of ${found.total}`;
      $("bar").max = found.total;
      $("bar").value = found.done;
    }
  }
}

function busy(is) {
  $("assess").disabled = is;
  $("stop").hidden = !is;
  $("under-way").hidden = !is;
  $("doing").textContent = "Reading the table";
  $("bar").removeAttribute("value");
}

const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)} %`);

function draw() {
  const { summary } = graded;
  const model = summary.problems.filter(({ source }) => source === "model");
  const unsure = model.filter(({ agreement }) => agreement < 0.75);
  const figures = [
    ["Right", percent(summary.accuracy)],
    ["Answers", summary.graded],
    ["Students", summary.students.length],
    ["Problems", summary.problems.length],
    ...(model.length ? [["Solved by the model", `${model.length}${unsure.length ? `, ${unsure.length} unsure` : ""}`]] : []),
    ...(summary.errors ? [["Not graded", summary.errors]] : []),
  ];
  $("figures").replaceChildren(...figures.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))));
  chart();
  table();
}

function chart() {
  const { problems, students } = graded.summary;
  const width = Math.max(280, $("charts").clientWidth || 800);
  const hardest = [...problems].sort((one, other) => one.share - other.share).slice(0, MOST_BARS);
  const weakest = [...students].sort((one, other) => one.share - other.share).slice(0, MOST_BARS);
  const of = (shown, all) => (shown.length < all.length ? `, the ${shown.length} lowest of ${all.length}` : "");
  const drawings = [];
  if (hardest.length) drawings.push(bars(`Problems${of(hardest, problems)}`, hardest, width));
  if (students.length > 1) drawings.push(histogram("Students by their share", students.map(({ share }) => share), width));
  if (weakest.length) drawings.push(bars(`Students${of(weakest, students)}`, weakest, width));
  $("charts").replaceChildren(...drawings);
}

function table() {
  const rows = graded.rows.filter(({ correct }) => !$("only-wrong").checked || correct !== true);
  $("rows").replaceChildren(
    ...rows.slice(0, MOST_ROWS).map((row) => {
      const from = row.source === "model" ? ` (model, ${percent(row.agreement)} agree)` : "";
      const verdict = row.correct === null ? "–" : row.correct ? "yes" : "no";
      return h(
        "tr",
        {},
        h("td", {}, row.student),
        h("td", {}, row.problem),
        h("td", {}, row.answer),
        h("td", { class: row.correct === null ? "muted" : verdict }, verdict),
        h("td", {}, row.error || row.comment),
        h("td", {}, row.reference, h("span", { class: "muted small" }, from)),
      );
    }),
  );
  $("more").hidden = rows.length <= MOST_ROWS;
  $("more").textContent = `${rows.length - MOST_ROWS} more are in the CSV.`;
}

$("assess-form").addEventListener("submit", (event) => {
  event.preventDefault();
  assess();
});
$("stop").addEventListener("click", () => running?.abort());
$("only-wrong").addEventListener("change", table);
$("save-csv").addEventListener("click", () => save(`${graded.name}-graded.csv`, "text/csv", `\ufeff${graded.csv}`));
$("save-svg").addEventListener("click", () => {
  [...$("charts").children].forEach((svg, index) => save(`${graded.name}-${index + 1}.svg`, "image/svg+xml", standalone(svg)));
});
for (const type of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", type === "dragover");
    if (type === "drop" && event.dataTransfer.files.length) $("file").files = event.dataTransfer.files;
  });
}
let waiting = 0;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => graded && chart(), 150);
});
furnish(() => fail(null));
