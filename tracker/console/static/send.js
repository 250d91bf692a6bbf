// The form that sends a command, with its confirmation.

import { post, session } from "./api.js";
import { h, setText } from "./dom.js";
import { moment } from "./format.js";

export class Send {
  constructor(deviceId, onSent) {
    this.deviceId = deviceId;
    this.onSent = onSent;
    this.input = h("input", { id: "command", maxlength: "4096", autocomplete: "off", autocapitalize: "none", spellcheck: "false", required: true, placeholder: "for example getinfo" });
    this.codec = h("select", { id: "codec" });
    this.codecLabel = h("label", { for: "codec", hidden: true }, "Codec", this.codec);
    this.button = h("button", { type: "submit" }, "Send …");
    this.reason = h("p", { class: "note" });
    this.result = h("p", { class: "note", role: "status" });
    this.form = h("form", { class: "send", onsubmit: (event) => this.askConfirmation(event) },
      h("label", { for: "command" }, "Command", this.input), this.codecLabel, this.button);
    this.exact = h("pre", { class: "exact" });
    this.error = h("p", { class: "error", role: "alert" });
    this.confirm = h("button", { type: "button", class: "main danger", onclick: () => this.send() }, "Send this command");
    this.dialog = h("dialog", { class: "confirm", "aria-labelledby": "confirm-title" },
      h("h2", { id: "confirm-title" }, "Send this command?"),
      h("dl", { class: "facts" },
        h("div", {}, h("dt", {}, "Device"), h("dd", { class: "id" }, deviceId)),
        h("div", {}, h("dt", {}, "Text"), h("dd", {}, this.exact))),
      h("p", { class: "note" }, "It is sent once, as soon as possible, and cannot be cancelled."),
      this.error,
      h("div", { class: "buttons" },
        h("button", { type: "button", onclick: () => this.dialog.close() }, "Cancel"), this.confirm));
    this.element = h("div", {}, this.form, this.reason, this.result, this.dialog);
    this.show();
  }

  show() {
    this.form.hidden = !session.can_send;
    setText(this.reason, session.can_send ? "" : reason());
    this.reason.hidden = session.can_send;
  }

  // Offers the codecs of the device's vendor, the usual one first.
  offer(codecs) {
    this.codecLabel.hidden = codecs.length < 2;
    if (this.codecs === codecs.join()) return;
    this.codecs = codecs.join();
    this.codec.replaceChildren(...codecs.map((codec) => h("option", { value: codec }, codec)));
  }

  askConfirmation(event) {
    event.preventDefault();
    if (!this.input.value.trim()) return;
    setText(this.exact, this.input.value);
    setText(this.error, "");
    this.dialog.showModal();
    this.dialog.querySelector("button").focus(); // the Cancel button, because Enter must not send
  }

  async send() {
    this.confirm.disabled = true;
    try {
      const command = await post("/api/commands", { device_id: this.deviceId, text: this.input.value, codec: this.codec.value });
      this.dialog.close();
      this.input.value = "";
      setText(this.result, command.status === "waiting" ? waitingText(command) : "Command queued. The answer appears below.");
      this.onSent(command.command_id);
    } catch (error) {
      setText(this.error, error.message);
    } finally {
      this.confirm.disabled = false;
    }
  }
}

function waitingText(command) {
  const until = command.expires_at ? ` until ${moment(command.expires_at).text}` : "";
  return `The device is not connected. The command waits for it${until}.`;
}

function reason() {
  if (session.permission !== "operate") return "You have read-only access.";
  if (!session.mayOperate) return "This console does not send commands (--no-commands).";
  return "Sending is not available: no instance has given this console the permission \"operate\".";
}
