// The first page: consumer lag, throughput, instances, consumers, commands and dead letters.

import { session } from "./api.js";
import { Chart, niceSeconds } from "./charts.js";
import { Table, h, panel, pill, setAttribute, setText, unknownText } from "./dom.js";
import { ago, clock, commandStatus, commandTime, counted, duration, kindOf, moment, NOTHING, noun, number, rate, sentence, short, span } from "./format.js";

export class Overview {
  constructor(live) {
    this.live = live;
    this.cards = new Map();
    this.shown = false; // true once data were shown
    this.lags = h("div", { class: "lags" });
    this.redisError = h("p", { class: "banner bad", role: "alert", hidden: true });
    this.leftOut = h("p", { class: "banner warn", role: "status", hidden: true });
    this.malformed = h("p", { class: "banner warn", role: "status", hidden: true });
    this.empty = h("p", { class: "empty" }, unknownText("no data yet"));
    this.throughput = new Chart({
      title: "Records per second",
      series: [
        { key: "in", name: "received", class: "first" },
        { key: "out", name: "stored", class: "second" },
      ],
      format: rate,
      axis: (value) => (value < 10 ? rate(value) : short(value)),
      floor: 1,
      height: 148,
    });
    this.figures = new Figures([
      ["in", "received per second", "received per second"],
      ["out", "stored per second", "stored per second"],
      ["connected", "device connected", "devices connected"],
      ["instances", "instance"],
      ["queued", "command in progress", "commands in progress"],
      ["dead", "dead letter"],
    ]);
    this.instances = instanceTable();
    this.consumers = consumerTable();
    this.commands = commandTable("Latest commands", "No recent commands.");
    this.counts = h("p", { class: "counts" });
    this.dead = deadTable();
    this.element = h("div", { class: "page" },
      h("h1", { class: "unseen", tabindex: "-1" }, "Overview"),
      this.redisError,
      panel("Consumer lag", { id: "lag" }, this.lags, this.leftOut, this.malformed, this.empty),
      panel("Throughput", {}, h("div", { class: "split" }, this.figures.element, this.throughput.element)),
      h("div", { class: "pair" },
        panel("Instances", {}, this.instances.element),
        panel("Consumers", {}, this.consumers.element)),
      panel("Commands", { note: this.counts }, this.commands.element),
      panel("Dead letters", { id: "dead" }, this.dead.element));
  }

  get title() {
    return "Overview";
  }

  close() {
    this.throughput.close();
    for (const card of this.cards.values()) card.close();
  }

  show(overview) {
    const known = overview.redis ? this.live.known : overview;
    setAttribute(this.element, "class", overview.redis ? "page old" : "page");
    this.redisError.hidden = !overview.redis;
    if (overview.redis) setText(this.redisError, outageText(overview.redis, this.live));
    if (!known) this.showUnknown(overview.redis);
    else if (!overview.redis || !this.shown) this.showKnown(known);
    if (overview.redis) for (const card of this.cards.values()) card.showUnknown();
  }

  showUnknown(reason) {
    setText(this.empty, unknownText(reason));
    for (const table of [this.instances, this.consumers, this.commands, this.dead]) table.show([], reason);
  }

  showKnown(overview) {
    this.shown = true;
    const { unknown } = overview;
    this.showLags(overview);
    this.throughput.show(this.live.history, overview.at);
    this.figures.show({
      in: overview.rates.in,
      out: overview.rates.out,
      connected: overview.connected,
      instances: overview.instance_count,
      queued: overview.commands.queued,
      dead: overview.dead.total,
    }, { dead: overview.dead.total ? "warn" : "", instances: overview.instance_count === 0 ? "bad" : "" }, unknown);
    this.instances.show(overview.instances, unknown.instances);
    this.consumers.show(usedOf(overview).flatMap((lag) => lag.consumers.map((one) => ({ ...one, stream: lag.stream, group: lag.group }))), unknown.lag);
    this.commands.show(overview.commands.latest, unknown.commands ?? unknown.queued);
    this.dead.show(overview.dead.latest, unknown.dead);
    this.showCounts(overview.commands, unknown);
  }

