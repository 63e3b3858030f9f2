/* Figures in words, the same on every page. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const brief = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

export const NONE = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** 12,345 */
export const count = (value) => (known(value) ? whole.format(value) : NONE);

/** 12.3K from ten thousand on */
export const short = (value) => (!known(value) ? NONE : Math.abs(value) < 1e4 ? figure(value) : brief.format(value));

/** A number of any size. */
export function figure(value) {
  if (!known(value)) return NONE;
  return Number.isInteger(value) || Math.abs(value) >= 100 ? whole.format(value) : fine.format(value);
}

/** 950 µs, 12.5 ms, 3.2 s, 4 min 10 s, 2 h 5 min, 3 d 4 h */
export function seconds(value) {
  if (!known(value)) return NONE;
  if (value < 0) return `-${seconds(-value)}`;
  if (value === 0) return "0 s";
  if (value < 0.0009995) return `${fine.format(value * 1e6)} µs`;
  if (value < 0.9995) return `${fine.format(value * 1e3)} ms`;
  if (value < 60) return `${fine.format(value)} s`;
  const [large, small, big, little] = value < 3600 ? [60, 1, "min", "s"] : value < 86400 ? [3600, 60, "h", "min"] : [86400, 3600, "d", "h"];
  const rest = Math.floor((value % large) / small);
  return `${Math.floor(value / large)} ${big}${rest ? ` ${rest} ${little}` : ""}`;
}

/** 45 s ago, 3 min ago, 2 h ago, in 5 min; `at` in seconds since 1970 */
export function ago(at) {
  if (!known(at)) return NONE;
  const past = Date.now() / 1000 - at;
  const span = Math.abs(past);
  const [size, unit] = span < 59.5 ? [1, "s"] : span < 3570 ? [60, "min"] : span < 84600 ? [3600, "h"] : [86400, "d"];
  const words = `${Math.round(span / size)} ${unit}`;
  return past < 0 ? `in ${words}` : `${words} ago`;
}

/** 14:03:22; `at` in seconds since 1970 */
export const time = (at) => (known(at) ? clock.format(at * 1000) : NONE);

/** Nov 25, 2026, 14:03:22 */
export const date = (at) => (known(at) ? day.format(at * 1000) : NONE);

/** 87 % */
export const percent = (share) => (known(share) ? `${Math.round(share * 100)} %` : NONE);

/** Any plain value in one line. */
export function plain(value) {
  if (value == null) return NONE;
  if (typeof value === "number") return figure(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** in_flight -> in flight */
export const words = (name) => name.replaceAll("_", " ");

const TONES = {
  good: ["done", "closed", "ok", "up", "healthy", "serving", "committed", "alive", "succeeded", "ready", "completed"],
  busy: ["running", "started", "active", "compensating", "executing", "starting"],
  wait: ["paused", "half_open", "half-open", "waiting", "scheduled", "retrying", "draining", "suspect", "compensated", "cancelled", "unknown", "stale"],
  bad: ["dead", "failed", "open", "down", "error", "stuck", "lost", "unhealthy", "isolated", "forced_open"],
};

/** The colour of a state; a state that is not known has none. */
export function tone(state) {
  const found = String(state).toLowerCase();
  return Object.keys(TONES).find((each) => TONES[each].includes(found)) ?? "dull";
}
