// Moves the particles of up to two settings off the page's thread, and keeps their whole way, so that it can be scrubbed.
//
// Sides may have different numbers of steps: step k of the page is the same share of each side's way.
// in:  { do: "set", round, sides: [{ setting, target }], points }   begin anew, playing as before
//      { do: "play" | "pause" | "step" | "restart" }, { do: "seek", at: 0..1 }, { do: "speed", value: steps a second }
//      { do: "terms", side, point: [x, y] }                    the drift of the nearest particle, by terms
// out: { is: "target", side, ... }, { is: "frame", k, last, playing, sides: [{ x, t, sigma, scale }] },
//      { is: "chart", side, k, values }, { is: "terms", ... }, { is: "error", message }; all with the round they belong to
import { TOYS, drawn } from "./toys.js";
import { Simulation } from "./simulate.js";

let sides = [];
let round = 0;
let k = 0;
let playing = true;
let speed = 60; // steps a second
let owed = 0;
let before = performance.now();
let rested = 0;
const REST = 2500; // ms that the end is shown before it begins anew
const HELD = 2e7; // positions that the way of a side may have: 160 MB
const CHARTED = 6; // steps between two points of a chart

const law = (target, points) => (target === "drawn" ? drawn(points) : TOYS[Object.hasOwn(TOYS, target) ? target : "8gaussians"].make());

const say = (message) => postMessage({ ...message, round });

function set({ sides: wanted, points, round: number }) {
  round = number;
  sides = [];
  sides = wanted.map(({ setting, target }) => {
    const sim = new Simulation(setting, law(target, points)), size = sim.n * sim.times.length;
    if (size > HELD) throw new RangeError(`${sim.n} particles on ${sim.times.length} steps are more than can be kept: take fewer of either`);
    return { sim, way: [Float32Array.from(sim.x)] };
  });
  k = 0;
  owed = rested = 0;
  const seen = frame();
  sides.forEach(({ sim }, i) => say({ is: "target", side: i, ...seen, ...contours(sim, seen) }));
  sides.forEach(chart);
  show();
}

const length = ({ sim }) => sim.times.length - 1;
const last = () => Math.max(0, ...sides.map(length));
const own = (side, j) => Math.round((j * length(side)) / last()); // the step of a side at step j of the page

// Everything up to step j, computed once, with a point of the charts every so often.
function advance(j) {
  sides.forEach((side, i) => {
    const every = Math.max(1, Math.round((CHARTED * length(side)) / last()));
    while (side.way.length <= own(side, j) && side.sim.step()) {
      side.way.push(Float32Array.from(side.sim.x));
      if (side.sim.k % every === 0 || side.sim.done) chart(side, i);
    }
  });
}

function show() {
  if (!sides.length) return;
  say({
    is: "frame", k, last: last(), playing,
    sides: sides.map((side) => {
      const { sim, way } = side, j = own(side, k), t = sim.times[j], s = sim.sde.schedule;
      return { x: way[j], t, sigma: s ? s.sigma(t) : 0, scale: s ? s.scale(t) : 1 };
    }),
  });
}

function chart(side, i) {
  const { sim } = side, values = { ...sim.divergences(), ...sim.distance() };
  say({ is: "chart", side: i, k: Math.round((sim.k * last()) / length(side)), values });
}

// Where a picture of all sides begins and ends: around the target, and to the left as far as a cloud that begins there.
function frame() {
  const reach = Math.max(...sides.map(({ sim: { law: { means, cov, mean } } }) =>
    means.reduce((most, m, i) => Math.max(most, Math.abs(m - mean[i % 2]) + 2.5 * Math.sqrt(cov[3 * (i >> 1) + 2 * (i % 2)])), 0)));
  const away = Math.max(0, ...sides.map(({ sim }) => (sim.setting.start === "away" ? 4.2 * sim.spread : 0)));
  const left = Math.max(1.1 * reach, away), [mx, my] = sides[0].sim.law.mean;
  return { half: (left + 1.1 * reach) / 2, centre: [mx + (1.1 * reach - left) / 2, my] };
}

// The target's density at the middles of a grid's cells, blurred by half a cell so that no narrow mode falls between them.
function contours({ law, spread }, { half, centre: [mx, my] }, cells = 64) {
  const reach = 1.25 * half, points = new Float64Array(2 * cells * cells), at = (j) => (reach * (2 * j + 1)) / cells - reach;
  for (let i = 0; i < cells; i++) for (let j = 0; j < cells; j++) points.set([mx + at(j), my + at(i)], 2 * (i * cells + j));
  return { density: Float32Array.from(law.noised(1, reach / cells).logProb(points)), cells, reach, spread };
}

function move(to) {
  if (!sides.length) return;
  const target = Math.max(0, Math.min(to, last()));
  advance(target);
  k = target;
  show();
}

let timer = null; // null while nothing moves
function tick() {
  const now = performance.now(), passed = now - before;
  before = now;
  timer = null;
  try {
    advanceBy(passed);
  } catch (error) {
    playing = false;
    failed(error);
  }
  if (playing) timer = setTimeout(tick, Math.max(1, 15 - (performance.now() - now)));
}

function advanceBy(passed) {
  if (!sides.length || !playing) return;
  if (k >= last()) {
    rested += passed;
    if (rested > REST) { rested = 0; k = 0; show(); }
    return;
  }
  owed = Math.min(owed + (passed * speed) / 1000, Math.max(1.5, speed / 40)); // a slow machine plays slower
  const due = Math.floor(owed);
  if (due > 0) { owed -= due; move(k + due); }
}

function terms({ side, point }) {
  if (!sides[side]) return;
  const { sim, way } = sides[side], j = own(sides[side], k), x = way[j];
  let near = 0, least = Infinity;
  for (let i = 0; i < x.length / 2; i++) {
    const d = (x[2 * i] - point[0]) ** 2 + (x[2 * i + 1] - point[1]) ** 2;
    if (d < least) { least = d; near = i; }
  }
  const here = new Simulation(sim.setting, sim.law); // at the step that is shown, not the one that is reached
  here.x = Float64Array.from(x);
  here.k = j;
  say({ is: "terms", side, index: near, k, ...here.terms(near) });
}

const failed = (error) => say({ is: "error", message: String(error.message ?? error) });

const calls = {
  set,
  play() {
    playing = true;
    if (k >= last()) k = 0;
    if (timer === null) { before = performance.now(); tick(); }
  },
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
    failed(error);
  }
};
