// Particles on their way under a setting of the equation: what one frame of the page computes, without any page.
//
// Two exact families, and what lies beyond them. On a noise schedule a step with the composite denoiser frozen is exact
// (fact 7 of the design; solvers.py), in y = x/scale from noise s to s1 with churn z and gan k:
//     D* = y + s^2 [grad_y log r + k/(1+z) grad_y log(r/p)],   y1 = D* + (y - D*) q^(1+z) + s1 sqrt(1 - q^(2z)) xi,   q = s1/s
// On a fixed target, with v the least variance of a component, a step is exact for that component:
//     x1 = x + v grad log r (1 - e^(-w dt/v)) + noise of the same Ornstein-Uhlenbeck process,   w = g2/2
// The law p of the particles enters through kernels of width h; r is blurred by the same h, so that bias cancels.
import { DiffFlow, Levels, Random, SCHEDULES, SPEEDS, annealedLangevin, at, continued, fixed, ganFlow, improvedGAN } from "./equation.js";
import { binnedDensity } from "./density.js";

export const DEFAULTS = {
  family: "at", // at | static | annealed (NCSN) | cooled (improved GAN)
  gan: 0, churn: 1, // the dials of both families; on a fixed target churn is in [0, 1]
  extra: 0, // -lam2/beta of the continuation, >= 0
  speed: "kl", // what beta does with the logit, on a fixed target without churn
  schedule: "VP",
  particles: 2000, steps: 360, seed: 0, horizon: 4,
  start: "prior", // prior | away (beside the data) | narrow
  wrong: 0, // how wrong the score is: it believes in a law shifted by this
};

const LOWEST = 0.01; // noise at which the particles of the page are samples, in data units
export const TOP = { EDM: 20, VE: 20, Cosine: 100, RectifiedFlow: 100 };

export function schedule(name) {
  const make = SCHEDULES[name];
  if (!make) throw new RangeError(`unknown schedule ${name}`);
  return name in TOP ? new make(LOWEST, TOP[name]) : new make(0.1, 20, LOWEST);
}

// The setting as an equation.
export function equation(s) {
  const clock = s.family === "at" || s.family === "cooled" ? (s.family === "cooled" ? new SCHEDULES.VE(0.05, 1) : schedule(s.schedule)) : null;
  let sde;
  if (s.family === "at") sde = at(clock, { gan: s.gan, churn: s.churn });
  else if (s.family === "cooled") sde = improvedGAN(clock, s.horizon);
  else if (s.family === "annealed") sde = annealedLangevin(levels(s), 0.2);
  else if (s.churn === 0 && s.speed !== "kl") sde = ganFlow({ speed: SPEEDS[s.speed], horizon: s.horizon });
  else sde = fixed({ churn: s.churn, horizon: s.horizon });
  return s.extra > 0 ? continued(sde, (t) => -s.extra * (sde.speed ? 1 : sde.beta(t))) : sde;
}

export const levels = (s) => {
  const count = 12, top = 3, low = 0.03;
  return new Levels(Array.from({ length: count }, (_, k) => top * (low / top) ** (k / (count - 1))), Math.max(1, Math.round(s.steps / count)));
};

export class Simulation {
  constructor(setting, law) {
    this.setting = { ...DEFAULTS, ...setting };
    this.law = law;
    this.sde = equation(this.setting);
    this.spread = law.spread;
    this.narrow = law.narrowest;
    this.believed = this.setting.wrong ? shifted(law, this.setting.wrong) : law;
    const { particles: n, seed } = this.setting;
    this.streams = Array.from({ length: n }, (_, i) => new Random(seed, i));
    this.times = this.grid();
    this.k = 0;
    this.x = this.begin();
  }

  get n() { return this.x.length / 2; }
  get time() { return this.times[this.k]; }
  get done() { return this.k >= this.times.length - 1; }

