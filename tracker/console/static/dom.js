// DOM elements. Text is never parsed as markup, because devices and clients supply some of it.

const SVG = "http://www.w3.org/2000/svg";

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

// Setting the same text again would clear a selection, and make screen readers repeat the text.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// Says that data are unknown, or that only some of them are known.
export function unknownText(reason, known = 0) {
  return `${known ? "Incomplete" : "Unknown"}: ${reason}${/[.!?]$/.test(reason) ? "" : "."}`;
}

// A pill shows a state by colour, shape and text.
const SHAPES = {
  good: ["circle", { cx: 6, cy: 6, r: 5 }],
  warn: ["path", { d: "M6 .8 11.6 11H.4Z" }],
  bad: ["path", { d: "M3.5.5h5l3 3v5l-3 3h-5l-3-3v-5Z" }],
  dim: ["path", { d: "M1 4.5h10v3H1Z" }],
};

export function pill(kind, text) {
  const [name, attributes] = SHAPES[kind];
  const shape = svg("svg", { viewBox: "0 0 12 12", width: 11, height: 11, "aria-hidden": "true" }, svg(name, attributes));
  return h("span", { class: `pill ${kind}` }, shape, h("span", {}, text));
}

// A table that reuses the elements of its rows and cells. Until show() is called, it is unknown.
//   columns: [{title, class?, cell: (row) => text or {text?, href?, title?, pill?, parts?: [[class, text]]}}]
export class Table {
  constructor({ label, columns, key, empty, row = null }) {
    this.columns = columns;
    this.key = key;
    this.rowClass = row;
    this.rows = new Map();
    this.body = h("tbody", { role: "rowgroup" });
    // The card layout on phones changes the display property, which removes the implicit roles.
    const heads = columns.map((column) => h("th", { scope: "col", role: "columnheader", class: column.class }, column.title));
    this.table = h("table", { role: "table" }, h("caption", { class: "unseen" }, label),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads)), this.body);
    this.scroller = h("div", { class: "scroller", role: "region", "aria-label": `${label}, scrollable`, tabindex: "0" }, this.table);
    this.emptyText = empty;
    this.empty = h("p", { class: "empty" });
    this.element = h("div", { class: "table" }, this.scroller, this.empty);
    this.show([], "no data yet");
  }

  // unknown: the reason why rows may be missing, if any. An empty table then does not mean "none".
  show(items, unknown = "") {
    this.scroller.hidden = !items.length;
    this.empty.hidden = Boolean(items.length) && !unknown;
    setText(this.empty, unknown ? unknownText(unknown, items.length) : this.emptyText);
    const seen = new Set();
    let after = null;
    for (const item of items) {
      const key = this.key(item);
      if (seen.has(key)) continue;
      seen.add(key);
      let row = this.rows.get(key);
      if (!row) {
        row = h("tr", { role: "row" }, ...this.columns.map((column) => h("td", { role: "cell", class: column.class, "data-title": column.title })));
        this.rows.set(key, row);
      }
      this.fill(row, item);
      const next = after ? after.nextSibling : this.body.firstChild;
      if (next !== row) this.body.insertBefore(row, next);
      after = row;
    }
    for (const [key, row] of this.rows) {
      if (!seen.has(key)) {
        row.remove();
        this.rows.delete(key);
      }
    }
  }

  fill(row, item) {
    if (this.rowClass) setAttribute(row, "class", this.rowClass(item) ?? "");
    this.columns.forEach((column, number) => {
      const cell = row.children[number];
      const content = column.cell(item);
      const wanted = typeof content === "object" && content !== null ? content : { text: String(content ?? "") };
      const state = JSON.stringify(wanted);
      if (cell.shown === state) return;
      cell.shown = state;
      if (wanted.pill) cell.replaceChildren(pill(wanted.pill, wanted.text));
      else if (wanted.href && cell.firstChild?.nodeName === "A") {
        setText(cell.firstChild, wanted.text);
        setAttribute(cell.firstChild, "href", wanted.href);
      } else if (wanted.href) cell.replaceChildren(h("a", { href: wanted.href }, wanted.text));
      else if (wanted.parts) cell.replaceChildren(...wanted.parts.map(([cls, text]) => h("span", { class: cls }, text)));
      else setText(cell, wanted.text);
      if (wanted.title || cell.title) setAttribute(cell, "title", wanted.title ?? "");
    });
  }
}

export function panel(title, { note = null, id = null, level = 2 } = {}, ...children) {
  const name = id ?? title.toLowerCase().replaceAll(/[^a-z]+/g, "-");
  const head = h("div", { class: "panel-head" }, h(`h${level}`, { id: `${name}-title`, tabindex: level === 1 ? "-1" : null }, title), note);
  return h("section", { class: "panel", id: name, "aria-labelledby": `${name}-title` }, head, ...children);
}
