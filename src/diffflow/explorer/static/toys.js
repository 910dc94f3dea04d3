// The plane laws that everybody draws, as laws.py has them: every one a mixture, so every one has exact answers.
import { Mixture } from "./equation.js";

const grid = (n, lo, hi) => Array.from({ length: n }, (_, i) => lo + ((hi - lo) * (i + 0.5)) / n);
const pairs = (xs, ys) => xs.flatMap((x, i) => [x, ys[i]]);
const lattice = (p, q = p) => p.flatMap((x) => q.flatMap((y) => [x, y]));

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
  const means = [], cov = [], weights = [];
  for (let arm = 0; arm < 5; arm++) {
    for (const bend of grid(32, 0.4, 3.4)) {
      const r = Math.log(bend / 0.35) / 1.2, dr = 1 / (1.2 * bend), turn = (2 * Math.PI * arm) / 5 + bend, c = Math.cos(turn), s = Math.sin(turn);
      means.push(1.2 * r * c, 1.2 * r * s);
      const ax = 1.2 * 0.06 * (dr * c - r * s), ay = 1.2 * 0.06 * (dr * s + r * c);
      cov.push(0.07 ** 2 + ax * ax, ax * ay, 0.07 ** 2 + ay * ay);
      weights.push(Math.exp(-0.5 * ((r - 1) / 0.3) ** 2) * dr);
    }
  }
  return new Mixture(means, cov, weights);
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