  grid() {
    const { family, steps, horizon } = this.setting, s = this.sde.schedule;
    if (family === "annealed") return Array.from({ length: s.horizon + 1 }, (_, k) => k);
    const even = (k) => k / steps;
    if (family !== "at") return Array.from({ length: steps + 1 }, (_, k) => even(k) * this.sde.horizon);
    const b = 3 * this.spread; // equal steps of log(1 + (b/sigma)^2): long ones where the data is a point (schedule.py)
    const first = Math.log1p((b / s.sigmaMax) ** 2), last = Math.log1p((b / s.sigmaMin) ** 2);
    const times = Array.from({ length: steps }, (_, k) => s.time(b / Math.sqrt(Math.expm1(first + (k / (steps - 1)) * (last - first)))));
    times[0] = 0;
    return [...times, s.clean];
  }

  // r_t, blurred by h
  target(t, h = 0) {
    const s = this.sde.schedule;
    if (!s) return h ? this.law.noised(1, h) : this.law;
    const scale = s.scale(t);
    return this.law.noised(scale, Math.hypot(s.sigma(t), h / scale));
  }

  // The law of the score that is believed, at t.
  belief(t) {
    const s = this.sde.schedule;
    return s ? this.believed.noised(s.scale(t), s.sigma(t)) : this.believed;
  }

  // Width of the kernels, in units of x: what the cloud's own density can show with n particles.
  bandwidth(t) {
    const s = this.sde.schedule, sigma = s ? s.sigma(t) : 0, scale = s ? s.scale(t) : 1;
    const detail = Math.max(this.narrow, 0.05 * this.spread);
    return scale * Math.hypot(1.2 * detail, 0.3 * sigma);
  }

  begin() {
    const { start, family, particles: n } = this.setting;
    const out = new Float64Array(2 * n), [mx, my] = this.law.mean;
    if (family === "at" && start === "prior") { // the exact r_0
      const r0 = this.target(0);
      for (let i = 0; i < n; i++) out.set(r0.sample(1, this.streams[i]), 2 * i);
      return out;
    }
    const scale = family === "at" ? this.sde.schedule.scale(0) : 1;
    const top = family === "annealed" ? this.sde.schedule.sigmaMax : family === "at" ? this.target(0).spread : this.spread;
    const std = { prior: top, away: 0.4 * this.spread, narrow: 0.15 * this.spread }[start];
    const shift = start === "away" ? 3 * this.spread : 0;
    for (let i = 0; i < n; i++) {
      out[2 * i] = scale * mx - shift + std * this.streams[i].normal();
      out[2 * i + 1] = scale * my + std * this.streams[i].normal();
    }
    return out;
  }

  // The two fields at points x while the cloud is `cloud`.
  fields(cloud = this.x) {
    return {
      score: (x, t) => this.belief(t).score(x),
      ratio: (x, t) => {
        const h = this.bandwidth(t), grad = new Float64Array(x.length), logit = new Float64Array(x.length / 2);
        const own = new Float64Array(x.length), logP = new Float64Array(x.length / 2);
        this.target(t, h).evaluate(x, grad, logit);
        binnedDensity(x, cloud, h, own, logP);
        for (let i = 0; i < grad.length; i++) grad[i] -= own[i];
        for (let i = 0; i < logit.length; i++) logit[i] -= logP[i];
        return { logit, grad };
      },
    };
  }

  // One step of the grid.
  step() {
    if (this.done) return false;
    const t = this.times[this.k], next = this.times[this.k + 1];
    this.x = this.setting.family === "at" ? this.onSchedule(t, next) : this.onTarget(t, next - t);
    this.k += 1;
    return true;
  }

  onSchedule(t, next) {
    const s = this.sde.schedule, { score: half, ratio } = this.sde.weights(t), x = this.x, out = new Float64Array(x.length);
    const scale = s.scale(t), sigma = s.sigma(t), low = s.sigma(next), end = s.scale(next), q = low / sigma;
    const z = this.setting.churn, fields = this.fields();
    const drift = fields.score(x, t).slice();
    if (ratio !== 0) {
      const g = fields.ratio(x, t).grad, w = ratio / half;
      for (let i = 0; i < x.length; i++) drift[i] += w * g[i];
    }
    const keep = q ** (1 + z), noise = low * Math.sqrt(1 - q ** (2 * z));
    for (let i = 0; i < x.length; i++) {
      const y = x[i] / scale, D = y + sigma * sigma * scale * drift[i];
      out[i] = end * (D + (y - D) * keep + (noise > 0 ? noise * this.streams[i >> 1].normal() : 0));
    }
    return out;
  }

