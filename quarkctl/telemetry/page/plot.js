"use strict";
// Lanes of one time axis. Times are microseconds since the page's origin, as doubles: exact to a nanosecond for days.
// Each series has a pyramid of minima and maxima, so that a picture costs the same whatever the number of points.
const page = JSON.parse(document.getElementById("page").textContent);
const TYPES = { u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };
const STEP = 16, LANE = 120, AXIS = 26, LEFT = 64;
const began = performance.now();
const $ = (id) => document.getElementById(id);

async function unpack(id, Type) {
  const element = $(id), text = element.textContent;
  element.remove();
  let raw;
  if (Uint8Array.fromBase64) raw = Uint8Array.fromBase64(text);
  else { const s = atob(text); raw = new Uint8Array(s.length); for (let i = 0; i < s.length; i++) raw[i] = s.charCodeAt(i); }
  const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Type(await new Response(stream).arrayBuffer());
}

// Runs of (how many, distance) to times; each run counts from its own begin, so that no rounding adds up.
function times(runs, first, count) {
  const out = new Float64Array(count);
  let t = first;
  for (let r = 0, i = 0; r < runs.length; r += 2) {
    const n = runs[r], step = runs[r + 1];
    for (let k = 1; k <= n; k++) out[i++] = t + k * step;
    t += n * step;
  }
  return out;
}

function pyramid(values) {
  const levels = [];
  let low = values, high = values;
  while (low.length > 4 * STEP) {
    const n = Math.ceil(low.length / STEP), l = new values.constructor(n), h = new values.constructor(n);
    for (let i = 0, k = 0; i < n; i++) {
      let a = low[k], b = high[k];
      for (const end = Math.min(k + STEP, low.length); k < end; k++) { if (low[k] < a) a = low[k]; if (high[k] > b) b = high[k]; }
      l[i] = a; h[i] = b;
    }
    levels.push([l, h]);
    low = l; high = h;
  }
  return levels;
}

// Minimum and maximum of values[from..to), whole blocks from the pyramid, the ends by themselves.
function extremes(s, from, to) {
  let low = Infinity, high = -Infinity, level = -1;
  const take = (l, h, i) => { if (l[i] < low) low = l[i]; if (h[i] > high) high = h[i]; };
  let l = s.values, h = s.values;
  for (;;) {
    if (to - from <= 2 * STEP || level + 1 >= s.levels.length) { for (let i = from; i < to; i++) take(l, h, i); break; }
    while (from % STEP) take(l, h, from++);
    while (to % STEP) take(l, h, --to);
    from /= STEP; to /= STEP;
    [l, h] = s.levels[++level];
  }
  return [low, high];
}

function place(t, at) { // first index with t[index] >= at
  let low = 0, high = t.length;
  while (low < high) { const m = (low + high) >>> 1; if (t[m] < at) low = m + 1; else high = m; }
  return low;
}

const groups = [], series = [];
let from = 0, to = 1, whole = [0, 1], cursor = null, asked = false;
const canvas = $("plot"), g = canvas.getContext("2d");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

function clock(us, digits) {
  const d = new Date(page.origin_ms + us / 1000), two = (n, w = 2) => String(n).padStart(w, "0");
  const rest = ((us % 1e6) + 1e6) % 1e6 + (page.origin_us % 1e6), part = (rest % 1e6 / 1e6).toFixed(6).slice(2, 2 + digits);
  return page.wall ? `${two(d.getUTCHours())}:${two(d.getUTCMinutes())}:${two(d.getUTCSeconds())}${digits ? "." + part : ""}` : `${(us / 1e6).toFixed(digits)} s`;
}

function ask() { if (!asked) { asked = true; requestAnimationFrame(draw); } }

