// What is wrong with how a page stands in its window: a line for each fault, none for a page that is right.
() => {
  const wrong = [];
  const styles = new Map();
  const style = (element) => {
    if (!styles.has(element)) styles.set(element, getComputedStyle(element));
    return styles.get(element);
  };
  const shown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const named = (element) => `<${element.tagName.toLowerCase()}${element.id ? " id=" + element.id : ""}>`;
  const briefly = (words) => JSON.stringify(words.trim().slice(0, 40));
  const root = document.documentElement;

  if (root.scrollWidth > root.clientWidth) {
    const over = [...document.body.querySelectorAll("*")].filter((e) => e.getBoundingClientRect().right > root.clientWidth + 1);
    wrong.push(`the page is ${root.scrollWidth} px wide in a window of ${root.clientWidth}: ${over.slice(0, 3).map(named)}`);
  }

  // Pictures

  const empty = (box) => !(box.width > 0 && box.height > 0);
  const inside = (box, frame) =>
    box.left >= frame.left - 1 && box.right <= frame.right + 1 && box.top >= frame.top - 1 && box.bottom <= frame.bottom + 1;
  for (const image of document.images) {
    if (!image.complete || !image.naturalWidth) wrong.push(`${named(image)} ${briefly(image.alt)}: not decoded`);
    if (shown(image) && empty(image.getBoundingClientRect())) wrong.push(`${named(image)} ${briefly(image.alt)}: has no size`);
    if (!image.alt) wrong.push(`${named(image)}: no words for those who do not see it`);
  }
  for (const svg of document.querySelectorAll("svg")) {
    if (!shown(svg)) continue;
    const frame = svg.getBoundingClientRect(), what = briefly(svg.getAttribute("aria-label") || svg.getAttribute("class") || "");
    if (empty(frame)) wrong.push(`svg ${what}: has no size`);
    const shapes = [...svg.querySelectorAll("path, circle, rect, line, polyline, polygon, image")];
    if (!shapes.length) wrong.push(`svg ${what}: nothing is drawn`);
    for (const shape of shapes) {
      if (shape.getTotalLength && !(shape.getTotalLength() > 0)) wrong.push(`svg ${what}: an empty ${shape.tagName}`);
      if (!inside(shape.getBoundingClientRect(), frame)) wrong.push(`svg ${what}: a ${shape.tagName} leaves the picture`);
    }
    for (const text of svg.querySelectorAll("text"))
      if (!inside(text.getBoundingClientRect(), frame)) wrong.push(`svg ${what}: ${briefly(text.textContent)} leaves the picture`);
    const curves = svg.dataset.plot ? svg.querySelectorAll("[data-values]") : [];
    if (svg.dataset.plot && !curves.length) wrong.push(`svg ${what}: no curve`);
    for (const curve of curves)
      if (style(curve).stroke === "none") wrong.push(`svg ${what}: a curve without a colour`);
  }
  for (const canvas of document.querySelectorAll("canvas")) {
    if (empty(canvas.getBoundingClientRect())) wrong.push("canvas: has no size");
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d");
    copy.drawImage(canvas, 0, 0);
    const pixels = new Uint32Array(copy.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    if (pixels.length > 1 && new Set(pixels).size < 2) wrong.push("canvas: of one colour");
  }

  // Words: none over others, all in a colour that stands out

  const around = (element) => {  // what of the window an element may be seen in, null when it is cut away
    let box = { left: 0, top: -Infinity, right: root.clientWidth, bottom: Infinity };
    for (let above = element; above; above = above.parentElement) {
      if (style(above).clipPath !== "none") return null;
      if (style(above).overflowX === "visible" || above === root || above === document.body) continue;
      const own = above.getBoundingClientRect();
      box = { left: Math.max(box.left, own.left), top: Math.max(box.top, own.top),
        right: Math.min(box.right, own.right), bottom: Math.min(box.bottom, own.bottom) };
    }
    return box;
  };
  const luminance = ([red, green, blue]) => {
    const [r, g, b] = [red, green, blue].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const numbers = (color) => color.match(/[\d.]+/g).map(Number);
  const behind = (element) => {
    for (let above = element; above; above = above.parentElement) {
      const color = numbers(style(above).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const pieces = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || ["SCRIPT", "STYLE"].includes(parent.tagName) || !shown(parent)) continue;
    const seen = around(parent);
    if (!seen) continue;
    const color = numbers(parent instanceof SVGElement ? style(parent).fill : style(parent).color);
    const two = [luminance(color), luminance(behind(parent))].sort((a, b) => b - a);
    const contrast = (two[0] + 0.05) / (two[1] + 0.05);
    if (contrast < 4.5) wrong.push(`${briefly(node.data)} is hard to read: contrast ${contrast.toFixed(1)}`);
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) {
      const rise = box.height / 4;  // letters are lower than their line
      const piece = { node, left: Math.max(box.left, seen.left), right: Math.min(box.right, seen.right),
        top: Math.max(box.top + rise, seen.top), bottom: Math.min(box.bottom - rise, seen.bottom) };
      if (piece.right - piece.left > 1 && piece.bottom - piece.top > 1) pieces.push(piece);
    }
  }
  if (!pieces.length) wrong.push("no words");
  pieces.sort((a, b) => a.top - b.top);
  pieces.forEach((piece, place) => {
    for (let other = place + 1; other < pieces.length && pieces[other].top < piece.bottom - 1; other++) {
      const next = pieces[other];
      if (next.node !== piece.node && Math.min(next.right, piece.right) - Math.max(next.left, piece.left) > 1)
        wrong.push(`${briefly(piece.node.data)} and ${briefly(next.node.data)} stand over each other`);
    }
  });
  return wrong;
}
