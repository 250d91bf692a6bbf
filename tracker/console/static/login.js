// The login form.

import { logIn } from "./api.js";
import { h, setText } from "./dom.js";

export class Login {
  constructor(onLogin) {
    this.onLogin = onLogin;
    this.name = h("input", { id: "name", autocomplete: "username", required: true, maxlength: "64", autocapitalize: "none", spellcheck: "false" });
    this.password = h("input", { id: "password", type: "password", autocomplete: "current-password", required: true, maxlength: "256" });
    this.error = h("p", { class: "error", role: "alert" });
    this.button = h("button", { type: "submit", class: "main" }, "Log in");
    this.element = h("div", { class: "page narrow" },
      h("form", { class: "panel login", onsubmit: (event) => this.submit(event) },
        h("h1", { tabindex: "-1" }, "Log in"),
        h("label", { for: "name" }, "Name", this.name),
        h("label", { for: "password" }, "Password", this.password),
        this.error, this.button));
  }

  get title() {
    return "Log in";
  }

  show() {}

  close() {}

  async submit(event) {
    event.preventDefault();
    this.button.disabled = true;
    setText(this.error, "");
    try {
      await logIn(this.name.value, this.password.value);
      this.onLogin();
    } catch (error) {
      setText(this.error, error.message);
      this.password.value = "";
      this.password.focus();
    } finally {
      this.button.disabled = false;
    }
  }
}