  showLags(overview) {
    const reason = overview.unknown.lag;
    this.empty.hidden = Boolean(overview.lag.length) && !reason;
    setText(this.empty, reason ? unknownText(reason, overview.lag.length) : "No stream of positions yet. The first position or processor creates it.");
    const left = overview.streams_left_out;
    this.leftOut.hidden = !left;
    if (left) setText(this.leftOut, `${counted(left, "more stream is", "more streams are")} not shown. Run tracker-admin lag to see all.`);
    const { count, first } = overview.malformed;
    this.malformed.hidden = !count;
    if (count) {
      const keys = first.map(({ key, reason: why }) => `${key} (${why})`).join(", ");
      const more = count > first.length ? ` and ${number(count - first.length)} more` : "";
      setText(this.malformed, `Malformed keys in Redis are ignored: ${keys}${more}. Rename or delete them.`);
    }
    const seen = new Set();
    for (const lag of usedOf(overview)) {
      const key = `${lag.stream} ${lag.group}`;
      seen.add(key);
      if (!this.cards.has(key)) {
        const card = new LagCard(lag);
        this.cards.set(key, card);
        this.lags.append(card.element);
      }
      this.cards.get(key).show(lag, this.live.history, overview.at);
    }
    for (const [key, card] of this.cards) {
      if (!seen.has(key)) {
        card.close();
        card.element.remove();
        this.cards.delete(key);
      }
    }
  }

  showCounts({ counts, waiting }, unknown) {
    if (unknown.commands) {
      setText(this.counts, unknownText(unknown.commands));
      return;
    }
    const parts = Object.entries(counts).map(([status, count]) => `${number(count)} ${status}`);
    const waits = waiting === null ? ` Commands that wait: ${unknownText(unknown.waiting).toLowerCase()}`
      : waiting ? ` Commands are waiting for ${counted(waiting, "device")}.` : "";
    setText(this.counts, `Last hour: ${parts.join(", ")}.${waits}`);
  }
}

class LagCard {
  constructor({ stream, group }) {
    const name = `${stream} ${group}`;
    this.state = h("span");
    this.entries = h("span", { class: "huge" });
    this.noun = h("span", { class: "unit" });
    this.age = h("span", { class: "huge" });
    this.unit = h("span", { class: "unit" });
    this.detail = h("p", { class: "detail" });
    const bands = [
      { from: session.behind, class: "warn", text: `behind, ${seconds(session.behind)}` },
      { from: session.far_behind, class: "bad", text: `far behind, ${seconds(session.far_behind)}` },
    ];
    this.charts = [
      new Chart({ title: "Entries", series: [{ key: `entries ${name}`, name: "entries", class: "first" }], format: number, axis: short, floor: 10 }),
      new Chart({ title: "Age of the oldest", series: [{ key: `age ${name}`, name: "age", class: "first" }], format: duration, axis: seconds, floor: session.behind * 1.25, round: niceSeconds, bands }),
    ];
    this.element = h("article", { class: "lag", "aria-label": `Lag of ${stream}` },
      h("div", { class: "lag-head" }, h("h3", {}, stream), h("span", { class: "group" }, group ? `group ${group}` : "no group"), this.state),
      h("p", { class: "figures-line" },
        h("span", { class: "big" }, this.entries, this.noun),
        h("span", { class: "big" }, this.age, this.unit, h("span", { class: "unit of" }, "oldest"))),
      this.detail,
      h("div", { class: "charts" }, ...this.charts.map((chart) => chart.element)));
  }

  showUnknown() {
    this.showState("dim", "unknown");
  }

  showState(kind, state) {
    setAttribute(this.element, "class", `lag ${kind}`);
    if (this.state.dataset.state === state) return;
    this.state.dataset.state = state;
    this.state.replaceChildren(pill(kind, state));
  }

  show(lag, history, now) {
    this.showState(kindOf(lag.state), lag.state);
    const [value, unit] = lag.age === null ? [NOTHING, ""] : span(lag.age);
    const entries = lag.group === null ? lag.stream_entries : lag.total;
    setText(this.entries, number(entries));
    setText(this.noun, noun(entries, "entry", "entries"));
    setText(this.age, value);
    setText(this.unit, unit);
    setText(this.detail, detail(lag));
    for (const chart of this.charts) chart.show(history, now);
  }

  close() {
    for (const chart of this.charts) chart.close();
  }
}

// Says what the page shows while Redis is not available.
function outageText(reason, live) {
  const data = live.known ? `Showing data of ${clock(live.knownAt)}, ${duration((Date.now() - live.knownAt) / 1000)} old.` : "Nothing is known yet.";
  return `${sentence(reason)} ${data}`;
}

// The streams of vendors without devices are empty, and no instance writes them.
function usedOf(overview) {
  const written = new Set(overview.instances.flatMap((one) => one.streams));
  const used = overview.lag.filter((lag) => lag.stream_entries !== 0 || written.has(lag.stream));
  return used.length ? used : overview.lag;
}

function detail(lag) {
  // doctor quotes other names for a shell.
  const adopt = /^\w[\w:.-]*$/.test(lag.stream) ? `streams adopt ${lag.stream}` : "doctor";
  if (lag.stranded) return `No processor reads this stream. Run tracker-admin ${adopt}.`;
  if (lag.group === null) return "No consumer group reads this stream. Start a processor for it.";
  const undelivered = lag.undelivered === null ? "Undelivered entries unknown" : `${number(lag.undelivered)} not delivered`;
  const consumers = counted(lag.consumer_count, "consumer");
  const skipped = lag.skipped ? `. ${number(lag.skipped)} skipped: run tracker-admin skipped list.`
    : lag.skipped === null ? ". Skipped entries unknown: run tracker-admin doctor." : "";
  return `${undelivered}, ${number(lag.pending)} pending at ${consumers}${skipped}`;
}

