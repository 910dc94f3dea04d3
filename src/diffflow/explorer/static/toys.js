// The plane laws that everybody draws, as laws.py has them: every one a mixture, so every one has exact answers.
import { Mixture } from "./equation.js";

const grid = (n, lo, hi) => Array.from({ length: n }, (_, i) => lo + ((hi - lo) * (i + 0.5)) / n);
const pairs = (xs, ys) => xs.flatMap((x, i) => [x, ys[i]]);
const lattice = (p, q = p) => p.flatMap((x) => q.flatMap((y) => [x, y]));

// x with standard normal probability u below it, by Newton's method on the series of the distribution function
function quantile(u) {
  let x = 0;
  for (let round = 0; round < 60; round++) {
    let term = x, sum = x;
    for (let k = 1; k < 200 && Math.abs(term) > 1e-17 * Math.abs(sum); k++) sum += term *= (x * x) / (2 * k + 1);
    const density = Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);
    x -= Math.max(-0.5, Math.min(0.5, (0.5 + density * sum - u) / density));
  }
  return x;
}

function eightGaussians() {
  const a = Array.from({ length: 8 }, (_, i) => (i * Math.PI) / 4);
  return Mixture.isotropic(pairs(a.map((v) => Math.SQRT2 * Math.cos(v)), a.map((v) => Math.SQRT2 * Math.sin(v))), 0.1);
}

function twentyFiveGaussians() {
  return Mixture.isotropic(lattice([-2, -1, 0, 1, 2].map((v) => (2 * v) / 2.828)), 0.05 / 2.828);
}

function moons() {
  const a = grid(60, 0, Math.PI);
  const x = [...a.map(Math.cos), ...a.map((v) => 1 - Math.cos(v))], y = [...a.map(Math.sin), ...a.map((v) => 0.5 - Math.sin(v))];
  return Mixture.isotropic(pairs(x.map((v) => v - 0.5), y.map((v) => v - 0.25)), 0.1);
}

function circles() {
  const outer = grid(120, 0, 2 * Math.PI), inner = grid(60, 0, 2 * Math.PI);
  const turn = (f) => [...outer.map((v) => 1.5 * f(v)), ...inner.map((v) => 0.75 * f(v))];
  return Mixture.isotropic(pairs(turn(Math.cos), turn(Math.sin)), 0.06, [...outer.map(() => 1 / 120), ...inner.map(() => 1 / 60)]);
}

function swissRoll() {
  const a = grid(180, 1.5 * Math.PI, 4.5 * Math.PI), r = a.map((v) => (1.7 * v) / (4.5 * Math.PI));
  return Mixture.isotropic(pairs(a.map((v, i) => r[i] * Math.cos(v)), a.map((v, i) => r[i] * Math.sin(v))), 0.06);
}

function pinwheel() {
  const means = [], cov = [];
  for (let arm = 0; arm < 5; arm++) {
    for (const u of grid(24, 0, 1)) {
      const r = 1 + 0.3 * quantile(u), bend = 0.35 * Math.exp(1.2 * r);
      const turn = (2 * Math.PI * arm) / 5 + bend, rate = bend * 1.2 * r; // r d(angle)/dr: the arm's slope
      means.push(1.2 * r * Math.cos(turn), 1.2 * r * Math.sin(turn));
      const ax = Math.cos(turn) - rate * Math.sin(turn), ay = Math.sin(turn) + rate * Math.cos(turn), l2 = ax * ax + ay * ay;
      cov.push(0.07 ** 2 + (0.06 ** 2 * ax * ax) / l2, (0.06 ** 2 * ax * ay) / l2, 0.07 ** 2 + (0.06 ** 2 * ay * ay) / l2);
    }
  }
  return new Mixture(means, cov);
}

function spirals() {
  const u = grid(150, 0.02, 1).map(Math.sqrt);
  const x = u.map((v) => 1.8 * v * Math.cos(3 * Math.PI * v)), y = u.map((v) => 1.8 * v * Math.sin(3 * Math.PI * v));
  return Mixture.isotropic([...pairs(x, y), ...pairs(x, y).map((v) => -v)], 0.05);
}

function checkerboard() {
  const cell = grid(10, 0, 1), means = [];
  for (let i = -2; i < 2; i++) {
    for (let j = -2; j < 2; j++) {
      if ((i + j) % 2 === 0) means.push(...lattice(cell.map((v) => v + i), cell.map((v) => v + j)));
    }
  }
  return Mixture.isotropic(means, 0.06);
}

export const TOYS = {
  "8gaussians": { title: "Eight Gaussians", make: eightGaussians },
  "25gaussians": { title: "Twenty-five Gaussians", make: twentyFiveGaussians },
  moons: { title: "Two moons", make: moons },
  circles: { title: "Circles", make: circles },
  swissroll: { title: "Swiss roll", make: swissRoll },
  pinwheel: { title: "Pinwheel", make: pinwheel },
  spirals: { title: "Spirals", make: spirals },
  checkerboard: { title: "Checkerboard", make: checkerboard },
};

// A target that somebody drew: points along the strokes, as a law of equal, narrow components.
export function drawn(points, std = 0.07) {
  if (points.length < 2) throw new RangeError("draw something first: a law needs at least one point");
  return Mixture.isotropic(points, std);
}
