"use strict";
// The moving parts of a page: sorting, copying, curves, episodes. No request, no library.

const SVG = "http://www.w3.org/2000/svg";

function make(name, attributes = {}, children = []) {
  const html = !name.startsWith("svg:");
  const node = html ? document.createElement(name) : document.createElementNS(SVG, name.slice(4));
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") node.textContent = value;
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

const dataOf = (figure) => JSON.parse(figure.querySelector("script").textContent);
const minus = (text) => text.replace("-", "\u2212");

// Tables ------------------------------------------------------------------------------------------

function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const numeric = head.classList.contains("n");
    const key = (row) => {
      const cell = row.cells[column];
      if (numeric) return cell.dataset.v === undefined ? null : Number(cell.dataset.v);
      return cell.textContent === "\u2013" ? null : cell.textContent;
    };
    const order = (a, b) => (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => (a === null || b === null
      ? (a === null) - (b === null)
      : (down ? -1 : 1) * order(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}

// Commands ----------------------------------------------------------------------------------------

function copyable(figure) {
  const button = figure.querySelector("button");
  button.addEventListener("click", async () => {
    const code = figure.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  });
}

// Curves ------------------------------------------------------------------------------------------

const DASHES = ["", "7 4", "9 3 2 3", "2 3"];
const SERIES = 7;
const PAD = { left: 50, right: 14, top: 12, bottom: 38 };
const GUTTER = 176; // beside a wide plot, for the names of reference lines

function look(k) {
  return { stroke: `var(--series-${k % SERIES})`, "stroke-dasharray": DASHES[Math.floor(k / SERIES) % 4] };
}

function brief(x) {
  const size = Math.abs(x);
  for (const [unit, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit) return minus(`${Number((x / unit).toPrecision(3))}${letter}`);
  }
  return minus(`${Number(x.toPrecision(3))}`);
}

function exact(x) {
  const size = Math.abs(x);
  return minus(x.toFixed(size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3));
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((m) => m * power >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) found.push(k * step);
  return found;
}

function curves(figure) {
  const data = dataOf(figure);
  const panels = make("div", { class: "panels" });
  figure.prepend(panels);
  const plots = data.panels.map((panel) => new Plot(panels, panel, data));
  if (data.x || !data.panels.some((panel) => panel.curves.some((c) => c.x.length > 5))) return;
  const button = make("button", { type: "button", class: "focus", "aria-pressed": "false", text: "Scale to the last three quarters" });
  button.addEventListener("click", () => {
    const late = button.getAttribute("aria-pressed") === "false";
    button.setAttribute("aria-pressed", late);
    plots.forEach((plot) => { plot.late = late; plot.draw(); });
  });
  panels.after(button);
}

class Plot {
  constructor(parent, panel, data) {
    const scale = data.x ?? { title: "environment steps of one seed", kind: "linear", dots: false, joined: true };
    Object.assign(this, { panel, data, scale, late: false, cursor: null, width: 0 });
    this.to = scale.kind === "log" ? Math.log10 : (v) => v;
    this.svg = make("svg:svg", { tabindex: 0, role: "img" });
    this.key = make("ul", { class: "key", "aria-live": "polite" });
    const y = make("p", { class: "y", text: data.y });
    parent.append(make("div", { class: "plot" }, [make("h4", { text: panel.title }), y, this.svg, this.key]));
    const end = data.x ? `across ${data.x.title}` : "at the end";
    const last = panel.curves.map((c) => `${c.label} ${exact(c.y.at(-1))}`).join(", ");
    this.svg.setAttribute("aria-label", `${data.y} in ${panel.title}, ${end}: ${last}. Left and right arrows read values.`);
    this.steps = [...new Set(panel.curves.flatMap((c) => c.x))].sort((a, b) => a - b);
    this.listen();
    new ResizeObserver(() => { if (this.svg.clientWidth !== this.width) this.draw(); }).observe(this.svg);
    this.draw();
  }

  listen() {
    const point = (event) => {
      const left = event.clientX - this.svg.getBoundingClientRect().left;
      this.point(this.steps.reduce((a, b) => (Math.abs(this.x(b) - left) < Math.abs(this.x(a) - left) ? b : a)));
    };
    this.svg.addEventListener("pointermove", point);
    this.svg.addEventListener("pointerdown", point);
    this.svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") this.point(null); });
    this.svg.addEventListener("blur", () => this.point(null));
    this.svg.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
      if (!(event.key in moves)) return;
      event.preventDefault();
      const from = this.cursor === null ? this.steps.length - 1 : this.steps.indexOf(this.cursor);
      this.point(this.steps[Math.min(Math.max(from + moves[event.key], 0), this.steps.length - 1)]);
    });
  }

  extent() {
    const { curves: lines } = this.panel;
    [this.x0, this.x1] = [this.to(this.steps[0]), this.to(this.steps.at(-1))];
    if (this.x1 <= this.x0) this.x1 = this.x0 + 1;
    if (this.scale.dots) {
      const beside = this.scale.kind === "names" ? 0.5 : (this.x1 - this.x0) * 0.05;
      [this.x0, this.x1] = this.scale.kind === "names" ? [-beside, this.scale.names.length - beside] : [this.x0 - beside, this.x1 + beside];
    }
    const from = this.late ? this.x0 + (this.x1 - this.x0) / 4 : this.x0;
    const seen = lines.flatMap((c) => [c.y, ...c.each, ...(this.scale.dots || !c.each.length ? [c.low, c.high] : [])].flatMap((v) => v.filter((_, k) => this.to(c.x[k]) >= from)));
    const values = [...seen, ...this.data.references.map(([, v]) => v)].filter((v) => v !== null);
    const low = Math.min(...values), high = Math.max(...values);
    const room = (high - low || Math.abs(high) || 1) * 0.05;
    [this.y0, this.y1] = [low - room, high + room];
  }

  draw() {
    this.width = this.svg.clientWidth || 600;
    this.height = Math.round(Math.min(Math.max(this.width * 0.5, 230), 340));
    this.wide = this.width >= 560;
    this.right = this.width - (this.data.references.length ? (this.wide ? GUTTER : 2 * PAD.right) : PAD.right);
    this.inner = this.right - PAD.left;
    this.extent();
    const bottom = this.height - PAD.bottom;
    this.x = (v) => PAD.left + ((this.to(v) - this.x0) / (this.x1 - this.x0)) * this.inner;
    this.y = (v) => bottom - ((v - this.y0) / (this.y1 - this.y0)) * (bottom - PAD.top);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    const clip = `clip-${Plot.count = (Plot.count || 0) + 1}`;
    const area = make("svg:rect", { x: PAD.left, y: PAD.top - 4, width: this.inner + 4, height: bottom - PAD.top + 8 });
    const lines = make("svg:g", { "clip-path": `url(#${clip})` }, this.panel.curves.flatMap((c) => this.band(c)));
    lines.append(...this.panel.curves.map((c) => this.line(c)));
    this.mark = make("svg:g");
    this.svg.replaceChildren(make("svg:clipPath", { id: clip }, [area]), ...this.axes(bottom), lines, ...this.references(), this.mark);
    this.point(this.cursor);
  }

  axes(bottom) {
    const parts = [];
    for (const v of ticks(this.y0, this.y1, this.height / 55)) {
      parts.push(make("svg:line", { x1: PAD.left, x2: this.right, y1: this.y(v), y2: this.y(v), stroke: "var(--rule)" }));
      parts.push(make("svg:text", { x: PAD.left - 9, y: this.y(v), dy: ".35em", "text-anchor": "end", text: brief(v) }));
    }
    for (const v of this.places()) {
      parts.push(make("svg:text", { x: this.x(v), y: bottom + 17, "text-anchor": "middle", text: this.labelled(v, brief) }));
    }
    parts.push(make("svg:line", { x1: PAD.left, x2: this.right, y1: bottom, y2: bottom, stroke: "var(--faint)" }));
    parts.push(make("svg:text", { x: this.right, y: bottom + 34, "text-anchor": "end", text: this.scale.title }));
    return parts;
  }

  // Where values stand below: on round numbers, or, of few dots, where these are; where there is room.
  places() {
    if (!this.scale.dots) return ticks(this.x0, this.x1, Math.max(2, this.inner / 95));
    let found = this.steps;
    if (this.steps.length > 8 && this.scale.kind === "linear") found = ticks(this.x0, this.x1, Math.max(2, this.inner / 95));
    if (this.steps.length > 8 && this.scale.kind === "log" && this.x1 - this.x0 > 2) {
      found = Array.from({ length: Math.floor(this.x1) - Math.ceil(this.x0) + 1 }, (_, k) => 10 ** (Math.ceil(this.x0) + k));
    }
    const room = (v) => 7 * this.labelled(v, brief).length + 10;
    let last = -Infinity;
    return found.filter((v) => {
      if (this.x(v) - last < room(v)) return false;
      last = this.x(v);
      return true;
    });
  }

  labelled(v, written) {
    if (this.scale.kind === "names") return this.scale.names[v];
    return this.scale.kind === "log" && v < 0.001 ? minus(Number(v.toPrecision(3)).toExponential()) : written(v);
  }

  // Curves stand a little beside each other, so that dots of one do not hide those of another.
  beside(curve) {
    const k = this.panel.curves.indexOf(curve), n = this.panel.curves.length;
    return this.scale.dots ? (k - (n - 1) / 2) * Math.min(7, 28 / n) : 0;
  }

  dots(curve) {
    const { stroke } = look(curve.look), dx = this.beside(curve);
    const seeds = curve.each.flatMap((own) => own.map((v, k) => v !== null && make("svg:circle", { cx: this.x(curve.x[k]) + dx, cy: this.y(v), r: 2.6, fill: stroke, opacity: 0.45 })));
    const bars = curve.x.map((v, k) => curve.low[k] !== null && make("svg:line", { x1: this.x(v) + dx, x2: this.x(v) + dx, y1: this.y(curve.low[k]), y2: this.y(curve.high[k]), stroke, "stroke-width": 1.4, opacity: 0.7 }));
    return [...bars, ...seeds].filter(Boolean);
  }

  means(curve) {
    const { stroke } = look(curve.look), dx = this.beside(curve);
    return curve.x.map((v, k) => curve.y[k] !== null && make("svg:circle", { cx: this.x(v) + dx, cy: this.y(curve.y[k]), r: 4, fill: stroke })).filter(Boolean);
  }

  path(xs, ys, dx = 0) {
    return xs.map((v, k) => (ys[k] === null ? "" : `${(this.x(v) + dx).toFixed(1)},${this.y(ys[k]).toFixed(1)}`)).filter(Boolean);
  }

  band(curve) {
    if (this.scale.dots) return this.dots(curve);
    if (curve.each.length) return curve.each.map((own) => make("svg:polyline", {
      points: this.path(curve.x, own).join(" "), fill: "none", "stroke-linejoin": "round", ...look(curve.look),
      "stroke-width": 1, "stroke-dasharray": "none", opacity: 0.45,
    }));
    const there = this.path(curve.x, curve.high), back = this.path(curve.x, curve.low).reverse();
    if (there.length < 2) return [];
    return [make("svg:polygon", { points: [...there, ...back].join(" "), fill: look(curve.look).stroke, opacity: 0.15 })];
  }

  line(curve) {
    const points = this.path(curve.x, curve.y, this.beside(curve));
    if (this.scale.dots) {
      const joined = this.scale.joined && points.length > 1;
      const line = joined ? [make("svg:polyline", { points: points.join(" "), fill: "none", "stroke-width": 2, "stroke-linejoin": "round", ...look(curve.look) })] : [];
      return make("svg:g", {}, [...line, ...this.means(curve)]);
    }
    if (points.length > 1) return make("svg:polyline", { points: points.join(" "), fill: "none", "stroke-width": 2, "stroke-linejoin": "round", ...look(curve.look) });
    const [cx, cy] = points[0].split(",");
    return make("svg:circle", { cx, cy, r: 4, fill: look(curve.look).stroke });
  }

  references() {
    let above = Infinity;
    const lines = this.named().sort((a, b) => a[1] - b[1]);
    return lines.map(([name, value, letter]) => {
      const y = this.y(value);
      above = Math.min(y, above - 15);
      const text = this.wide ? `${name.length > 20 ? `${name.slice(0, 19)}\u2026` : name} ${brief(value)}` : letter;
      const leader = `${this.right + 3},${y} ${this.right + 9},${above}`;
      return make("svg:g", { class: "reference" }, [
        make("svg:line", { x1: PAD.left, x2: this.right, y1: y, y2: y, stroke: "var(--faint)", "stroke-dasharray": "5 4" }),
        make("svg:polyline", { points: leader, fill: "none", stroke: "var(--faint)" }),
        make("svg:text", { x: this.right + 13, y: above, dy: ".35em", text }),
      ]);
    });
  }

  named() {
    return this.data.references.map(([name, value], k) => [name, value, String.fromCharCode(97 + k)]);
  }

  point(step) {
    this.cursor = step;
    const at = step ?? this.steps.at(-1);
    this.mark.replaceChildren();
    if (step !== null) this.mark.append(make("svg:line", { x1: this.x(step), x2: this.x(step), y1: PAD.top, y2: this.height - PAD.bottom, stroke: "var(--ink)", "stroke-width": 1 }));
    const where = this.data.x ? `at ${this.scale.title} ${this.labelled(at, brief)}` : `at ${at.toLocaleString("en")} steps`;
    const when = step === null && !this.data.x ? "at the end" : where;
    const several = this.panel.curves.some((curve) => curve.seeds > 1 && curve.low.some((v) => v !== null));
    const words = several ? `${when}: mean and 95% interval over seeds` : when;
    const rows = this.panel.curves.map((curve) => this.row(curve, step)).sort((a, b) => b[0] - a[0]);
    const levels = this.wide ? [] : this.named().map(([name, value, letter]) => make("li", {}, [
      make("i", { text: letter }), make("span", { class: "name", text: name }), make("b", { text: brief(value) }), make("span"),
    ]));
    this.key.replaceChildren(make("li", {}, [make("span", { class: "at", text: words })]), ...rows.map(([, row]) => row), ...levels);
  }

  row(curve, step) {
    const k = step === null ? curve.x.length - 1 : nearest(curve.x, step);
    const value = curve.y[k];
    if (step !== null) this.mark.append(make("svg:circle", { cx: this.x(curve.x[k]) + this.beside(curve), cy: this.y(value), r: 4, fill: look(curve.look).stroke, stroke: "var(--paper)", "stroke-width": 1.5 }));
    const swatch = make("svg:svg", { viewBox: "0 0 26 16", "aria-hidden": "true" }, [
      make("svg:line", { x1: 1, x2: 25, y1: 9, y2: 9, "stroke-width": 3, ...look(curve.look) }),
    ]);
    const counted = this.scale.seeds === false ? [] : [`${curve.seeds} seed${curve.seeds === 1 ? "" : "s"}`];
    const elsewhere = this.data.x && step === null && curve.x[k] !== this.steps.at(-1) ? [`at ${this.labelled(curve.x[k], brief)}`] : [];
    const seeds = make("small", { text: [...counted, ...elsewhere].join(", ") });
    const name = make("span", { class: "name" }, [`${curve.label}  `, seeds]);
    const interval = curve.low[k] === null ? "" : `${exact(curve.low[k])} to ${exact(curve.high[k])}`;
    return [value, make("li", {}, [swatch, name, make("b", { text: exact(value) }), make("span", { class: "interval", text: interval })])];
  }
}

function nearest(xs, step) {
  return xs.reduce((best, x, k) => (Math.abs(x - step) < Math.abs(xs[best] - step) ? k : best), 0);
}

// Episodes ----------------------------------------------------------------------------------------

const ENDS = { terminated: ", the end", truncated: ", time is up", cut: ", followed no longer" };
const ICONS = {
  first: "M2 2h2.5v12H2zM14 2v12L5 8z", back: "M12 2v12L3 8z", play: "M3 1.5v13l11-6.5z",
  pause: "M3 2h3.6v12H3zM9.4 2H13v12H9.4z", forward: "M4 2v12l9-6z",
};

const PENS = {
  picture: ([x, y, width, height, href]) => [make("svg:image", { x, y, width, height, href })],
  circle: ([x, y, r, role, line]) => [make("svg:circle", { cx: x, cy: y, r, ...paint(role, line) })],
  rect: ([x, y, width, height, role, line, rx]) => [make("svg:rect", { x, y, width, height, rx, ...paint(role, line) })],
  polygon: ([points, role, line]) => [make("svg:polygon", { points: points.join(" "), ...paint(role, line) })],
  label: ([x, y, text, size, role, bold]) => [make("svg:text", {
    x, y, dy: ".35em", "font-size": size, "font-weight": bold ? 700 : 400, "text-anchor": "middle", fill: `var(--${role})`, text,
  })],
  line: ([x1, y1, x2, y2, role, line, head]) => {
    const stroke = { stroke: `var(--${role})`, "stroke-width": line };
    if (!head) return [make("svg:line", { x1, y1, x2, y2, ...stroke })];
    const length = Math.hypot(x2 - x1, y2 - y1) || 1;
    const [ax, ay] = [(x2 - x1) / length, (y2 - y1) / length];
    const [fx, fy] = [x2 - 4 * line * ax, y2 - 4 * line * ay];
    const side = 2 * line;
    const tip = [x2, y2, fx - side * ay, fy + side * ax, fx + side * ay, fy - side * ax];
    return [make("svg:line", { x1, y1, x2: fx, y2: fy, ...stroke }), make("svg:polygon", { points: tip.join(" "), fill: `var(--${role})` })];
  },
};

function paint(role, line) {
  return line ? { fill: "none", stroke: `var(--${role})`, "stroke-width": line } : { fill: `var(--${role})` };
}

class Viewer {
  constructor(figure) {
    Object.assign(this, { figure, data: dataOf(figure), episode: 0, t: 0, speed: 1, timer: null });
    this.svg = make("svg:svg", { class: "scene", viewBox: this.data.view.join(" "), role: "img" });
    this.step = make("p", { class: "step" });
    this.body = make("tbody");
    const heads = ["agent", "action", "reward", "return"];
    const head = make("tr", {}, heads.map((text, k) => make("th", { scope: "col", class: k > 1 ? "n" : null, text })));
    figure.prepend(
      make("p", { class: "title", text: this.data.title }), this.svg, this.controls(),
      this.step, make("table", {}, [make("thead", {}, [head]), this.body]),
    );
    figure.addEventListener("keydown", (event) => this.press(event));
    this.show(0);
  }

  controls() {
    const button = (icon, label, act) => {
      const node = make("button", { type: "button", "aria-label": label, title: label, class: icon }, [
        make("svg:svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, [make("svg:path", { d: ICONS[icon] })]),
      ]);
      node.addEventListener("click", act);
      return node;
    };
    this.playing = button("play", "Play", () => this.toggle());
    this.scrubber = make("input", { type: "range", min: 0, step: 1, "aria-label": "Step" });
    this.scrubber.addEventListener("input", () => this.show(Number(this.scrubber.value), true));
    const speeds = this.choice("Speed", [0.5, 1, 2, 4].map((v) => [v, `${v}\u00d7`]), 1, (v) => { this.speed = v; });
    const episodes = this.data.episodes.length > 1
      ? [this.choice("Episode", this.data.episodes.map((_, k) => [k, `episode ${k + 1}`]), 0, (k) => { this.episode = k; this.show(0); })]
      : [];
    return make("div", { class: "controls" }, [
      this.scrubber,
      button("first", "To the start", () => this.show(0, true)),
      button("back", "One step back", () => this.show(this.t - 1, true)),
      this.playing,
      button("forward", "One step forward", () => this.show(this.t + 1, true)),
      make("span", { class: "choices" }, [speeds, ...episodes]),
    ]);
  }

  choice(label, options, chosen, act) {
    const node = make("select", { "aria-label": label }, options.map(([value, text]) => make("option", { value, text, selected: value === chosen })));
    node.addEventListener("change", () => act(Number(node.value)));
    return node;
  }

  press(event) {
    if (event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.data.episodes[this.episode].length - 1;
    const jumps = { ArrowLeft: this.t - 1, ArrowRight: this.t + 1, Home: 0, End: last };
    if (event.key in jumps) this.show(jumps[event.key], true);
    else if (event.key === " " && event.target.tagName !== "BUTTON") this.toggle();
    else return;
    event.preventDefault();
  }

  toggle() {
    if (this.timer !== null) return this.stop();
    if (this.t === this.data.episodes[this.episode].length - 1) this.show(0);
    this.face("pause", "Pause");
    const next = () => {
      this.show(this.t + 1);
      if (this.t === this.data.episodes[this.episode].length - 1) this.stop();
      else this.timer = setTimeout(next, 1000 / this.data.fps / this.speed);
    };
    this.timer = setTimeout(next, 1000 / this.data.fps / this.speed);
    return undefined;
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
    this.face("play", "Play");
  }

  face(icon, label) {
    this.playing.setAttribute("aria-label", label);
    this.playing.title = label;
    this.playing.querySelector("path").setAttribute("d", ICONS[icon]);
  }

  show(t, byHand = false) {
    if (byHand && this.timer !== null) this.stop();
    const frames = this.data.episodes[this.episode];
    this.t = Math.min(Math.max(t, 0), frames.length - 1);
    const [shapes, actions, rewards, returns, end] = frames[this.t];
    this.svg.replaceChildren(...shapes.flatMap((k) => PENS[this.data.shapes[k][0]](this.data.shapes[k].slice(1))));
    this.scrubber.max = frames.length - 1;
    this.scrubber.value = this.t;
    this.step.textContent = `step ${this.t} of ${frames.length - 1}${ENDS[end] ?? ""}`;
    this.svg.setAttribute("aria-label", `The state at step ${this.t}`);
    const number = (v) => minus(v.toFixed(2)).replace(/^\u2212(0\.00)$/, "$1");
    this.body.replaceChildren(...this.data.agents.map((agent, i) => make("tr", {}, [
      make("td", { text: agent }),
      make("td", { class: "action", text: actions[i] ?? "\u2013" }),
      make("td", { class: "n", text: number(rewards[i]) }),
      make("td", { class: "n", text: number(returns[i]) }),
    ])));
  }
}

document.querySelectorAll("table.sortable").forEach(sortable);
document.querySelectorAll("figure.command").forEach(copyable);
document.querySelectorAll("figure.curves").forEach(curves);
document.querySelectorAll("figure.viewer").forEach((figure) => new Viewer(figure));
