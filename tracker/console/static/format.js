// Formats of numbers, times and states.

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const compact = new Intl.NumberFormat("en-GB", { notation: "compact", maximumFractionDigits: 1 });
const clockTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const shortTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dayTime = new Intl.DateTimeFormat("en-GB", { day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit" });

export const NOTHING = "–";

export function number(value) {
  return value === null || value === undefined ? "?" : whole.format(value);
}

// Returns the noun that agrees with a number. The default for many is the noun with an "s".
export function noun(value, single, many = `${single}s`) {
  return value === 1 ? single : many;
}

// Returns a number with its noun, such as "1 entry".
export function counted(value, single, many) {
  return `${number(value)} ${noun(value, single, many)}`;
}

export function short(value) {
  return Math.abs(value) < 10_000 ? whole.format(value) : compact.format(value);
}

export function rate(value) {
  if (value === null || value === undefined) return "?";
  return value < 100 ? one.format(value) : whole.format(value);
}

// Returns [number, unit], in a unit that gives a short number.
export function span(seconds) {
  if (seconds === null || seconds === undefined) return ["?", ""];
  if (seconds < 10) return [one.format(seconds), "s"];
  if (seconds < 120) return [whole.format(seconds), "s"];
  if (seconds < 7200) return [whole.format(seconds / 60), "min"];
  if (seconds < 172_800) return [whole.format(seconds / 3600), "h"];
  return [whole.format(seconds / 86_400), "d"];
}

export function duration(seconds) {
  return span(seconds).join(" ").trim();
}

export function clock(milliseconds) {
  return clockTime.format(milliseconds);
}

export function minutes(milliseconds) {
  return shortTime.format(milliseconds);
}

// Time of day, with the date if it is not today.
export function moment(iso) {
  const at = Date.parse(iso ?? "");
  if (Number.isNaN(at)) return { text: NOTHING };
  const today = new Date(at).toDateString() === new Date().toDateString();
  return { text: today ? clock(at) : dayTime.format(at), title: iso };
}

export function ago(iso, now = Date.now()) {
  const at = Date.parse(iso ?? "");
  if (Number.isNaN(at)) return { text: NOTHING };
  const seconds = (now - at) / 1000;
  const text = seconds < -5 ? `${duration(-seconds)} ahead` : `${duration(Math.max(0, seconds))} ago`;
  return { text, title: iso };
}

export function coordinates(row) {
  if (row.latitude === null || row.latitude === undefined) return NOTHING;
  return `${degrees(row.latitude, "N", "S")} ${degrees(row.longitude, "E", "W")}`;
}

export function degrees(value, positive, negative, digits = 5) {
  return `${Math.abs(value).toFixed(digits)}° ${value < 0 ? negative : positive}`;
}

const POINTS = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"];

export function heading(angle) {
  return angle === null || angle === undefined ? "" : POINTS[Math.round(angle / 45) % 8];
}

export function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

// Returns the kind of pill for the state of a group.
export function kindOf(state) {
  if (state === "up to date") return "good";
  return state === "behind" ? "warn" : "bad";
}

const STATUSES = {
  queued: ["dim", "queued"],
  waiting: ["dim", "waiting for the device"],
  delivered: ["warn", "delivered"],
  responded: ["good", "responded"],
  rejected: ["bad", "rejected"],
  failed: ["bad", "failed"],
  expired: ["bad", "expired"],
};

export function commandStatus(command) {
  const [kind, text] = STATUSES[command.status] ?? ["dim", command.status];
  if (command.reason) {
    const warns = command.status === "responded"; // the device has answered, but not as hoped
    return { pill: warns ? "warn" : kind, text: `${text}: ${command.reason.replaceAll("_", " ")}` };
  }
  const until = command.status === "waiting" && moment(command.expires_at);
  return until?.title ? { pill: kind, text: `${text} until ${until.text}`, title: `Expires at ${until.title}` } : { pill: kind, text };
}

// Returns the time of a command's status, with its earlier times as the title.
export function commandTime(command) {
  const earlier = [["sent", command.sent_at], ["delivered", command.delivered_at]].filter(([, at]) => at && at !== command.at);
  return { ...moment(command.at), title: [...earlier, [command.status, command.at]].map((one) => one.join(" ")).join(", ") };
}

export function isOver(command) {
  return ["responded", "rejected", "failed", "expired"].includes(command.status);
}
