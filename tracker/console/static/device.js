// The page of a device: track, data, commands, IO elements and frames.

import { get, session } from "./api.js";
import { h, panel, pill, setText, Table } from "./dom.js";
import { ago, clock, coordinates, counted, duration, heading, moment, NOTHING, number, sentence } from "./format.js";
import { Frames } from "./frames.js";
import { length, Track } from "./map.js";
import { commandTable } from "./overview.js";
import { Send } from "./send.js";

const REFRESH = 4_000;
const AWAITED_REFRESH = 1_000; // until the final status of a command that was sent here
const TRACK_REFRESH = 10_000;
const NEWER_PLACE = 60_000; // between the arrival of the last position and the last contact
const CLOCK_ERRORS = { ahead: "ahead", old: "too old", rollover: "GPS week rollover" };
const HOURS = [[1, "1 hour"], [6, "6 hours"], [24, "1 day"], [168, "7 days"]];

export class Device {
  constructor(id) {
    this.id = id;
    this.closed = false;
    this.awaited = null;
    this.filledAt = 0;
    this.trackDue = 0;
    this.state = h("span");
    this.facts = h("dl", { class: "facts" });
    this.error = h("p", { class: "error", role: "alert" });
    this.hours = h("select", { id: "hours", onchange: () => this.loadTrack() },
      ...HOURS.map(([value, text]) => h("option", { value, selected: value === 6 }, text)));
    this.trackNote = h("p", { class: "note", role: "status" });
    this.map = new Track(session.tiles);
    this.io = ioTable();
    this.send = new Send(id, (commandId) => { this.awaited = commandId; this.load(); });
    this.commands = commandTable("Commands of this device", "No recent commands.", false);
    this.frames = new Frames(id);
    this.element = h("div", { class: "page" },
      h("div", { class: "device-head" },
        h("p", { class: "crumbs" }, h("a", { href: "#/devices" }, "Devices")),
        h("h1", { class: "id", tabindex: "-1" }, id), this.state),
      this.error,
      h("div", { class: "device" },
        panel("Track", { note: h("label", { for: "hours", class: "inline" }, "Last", this.hours) }, this.map.element, this.trackNote),
        panel("Now", {}, this.facts)),
      panel("Commands", {}, this.send.element, this.commands.element),
      h("div", { class: "pair" },
        panel("Latest IO", { id: "io" }, this.io.element),
        panel("Live frames", {}, this.frames.element)));
    this.load();
  }

  get title() {
    return this.id;
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.map.close();
    this.frames.close();
  }

  show() {
    this.send.show();
  }

  async load() {
    clearTimeout(this.timer);
    try {
      if (!document.hidden) {
        const device = await get(`/api/devices/${this.id}`);
        if (this.closed) return;
        this.fill(device);
        setText(this.error, "");
        if (Date.now() >= this.trackDue) await this.loadTrack();
      }
    } catch (error) {
      if (!this.closed) this.failed(error.message);
    }
    if (!this.closed) this.timer = setTimeout(() => this.load(), this.awaited ? AWAITED_REFRESH : REFRESH);
  }

  async loadTrack() {
    this.trackDue = Date.now() + TRACK_REFRESH;
    try {
      const track = await get(`/api/devices/${this.id}/track?hours=${this.hours.value}`);
      if (this.closed) return;
      this.map.element.hidden = !track.points.length;
      this.map.show(track.points);
      setText(this.trackNote, trackText(track, this.hours.selectedOptions[0].text));
    } catch (error) {
      if (!this.closed) setText(this.trackNote, error.message);
    }
  }

  failed(reason) {
    setText(this.error, this.filledAt ? `${reason} Showing data of ${clock(this.filledAt)}.` : reason);
    this.showState("dim", "connection unknown");
  }

  showState(kind, state) {
    if (this.state.dataset.state === state) return;
    this.state.dataset.state = state;
    this.state.replaceChildren(pill(kind, state));
  }

