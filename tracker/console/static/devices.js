// The table of devices, loaded page by page.

import { get } from "./api.js";
import { Table, h, panel, setText } from "./dom.js";
import { ago, clock, coordinates, counted, NOTHING, number } from "./format.js";

const PAGE = 50;
const MAX_ROWS = 500;
const REFRESH = 5_000;
const SEARCH_DELAY = 200; // after the last key

export class Devices {
  constructor() {
    this.rows = [];
    this.loadedAt = 0;
    this.instancesError = null; // the reason why it is unknown which devices are connected
    this.after = null;
    this.request = null;
    this.search = h("input", { type: "search", id: "search", autocomplete: "off", spellcheck: "false", placeholder: "Part of a device ID", maxlength: "32", oninput: () => this.loadSoon() });
    this.order = h("select", { id: "order", onchange: () => this.load() },
      h("option", { value: "contact" }, "Last contact"), h("option", { value: "id" }, "Device ID"));
    this.note = h("p", { class: "note", role: "status" });
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.load(true) }, "Show more");
    this.table = new Table({
      label: "Devices",
      empty: "No devices found.",
      key: (row) => row.device_id,
      columns: [
        { title: "Device", class: "id", cell: (row) => ({ text: row.device_id, href: `#/devices/${row.device_id}` }) },
        { title: "Vendor", cell: (row) => row.vendor ?? NOTHING },
        { title: "Last contact", class: "n", cell: (row) => ago(row.last_contact) },
        { title: "Position", class: "position", cell: coordinates },
        { title: "Speed", class: "n", cell: (row) => (row.speed === null || row.speed === undefined ? NOTHING : `${number(row.speed)} km/h`) },
        { title: "Connected to", cell: (row) => this.connection(row) },
      ],
    });
    this.element = h("div", { class: "page" }, panel("Devices", { level: 1 },
      h("form", { class: "filters", role: "search", onsubmit: (event) => { event.preventDefault(); this.load(); } },
        h("label", { for: "search" }, "Search", this.search),
        h("label", { for: "order" }, "Order", this.order)),
      this.note, this.table.element, this.more));
    this.timer = setInterval(() => this.refresh(), REFRESH);
    this.load();
  }

  get title() {
    return "Devices";
  }

  close() {
    clearInterval(this.timer);
    clearTimeout(this.typing);
    this.request?.abort();
  }

  show() {}

  loadSoon() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.load(), SEARCH_DELAY);
  }

  // Only the first page: a refresh would remove the further pages that the user has loaded.
  refresh() {
    if (!document.hidden && this.rows.length <= PAGE && !this.request) this.load();
  }

  async load(more = false) {
    this.request?.abort();
    const request = new AbortController();
    this.request = request;
    const query = new URLSearchParams({ text: this.search.value.trim(), order: this.order.value, limit: PAGE });
    if (more && this.after) query.set("after", this.after);
    try {
      const page = await get(`/api/devices?${query}`, request.signal);
      this.rows = more ? [...this.rows, ...page.devices] : page.devices;
      this.after = page.after;
      this.loadedAt = Date.now();
      this.instancesError = page.instances_error;
      this.table.show(this.rows);
      this.more.hidden = !page.after || this.rows.length >= MAX_ROWS;
      setText(this.note, this.summary(page));
    } catch (error) {
      if (error.name !== "AbortError") this.failed(error.message);
    } finally {
      if (this.request === request) this.request = null;
    }
  }

  failed(reason) {
    setText(this.note, this.loadedAt ? `${reason} Showing data of ${clock(this.loadedAt)}.` : "");
    this.instancesError = reason;
    this.table.show(this.rows, this.loadedAt ? "" : reason);
  }

  connection(row) {
    if (this.instancesError) return { pill: "dim", text: "unknown", title: this.instancesError };
    return row.instance_id ? { pill: "good", text: row.instance_id } : { pill: "dim", text: "not connected" };
  }

  summary(page) {
    return page.instances_error ? `${this.shown(page)} Connections unknown: ${page.instances_error}.` : this.shown(page);
  }

  shown(page) {
    const devices = counted(this.rows.length, page.stored ? "device" : "connected device");
    const first = page.after ? "First " : "";
    if (!page.stored) return `${first}${devices}. Start the console with --sink to show all devices and their positions.`;
    return `${first}${devices}.${page.after && this.rows.length >= MAX_ROWS ? " Search to find the others." : ""}`;
  }
}
