// Requests to the server, and the session.

import { sentence } from "./format.js";

export const session = { operator: null, permission: "", can_send: false, token: "", login_required: false };

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let onLoggedOut = () => {};

export function whenLoggedOut(callback) {
  onLoggedOut = callback;
}

export async function refreshSession() {
  Object.assign(session, { tiles: null, can_send: false }, await get("/api/session"));
  return session;
}

export async function logIn(name, password) {
  Object.assign(session, await post("/api/login", { name, password }));
}

export async function logOut() {
  await post("/api/logout", {});
}

export function get(path, signal) {
  return request(path, { signal });
}

export function post(path, body) {
  return request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": session.token },
    body: JSON.stringify(body),
  });
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { credentials: "same-origin", redirect: "error", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The console's server does not respond.");
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  if (response.status === 401 && path !== "/api/login") onLoggedOut();
  const wait = body.wait ? ` Retry in ${Math.ceil(body.wait / 60)} min.` : "";
  throw new ApiError(response.status, sentence(body.error ?? `The server responded with status ${response.status}`) + wait);
}
