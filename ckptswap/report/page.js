"use strict";
// Draws the pictures from the page's own data, and makes the table answer to filter, sort and copy.
const DATA = JSON.parse(document.getElementById("data").textContent);
const ROOT = document.documentElement;
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
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

let turn = 0;
async function draw() {
  const mine = ++turn;
  for (const [id, figure] of Object.entries(DATA.figures)) {
    if (mine !== turn) return; // the theme has changed meanwhile
    const { data, layout } = paint(figure);
    await Plotly.react(document.getElementById(id), data, layout, CONFIG);
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
window.addEventListener("beforeprint", () => { ROOT.dataset.theme = "light"; draw(); });

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
    const cell = row.cells[column];
    return [row, isNumber ? (cell.dataset.value === undefined ? null : Number(cell.dataset.value)) : cell.textContent];
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

function command(at) {
  const words = DATA.rows[at].map((index) => DATA.words[index]);
  return `${DATA.starts[DATA.donors[at]]} ${words.join(" ")}`;
}
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch (refused) { // from a file, some browsers give no clipboard
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}
BODY.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy");
  if (!button) return;
  const text = command(Number(button.dataset.row));
  await copy(text);
  button.title = text;
  button.textContent = "copied";
  setTimeout(() => { button.textContent = "copy"; }, 1500);
});

follow();
