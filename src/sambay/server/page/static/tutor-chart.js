// Drawings, as SVG of our own: they take the colours of the page, and can be saved.

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element. */
function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** The course of a rating, between the ratings of the easiest and the hardest level. */
export function spark(ratings, name) {
  const [width, height, low, high] = [104, 40, 700, 1700];
  const y = (rating) => height - 3 - ((Math.min(Math.max(rating, low), high) - low) / (high - low)) * (height - 6);
  const svg = s("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img" });
  svg.append(s("title", {}, `${name}: ${ratings.length ? `from ${Math.round(ratings[0])} to ${Math.round(ratings.at(-1))}` : "nothing yet"}`));
  if (!ratings.length) return svg;
  for (let level = 1; level <= 5; level++) {
    const at = y(600 + 200 * level);
    svg.append(s("line", { class: "level", x1: 0, x2: width, y1: at, y2: at, "vector-effect": "non-scaling-stroke" }));
  }
  const shown = ratings.slice(-30);
  const x = (index) => (shown.length === 1 ? width - 5 : 3 + (index / (shown.length - 1)) * (width - 8));
  const points = shown.map((rating, index) => `${x(index).toFixed(1)},${y(rating).toFixed(1)}`);
  if (shown.length > 1) svg.append(s("polyline", { class: "path", points: points.join(" ") }));
  svg.append(s("circle", { class: "now", cx: x(shown.length - 1), cy: y(shown.at(-1)), r: 3.5 }));
  return svg;
}

const short = (text, most) => (text.length <= most ? text : `${text.slice(0, most - 1)}…`);

/** Shares as bars: [{name, correct, count, share}]. */
export function bars(title, rows, width) {
  const narrow = width < 520;
  const [left, right, step, top] = [narrow ? 12 : Math.min(300, width * 0.42), 62, narrow ? 46 : 30, 34];
  const height = top + step * rows.length + 26;
  const svg = s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.append(s("title", {}, title), s("text", { x: narrow ? 12 : 4, y: 18, class: "title" }, title));
  const length = width - left - right;
  for (const part of [0, 0.5, 1]) {
    const at = left + part * length;
    svg.append(
      s("line", { class: "axis", x1: at, x2: at, y1: top - 4, y2: height - 22 }),
      s("text", { class: "faint", x: at, y: height - 6, "text-anchor": part === 0 && narrow ? "start" : "middle" }, `${100 * part} %`),
    );
  }
  rows.forEach((row, index) => {
    const y = top + index * step + (narrow ? 17 : 0);
    const label = short(row.name, narrow ? Math.floor(width / 8) : Math.floor(left / 7.2));
    svg.append(
      narrow
        ? s("text", { x: left, y: y - 4 }, s("title", {}, row.name), label)
        : s("text", { x: left - 10, y: y + 16, "text-anchor": "end" }, s("title", {}, row.name), label),
      s("rect", { class: "ground", x: left, y: y + 4, width: length, height: 16, rx: 3 }),
      s("rect", { class: "value", x: left, y: y + 4, width: Math.max(length * row.share, row.share ? 3 : 0), height: 16, rx: 3 }),
      s("text", { class: "faint", x: left + length + 8, y: y + 17 }, `${row.correct} of ${row.count}`),
    );
  });
  return svg;
}

/** How many have which share: a histogram in tenths. */
export function histogram(title, shares, width) {
  const counts = Array(10).fill(0);
  for (const share of shares) counts[Math.min(9, Math.floor(share * 10))]++;
  const most = Math.max(...counts, 1);
  const [left, top, tall] = [34, 40, 130];
  const height = top + tall + 44;
  const step = (width - left - 12) / 10;
  const svg = s("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img" });
  svg.append(s("title", {}, title), s("text", { x: 4, y: 18, class: "title" }, title));
  svg.append(s("line", { class: "axis", x1: left, x2: width - 12, y1: top + tall, y2: top + tall }));
  counts.forEach((count, index) => {
    const x = left + index * step;
    const size = (tall * count) / most;
    if (count) {
      svg.append(
        s("rect", { class: "value", x: x + 3, y: top + tall - size, width: step - 6, height: size, rx: 3 }),
        s("text", { x: x + step / 2, y: top + tall - size - 5, "text-anchor": "middle" }, String(count)),
      );
    }
    if (index % 2 === 0 || width > 520) {
      svg.append(s("text", { class: "faint", x, y: top + tall + 17, "text-anchor": "middle" }, String(10 * index)));
    }
  });
  svg.append(
    s("text", { class: "faint", x: width - 12, y: top + tall + 17, "text-anchor": "end" }, "100"),
    s("text", { class: "faint", x: left, y: height - 6 }, "right, in percent"),
  );
  return svg;
}

/** A drawing as a file of its own, with the colours that it has in the page. */
export function standalone(svg) {
  const copy = svg.cloneNode(true);
  const [from, to] = [[svg, ...svg.querySelectorAll("*")], [copy, ...copy.querySelectorAll("*")]];
  from.forEach((element, index) => {
    const style = getComputedStyle(element);
    for (const name of ["fill", "stroke", "font-family", "font-size", "font-weight"]) {
      to[index].setAttribute(name, style.getPropertyValue(name));
    }
  });
  const { width, height } = svg.viewBox.baseVal;
  const ground = getComputedStyle(document.documentElement).backgroundColor;
  copy.prepend(s("rect", { width, height, fill: ground }));
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  return new XMLSerializer().serializeToString(copy);
}
