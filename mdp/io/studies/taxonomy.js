"use strict";
// The map of all similarities, drawn from the data in the page, and the search through pairs and map.
const get = id => document.getElementById(id);
const data = JSON.parse(get("data").textContent);
const count = data.names.length;
const cells = Int8Array.from(atob(data.cells), letter => letter.charCodeAt(0) << 24 >> 24);
const canvas = get("canvas"), cell = get("cell"), said = get("said"), near = get("near"), search = get("search");
const at = (row, column) => cells[row * count + column];
const worded = value => value === -128 ? "none" : (value / 100).toFixed(2);
const titled = label => `${data.names[label]} (${data.crops[label]} ${data.unit}${data.few[label] ? ", too few" : ""})`;
const LEGIBLE = 12;  // pixels of a row, and of its name
let row = 0, column = 0, found = null, least = -128;

function matches(text) { return found === null || text.toLowerCase().includes(found); }

function draw() {
  const style = getComputedStyle(document.documentElement);
  const color = name => style.getPropertyValue(name).trim().split(/\s+/).map(Number);
  const [low, middle, high, none] = ["--low", "--middle", "--high", "--none"].map(color);
  canvas.width = canvas.height = Math.max(1, count);
  if (!count) return;
  const context = canvas.getContext("2d"), image = context.createImageData(count, count);
  const on = data.names.map(matches);
  for (let i = 0; i < count * count; i++) {
    const value = cells[i], end = value < 0 ? low : high, share = Math.min(1, Math.abs(value) / 100);
    const shown = value >= least && (on[Math.floor(i / count)] || on[i % count]);
    for (let c = 0; c < 3; c++)
      image.data[4 * i + c] = value === -128 ? none[c] : middle[c] + share * (end[c] - middle[c]);
    image.data[4 * i + 3] = shown ? 255 : 50;
  }
  context.putImageData(image, 0, 0);
  [...get("names").children].forEach((span, label) => { span.className = found && on[label] ? "on" : ""; });
}

function tell() {
  cell.hidden = false;
  Object.assign(cell.style, { left: `${100 * column / count}%`, top: `${100 * row / count}%`,
    width: `max(6px, ${100 / count}%)`, height: `max(6px, ${100 / count}%)` });
  said.textContent = `${titled(row)} and ${titled(column)}: ${worded(at(row, column))}`;
  const others = data.names.map((_, label) => label).filter(label => label !== row && at(row, label) !== -128);
  others.sort((a, b) => at(row, b) - at(row, a));
  near.replaceChildren(...others.slice(0, 6).map(label => {
    const item = document.createElement("li");
    item.textContent = `${titled(label)}: ${worded(at(row, label))}`;
    return item;
  }));
}

function point(event) {
  if (!count) return;
  const box = canvas.getBoundingClientRect();
  const place = share => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  column = place((event.clientX - box.left) / box.width);
  row = place((event.clientY - box.top) / box.height);
  tell();
}

const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -count],
  End: [0, count] };
canvas.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || !count) return;
  if (event.key === "Enter") { search.value = data.names[row]; look(); event.preventDefault(); return; }
  if (!(event.key in steps)) return;
  const [down, right] = steps[event.key];
  row = Math.min(count - 1, Math.max(0, row + down));
  column = Math.min(count - 1, Math.max(0, column + right));
  tell();
  event.preventDefault();
});
canvas.addEventListener("focus", () => { if (count) tell(); });
canvas.addEventListener("pointermove", point);
canvas.addEventListener("pointerdown", point);

function look() {
  found = search.value.trim().toLowerCase() || null;
  let shown = 0;
  for (const list of ["votes", "pairs", "groups"])
    for (const entry of get(list)?.children ?? []) {
      const names = [...entry.querySelectorAll("th, b")].map(part => part.textContent);
      entry.hidden = !(list !== "groups" ? names.some(matches) : matches(entry.textContent));
      shown += list === "pairs" && !entry.hidden;
    }
  const classes = data.names.filter(matches).length;
  get("count").textContent = found ? `pairs: ${shown}, classes on the map: ${classes}` : "";
  draw();
}
search.addEventListener("input", look);
get("cut").addEventListener("input", event => {
  const value = Number(event.target.value);
  least = value <= -1 ? -128 : Math.round(100 * value);
  get("least").textContent = value.toFixed(2);
  draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

if (count <= 200) {
  get("names").className = "fits";
  get("names").style.fontSize = `${LEGIBLE}px`;
  if (innerWidth >= 768) get("field").style.setProperty("--least", `${LEGIBLE * count}px`);
  get("names").replaceChildren(...data.names.map(name => {
    const span = document.createElement("span");
    span.textContent = name;
    return span;
  }));
}
draw();