function seconds(value) {
  return value && value < 10 ? `${value} s` : duration(value);
}

// Figures that are not counts.
const RATES = new Set(["in", "out"]);

class Figures {
  constructor(names) {
    this.figures = names.map(([key, ...nouns]) => ({
      key, nouns, label: h("dt", {}, noun(null, ...nouns)), element: h("dd", {}, "?"),
    }));
    this.element = h("dl", { class: "figures" },
      ...this.figures.map(({ label, element }) => h("div", {}, label, element)));
  }

  // unknown: key → the reason why the figure is unknown.
  show(values, kinds, unknown) {
    for (const { key, nouns, label, element } of this.figures) {
      setText(label, noun(values[key], ...nouns));
      setText(element, RATES.has(key) ? rate(values[key]) : number(values[key]));
      setAttribute(element, "class", kinds[key] ?? "");
      setAttribute(element, "title", unknown[key] ?? "");
    }
  }
}

function instanceTable() {
  return new Table({
    label: "Ingest instances",
    empty: "No ingest instance is running. Devices cannot connect.",
    key: (row) => row.id,
    row: (row) => (row.age > 45 ? "warn" : ""),
    columns: [
      { title: "Instance", cell: (row) => row.id },
      { title: "Heartbeat", class: "n", cell: (row) => (row.age > 45 ? { pill: "warn", text: `${duration(row.age)} ago` } : `${duration(row.age)} ago`) },
      { title: "Connections", class: "n", cell: (row) => number(row.control.connections ?? row.connections) },
      { title: "State", cell: stateOf },
      { title: "Up for", class: "n", cell: (row) => ({ ...ago(row.started_at), text: ago(row.started_at).text.replace(" ago", "") }) },
      { title: "Control port", cell: (row) => (row.control.permission ? row.control.permission : { pill: "dim", text: "not available", title: row.control.reason }) },
      { title: "Version", cell: (row) => row.version || NOTHING },
    ],
  });
}

function stateOf(row) {
  if (row.control.draining) return { pill: "warn", text: "draining" };
  return row.control.permission ? { pill: "good", text: "serving" } : { pill: "dim", text: "running" };
}

function consumerTable() {
  return new Table({
    label: "Consumers",
    empty: "No consumers yet.",
    key: (row) => `${row.stream} ${row.group} ${row.name}`,
    columns: [
      { title: "Consumer", cell: (row) => row.name },
      { title: "Stream", cell: (row) => row.stream },
      { title: "Group", cell: (row) => row.group },
      { title: "Pending", class: "n", cell: (row) => number(row.pending) },
      { title: "Idle", class: "n", cell: (row) => (row.idle > session.far_behind ? { pill: "warn", text: duration(row.idle) } : duration(row.idle)) },
    ],
  });
}

export function commandTable(label, empty, withDevice = true) {
  const columns = [
    { title: "When", cell: commandTime },
    { title: "Device", class: "id", cell: (row) => ({ text: row.device_id, href: `#/devices/${row.device_id}` }) },
    { title: "Command", class: "code", cell: (row) => row.text || { parts: [["dim-text", row.text === null ? "text not recorded" : "none"]], title: row.text === null ? "An instance of an earlier version has ended the command. It records no texts." : "The entry has no text." } },
    { title: "Status", cell: commandStatus },
    { title: "Answer", class: "answer", cell: (row) => row.response || NOTHING },
    { title: "By", cell: (row) => row.by || NOTHING },
  ];
  return new Table({ label, empty, key: (row) => row.command_id, columns: columns.filter((column) => withDevice || column.title !== "Device") });
}

function deadTable() {
  return new Table({
    label: "Latest dead letters",
    empty: "No dead letters.",
    key: (row) => `${row.stream} ${row.id}`,
    columns: [
      { title: "When", cell: (row) => moment(row.at) },
      { title: "Stream", cell: (row) => row.stream },
      { title: "Entry", class: "code", cell: (row) => row.original_id || row.id },
      { title: "Device", class: "id", cell: (row) => (/^\d{15}$/.test(row.device_id) ? { text: row.device_id, href: `#/devices/${row.device_id}` } : row.device_id || NOTHING) },
      { title: "Reason", class: "answer", cell: (row) => row.reason || NOTHING },
      { title: "Attempts", class: "n", cell: (row) => number(row.attempts) },
    ],
  });
}
