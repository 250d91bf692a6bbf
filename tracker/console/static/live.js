// The one stream of events, and what is known from it. It tells plainly when it is cut off.

import { h, setText } from "./dom.js";
import { clock, duration } from "./format.js";

// Samples come every two seconds: so many without one, and the page is out of date.
const SILENCE = 8_000;
// A tab that nobody sees lets its connection go after a while: browsers have few for a host.
const HIDDEN = 10_000;
const RETRY = 3_000;

export class Live {
  constructor({ onChange, onRefused }) {
    this.onChange = onChange;
    this.onRefused = onRefused;
    this.history = { step: 10, points: 360, times: [], series: {} };
    this.overview = null;
    this.source = null;
    this.heard = 0; // when the last sample came
    this.lost = null; // since when it is cut off
    this.wanted = false;
    this.retry = null;
    this.hiding = null;
    this.text = document.getElementById("live-text");
    this.sign = document.getElementById("live");
    this.banner = document.getElementById("cut-off");
    this.since = h("span");
    this.counted = h("span", { "aria-hidden": "true" });
    document.addEventListener("visibilitychange", () => this.visibility());
    setInterval(() => this.look(), 1000);
  }

  start() {
    this.wanted = true;
    this.heard = Date.now();
    this.open();
  }

  stop() {
    this.wanted = false;
    this.close();
    this.lost = null;
    this.show();
  }

  open() {
    this.close();
    if (!this.wanted || document.hidden) return;
    const source = new EventSource("/api/events");
    this.source = source;
    source.addEventListener("history", (event) => { this.history = JSON.parse(event.data); });
    source.addEventListener("overview", (event) => this.sample(JSON.parse(event.data)));
    source.addEventListener("error", () => this.failed(source));
  }

  close() {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
  }

  failed(source) {
    if (source !== this.source) return;
    this.lost ??= this.heard || Date.now();
    this.show();
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again
    this.close();
    this.retry = setTimeout(() => { this.onRefused().then(() => this.open(), () => this.open()); }, RETRY);
  }

  visibility() {
    clearTimeout(this.hiding);
    if (document.hidden) this.hiding = setTimeout(() => this.close(), HIDDEN);
    else if (this.wanted && !this.source) {
      this.heard = Date.now();
      this.open();
    }
  }

  look() {
    if (!this.wanted || document.hidden) return;
    if (!this.lost && Date.now() - this.heard > SILENCE) this.lost = this.heard;
    if (this.lost && this.source && Date.now() - this.heard > 3 * SILENCE) {
      this.heard = Date.now() - SILENCE; // once more, and not at each look
      this.open();
    }
    this.show();
  }

  sample(overview) {
    this.heard = Date.now();
    this.lost = null;
    this.overview = overview;
    if (overview.point) this.extend(overview.point);
    this.show();
    this.onChange(overview);
  }

  extend({ at, figures }) {
    const { times, series, points } = this.history;
    const fresh = times[times.length - 1] !== at;
    if (fresh) times.push(at);
    for (const name of Object.keys(figures)) series[name] ??= new Array(times.length - 1).fill(null);
    for (const [name, values] of Object.entries(series)) {
      while (values.length < times.length) values.push(null);
      if (name in figures) values[values.length - 1] = figures[name];
    }
    if (times.length > points) {
      times.shift();
      for (const values of Object.values(series)) values.shift();
    }
  }

  show() {
    const cut = this.wanted && this.lost !== null;
    document.body.classList.toggle("stale", cut);
    this.sign.classList.toggle("bad", cut);
    this.sign.classList.toggle("good", !cut && this.overview !== null && this.wanted);
    this.sign.hidden = !this.wanted;
    setText(this.text, cut ? "Cut off" : this.overview ? `Live ${clock(this.heard)}` : "Connecting …");
    if (!cut) {
      this.banner.hidden = true;
      return;
    }
    if (this.banner.hidden) {
      this.banner.replaceChildren(this.since, this.counted);
      this.banner.hidden = false;
    }
    setText(this.since, `Cut off since ${clock(this.lost)}: what stands here is from then. Trying to connect again.`);
    setText(this.counted, ` ${duration((Date.now() - this.lost) / 1000)}`);
  }
}
