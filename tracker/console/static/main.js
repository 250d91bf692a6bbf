// The page: who is there, which part is shown, and the stream that feeds it.

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
const SEVERITY = ["up to date", "behind", "far behind", "not read"];

let part = null;
const live = new Live({
  onChange: (overview) => {
    session.sends = session.mayOperate && (overview.sends ?? session.sends);
    part?.show(overview);
    entitle();
  },
  onRefused: begin,
});

function entitle() {
  const words = (live.overview?.lag ?? []).map((lag) => lag.word);
  const worst = words.sort((a, b) => SEVERITY.indexOf(b) - SEVERITY.indexOf(a))[0];
  const lead = worst && worst !== "up to date" ? `${worst.toUpperCase()} · ` : "";
  document.title = `${lead}${part?.title ?? "Log in"} – Tracker`;
}

function put(next) {
  const before = part;
  part = next;
  before?.close();
  main.replaceChildren(next.element);
  if (live.overview) next.show(live.overview);
  entitle();
  // Whoever has followed a link goes on reading at what it led to.
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
  if (page === "devices" && /^\d{15}$/.test(id)) put(new Device(id));
  else if (page === "devices") put(new Devices());
  else put(new Overview(live));
}

function loggedOut() {
  if (part instanceof Login) return;
  live.stop();
  session.permission = "";
  nav.hidden = who.hidden = true;
  put(new Login(enter));
}

function enter() {
  session.mayOperate = session.sends;
  nav.hidden = false;
  who.hidden = !session.operator;
  document.getElementById("who-name").textContent = session.operator ?? "";
  route();
  live.start();
}

// Asks who we are; fails where nobody answers.
async function begin() {
  await refreshSession();
  if (!session.permission) {
    loggedOut();
    throw new Error("logged out");
  }
  session.mayOperate = session.sends;
}

async function first() {
  try {
    await begin();
  } catch (error) {
    if (part) return;
    main.replaceChildren(h("p", { class: "banner bad", role: "alert" }, `${error.message} Trying again.`));
    setTimeout(first, 3000);
    return;
  }
  enter();
}

whenLoggedOut(() => refreshSession().then(() => { if (!session.permission) loggedOut(); }, () => {}));
window.addEventListener("hashchange", route);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.getElementById("log-out").addEventListener("click", async () => {
  await logOut().catch(() => {});
  await refreshSession().catch(() => {});
  loggedOut();
});
first();
