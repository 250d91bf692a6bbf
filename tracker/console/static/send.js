// Sending a command: the form, and the question whether that is really meant.

import { post, session } from "./api.js";
import { h, setText } from "./dom.js";

export class Send {
  constructor(deviceId, sent) {
    this.deviceId = deviceId;
    this.sent = sent;
    this.input = h("input", { id: "command", maxlength: "4096", autocomplete: "off", autocapitalize: "none", spellcheck: "false", required: true, placeholder: "for example getinfo" });
    this.button = h("button", { type: "submit" }, "Send …");
    this.why = h("p", { class: "note" });
    this.said = h("p", { class: "note", role: "status" });
    this.form = h("form", { class: "send", onsubmit: (event) => this.ask(event) },
      h("label", { for: "command" }, "Command", this.input), this.button);
    this.exact = h("pre", { class: "exact" });
    this.error = h("p", { class: "error", role: "alert" });
    this.confirm = h("button", { type: "button", class: "main danger", onclick: () => this.send() }, "Send this command");
    this.dialog = h("dialog", { class: "confirm", "aria-labelledby": "confirm-title" },
      h("h2", { id: "confirm-title" }, "Send this command?"),
      h("dl", { class: "facts" },
        h("div", {}, h("dt", {}, "To the device"), h("dd", { class: "id" }, deviceId)),
        h("div", {}, h("dt", {}, "Exactly this text"), h("dd", {}, this.exact))),
      h("p", { class: "note" }, "It is written to the device once, as soon as that can be, and cannot be called back."),
      this.error,
      h("div", { class: "buttons" },
        h("button", { type: "button", onclick: () => this.dialog.close() }, "Cancel"), this.confirm));
    this.element = h("div", {}, this.form, this.why, this.said, this.dialog);
    this.show();
  }

  show() {
    this.form.hidden = !session.sends;
    setText(this.why, session.sends ? "" : why());
    this.why.hidden = session.sends;
  }

  ask(event) {
    event.preventDefault();
    if (!this.input.value.trim()) return;
    setText(this.exact, this.input.value);
    setText(this.error, "");
    this.dialog.showModal();
    this.dialog.querySelector("button").focus(); // Cancel: Enter must not send by itself
  }

  async send() {
    this.confirm.disabled = true;
    try {
      const answer = await post("/api/commands", { device_id: this.deviceId, text: this.input.value });
      this.dialog.close();
      this.input.value = "";
      setText(this.said, answer.status === "waiting" ? "The device is not connected: the command waits for it." : "Sent. Its answer appears below.");
      this.sent(answer.command_id);
    } catch (error) {
      setText(this.error, error.message);
    } finally {
      this.confirm.disabled = false;
    }
  }
}

function why() {
  if (session.permission !== "operate") return "You may look, but not send commands.";
  if (!session.mayOperate) return "This console was told to send no commands (--no-commands).";
  return "No control port has let this console send commands yet: it needs the permission operate there.";
}