function draw() {
  asked = false;
  const start = performance.now(), ratio = devicePixelRatio || 1, shown = series.filter((s) => s.shown);
  const width = canvas.parentElement.clientWidth, height = AXIS + LANE * Math.max(shown.length, 1);
  if (canvas.width !== width * ratio || canvas.height !== height * ratio) { canvas.width = width * ratio; canvas.height = height * ratio; canvas.style.height = height + "px"; }
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  const plot = width - LEFT - 8, x = (t) => LEFT + (t - from) / (to - from) * plot;
  const ink = css("--ink"), dim = css("--dim"), grid = css("--grid"), line = css("--line"), bad = css("--bad"), mark = css("--mark");
  g.font = "11px system-ui"; g.textBaseline = "middle";
  // time axis
  const span = to - from, steps = [1, 2, 5];
  let unit = 1, k = 0;
  while (span / (unit * steps[k]) > plot / 110) { if (++k === 3) { k = 0; unit *= 10; } }
  const step = unit * steps[k], digits = step >= 1e6 ? 0 : Math.min(6, Math.ceil(6 - Math.log10(step)));
  g.fillStyle = dim; g.strokeStyle = grid; g.textAlign = "center";
  for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
    g.beginPath(); g.moveTo(x(t), AXIS - 6); g.lineTo(x(t), height); g.stroke();
    g.fillText(clock(t, digits), x(t), 10);
  }
  for (const n of page.notices) { // losses as spans, starts as lines
    if (n.to < from || n.from > to) continue;
    const a = Math.max(x(n.from), LEFT), b = Math.min(x(n.to), LEFT + plot);
    g.globalAlpha = n.kind === "lost" || n.kind === "corrupt" ? 0.25 : 0.8;
    g.fillStyle = n.kind === "lost" || n.kind === "corrupt" ? bad : mark;
    g.fillRect(a, AXIS - 4, Math.max(b - a, 1.5), height - AXIS + 4);
    g.globalAlpha = 1;
  }
  g.save(); g.beginPath(); g.rect(LEFT, 0, plot, height); g.clip(); g.restore();
  shown.forEach((s, row) => {
    const top = AXIS + row * LANE + 16, bottom = AXIS + (row + 1) * LANE - 8, t = s.group.times;
    let first = Math.max(place(t, from) - 1, 0), last = Math.min(place(t, to) + 1, t.length);
    g.fillStyle = ink; g.textAlign = "left"; g.fillText(`${s.name}${s.unit ? "  [" + s.unit + "]" : ""}`, LEFT + 4, top - 8);
    g.strokeStyle = grid; g.beginPath(); g.moveTo(0, bottom + 8); g.lineTo(width, bottom + 8); g.stroke();
    if (last <= first) return;
    let [low, high] = extremes(s, first, last);
    if (!(high > low)) { low -= 0.5; high = low + 1; }
    const y = (v) => bottom - (v - low) / (high - low) * (bottom - top);
    g.fillStyle = dim; g.textAlign = "right"; g.fillText(short(high), LEFT - 4, top); g.fillText(short(low), LEFT - 4, bottom);
    g.save(); g.beginPath(); g.rect(LEFT, top - 4, plot, bottom - top + 8); g.clip();
    g.strokeStyle = g.fillStyle = line; g.lineWidth = 1;
    g.beginPath();
    if (last - first > 3 * plot) { // more points than pixels: the extremes of each column
      let i = first;
      for (let c = 0; c <= plot && i < last; c++) {
        const end = Math.min(place(t, from + (c + 1) / plot * (to - from)), last);
        if (end <= i) continue;
        const [a, b] = extremes(s, i, end);
        g.moveTo(LEFT + c + 0.5, y(b)); g.lineTo(LEFT + c + 0.5, Math.max(y(a), y(b) + 1));
        i = end;
      }
    } else {
      for (let i = first; i < last; i++) {
        if (i > first && t[i] - t[i - 1] <= s.group.gap) g.lineTo(x(t[i]), y(s.values[i])); else g.moveTo(x(t[i]), y(s.values[i]));
      }
      if (last - first < plot / 6) for (let i = first; i < last; i++) g.rect(x(t[i]) - 1.5, y(s.values[i]) - 1.5, 3, 3);
    }
    g.stroke();
    if (cursor !== null) {
      const at = from + (cursor - LEFT) / plot * (to - from);
      let i = Math.min(place(t, at), t.length - 1);
      if (i > 0 && at - t[i - 1] < t[i] - at) i--;
      g.fillStyle = ink;
      g.beginPath(); g.arc(x(t[i]), y(s.values[i]), 3, 0, 7); g.fill();
      g.restore();
      g.fillStyle = ink; g.textAlign = "right";
      g.fillText(String(s.names?.[s.values[i]] ?? short(s.values[i])), LEFT + plot - 4, top - 8);
    } else g.restore();
  });
  g.textAlign = "left";
  let row = 0, right = -Infinity;
  for (const e of page.events) {
    if (e.at < from || e.at > to) continue;
    row = x(e.at) < right ? (row + 1) % 6 : 0; // labels that would overlap go below each other
    right = Math.max(right, x(e.at) + 6 + g.measureText(e.text).width);
    g.strokeStyle = g.fillStyle = mark; g.beginPath(); g.setLineDash([3, 3]); g.moveTo(x(e.at), AXIS); g.lineTo(x(e.at), height); g.stroke(); g.setLineDash([]);
    g.textAlign = "left"; g.fillText(e.text, x(e.at) + 3, AXIS + 22 + 12 * row);
  }
  if (cursor !== null) { g.strokeStyle = dim; g.beginPath(); g.moveTo(cursor, AXIS - 6); g.lineTo(cursor, height); g.stroke(); }
  const at = cursor === null ? null : from + (cursor - LEFT) / plot * span;
  $("readout").textContent = (at === null ? "" : clock(at, 6) + "   ") + `span ${human(span)}`;
  document.documentElement.dataset.drawMs = (performance.now() - start).toFixed(1);
  document.documentElement.dataset.spanMs = (span / 1000).toFixed(3);
}