  onTarget(t, dt) {
    const { score: w, ratio } = this.sde.weights(t), noise = this.sde.noise(t), x = this.x, out = Float64Array.from(x);
    const s = this.sde.schedule, sigma = s ? s.sigma(t) : 0, v = this.narrow ** 2 + sigma * sigma, fields = this.fields();
    if (w !== 0) {
      const g = fields.score(x, t), gain = v * -Math.expm1((-w * dt) / v);
      for (let i = 0; i < x.length; i++) out[i] += gain * g[i];
    }
    if (ratio !== 0) {
      const { logit, grad } = fields.ratio(x, t), wide = v + this.bandwidth(t) ** 2;
      for (let i = 0; i < x.length; i++) {
        const speed = ratio === null ? this.sde.speed(logit[i >> 1]) - w : ratio;
        out[i] += Math.sign(speed) * wide * -Math.expm1((-Math.abs(speed) * dt) / wide) * grad[i];
      }
    }
    if (noise > 0) {
      const size = noise * Math.sqrt(w > 0 ? (v / (2 * w)) * -Math.expm1((-2 * w * dt) / v) : dt);
      for (let i = 0; i < x.length; i++) out[i] += size * this.streams[i >> 1].normal();
    }
    return out;
  }

  // KL(p|r) and the Fisher divergence E |grad log(r/p)|^2, of both laws blurred by the kernels' width h, so the points
  // are blurred as well. From n particles both are a little above zero at best.
  divergences() {
    const t = Math.min(this.time, this.sde.horizon), h = this.bandwidth(t), blur = new Random(this.setting.seed, -1 - this.k);
    const { logit, grad } = this.fields().ratio(this.x.map((v) => v + h * blur.normal()), t);
    let kl = 0, fisher = 0;
    for (let i = 0; i < this.n; i++) {
      kl -= logit[i] / this.n;
      fisher += (grad[2 * i] ** 2 + grad[2 * i + 1] ** 2) / this.n;
    }
    return { kl: Math.max(0, kl), fisher };
  }

  // Sliced Wasserstein-2 distance between the cloud and as many draws of the target now, and between two such draws.
  distance(directions = 24) {
    const t = Math.min(this.time, this.sde.horizon), r = this.done ? this.law : this.target(t);
    const { seed } = this.setting, a = r.sample(this.n, new Random(seed, -2 - 2 * this.k)), b = r.sample(this.n, new Random(seed, -3 - 2 * this.k));
    return { distance: slicedW2(this.x, a, directions), floor: slicedW2(b, a, directions) };
  }

  // Every term of the drift at particle i, and the size of its noise.
  terms(i) {
    const t = Math.min(this.time, this.times[this.times.length - 2]), at = this.x.slice(2 * i, 2 * i + 2), parts = {};
    const total = this.sde.drift(at, t, this.fields(), parts);
    return { x: [...at], total: [...total], noise: this.sde.noise(t), parts: Object.fromEntries(Object.entries(parts).map(([k, v]) => [k, [...v]])) };
  }
}

const shifted = (law, by) => {
  const moved = Object.assign(Object.create(Object.getPrototypeOf(law)), law);
  moved.means = law.means.map((m, i) => m + (i % 2 === 0 ? by : 0));
  return moved;
};

export function slicedW2(a, b, directions = 24) {
  const n = a.length / 2, pa = new Float64Array(n), pb = new Float64Array(n);
  let total = 0;
  for (let k = 0; k < directions; k++) {
    const angle = (Math.PI * (k + 0.5)) / directions, c = Math.cos(angle), s = Math.sin(angle);
    for (let i = 0; i < n; i++) { pa[i] = c * a[2 * i] + s * a[2 * i + 1]; pb[i] = c * b[2 * i] + s * b[2 * i + 1]; }
    pa.sort();
    pb.sort();
    for (let i = 0; i < n; i++) total += (pa[i] - pb[i]) ** 2 / (n * directions);
  }
  return Math.sqrt(total);
}
