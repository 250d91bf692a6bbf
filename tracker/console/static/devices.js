// The table of devices, page by page: never all of them at once.

import { get } from "./api.js";
import { Table, h, panel, setText } from "./dom.js";
import { ago, NOTHING, number, place } from "./format.js";

const PAGE = 50;
const MOST_ROWS = 500;
const REFRESH = 5_000;
const TYPING = 200;

export class Devices {
  constructor() {
    this.rows = [];
    this.after = null;
    this.asking = null;
    this.search = h("input", { type: "search", id: "search", inputmode: "numeric", autocomplete: "off", spellcheck: "false", placeholder: "Part of an IMEI", maxlength: "32", oninput: () => this.soon() });
    this.order = h("select", { id: "order", onchange: () => this.load() },
      h("option", { value: "contact" }, "Last contact"), h("option", { value: "id" }, "IMEI"));
    this.note = h("p", { class: "note", role: "status" });
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.load(true) }, "Show more");
    this.table = new Table({
      label: "Devices",
      empty: "No device is found.",
      key: (row) => row.device_id,
      columns: [
        { title: "Device", class: "id", cell: (row) => ({ text: row.device_id, href: `#/devices/${row.device_id}` }) },
        { title: "Last contact", class: "n", cell: (row) => ago(row.last_contact) },
        { title: "Place", class: "place", cell: place },
        { title: "Speed", class: "n", cell: (row) => (row.speed === null || row.speed === undefined ? NOTHING : `${number(row.speed)} km/h`) },
        { title: "Connected to", cell: (row) => (row.instance_id ? { pill: "good", text: row.instance_id } : { pill: "dim", text: "not connected" }) },
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
    this.asking?.abort();
  }

  show() {}

  soon() {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => this.load(), TYPING);
  }

  // The first page again, unless somebody is reading further down.
  refresh() {
    if (!document.hidden && this.rows.length <= PAGE && !this.asking) this.load();
  }

  async load(more = false) {
    this.asking?.abort();
    const asking = new AbortController();
    this.asking = asking;
    const query = new URLSearchParams({ text: this.search.value.trim(), order: this.order.value, limit: PAGE });
    if (more && this.after) query.set("after", this.after);
    try {
      const page = await get(`/api/devices?${query}`, asking.signal);
      this.rows = more ? [...this.rows, ...page.devices] : page.devices;
      this.after = page.after;
      this.table.show(this.rows);
      this.more.hidden = !page.after || this.rows.length >= MOST_ROWS;
      setText(this.note, this.told(page));
    } catch (error) {
      if (error.name !== "AbortError") setText(this.note, error.message);
    } finally {
      if (this.asking === asking) this.asking = null;
    }
  }

  told(page) {
    const count = `${number(this.rows.length)}${page.after ? " and more" : ""} ${this.rows.length === 1 && !page.after ? "device" : "devices"}`;
    if (!page.stored) return `${count}, of those that are connected. Give --sink, and places appear.`;
    return page.after && this.rows.length >= MOST_ROWS ? `${count}. Search to find the others.` : count;
  }
}