const short = (v) => Number.isInteger(v) ? String(v) : v.toPrecision(5);
const human = (us) => us >= 3.6e9 ? (us / 3.6e9).toFixed(2) + " h" : us >= 6e7 ? (us / 6e7).toFixed(2) + " min" : us >= 1e6 ? (us / 1e6).toFixed(3) + " s" : us >= 1e3 ? (us / 1e3).toFixed(3) + " ms" : us.toFixed(1) + " us";

function view(a, b) {
  const least = 10, most = (whole[1] - whole[0]) * 1.2;
  const span = Math.min(Math.max(b - a, least), most), middle = (a + b) / 2;
  from = middle - span / 2; to = middle + span / 2;
  ask();
}

function at(event) { const box = canvas.getBoundingClientRect(); return event.clientX - box.left; }
const spot = (px) => from + (px - LEFT) / (canvas.clientWidth - LEFT - 8) * (to - from);

canvas.addEventListener("wheel", (e) => {
  if (e.ctrlKey || !e.shiftKey) {
    e.preventDefault();
    const f = Math.exp(e.deltaY * 0.002), t = spot(at(e));
    view(t - (t - from) * f, t + (to - t) * f);
  }
}, { passive: false });
let drag = null;
canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); drag = { x: at(e), from, to, select: e.shiftKey }; });
canvas.addEventListener("pointermove", (e) => {
  cursor = Math.max(at(e), LEFT);
  if (drag && !drag.select) { const d = (at(e) - drag.x) / (canvas.clientWidth - LEFT - 8) * (drag.to - drag.from); from = drag.from - d; to = drag.to - d; }
  ask();
});
canvas.addEventListener("pointerup", (e) => {
  if (drag && drag.select && Math.abs(at(e) - drag.x) > 3) view(...[spot(drag.x), spot(at(e))].sort((a, b) => a - b));
  drag = null;
});
canvas.addEventListener("pointerleave", () => { cursor = null; ask(); });
canvas.addEventListener("dblclick", () => view(...whole));
addEventListener("keydown", (e) => {
  const s = to - from, m = (from + to) / 2;
  if (e.key === "+" || e.key === "=") view(m - s / 4, m + s / 4);
  else if (e.key === "-") view(m - s, m + s);
  else if (e.key === "ArrowLeft") view(from - s / 5, to - s / 5);
  else if (e.key === "ArrowRight") view(from + s / 5, to + s / 5);
  else if (e.key === "0") view(...whole);
});
addEventListener("resize", ask);

function menu() {
  const nav = $("series");
  let title = "";
  for (const s of series) {
    if (s.group.title !== title) { title = s.group.title; const h = document.createElement("h2"); h.textContent = title; nav.append(h); }
    const label = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox"; box.checked = s.shown;
    box.addEventListener("change", () => { s.shown = box.checked; ask(); });
    label.append(box, " " + s.field);
    label.title = `${s.name} ${s.unit} ${s.doc}`;
    nav.append(label);
  }
}

(async () => {
  for (const group of page.groups) {
    group.times = times(await unpack(group.times, Float64Array), group.first, group.count);
    groups.push(group);
    for (const s of group.series) {
      s.group = group;
      s.values = await unpack(s.data, TYPES[s.type]);
      s.levels = pyramid(s.values);
      series.push(s);
    }
  }
  whole = [page.from, Math.max(page.to, page.from + 1000)];
  [from, to] = whole;
  menu();
  draw();
  document.documentElement.dataset.readyMs = (performance.now()).toFixed(1);
  document.documentElement.dataset.loadMs = (performance.now() - began).toFixed(1);
  window.plot = { view, series, whole };
})().catch((e) => { $("readout").textContent = "this page cannot be drawn: " + e; document.documentElement.dataset.error = String(e); });
