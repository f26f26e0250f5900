"use strict";
// Makes the table answer to filter, verdicts, sort and copy, and tells under the mouse what it says of a row.
const DATA = JSON.parse(document.getElementById("data").textContent);
const ROOT = document.documentElement;

// The table: of those rows that are wanted the first CAP are laid out, until all are asked for
const TABLE = document.getElementById("table");
const BODY = TABLE.tBodies[0];
const ROWS = [...BODY.rows];
const HEADS = [...TABLE.tHead.rows[0].cells];
const NAMES = HEADS.map((head) => head.textContent);
const VERDICT = HEADS.findIndex((head) => head.dataset.field === "verdict");
const CHIPS = [...document.querySelectorAll(".chip")];
const FILTER = document.getElementById("filter");
const SHOWN = document.getElementById("shown");
const EVERY = document.getElementById("every");
const CAP = Number(TABLE.dataset.cap);
const written = new Map();
let order = ROWS;
let isCapped = true;

function words(row) {
  if (!written.has(row)) written.set(row, row.textContent.toLowerCase());
  return written.get(row);
}
const amount = (count) => count.toLocaleString("en");

function show() {
  const wanted = FILTER.value.toLowerCase().split(/\s+/).filter(Boolean);
  const verdicts = CHIPS.filter((chip) => chip.ariaPressed === "true").map((chip) => chip.dataset.verdict);
  let count = 0;
  for (const row of order) {
    const isWanted = (!verdicts.length || verdicts.includes(row.cells[VERDICT].className))
      && wanted.every((word) => words(row).includes(word));
    count += isWanted ? 1 : 0;
    const isOver = isWanted && isCapped && count > CAP;
    row.hidden = !isWanted;
    row.classList.toggle("over", isOver);
    if (isWanted && !isOver) addCommand(row);
  }
  const found = count === ROWS.length ? `${amount(count)} rows` : `${amount(count)} of ${amount(ROWS.length)} rows`;
  SHOWN.textContent = isCapped && count > CAP ? `the first ${amount(CAP)} of ${found}` : found;
  EVERY.hidden = !isCapped || count <= CAP;
  EVERY.textContent = `show all ${amount(count)}`;
}
FILTER.addEventListener("input", show);
EVERY.addEventListener("click", () => {
  isCapped = false;
  show();
});
for (const chip of CHIPS) {
  chip.addEventListener("click", () => {
    chip.ariaPressed = String(chip.ariaPressed !== "true");
    show();
  });
}

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
  const falling = head.ariaSort === (isNumber ? "none" : "ascending") || (isNumber && head.ariaSort === "ascending");
  for (const each of HEADS) each.ariaSort = "none";
  head.ariaSort = falling ? "descending" : "ascending";
  const names = new Intl.Collator("en", { numeric: true });
  const keys = new Map(ROWS.map((row) => {
    const text = row.cells[column].textContent;
    return [row, isNumber ? value(text) : text];
  }));
  const sign = falling ? -1 : 1;
  order = [...ROWS].sort((a, b) => {
    const [x, y] = [keys.get(a), keys.get(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what is missing comes last, either way
    return sign * (isNumber ? x - y : names.compare(x, y));
  });
  show();
  const all = document.createDocumentFragment();
  for (const row of order) all.append(row);
  BODY.append(all);
}
TABLE.tHead.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) sort(button);
});

// Under the mouse: what the table tells of the row behind a cell, a bar or the nearest point
const TIP = document.getElementById("tip");
const NEAR = 14; // pixels
function told(line) {
  const row = ROWS[line];
  if (!row) return "left out of the table";
  return [...row.cells].slice(0, NAMES.length).filter((cell) => cell.textContent.trim() !== "–")
    .map((cell) => `${NAMES[cell.cellIndex]} ${cell.textContent.trim()}`).join("\n");
}
const places = new WeakMap(); // of a path's points, in its own units
function pointsOf(path) {
  if (!places.has(path)) {
    const starts = path.getAttribute("d").matchAll(/M(-?[\d.]+) (-?[\d.]+)(?=m)/g);
    places.set(path, [...starts].map(([, x, y]) => [Number(x), Number(y)]));
  }
  return places.get(path);
}
function nearest(svg, event) {
  const screen = svg.getScreenCTM();
  const mouse = new DOMPoint(event.clientX, event.clientY).matrixTransform(screen.inverse());
  let [least, best] = [NEAR / screen.a, null];
  for (const path of svg.querySelectorAll(".points")) {
    pointsOf(path).forEach(([x, y], at) => {
      const away = Math.hypot(x - mouse.x, y - mouse.y);
      if (away < least) [least, best] = [away, [path, at]];
    });
  }
  if (!best) return "";
  const [path, at] = best;
  return path.dataset.told ? JSON.parse(path.dataset.told)[at] : told(path.dataset.rows.split(" ")[at]);
}
document.addEventListener("pointermove", (event) => {
  const part = event.target.closest?.("#pictures [data-row], #more [data-row], svg.chart");
  const text = !part ? "" : part.dataset.row ? told(part.dataset.row) : nearest(part, event);
  TIP.hidden = !text;
  if (!text) return;
  TIP.textContent = text;
  const { offsetWidth, offsetHeight } = TIP;
  TIP.style.left = `${Math.max(0, Math.min(event.clientX + 14, window.innerWidth - offsetWidth - 4))}px`;
  TIP.style.top = `${Math.max(0, Math.min(event.clientY + 14, window.innerHeight - offsetHeight - 4))}px`;
});

// Light and dark: as the reader's system says, until the button is pressed
const SYSTEM = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => { ROOT.dataset.theme = SYSTEM.matches ? "dark" : "light"; };
SYSTEM.addEventListener("change", follow);
document.getElementById("theme").addEventListener("click", () => {
  ROOT.dataset.theme = ROOT.dataset.theme === "dark" ? "light" : "dark";
});
follow();

// The commands
function command(at) {
  const runs = DATA.rows[at]; // first word, how many, …
  const only = [];
  for (let i = 0; i < runs.length; i += 2) only.push(...DATA.words.slice(runs[i], runs[i] + runs[i + 1]));
  return `${DATA.starts[DATA.donors[at]]} ${only.map((word) => `--only ${word}`).join(" ")}`;
}
function column(row, tag, content) {
  const cell = row.appendChild(document.createElement(tag));
  cell.className = "command";
  cell.append(content);
}
const lines = new Map(ROWS.map((row, at) => [row, at]));
function addCommand(row) {
  if (!DATA.starts.length || row.lastElementChild.className === "command") return;
  const at = lines.get(row);
  column(row, "td", DATA.rows[at] ? button(row, at) : "–");
}
function button(row, at) {
  const made = document.createElement("button");
  const name = [1, 2].map((place) => row.cells[place].textContent.trim()).join(" ");
  Object.assign(made, { type: "button", className: "copy", textContent: "copy", title: "copy the transplant command" });
  made.dataset.row = at;
  made.setAttribute("aria-label", `copy the command of ${name}`);
  return made;
}
if (DATA.starts.length) column(TABLE.tHead.rows[0], "th", "command");
show();

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
document.querySelector("main").addEventListener("click", async (event) => {
  const pressed = event.target.closest(".copy");
  if (!pressed) return;
  const text = pressed.dataset.row ? command(Number(pressed.dataset.row)) : pressed.parentElement.querySelector("code").textContent;
  await copy(text);
  pressed.title = text.length < 500 ? text : `${text.slice(0, 500)}…`;
  pressed.textContent = "copied";
  setTimeout(() => { pressed.textContent = "copy"; }, 1500);
});
