// The live frames of a device, in both directions.

import { h, setText } from "./dom.js";
import { clock, counted } from "./format.js";

const MAX_FRAMES = 100;
const KINDS = {
  received: "← received",
  sent: "→ sent",
  rejected: "✕ rejected",
  connected: "connected",
  disconnected: "disconnected",
};

export class Frames {
  constructor(deviceId) {
    this.deviceId = deviceId;
    this.source = null;
    this.button = h("button", { type: "button", "aria-pressed": "false", onclick: () => (this.source ? this.stop() : this.start()) }, "Watch live");
    this.state = h("p", { class: "note", role: "status" }, "Not watching. Frames are shown only while you watch; they are not stored.");
    this.list = h("ol", { class: "frames", "aria-label": "Frames, newest first" });
    this.element = h("div", {}, h("div", { class: "buttons" }, this.button), this.state, this.list);
  }

  start() {
    const source = new EventSource(`/api/devices/${this.deviceId}/frames`);
    this.source = source;
    setText(this.button, "Stop watching");
    this.button.setAttribute("aria-pressed", "true");
    setText(this.state, "Connecting …");
    source.addEventListener("state", (event) => setText(this.state, JSON.parse(event.data).text));
    source.addEventListener("frame", (event) => this.add(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) {
        setText(this.state, "Connection lost. Reconnecting …");
        return;
      }
      this.stop();
      setText(this.state, "Cannot watch this device: too many live views are open, or you are logged out.");
    });
  }

  stop() {
    this.source?.close();
    this.source = null;
    setText(this.button, "Watch live");
    this.button.setAttribute("aria-pressed", "false");
    setText(this.state, "Stopped watching.");
  }

  add(frame) {
    if (frame.dropped) this.list.prepend(h("li", { class: "gap" }, `${counted(frame.dropped, "event")} dropped`));
    const head = h("summary", {},
      h("span", { class: "when" }, clock(frame.at * 1000)),
      h("span", { class: `kind ${frame.kind}` }, KINDS[frame.kind] ?? frame.kind),
      h("span", { class: "what" }, summary(frame)),
      h("span", { class: "n" }, frame.bytes ? counted(frame.bytes, "byte") : ""));
    const body = [];
    if (frame.decoded) body.push(h("pre", { tabindex: "0" }, pretty(frame.decoded)));
    if (frame.hex) body.push(h("pre", { class: "hex", tabindex: "0" }, frame.hex));
    if (frame.truncated) body.push(h("p", { class: "note" }, "Truncated."));
    this.list.prepend(h("li", {}, h("details", {}, head, ...body)));
    while (this.list.children.length > MAX_FRAMES) this.list.lastChild.remove();
  }

  close() {
    this.source?.close();
    this.source = null;
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // the server has truncated the text
  }
}

function pretty(text) {
  const value = parsed(text);
  return value === null ? text : JSON.stringify(value, null, 2);
}

function summary(frame) {
  const value = parsed(frame.decoded);
  if (value === null || typeof value !== "object") return frame.decoded.slice(0, 80);
  const parts = [];
  for (const [name, part] of Object.entries(value)) {
    if (Array.isArray(part)) parts.push(`${part.length} ${name}`);
    else if (part === null || typeof part !== "object") parts.push(`${name} ${part}`);
  }
  return parts.join(" · ").slice(0, 120);
}
