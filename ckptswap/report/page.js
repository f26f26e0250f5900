"use strict";
// Draws the pictures from the page's own data, and makes the table answer to filter, sort and copy.
const DATA = JSON.parse(document.getElementById("data").textContent);
const ROOT = document.documentElement;
const CONFIG = {
  responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "sendChartToCloud"],
  showSendToCloud: false, plotlyServerURL: "",
};

// The table
const TABLE = document.getElementById("table");
const BODY = TABLE.tBodies[0];
const ROWS = [...BODY.rows];
const WORDS = ROWS.map((row) => row.textContent.toLowerCase());
const SHOWN = document.getElementById("shown");

function filter(text) {
  const wanted = text.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  ROWS.forEach((row, at) => {
    row.hidden = !wanted.every((word) => WORDS[at].includes(word));
    count += row.hidden ? 0 : 1;
  });
  SHOWN.textContent = count === ROWS.length ? `${count} rows` : `${count} of ${ROWS.length} rows`;
}
document.getElementById("filter").addEventListener("input", (event) => filter(event.target.value));

// The number that a cell shows, of an interval its lower end; null where it shows none.
const UNITS = { k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15 };
function value(text) {
  const [, number, unit] = /^\[?([-+]?(?:inf|[\d.,]+(?:e[-+]?\d+)?))([kMGTP]?)/.exec(text) ?? [];
  if (number === undefined) return null;
  return Number(number.replaceAll(",", "").replace("inf", "Infinity")) * (UNITS[unit] ?? 1);
}

function sort(button) {
  const head = button.closest("th");
  const column = Number(button.dataset.column);
  const isNumber = button.dataset.number === "1";
  const falling = head.getAttribute("aria-sort") === (isNumber ? "none" : "ascending")
    || (isNumber && head.getAttribute("aria-sort") === "ascending");
  for (const each of TABLE.tHead.rows[0].cells) each.hasAttribute("aria-sort") && each.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const names = new Intl.Collator("en", { numeric: true });
  const keys = new Map(ROWS.map((row) => {
    const text = row.cells[column].textContent;
    return [row, isNumber ? value(text) : text];
  }));
  const sign = falling ? -1 : 1;
  const ordered = [...ROWS].sort((a, b) => {
    const [x, y] = [keys.get(a), keys.get(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what is missing comes last, either way
    return sign * (isNumber ? x - y : names.compare(x, y));
  });
  BODY.append(...ordered);
}
TABLE.tHead.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) sort(button);
});

// What the pictures are filled with: a heatmap's matrices, and under the mouse what the table tells of a row
const HEADS = [...TABLE.tHead.rows[0].cells].map((cell) => cell.textContent);
const plain = (text) => text.replace(/[&<>$]/g, (sign) => `&#${sign.charCodeAt(0)};`); // neither HTML nor mathematics
const TOLD = ROWS.map((row) => [...row.cells]
  .map((cell, at) => (cell.textContent === "–" ? "" : plain(`${HEADS[at]} ${cell.textContent}`)))
  .filter(Boolean).join("<br>"));
const LEFT_OUT = "left out of the table";

function fill(figure) {
  if (figure.cells) return fillHeat(figure);
  for (const trace of figure.data) {
    if (trace.lines) trace.hovertext = trace.lines.map((line) => TOLD[line] ?? LEFT_OUT);
  }
}
function fillHeat({ data: [measured, marked], rows, columns, cells, words }) {
  const matrix = (nothing) => rows.map(() => columns.map(() => nothing));
  const [drops, marks, texts, told] = [matrix(null), matrix(null), matrix(""), matrix("")];
  for (const [y, x, drop, mark, line] of cells) {
    drops[y][x] = drop;
    marks[y][x] = mark ? 1 : null;
    texts[y][x] = mark;
    told[y][x] = TOLD[line] ?? [rows[y], columns[x], words[mark] ?? LEFT_OUT].map(plain).join("<br>");
  }
  Object.assign(measured, { z: drops, hovertext: told });
  if (marked) Object.assign(marked, { z: marks, text: texts, hovertext: told });
}
Object.values(DATA.figures).forEach(fill);

// The heatmap as a table, for whoever cannot see it, made when it is opened
function heatTable({ rows, columns, cells, words }) {
  const table = document.createElement("table");
  const add = (row, tag, text) => { row.appendChild(document.createElement(tag)).textContent = text; };
  const head = table.createTHead().insertRow();
  ["layer", ...columns].forEach((name) => add(head, "th", name));
  const body = table.createTBody();
  const drop = HEADS.indexOf("drop");
  for (const name of rows) {
    const row = body.insertRow();
    add(row, "th", name);
    columns.forEach(() => add(row, "td", ""));
  }
  for (const [y, x, number, mark, line] of cells) {
    body.rows[y].cells[x + 1].textContent = words[mark] ?? ROWS[line]?.cells[drop].textContent ?? number;
  }
  return table;
}
for (const details of document.querySelectorAll("details[data-of]")) {
  details.addEventListener("toggle", () => {
    const wide = document.createElement("div");
    wide.className = "wide";
    wide.append(heatTable(DATA.figures[details.dataset.of]));
    details.append(wide);
  }, { once: true });
}

