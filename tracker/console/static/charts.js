// Line charts of the last hour.

import { h, setAttribute, setText, svg } from "./dom.js";
import { clock } from "./format.js";

const HOUR = 3600;
const LEFT = 44;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 20;

let charts = 0; // for unique ids

// series: [{key, name, class}]; bands: [{from, class, text}], with thresholds in the unit of the values.
export class Chart {
  constructor({ title, series, format, axis, floor, round = nice, bands = [], height = 132 }) {
    Object.assign(this, { title, series, format, axis: axis ?? format, floor, round, bands, height });
    this.data = null;
    this.cursor = null;
    this.id = `chart-${++charts}`;
    this.svg = svg("svg", { role: "img", class: "chart", height });
    this.readout = h("p", { class: "readout", "aria-hidden": "true" });
    const legend = series.length > 1
      ? series.map((one) => h("span", { class: `key ${one.class}` }, one.name))
      : [];
    this.element = h("figure", { class: "figure" },
      h("figcaption", {}, h("span", {}, title), ...legend, this.readout), this.svg);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => { this.cursor = null; this.draw(); });
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.element);
  }

  // history: times in UNIX seconds, one per step; values of each series, null if unknown.
  show(history, now) {
    this.data = { ...history, now };
    this.draw();
  }

  close() {
    this.observer.disconnect();
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    this.cursor = event.clientX - box.left;
    this.draw();
  }

  values(series) {
    return this.data.series[series.key] ?? [];
  }

  draw() {
    const width = Math.floor(this.element.clientWidth);
    if (!this.data || width < 40) return;
    const right = width - RIGHT;
    const bottom = this.height - BOTTOM;
    const { now, step, times } = this.data;
    const known = this.series.flatMap((one) => this.values(one).filter((value) => value !== null));
    const top = this.round(Math.max(this.floor, ...known));
    const x = (at) => LEFT + ((at - (now - HOUR)) / HOUR) * (right - LEFT);
    const y = (value) => bottom - (value / top) * (bottom - TOP);
    const drawn = [];
    for (const value of [0, top / 2, top]) {
      drawn.push(svg("line", { class: "grid", x1: LEFT, x2: right, y1: y(value), y2: y(value) }));
      drawn.push(svg("text", { class: "tick", x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, value ? this.axis(value) : "0"));
    }
    let room = TOP + 12; // labels above this would overlap
    for (const band of this.bands.toReversed()) {
      if (band.from >= top) continue;
      drawn.push(svg("line", { class: `threshold ${band.class}`, x1: LEFT, x2: right, y1: y(band.from), y2: y(band.from) }));
      if (y(band.from) >= room) {
        room = y(band.from) + 14;
        drawn.push(svg("text", { class: `tick ${band.class}`, x: LEFT + 4, y: y(band.from) - 4 }, band.text));
      }
    }
    for (const ago of width > 340 ? [60, 45, 30, 15, 0] : [60, 30, 0]) {
      const at = x(now - ago * 60);
      const anchor = ago === 60 ? "start" : ago === 0 ? "end" : "middle";
      drawn.push(svg("text", { class: "tick", x: at, y: this.height - 4, "text-anchor": anchor }, ago ? `−${ago} min` : "now"));
    }
    for (const one of this.series) {
      const [line, area] = paths(times, this.values(one), step, x, y, bottom, now);
      for (const { clip, kind } of this.zones(drawn, width, y)) {
        const within = { "clip-path": clip && `url(#${clip})` };
        if (this.series.length === 1) drawn.push(svg("path", { class: `area ${kind ?? one.class}`, d: area, ...within }));
        drawn.push(svg("path", { class: `line ${kind ?? one.class}`, d: line, ...within }));
      }
    }
    drawn.push(...this.cross(x, y, bottom));
    setAttribute(this.svg, "viewBox", `0 0 ${width} ${this.height}`);
    setAttribute(this.svg, "width", String(width));
    setAttribute(this.svg, "aria-label", this.summary());
    this.svg.replaceChildren(...drawn);
  }

  // Between two thresholds a line has the colour of that state.
  zones(drawn, width, y) {
    if (!this.bands.length) return [{ clip: null, kind: null }];
    const edges = [0, ...this.bands.map((band) => band.from)];
    return edges.map((from, index) => {
      const clip = `${this.id}-${index}`;
      const lower = index ? y(from) : this.height;
      const upper = index + 1 < edges.length ? y(edges[index + 1]) : -10;
      const height = Math.max(0, lower - upper);
      drawn.push(svg("clipPath", { id: clip }, svg("rect", { x: 0, width: width + 10, y: upper, height })));
      return { clip, kind: index ? this.bands[index - 1].class : "good" };
    });
  }

  cross(x, y, bottom) {
    const { times } = this.data;
    if (this.cursor === null || !times.length) {
      setText(this.readout, "");
      return [];
    }
    let at = 0;
    times.forEach((time, number) => {
      if (Math.abs(x(time) - this.cursor) < Math.abs(x(times[at]) - this.cursor)) at = number;
    });
    const readings = this.series.map((one) => {
      const value = this.values(one)[at] ?? null;
      const name = this.series.length > 1 ? `${one.name} ` : "";
      return `${name}${value === null ? "unknown" : this.format(value)}`;
    });
    setText(this.readout, `${clock(times[at] * 1000)}  ${readings.join("  ")}`);
    const marks = [svg("line", { class: "cross", x1: x(times[at]), x2: x(times[at]), y1: TOP, y2: bottom })];
    for (const one of this.series) {
      const value = this.values(one)[at] ?? null;
      if (value !== null) marks.push(svg("circle", { class: `mark ${one.class}`, cx: x(times[at]), cy: y(value), r: 3.5 }));
    }
    return marks;
  }

  summary() {
    const parts = this.series.map((one) => {
      const values = this.values(one);
      const known = values.filter((value) => value !== null);
      if (!known.length) return `${one.name}: unknown`;
      const most = Math.max(...known);
      const when = clock(this.data.times[values.indexOf(most)] * 1000);
      return `${one.name}: now ${this.format(known[known.length - 1])}, maximum ${this.format(most)} at ${when}`;
    });
    return `${this.title} in the last hour. ${parts.join(". ")}.`;
  }
}

// Returns a line and the area below it, with gaps for unknown values.
function paths(times, values, step, x, y, bottom, now) {
  let line = "";
  let area = "";
  let run = [];
  const end = () => {
    if (!run.length) return;
    if (run.length === 1) run.push([run[0][0] + 1.5, run[0][1]]);
    const points = run.map(([left, up]) => `${left.toFixed(1)} ${up.toFixed(1)}`).join("L");
    line += `M${points}`;
    area += `M${run[0][0].toFixed(1)} ${bottom}L${points}L${run[run.length - 1][0].toFixed(1)} ${bottom}Z`;
    run = [];
  };
  times.forEach((at, number) => {
    const value = values[number] ?? null;
    if (value === null || (number && at - times[number - 1] > 2 * step)) end();
    if (value !== null && at >= now - HOUR) run.push([x(Math.min(at + step / 2, now)), y(value)]);
  });
  end();
  return [line, area];
}

// An axis ends on a round number; of seconds, one that is round in minutes or hours.
const ROUND_SECONDS = [1, 2, 4, 10, 20, 40, 60, 120, 240, 600, 1200, 2400, 3600, 7200, 14_400, 28_800, 43_200, 86_400];

export function niceSeconds(value) {
  return ROUND_SECONDS.find((round) => round >= value) ?? nice(value / 86_400) * 86_400;
}

export function nice(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((factor) => factor * power).find((round) => round >= value * 0.9999);
}
