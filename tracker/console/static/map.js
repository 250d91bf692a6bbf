// A track on a map with a grid and a scale; tiles are loaded only with --tiles.
// Web Mercator (EPSG:3857), in units of the world's width.

import { h, setAttribute, setText, svg } from "./dom.js";
import { clock, degrees, heading, minutes, number } from "./format.js";

const EARTH = 40_075_016.686; // metres around the equator
const TILE = 256;
const MAX_ZOOM = 19;
const PADDING = 48;
const GAP = 10 * 60_000; // milliseconds between two points that interrupt the track
const LABEL_DISTANCE = 96; // pixels between two times beside the track
const MAX_LABELS = 12;

const worldX = (longitude) => (longitude + 180) / 360;
const worldY = (latitude) => {
  const sine = Math.sin((Math.max(-85.05, Math.min(85.05, latitude)) * Math.PI) / 180);
  return 0.5 - Math.log((1 + sine) / (1 - sine)) / (4 * Math.PI);
};
const longitudeOf = (x) => x * 360 - 180;
const latitudeOf = (y) => (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI;

export class Track {
  constructor(tiles) {
    this.tiles = tiles;
    this.points = [];
    this.ground = svg("g");
    this.images = new Map(); // URL → visible tile
    this.scale = 1; // pixels of the world's width
    this.centre = [0.5, 0.5];
    this.followed = true; // until the user moves or zooms the map
    this.cursor = null;
    this.svg = svg("svg", { role: "img", "aria-label": "Track" });
    this.readout = h("p", { class: "map-readout", role: "status" });
    this.credit = tiles ? h("p", { class: "map-credit" }, tiles.credit || new URL(tiles.url).host) : null;
    const button = (label, text, act) => h("button", { type: "button", "aria-label": label, title: label, onclick: act }, text);
    this.box = h("div", { class: "map", tabindex: "0", role: "group", "aria-label": "Map of the track. Arrow keys move the map, plus and minus zoom, 0 shows the whole track." }, this.svg);
    this.element = h("div", { class: "map-frame", hidden: true }, this.box,
      h("div", { class: "map-buttons" },
        button("Zoom in", "+", () => this.zoom(2)),
        button("Zoom out", "−", () => this.zoom(0.5)),
        button("Show the whole track", "⤢", () => this.fit())),
      this.readout, this.credit);
    this.listen();
    this.observer = new ResizeObserver(() => (this.followed ? this.fit() : this.draw()));
    this.observer.observe(this.box);
  }

  close() {
    this.observer.disconnect();
  }

  // points: [milliseconds, latitude, longitude, km/h, degrees from north], oldest first.
  show(points) {
    this.points = points.map(([at, latitude, longitude, speed, angle]) => ({ at, latitude, longitude, speed, angle, x: worldX(longitude), y: worldY(latitude) }));
    if (this.followed) this.fit();
    else this.draw();
  }

  fit() {
    this.followed = true;
    const { width, height } = this.size();
    if (!this.points.length || !width) return this.draw();
    const xs = this.points.map((point) => point.x);
    const ys = this.points.map((point) => point.y);
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    // The buttons are on the right.
    const scale = Math.min((width - 3 * PADDING) / (right - left || 1e-9), (height - 2 * PADDING) / (bottom - top || 1e-9));
    // A parked vehicle is shown with some hundred metres around it.
    this.scale = Math.min(scale, TILE * 2 ** 17);
    this.centre = [(left + right) / 2 + PADDING / 2 / this.scale, (top + bottom) / 2];
    return this.draw();
  }

  zoom(factor, [x, y] = [this.size().width / 2, this.size().height / 2]) {
    const { width, height } = this.size();
    const scale = Math.max(TILE, Math.min(TILE * 2 ** MAX_ZOOM, this.scale * factor));
    this.centre[0] += ((x - width / 2) / this.scale) * (1 - this.scale / scale);
    this.centre[1] += ((y - height / 2) / this.scale) * (1 - this.scale / scale);
    this.scale = scale;
    this.followed = false;
    this.draw();
  }

  pan(right, down) {
    this.centre[0] += right / this.scale;
    this.centre[1] += down / this.scale;
    this.followed = false;
    this.draw();
  }

  listen() {
    const keys = { ArrowLeft: [-60, 0], ArrowRight: [60, 0], ArrowUp: [0, -60], ArrowDown: [0, 60] };
    this.box.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (keys[event.key]) this.pan(...keys[event.key]);
      else if (event.key === "+" || event.key === "=") this.zoom(2);
      else if (event.key === "-") this.zoom(0.5);
      else if (event.key === "0") this.fit();
      else return;
      event.preventDefault();
    });
    this.box.addEventListener("wheel", (event) => {
      if (document.activeElement !== this.box && !event.ctrlKey) return; // the page scrolls
      event.preventDefault();
      const bounds = this.box.getBoundingClientRect();
      this.zoom(2 ** (-event.deltaY / 300), [event.clientX - bounds.left, event.clientY - bounds.top]);
    }, { passive: false });
    let from = null;
    this.box.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch" && document.activeElement !== this.box) return;
      from = [event.clientX, event.clientY];
      this.box.setPointerCapture(event.pointerId);
    });
    this.box.addEventListener("pointermove", (event) => {
      if (from) {
        this.pan(from[0] - event.clientX, from[1] - event.clientY);
        from = [event.clientX, event.clientY];
      } else this.point(event);
    });
    for (const name of ["pointerup", "pointercancel"]) this.box.addEventListener(name, () => { from = null; });
    this.box.addEventListener("pointerleave", () => {
      this.cursor = null;
      this.draw();
    });
  }

  point(event) {
    const bounds = this.box.getBoundingClientRect();
    const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top];
    let best = null;
    let least = 24 ** 2;
    for (const point of this.points) {
      const [left, top] = this.at(point);
      const distance = (left - x) ** 2 + (top - y) ** 2;
      if (distance < least) [best, least] = [point, distance];
    }
    if (best === this.cursor) return;
    this.cursor = best;
    this.draw();
  }

  size() {
    return { width: this.box.clientWidth, height: this.box.clientHeight };
  }

  at(point) {
    const { width, height } = this.size();
    return [(point.x - this.centre[0]) * this.scale + width / 2, (point.y - this.centre[1]) * this.scale + height / 2];
  }

  draw() {
    const { width, height } = this.size();
    if (!width) return;
    setAttribute(this.svg, "viewBox", `0 0 ${width} ${height}`);
    setAttribute(this.svg, "aria-label", this.summary());
    this.layTiles(width, height);
    this.svg.replaceChildren(this.ground, ...this.grid(width, height), ...this.trackPath(), ...this.times(width, height), ...this.ends(), ...this.ruler(width, height));
    const shown = this.cursor ?? this.points[this.points.length - 1];
    setText(this.readout, shown ? describe(shown) : "");
  }

  summary() {
    if (!this.points.length) return "No track";
    const [first, last] = [this.points[0], this.points[this.points.length - 1]];
    return `Track from ${clock(first.at)} to ${clock(last.at)}, ${number(length(this.points) / 1000)} km, ends at ${degrees(last.latitude, "N", "S")} ${degrees(last.longitude, "E", "W")}`;
  }

  // Visible tiles are kept, because new elements would load the images again.
  layTiles(width, height) {
    if (!this.tiles) return;
    const zoom = Math.max(0, Math.min(MAX_ZOOM, Math.round(Math.log2(this.scale / TILE))));
    const count = 2 ** zoom;
    const side = this.scale / count;
    const [left, top] = [this.centre[0] - width / 2 / this.scale, this.centre[1] - height / 2 / this.scale];
    const wanted = new Set();
    for (let column = Math.floor(left * count); column * side < (left + width / this.scale) * this.scale; column++) {
      for (let row = Math.max(0, Math.floor(top * count)); row < count && row * side < (top + height / this.scale) * this.scale; row++) {
        const url = this.tiles.url.replace("{z}", zoom).replace("{x}", ((column % count) + count) % count).replace("{y}", row);
        wanted.add(url);
        if (!this.images.has(url)) {
          this.images.set(url, svg("image", { class: "tile", href: url }));
          this.ground.append(this.images.get(url));
        }
        const box = { x: (column / count - left) * this.scale, y: (row / count - top) * this.scale, width: side + 0.5, height: side + 0.5 };
        for (const [name, value] of Object.entries(box)) this.images.get(url).setAttribute(name, value.toFixed(2));
      }
    }
    for (const [url, image] of this.images) {
      if (!wanted.has(url)) {
        image.remove();
        this.images.delete(url);
      }
    }
  }

  // Lines of latitude and longitude, with labels at the edges.
  grid(width, height) {
    const drawn = [];
    const west = longitudeOf(this.centre[0] - width / 2 / this.scale);
    const east = longitudeOf(this.centre[0] + width / 2 / this.scale);
    const north = latitudeOf(this.centre[1] - height / 2 / this.scale);
    const south = latitudeOf(this.centre[1] + height / 2 / this.scale);
    const step = gridStep(((east - west) * 130) / width);
    const digits = Math.max(0, Math.min(6, Math.ceil(-Math.log10(step) - 1e-9)));
    for (let value = Math.ceil(west / step) * step; value < east; value += step) {
      const [x] = this.at({ x: worldX(value), y: 0 });
      drawn.push(svg("line", { class: "grid", x1: x, x2: x, y1: 0, y2: height }));
      if (x > (this.tiles ? 120 : 30) && x < width - 60) drawn.push(svg("text", { class: "tick", x: x + 4, y: 13 }, degrees(value, "E", "W", digits)));
    }
    for (let value = Math.ceil(south / step) * step; value < north; value += step) {
      const [, y] = this.at({ x: 0, y: worldY(value) });
      drawn.push(svg("line", { class: "grid", x1: 0, x2: width, y1: y, y2: y }));
      if (y > 30 && y < height - 40) drawn.push(svg("text", { class: "tick", x: 5, y: y - 4 }, degrees(value, "N", "S", digits)));
    }
    return drawn;
  }

  trackPath() {
    const runs = [[]];
    this.points.forEach((point, number) => {
      if (number && point.at - this.points[number - 1].at > GAP) runs.push([]);
      runs[runs.length - 1].push(this.at(point));
    });
    const path = runs.map((run) => (run.length ? `M${run.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}` : "")).join("");
    const breaks = runs.slice(1).map((run, number) => `M${runs[number].at(-1).map((one) => one.toFixed(1)).join(" ")}L${run[0].map((one) => one.toFixed(1)).join(" ")}`).join("");
    return [svg("path", { class: "casing", d: path }), svg("path", { class: "break", d: breaks }), svg("path", { class: "track", d: path })];
  }

  // Times beside the track, without overlaps.
  times(width, height) {
    const taken = [];
    const last = this.points.at(-1);
    if (last) taken.push(this.at(last));
    const drawn = [];
    let before = "";
    const pick = Math.max(1, Math.floor(this.points.length / 60));
    for (let index = 0; index < this.points.length - 1 && drawn.length < 2 * MAX_LABELS; index += pick) {
      const point = this.points[index];
      const [x, y] = this.at(point);
      if (x < 8 || y < 24 || x > width - 48 || y > height - 48) continue;
      if (taken.some(([left, top]) => Math.abs(left - x) < LABEL_DISTANCE && Math.abs(top - y) < 30)) continue;
      const when = minutes(point.at);
      if (when === before) continue;
      before = when;
      taken.push([x, y]);
      drawn.push(svg("circle", { class: "stop", cx: x, cy: y, r: 3 }));
      drawn.push(svg("text", { class: "when", x: x + 7, y: y + 4 }, when));
    }
    return drawn;
  }

  ends() {
    const last = this.points.at(-1);
    if (!last) return [];
    const [x, y] = this.at(last);
    const drawn = [];
    if (this.cursor) {
      const [left, top] = this.at(this.cursor);
      drawn.push(svg("circle", { class: "cursor", cx: left, cy: top, r: 6 }));
    }
    if (this.points.length > 1) {
      const [left, top] = this.at(this.points[0]);
      drawn.push(svg("rect", { class: "start", x: left - 5, y: top - 5, width: 10, height: 10, rx: 2 }));
    }
    drawn.push(svg("circle", { class: "halo", cx: x, cy: y, r: 16 }));
    drawn.push(last.speed
      ? svg("path", { class: "here", d: "M0-11 8 9 0 4.5-8 9Z", transform: `translate(${x.toFixed(1)} ${y.toFixed(1)}) rotate(${last.angle ?? 0})` })
      : svg("circle", { class: "here", cx: x, cy: y, r: 6 }));
    return drawn;
  }

  ruler(width, height) {
    const latitude = latitudeOf(this.centre[1]);
    const metres = (EARTH * Math.cos((latitude * Math.PI) / 180)) / this.scale; // of a pixel
    const most = Math.min(140, width / 3) * metres;
    const power = 10 ** Math.floor(Math.log10(most));
    const round = [5, 2, 1].map((factor) => factor * power).find((value) => value <= most) ?? power;
    const long = round / metres;
    const text = round >= 1000 ? `${number(round / 1000)} km` : `${number(round)} m`;
    const [x, y] = [width - long - 14, height - 14];
    return [
      svg("path", { class: "ruler", d: `M${x} ${y - 6}v6h${long}v-6` }),
      svg("text", { class: "scale", x: x + long / 2, y: y - 6, "text-anchor": "middle" }, text),
    ];
  }
}

function describe(point) {
  const speed = point.speed === null ? "" : ` · ${number(point.speed)} km/h ${heading(point.angle)}`;
  return `${clock(point.at)}${speed} · ${degrees(point.latitude, "N", "S")} ${degrees(point.longitude, "E", "W")}`;
}

function gridStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
}

// Metres along the points, on a sphere.
export function length(points) {
  let metres = 0;
  for (let index = 1; index < points.length; index++) {
    const [from, to] = [points[index - 1], points[index]];
    const middle = Math.cos((((from.latitude + to.latitude) / 2) * Math.PI) / 180);
    metres += (EARTH / 360) * Math.hypot(to.latitude - from.latitude, (to.longitude - from.longitude) * middle);
  }
  return metres;
}