  fill(device) {
    if (device.instance_error) this.showState("dim", `connection unknown: ${device.instance_error}`);
    else if (device.instance_id) this.showState("good", `connected to ${device.instance_id}`);
    else this.showState("dim", "not connected");
    this.filledAt = Date.now();
    this.send.offer(device.command_codecs);
    const rows = factsOf(device);
    const shown = JSON.stringify(rows);
    if (this.facts.dataset.shown !== shown) {
      this.facts.dataset.shown = shown;
      this.facts.replaceChildren(...rows.map(([name, text, title]) => h("div", {}, h("dt", {}, name), h("dd", { title }, text))));
    }
    this.io.show(device.attributes, device.position_error);
    this.commands.show(device.commands, device.commands_error);
    const found = device.commands.find((command) => command.command_id === this.awaited);
    if (found && ["responded", "rejected", "failed", "expired"].includes(found.status)) this.awaited = null;
  }
}

function factsOf(device) {
  const rows = [];
  const row = device.position;
  if (row) {
    const contact = ago(row.last_contact);
    rows.push(["Last contact", contact.text, contact.title]);
    rows.push(["Position", row.ts ? coordinates(row) : "none yet"]);
    if (row.ts) rows.push(["Position time", moment(row.ts).text, row.ts]);
    if (Date.parse(row.last_contact) - Date.parse(row.received_at) > NEWER_PLACE) {
      rows.push(["Newer position", "none: later data has no fix, has a wrong time, or is older"]);
    }
    if (row.clock_error) {
      const wrong = `${String(row.clock_error_ts).slice(0, 16).replace("T", " ")} UTC`;
      rows.push(["Last wrong time", `${wrong} (${CLOCK_ERRORS[row.clock_error] ?? row.clock_error}), received ${ago(row.clock_error_at).text}`, row.clock_error_at]);
    }
    if (row.speed !== null) rows.push(["Speed", `${number(row.speed)} km/h ${row.speed ? heading(row.angle) : ""}`.trim()]);
    if (row.altitude !== null) rows.push(["Altitude", `${number(row.altitude)} m`]);
    if (row.satellites !== null) rows.push(["Satellites", number(row.satellites)]);
  } else rows.push(["Position", sentence(device.position_error ?? "no data yet")]);
  if (device.model) rows.push(["Model", device.model]);
  if (device.vendor) rows.push(["Vendor", device.vendor]);
  const connection = device.connection;
  if (connection?.address) rows.push(["Address", connection.address]);
  if (connection?.since) rows.push(["Connected for", duration(Date.now() / 1000 - connection.since), clock(connection.since * 1000)]);
  if (connection?.codec) rows.push(["Codec", connection.codec]);
  if (connection?.records !== undefined && connection?.records !== null) rows.push(["Records received", number(connection.records), "Since the device connected"]);
  if (connection?.queued) rows.push(["Commands queued", number(connection.queued)]);
  if (connection?.waiting) rows.push(["Commands waiting", number(connection.waiting)]);
  return rows;
}

function trackText(track, span) {
  if (!track.points.length) return `No positions in the last ${span}.`;
  const points = track.points.map(([, latitude, longitude]) => ({ latitude, longitude }));
  const shown = track.points.length < track.read ? ` (${number(track.points.length)} of them drawn)` : "";
  const cut = track.complete ? "" : " Earlier positions are not shown.";
  return `${counted(track.read, "position")}${shown}, ${(length(points) / 1000).toFixed(1)} km.${cut}`;
}

function ioTable() {
  return new Table({
    label: "Latest IO elements",
    empty: "No data yet.",
    key: (row) => row.id,
    columns: [
      { title: "Name", cell: (row) => row.name ?? { parts: [["dim-text", "unnamed"]] } },
      { title: "Value", class: "n", cell: (row) => ({ parts: [["", String(row.value ?? row.error ?? NOTHING)], ["unit", row.unit ? ` ${row.unit}` : row.text ? ` ${row.text}` : ""]], title: `Raw value: ${row.raw}` }) },
      { title: "ID", class: "n", cell: (row) => row.id },
    ],
  });
}
