// The event stream, its latest data, and the state of its connection.

import { h, setText } from "./dom.js";
import { clock, duration } from "./format.js";

// The server sends a sample every two seconds.
const SAMPLE_TIMEOUT = 8_000;
// A hidden tab closes its connection after this time, because browsers allow few per host.
const HIDDEN_TIMEOUT = 10_000;
const RETRY = 3_000;

export class Live {
  constructor({ onChange, onRefused }) {
    this.onChange = onChange;
    this.onRefused = onRefused;
    this.history = { step: 10, points: 360, times: [], series: {} };
    this.overview = null;
    this.known = null; // the last overview with data
    this.knownAt = 0;
    this.source = null;
    this.sampledAt = 0; // time of the last sample, or of the start of a connection
    this.lostAt = null; // time of the last sample before the connection was lost
    this.wanted = false;
    this.retry = null;
    this.hiding = null;
    this.text = document.getElementById("live-text");
    this.indicator = document.getElementById("live");
    this.banner = document.getElementById("connection-lost");
    this.since = h("span");
    this.elapsed = h("span", { "aria-hidden": "true" });
    document.addEventListener("visibilitychange", () => this.visibility());
    setInterval(() => this.checkTimeout(), 1000);
  }

  start() {
    this.wanted = true;
    this.sampledAt = Date.now();
    this.open();
  }

  stop() {
    this.wanted = false;
    this.close();
    this.lostAt = null;
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
    this.lostAt ??= this.sampledAt || Date.now();
    this.show();
    if (source.readyState !== EventSource.CLOSED) return; // the browser reconnects
    this.close();
    this.retry = setTimeout(() => { this.onRefused().then(() => this.open(), () => this.open()); }, RETRY);
  }

  visibility() {
    clearTimeout(this.hiding);
    if (document.hidden) this.hiding = setTimeout(() => this.close(), HIDDEN_TIMEOUT);
    else if (this.wanted && !this.source) {
      this.sampledAt = Date.now();
      this.open();
    }
  }

  checkTimeout() {
    if (!this.wanted || document.hidden) return;
    if (!this.lostAt && Date.now() - this.sampledAt > SAMPLE_TIMEOUT) this.lostAt = this.sampledAt;
    if (this.lostAt && this.source && Date.now() - this.sampledAt > 3 * SAMPLE_TIMEOUT) {
      this.sampledAt = Date.now() - SAMPLE_TIMEOUT; // so that the next attempt has the same time
      this.open();
    }
    this.show();
  }

  sample(overview) {
    this.sampledAt = Date.now();
    this.lostAt = null;
    this.overview = overview;
    if (!overview.redis) {
      this.known = overview;
      this.knownAt = this.sampledAt;
    }
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
    const cut = this.wanted && this.lostAt !== null;
    const blind = !cut && Boolean(this.overview?.redis);
    const incomplete = !cut && !blind && Object.keys(this.overview?.unknown ?? {}).length > 0;
    document.body.classList.toggle("stale", cut);
    this.indicator.classList.toggle("bad", cut || blind);
    this.indicator.classList.toggle("warn", incomplete);
    this.indicator.classList.toggle("good", !cut && !blind && !incomplete && this.overview !== null && this.wanted);
    this.indicator.hidden = !this.wanted;
    setText(this.text, cut ? "Connection lost" : blind ? "No current data" : this.overview ? `${incomplete ? "Incomplete" : "Live"} ${clock(this.sampledAt)}` : "Connecting …");
    if (!cut) {
      this.banner.hidden = true;
      return;
    }
    if (this.banner.hidden) {
      this.banner.replaceChildren(this.since, this.elapsed);
      this.banner.hidden = false;
    }
    setText(this.since, `Connection lost at ${clock(this.lostAt)}. Showing old data. Reconnecting …`);
    setText(this.elapsed, ` ${duration((Date.now() - this.lostAt) / 1000)}`);
  }
}
