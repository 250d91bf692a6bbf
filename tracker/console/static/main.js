// The page: login, navigation, and the event stream.

import { logOut, refreshSession, session, whenLoggedOut } from "./api.js";
import { Device } from "./device.js";
import { Devices } from "./devices.js";
import { h } from "./dom.js";
import { Live } from "./live.js";
import { Login } from "./login.js";
import { Overview } from "./overview.js";

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const who = document.getElementById("who");
const SEVERITY = ["up to date", "behind", "far behind", "skipped", "not read"];

let view = null;
const live = new Live({
  onChange: (overview) => {
    session.can_send = session.mayOperate && (overview.can_send ?? session.can_send);
    view?.show(overview);
    updateTitle();
  },
  onRefused: begin,
});

function updateTitle() {
  const states = (live.overview?.lag ?? []).map((lag) => lag.state);
  const worst = states.sort((a, b) => SEVERITY.indexOf(b) - SEVERITY.indexOf(a))[0];
  const unknown = live.overview?.redis || live.overview?.unknown?.lag;
  const lead = worst && worst !== "up to date" ? `${worst.toUpperCase()} · ` : unknown ? "UNKNOWN · " : "";
  document.title = `${lead}${view?.title ?? "Log in"} – Tracker`;
}

function replaceView(next) {
  const before = view;
  view = next;
  before?.close();
  main.replaceChildren(next.element);
  if (live.overview) next.show(live.overview);
  updateTitle();
  // Screen readers continue at the heading of the new view.
  if (before) (next.element.querySelector("h1") ?? main).focus();
  window.scrollTo(0, 0);
}

function route() {
  if (!session.permission) return;
  const [, page = "", id = ""] = location.hash.split("/");
  for (const link of nav.querySelectorAll("a")) {
    const here = link.getAttribute("href") === (page ? `#/${page}` : "#/");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (page === "devices" && /^\d{15}$/.test(id)) replaceView(new Device(id));
  else if (page === "devices") replaceView(new Devices());
  else replaceView(new Overview(live));
}

function showLogin() {
  if (view instanceof Login) return;
  live.stop();
  session.permission = "";
  nav.hidden = who.hidden = true;
  replaceView(new Login(enter));
}

function enter() {
  session.mayOperate = session.can_send;
  nav.hidden = false;
  who.hidden = !session.operator;
  document.getElementById("who-name").textContent = session.operator ?? "";
  route();
  live.start();
}

// Loads the session; throws if the server does not respond, or a login is required.
async function begin() {
  await refreshSession();
  if (!session.permission) {
    showLogin();
    throw new Error("logged out");
  }
  session.mayOperate = session.can_send;
}

async function load() {
  try {
    await begin();
  } catch (error) {
    if (view) return;
    main.replaceChildren(h("p", { class: "banner bad", role: "alert" }, `${error.message} Retrying …`));
    setTimeout(load, 3000);
    return;
  }
  enter();
}

whenLoggedOut(() => refreshSession().then(() => { if (!session.permission) showLogin(); }, () => {}));
window.addEventListener("hashchange", route);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.getElementById("log-out").addEventListener("click", async () => {
  await logOut().catch(() => {});
  await refreshSession().catch(() => {});
  showLogin();
});
load();
