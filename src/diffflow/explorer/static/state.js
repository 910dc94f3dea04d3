// What is on screen, as an address: #target=moons&churn=1&b.churn=0&... Only what differs from the beginning is written,
// so a plain address shows the beginning, and a copied one shows exactly what was copied.
import { DEFAULTS } from "./simulate.js";
import { SCHEDULES, SPEEDS } from "./equation.js";
import { TOYS } from "./toys.js";
import { MOST } from "./map.js";

const BEGINNING = {
  target: "8gaussians", a: { ...DEFAULTS }, b: null, editing: "a",
  looks: { trails: true, contours: true, cloud: false }, points: null, pace: 60,
};

const number = (lo, hi, whole = false) => (text) => {
  const v = Number(text);
  if (text === "" || !Number.isFinite(v)) return undefined;
  return Math.min(Math.max(whole ? Math.round(v) : v, lo), hi);
};
const oneOf = (...names) => (text) => (names.includes(text) ? text : undefined);

const SETTING = {
  family: oneOf("at", "static", "annealed", "cooled"),
  gan: number(0, MOST.gan), churn: number(0, MOST.churn), extra: number(0, MOST.extra),
  speed: oneOf(...Object.keys(SPEEDS)), schedule: oneOf(...Object.keys(SCHEDULES)),
  particles: number(50, 20000, true), steps: number(12, 2000, true), seed: number(0, 2 ** 31 - 1, true),
  horizon: number(0.1, 50), start: oneOf("prior", "away", "narrow"), wrong: number(-3, 3),
};
export const SHARED = ["particles", "seed"]; // the same on both sides: what makes them comparable

// A setting without what its family does not have.
export function tidied(s) {
  const still = { at: { extra: 0, speed: "kl" }, static: { gan: 0, churn: Math.min(s.churn, 1) }, annealed: { gan: 0, churn: 1, speed: "kl" }, cooled: { gan: 0, churn: 0, extra: 0, speed: "kl" } };
  return { ...s, ...still[s.family] };
}

// A drawn target: points in [-3, 3]^2 as pairs of bytes.
function pack(points) {
  const bytes = Uint8Array.from(points, (v) => Math.round((255 * (Math.min(Math.max(v, -3), 3) + 3)) / 6));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function unpack(text) {
  try {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
    return bytes.length >= 2 ? Array.from(bytes.subarray(0, bytes.length & ~1), (v) => (6 * v) / 255 - 3) : null;
  } catch {
    return null;
  }
}

export function write(state) {
  const words = new URLSearchParams();
  const put = (setting, base, prefix) => {
    for (const key of Object.keys(SETTING)) if (setting[key] !== base[key]) words.set(prefix + key, setting[key]);
  };
  if (state.target !== BEGINNING.target) words.set("target", state.target);
  put(state.a, DEFAULTS, "");
  if (state.b) { words.set("split", "1"); put(state.b, state.a, "b."); if (state.editing === "b") words.set("editing", "b"); }
  for (const [key, value] of Object.entries(state.looks)) if (value !== BEGINNING.looks[key]) words.set(key, value ? "1" : "0");
  if (state.target === "drawn" && state.points) words.set("points", pack(state.points));
  if (state.pace !== BEGINNING.pace) words.set("pace", state.pace);
  return words.toString();
}

export function read(text) {
  const words = new URLSearchParams(text), state = structuredClone(BEGINNING);
  const take = (setting, prefix) => {
    for (const [key, parse] of Object.entries(SETTING)) {
      const value = words.has(prefix + key) ? parse(words.get(prefix + key)) : undefined;
      if (value !== undefined) setting[key] = value;
    }
    Object.assign(setting, tidied(setting));
  };
  take(state.a, "");
  if (words.get("split") === "1") {
    state.b = { ...state.a };
    take(state.b, "b.");
    for (const key of SHARED) state.b[key] = state.a[key];
    if (words.get("editing") === "b") state.editing = "b";
  }
  for (const key of Object.keys(state.looks)) if (words.has(key)) state.looks[key] = words.get(key) === "1";
  const points = words.has("points") ? unpack(words.get("points")) : null;
  if (words.get("target") === "drawn" && points) Object.assign(state, { target: "drawn", points });
  else if (Object.hasOwn(TOYS, words.get("target") ?? "")) state.target = words.get("target");
  state.pace = number(1, 600)(words.get("pace") ?? "") ?? state.pace;
  return state;
}
