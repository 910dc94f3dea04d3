// Moves the particles of up to two settings off the page's thread, and keeps their whole way, so that it can be scrubbed.
//
// in:  { do: "set", sides: [{ setting, target }], drawn }   begin anew, playing as before
//      { do: "play" | "pause" | "step" | "restart" }, { do: "seek", at: 0..1 }, { do: "speed", value: steps a second }
//      { do: "terms", side, point: [x, y] }                    the drift of the nearest particle, by terms
// out: { is: "frame", k, last, progress, playing, sides: [{ x, t, sigma, scale }] }, { is: "chart", side, k, values },
//      { is: "terms", ... }, { is: "error", message }
import { TOYS, drawn } from "./toys.js";
import { Simulation } from "./simulate.js";

let sides = [];
let k = 0;
let playing = true;
let speed = 60; // steps a second
let owed = 0;
let before = performance.now();
let rested = 0;
const REST = 2500; // ms that the end is shown before it begins anew
const CHARTED = 6; // steps between two points of a chart

const law = (target, points) => (target === "drawn" ? drawn(points) : (TOYS[target] ?? TOYS["8gaussians"]).make());

function set({ sides: wanted, points }) {
  sides = wanted.map(({ setting, target }) => {
    const sim = new Simulation(setting, law(target, points));
    return { sim, way: [Float32Array.from(sim.x)] };
  });
  k = 0;
  owed = rested = 0;
  sides.forEach((side, i) => postMessage({ is: "target", side: i, times: side.sim.times, ...contours(side.sim) }));
  charts();
  show();
}

const last = () => (sides.length ? Math.min(...sides.map((s) => s.sim.times.length - 1)) : 0);

// Everything up to step j, computed once.
function advance(j) {
  for (const side of sides) {
    while (side.way.length <= j && side.sim.step()) side.way.push(Float32Array.from(side.sim.x));
  }
}

function show() {
  if (!sides.length) return;
  postMessage({
    is: "frame", k, last: last(), playing,
    sides: sides.map(({ sim, way }) => {
      const t = sim.times[k], s = sim.sde.schedule;
      return { x: way[k], t, sigma: s ? s.sigma(t) : 0, scale: s ? s.scale(t) : 1 };
    }),
  });
}

function charts() {
  sides.forEach(({ sim }, i) => {
    const values = { ...sim.divergences(), ...sim.distance() };
    postMessage({ is: "chart", side: i, k: sim.k, values });
  });
}

// The target's density on a grid, now: what contours are drawn from.
function contours(sim, cells = 48, half = 1.9) {
  const reach = half * sim.spread * 1.25, [mx, my] = sim.law.mean, points = new Float64Array(2 * cells * cells);
  for (let i = 0; i < cells; i++) {
    for (let j = 0; j < cells; j++) {
      points[2 * (i * cells + j)] = mx - reach + (2 * reach * j) / (cells - 1);
      points[2 * (i * cells + j) + 1] = my - reach + (2 * reach * i) / (cells - 1);
    }
  }
  return { density: Float32Array.from(sim.law.logProb(points)), cells, centre: [mx, my], reach, spread: sim.spread };
}

function move(to) {
  if (!sides.length) return;
  const target = Math.max(0, Math.min(to, last()));
  const charted = Math.floor(sides[0].sim.k / CHARTED);
  advance(target);
  k = target;
  if (Math.floor(sides[0].sim.k / CHARTED) > charted || sides[0].sim.done) charts();
  show();
}

function tick() {
  const now = performance.now(), passed = now - before;
  before = now;
  if (sides.length && playing) {
    if (k >= last()) {
      rested += passed;
      if (rested > REST) { rested = 0; k = 0; show(); }
    } else {
      owed = Math.min(owed + (passed * speed) / 1000, Math.max(1.5, speed / 40)); // a slow machine plays slower
      const due = Math.floor(owed);
      if (due > 0) { owed -= due; move(k + due); }
    }
  }
  setTimeout(tick, Math.max(1, 15 - (performance.now() - now)));
}

function terms({ side, point }) {
  const { sim, way } = sides[side], x = way[k];
  let near = 0, least = Infinity;
  for (let i = 0; i < x.length / 2; i++) {
    const d = (x[2 * i] - point[0]) ** 2 + (x[2 * i + 1] - point[1]) ** 2;
    if (d < least) { least = d; near = i; }
  }
  const here = new Simulation(sim.setting, sim.law); // at the step that is shown, not the one that is reached
  here.x = Float64Array.from(x);
  here.k = k;
  postMessage({ is: "terms", side, index: near, k, ...here.terms(near) });
}

const calls = {
  set,
  play: () => { playing = true; if (k >= last()) k = 0; },
  pause: () => { playing = false; show(); },
  step: () => { playing = false; move(k + 1); },
  back: () => { playing = false; move(k - 1); },
  restart: () => { k = 0; show(); },
  seek: ({ at }) => move(Math.round(at * last())),
  speed: ({ value }) => { speed = value; },
  terms,
};

onmessage = ({ data }) => {
  try {
    calls[data.do](data);
  } catch (error) {
    postMessage({ is: "error", message: String(error.message ?? error) });
  }
};
tick();