// Okabe and Ito's colours, which colour-blind readers tell apart; black and the darkest blue change on dark paper.
const THEMES = {
  light: { paper: "#fff", ink: "#1b1f24", line: "#d1d9e0", grey: "#d8dde3", middle: "#f7f7f7",
    ways: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f"] },
  dark: { paper: "#0f1318", ink: "#e6edf3", line: "#343b44", grey: "#3d4650", middle: "#20262e",
    ways: ["#56b4e9", "#ff9d5c", "#2fc99b", "#e3a3c8", "#e6b84d", "#0072b2", "#ffffff", "#9a9a9a"] },
};

function theme() {
  return ROOT.dataset.theme === "dark" ? "dark" : "light";
}

function paint(figure) {
  const now = THEMES[theme()];
  const data = figure.data.map((trace, at) => {
    if (trace.type === "heatmap") {
      const measured = trace.name === "drop";
      const scale = measured ? [[0, "#0072b2"], [0.5, now.middle], [1, "#d55e00"]] : [[0, now.grey], [1, now.grey]];
      return { ...trace, colorscale: scale, textfont: { color: now.ink } };
    }
    const own = now.ways[at % now.ways.length];
    const signed = trace.type === "bar" && trace.name === "drop"; // as the heatmap: orange costs, blue helps
    const colour = signed ? trace.x.map((drop) => now.ways[drop > 0 ? 1 : 0]) : own;
    const errors = (name) => (trace[name] ? { [name]: { ...trace[name], color: now.ink } } : {});
    const line = { ...(trace.line || {}), color: own };
    return { ...trace, line, marker: { ...(trace.marker || {}), color: colour }, ...errors("error_x"), ...errors("error_y") };
  });
  const narrow = window.innerWidth < 700;
  const axis = (given) => ({ gridcolor: now.line, zerolinecolor: now.ink, ...given });
  const layout = {
    ...figure.layout,
    paper_bgcolor: now.paper, plot_bgcolor: now.paper, font: { color: now.ink, size: narrow ? 10 : 12 },
    hoverlabel: { align: "left" }, margin: { l: 10, r: 10, t: 30, b: 40 },
    legend: { orientation: narrow ? "h" : "v", y: narrow ? -0.3 : 1 },
    xaxis: axis(figure.layout.xaxis), yaxis: axis(figure.layout.yaxis),
  };
  return { data, layout };
}

function react(id) {
  const { data, layout } = paint(DATA.figures[id]);
  return Plotly.react(document.getElementById(id), data, layout, CONFIG);
}

let turn = 0;
async function draw() {
  const mine = ++turn;
  for (const id of Object.keys(DATA.figures)) {
    if (mine !== turn) return; // the theme has changed meanwhile
    await react(id);
    await new Promise((resolve) => setTimeout(resolve)); // the reader may scroll between two pictures
  }
}

// Light and dark: as the reader's system says, until the button is pressed.
const SYSTEM = window.matchMedia("(prefers-color-scheme: dark)");
function follow() {
  ROOT.dataset.theme = SYSTEM.matches ? "dark" : "light";
  draw();
}
SYSTEM.addEventListener("change", follow);
document.getElementById("theme").addEventListener("click", () => {
  ROOT.dataset.theme = theme() === "dark" ? "light" : "dark";
  draw();
});
// Paper is light; a browser prints what is drawn when this returns, so nothing may wait here.
let unprinted = null;
window.addEventListener("beforeprint", () => {
  unprinted ??= theme();
  ROOT.dataset.theme = "light";
  turn++;
  Object.keys(DATA.figures).forEach(react);
});
window.addEventListener("afterprint", () => {
  ROOT.dataset.theme = unprinted ?? theme();
  unprinted = null;
  draw();
});

// The commands
function command(at) {
  const runs = DATA.rows[at]; // first word, how many, …
  const words = [];
  for (let i = 0; i < runs.length; i += 2) words.push(...DATA.words.slice(runs[i], runs[i] + runs[i + 1]));
  return `${DATA.starts[DATA.donors[at]]} ${words.map((word) => `--only ${word}`).join(" ")}`;
}
function column(row, tag, content) {
  const cell = row.appendChild(document.createElement(tag));
  cell.className = "command";
  cell.append(content);
}
function button(row, at) {
  const made = document.createElement("button");
  const name = [1, 2].map((place) => row.cells[place].textContent).join(" ");
  Object.assign(made, { type: "button", className: "copy", textContent: "copy", title: "copy the transplant command" });
  made.dataset.row = at;
  made.setAttribute("aria-label", `copy the command of ${name}`);
  return made;
}
column(TABLE.tHead.rows[0], "th", "command");
ROWS.forEach((row, at) => column(row, "td", DATA.rows[at] ? button(row, at) : "–"));

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch (refused) { // from a file, some browsers give no clipboard
    const focused = document.activeElement;
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    focused?.focus();
  }
}
BODY.addEventListener("click", async (event) => {
  const pressed = event.target.closest(".copy");
  if (!pressed) return;
  const text = command(Number(pressed.dataset.row));
  await copy(text);
  pressed.title = text.length < 500 ? text : `${text.slice(0, 500)}…`;
  pressed.textContent = "copied";
  setTimeout(() => { pressed.textContent = "copy"; }, 1500);
});

follow();
