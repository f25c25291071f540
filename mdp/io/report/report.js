"use strict";
// What a chart recorded at a step, under the pointer or by the arrow keys: from the values that its lines carry.
for (const svg of document.querySelectorAll("svg[data-plot]")) {
  const [left, right, top, bottom, first, last] = svg.dataset.plot.split(" ").map(Number);
  const output = svg.parentElement.querySelector("output");
  const cursor = document.createElementNS(svg.namespaceURI, "path");
  cursor.setAttribute("class", "cursor");
  let lines = null, step = null;

  const read = () => [...svg.querySelectorAll("[data-values]")].map((line) => ({
    name: line.dataset.name,
    points: line.dataset.values.split(";").map((pair) => pair.split(",")),
  }));
  const nearest = (points, to) => {
    let low = 0, high = points.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (Number(points[middle][0]) <= to) low = middle; else high = middle;
    }
    return Math.abs(points[low][0] - to) <= Math.abs(points[high][0] - to) ? low : high;
  };
  const show = (to) => {
    lines = lines || read();
    step = Math.min(last, Math.max(first, to));
    const x = left + (step - first) / (last - first) * (right - left);
    cursor.setAttribute("d", `M${x} ${top}V${bottom}`);
    svg.append(cursor);
    output.textContent = lines.map(({ name, points }) => {
      const [at, value] = points[nearest(points, step)];
      return `${name}: ${value} at step ${at}`;
    }).join("\n");
  };
  const hide = () => { cursor.remove(); output.textContent = ""; };

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    show(first + (x - left) / (right - left) * (last - first));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    event.preventDefault();
    lines = lines || read();
    const points = lines[0].points, forward = event.key === "ArrowRight";
    const at = step === null ? (forward ? -1 : points.length) : nearest(points, step);
    show(Number(points[Math.min(points.length - 1, Math.max(0, at + (forward ? 1 : -1)))][0]));
  });
}
