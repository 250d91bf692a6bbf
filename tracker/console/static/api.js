// What the server is asked, and who we are to it.

export const session = { operator: null, permission: "", sends: false, token: "", asks: false };

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let onLoggedOut = () => {};

export function whenLoggedOut(told) {
  onLoggedOut = told;
}

export async function refreshSession() {
  Object.assign(session, { tiles: null, sends: false }, await get("/api/session"));
  return session;
}

export async function logIn(name, password) {
  Object.assign(session, await post("/api/login", { name, password }));
}

export async function logOut() {
  await post("/api/logout", {});
}

export function get(path, signal) {
  return ask(path, { signal });
}

export function post(path, body) {
  return ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": session.token },
    body: JSON.stringify(body),
  });
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", redirect: "error", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The console's server does not answer.");
  }
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  if (response.status === 401 && path !== "/api/login") onLoggedOut();
  const wait = answer.wait ? ` Try again in ${Math.ceil(answer.wait / 60)} min.` : "";
  throw new ApiError(response.status, sentence(answer.error ?? `It answers ${response.status}.`) + wait);
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
