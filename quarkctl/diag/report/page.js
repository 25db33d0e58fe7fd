"use strict";
const NS = "http://www.w3.org/2000/svg";
const COLOURS = 5;
function el(name, attributes, parent, text) {
  const e = document.createElementNS(NS, name);
  for (const k in attributes) e.setAttribute(k, attributes[k]);
  if (text !== undefined) e.textContent = text;
  if (parent) parent.appendChild(e);
  return e;
}
function ticks(low, high, count) {
  const raw = (high - low) / count, power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = [1, 2, 5, 10].map(x => x * power).find(s => s >= raw) || raw;
  const out = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) out.push(+t.toFixed(10));
  return out;
}
function draw(figure, plot) {
  const W = 900, H = 250, L = 64, R = 12, T = 10, B = 30;
  const names = Object.keys(plot.series);
  const all = names.flatMap(n => plot.series[n]).map(p => p[0]);
  const full = [Math.min(...all), Math.max(...all)];
  let view = full[1] > full[0] ? full.slice() : [full[0] - 1, full[0] + 1];
  const svg = el("svg", {viewBox: `0 0 ${W} ${H}`, role: "img", tabindex: 0, "aria-label": plot.title}, null);
  figure.appendChild(svg);
  const caption = document.createElement("figcaption");
  names.forEach((n, i) => {
    const key = document.createElement("span");
    key.className = `key c${i % COLOURS}`; key.textContent = n; caption.appendChild(key);
  });
  const readout = document.createElement("output");
  caption.appendChild(readout); figure.appendChild(caption);
  let x = v => v, y = v => v, range = [0, 1];
  function render() {
    svg.replaceChildren();
    const inside = names.flatMap(n => plot.series[n].filter(p => p[1] !== null && p[0] >= view[0] && p[0] <= view[1]).map(p => p[1]));
    const near = Object.values(plot.lines);
    let low = Math.min(...inside), high = Math.max(...inside);
    if (!inside.length) { low = 0; high = 1; }
    for (const v of near) if (Math.abs(v - (low + high) / 2) < 3 * (high - low || 1)) { low = Math.min(low, v); high = Math.max(high, v); }
    const pad = (high - low || 1) * 0.06; range = [low - pad, high + pad];
    x = v => L + (v - view[0]) / (view[1] - view[0]) * (W - L - R);
    y = v => T + (range[1] - v) / (range[1] - range[0]) * (H - T - B);
    for (const t of ticks(range[0], range[1], 5)) {
      el("line", {x1: L, x2: W - R, y1: y(t), y2: y(t), class: "grid"}, svg);
      el("text", {x: L - 6, y: y(t) + 4, class: "end"}, svg, t);
    }
    for (const t of ticks(view[0], view[1], 8)) {
      el("line", {x1: x(t), x2: x(t), y1: T, y2: H - B, class: "grid"}, svg);
      el("text", {x: x(t), y: H - 12, class: "mid"}, svg, t);
    }
    el("text", {x: W - R, y: H - 1, class: "end"}, svg, "s");
    el("text", {x: 2, y: T + 8}, svg, plot.unit === "1" ? "" : plot.unit);
    const box = el("svg", {x: L, y: T, width: W - L - R, height: H - T - B, viewBox: `${L} ${T} ${W - L - R} ${H - T - B}`}, svg);
    for (const n in plot.lines) {
      const v = plot.lines[n];
      if (v < range[0] || v > range[1]) continue;
      el("line", {x1: L, x2: W - R, y1: y(v), y2: y(v), class: "limit"}, box);
      el("text", {x: L + 4, y: y(v) - 3, class: "limit"}, box, `${n} ${v}`);
    }
    for (const [t, n] of plot.marks) {
      if (t < view[0] || t > view[1]) continue;
      el("line", {x1: x(t), x2: x(t), y1: T, y2: H - B, class: "mark"}, box);
      el("text", {x: x(t) + 3, y: T + 10, class: "mark"}, box, n);
    }
    names.forEach((n, i) => {
      let d = "", pen = false;
      for (const [t, v] of plot.series[n]) {
        if (v === null) { pen = false; continue; }
        d += `${pen ? "L" : "M"}${x(t).toFixed(1)} ${y(v).toFixed(1)}`; pen = true;
      }
      el("path", {d, class: `line c${i % COLOURS}`}, box);
    });
  }
  function at(event) {
    const r = svg.getBoundingClientRect();
    return view[0] + ((event.clientX - r.left) / r.width * W - L) / (W - L - R) * (view[1] - view[0]);
  }
  let from = null, band = null;
  svg.addEventListener("pointerdown", e => { from = at(e); svg.setPointerCapture(e.pointerId); });
  svg.addEventListener("pointermove", e => {
    const t = at(e);
    readout.textContent = `${t.toFixed(3)} s  ` + names.map(n => {
      let best = null;
      for (const p of plot.series[n]) if (p[1] !== null && (best === null || Math.abs(p[0] - t) < Math.abs(best[0] - t))) best = p;
      return best ? `${n} ${best[1]}` : "";
    }).join("  ");
    if (from === null) return;
    if (!band) band = el("rect", {y: T, height: H - T - B, class: "band"}, svg);
    band.setAttribute("x", Math.min(x(from), x(t))); band.setAttribute("width", Math.abs(x(t) - x(from)));
  });
  svg.addEventListener("pointerup", e => {
    const to = at(e);
    if (from !== null && Math.abs(x(to) - x(from)) > 8) view = [Math.min(from, to), Math.max(from, to)];
    from = null; band = null; render();
  });
  function zoom(factor, centre) {
    const a = Math.max(centre + (view[0] - centre) * factor, full[0]), b = Math.min(centre + (view[1] - centre) * factor, full[1]);
    if (b - a > 1e-3) view = [a, b];
    render();
  }
  svg.addEventListener("wheel", e => { if (!e.ctrlKey && !e.shiftKey) return; e.preventDefault(); zoom(e.deltaY > 0 ? 1.3 : 1 / 1.3, at(e)); }, {passive: false});
  svg.addEventListener("dblclick", () => { view = full.slice(); render(); });
  svg.addEventListener("keydown", e => {
    const middle = (view[0] + view[1]) / 2, shift = (view[1] - view[0]) / 5;
    if (e.key === "+") zoom(1 / 1.5, middle);
    else if (e.key === "-") zoom(1.5, middle);
    else if (e.key === "0") { view = full.slice(); render(); }
    else if (e.key === "ArrowLeft" || e.key === "ArrowRight") {
      const s = e.key === "ArrowLeft" ? -Math.min(shift, view[0] - full[0]) : Math.min(shift, full[1] - view[1]);
      view = [view[0] + s, view[1] + s]; render();
    } else return;
    e.preventDefault();
  });
  render();
}
const plots = JSON.parse(document.getElementById("plots").textContent);
document.querySelectorAll("figure[data-plot]").forEach(f => draw(f, plots[+f.dataset.plot]));
document.documentElement.dataset.ready = "yes";
