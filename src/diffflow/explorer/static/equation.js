// The equation in the browser: schedules, laws, fields and the spectrum, formula by formula what schedule.py, laws.py,
// sde.py and spectrum.py say. tests/explorer compares them at fixtures to 1e-6.
//
//     dX = [ f + (beta - g2/2) grad log(r/p) + (g2/2) grad log r ] dt + sqrt(g2 - lam2) dW
//
// Time t runs from 0 (prior) to `horizon` (data). Points of the plane lie in flat arrays, (x0, y0, x1, y1, ...).

export const NEGLIGIBLE = 1e-12;

// -- schedules: sigma(t), scale(t); each written in noising time s -----------------------------------------------------
class Schedule {
  constructor(sigmaMin, sigmaMax) {
    this.sigmaMin = sigmaMin;
    this.sigmaMax = sigmaMax;
  }
  _scale(s) { return 1; }
  _scaleSlope(s) { return 0; }
  get clean() { return this._inverse(this.sigmaMax); }
  get horizon() { return this.clean - this._inverse(this.sigmaMin); }
  _noising(t) { return this.clean - t; }
  sigma(t) { const s = this._noising(t); return s <= 0 ? 0 : this._sigma(s); }
  scale(t) { const s = this._noising(t); return s <= 0 ? 1 : this._scale(s); }
  rate(t) { return -this._scaleSlope(this._noising(t)); }
  lam2(t) {
    const s = this._noising(t);
    return 2 * (this._scale(s) * this._sigma(s)) ** 2 * this._slope(s);
  }
  time(sigma) {
    if (sigma === this.sigmaMax) return 0;
    if (sigma === this.sigmaMin) return this.horizon;
    return sigma === 0 ? this.clean : this.clean - this._inverse(sigma);
  }
}

export class EDM extends Schedule {
  constructor(sigmaMin = 0.002, sigmaMax = 80) { super(sigmaMin, sigmaMax); }
  _sigma(s) { return s; }
  _slope(s) { return 1 / s; }
  _inverse(sigma) { return sigma; }
}

export class VE extends Schedule {
  constructor(sigmaMin = 0.002, sigmaMax = 80) {
    super(sigmaMin, sigmaMax);
    this.logRatio = Math.log(sigmaMax / sigmaMin);
  }
  get clean() { return 1 + Number.EPSILON; }
  get horizon() { return 1; }
  _noising(t) { return 1 - t; }
  sigma(t) { return t >= this.clean ? 0 : this._sigma(this._noising(t)); }
  _sigma(s) { return this.sigmaMin * Math.exp(s * this.logRatio); }
  _slope(s) { return this.logRatio; }
  _inverse(sigma) { return Math.log(sigma / this.sigmaMin) / this.logRatio; }
  time(sigma) {
    if (sigma === this.sigmaMax) return 0;
    return sigma === 0 ? this.clean : sigma === this.sigmaMin ? 1 : 1 - this._inverse(sigma);
  }
}

export class VP extends Schedule {
  constructor(betaMin = 0.1, betaMax = 20, sigmaMin = 0.002) {
    super(sigmaMin, 0);
    this.betaMin = betaMin;
    this.betaMax = betaMax;
    this.sigmaMax = this._sigma(1);
  }
  _b(s) { return this.betaMin + (this.betaMax - this.betaMin) * s; }
  _B(s) { return this.betaMin * s + 0.5 * (this.betaMax - this.betaMin) * s * s; }
  _sOfB(B) { return (2 * B) / (this.betaMin + Math.sqrt(this.betaMin ** 2 + 2 * (this.betaMax - this.betaMin) * B)); }
  _sigma(s) { return Math.sqrt(Math.expm1(this._B(s))); }
  _scale(s) { return Math.exp(-0.5 * this._B(s)); }
  _slope(s) { return (-0.5 * this._b(s)) / Math.expm1(-this._B(s)); }
  _scaleSlope(s) { return -0.5 * this._b(s); }
  _inverse(sigma) { return this._sOfB(Math.log1p(sigma * sigma)); }
}

export class SubVP extends VP {
  _sigma(s) { return 2 * Math.sinh(0.5 * this._B(s)); }
  _slope(s) { return (0.5 * this._b(s)) / Math.tanh(0.5 * this._B(s)); }
  _inverse(sigma) { return this._sOfB(2 * Math.asinh(0.5 * sigma)); }
}

export class Cosine extends Schedule {
  constructor(sigmaMin = 0.002, sigmaMax = 500) { super(sigmaMin, sigmaMax); }
  _sigma(s) { return Math.tan(0.5 * Math.PI * s); }
  _scale(s) { return Math.cos(0.5 * Math.PI * s); }
  _slope(s) { return Math.PI / Math.sin(Math.PI * s); }
  _scaleSlope(s) { return -0.5 * Math.PI * Math.tan(0.5 * Math.PI * s); }
  _inverse(sigma) { return Math.atan(sigma) * (2 / Math.PI); }
}

export class RectifiedFlow extends Schedule {
  constructor(sigmaMin = 0.002, sigmaMax = 500) { super(sigmaMin, sigmaMax); }
  _sigma(s) { return s / (1 - s); }
  _scale(s) { return 1 - s; }
  _slope(s) { return 1 / (s * (1 - s)); }
  _scaleSlope(s) { return -1 / (1 - s); }
  _inverse(sigma) { return sigma / (1 + sigma); }
}

export class Levels {
  constructor(sigmas, steps = 5) {
    this.sigmas = sigmas;
    this.steps = steps;
    this.sigmaMax = sigmas[0];
    this.sigmaMin = sigmas[sigmas.length - 1];
  }
  get horizon() { return this.sigmas.length * this.steps; }
  get clean() { return this.horizon + 1; }
  sigma(t) {
    if (t >= this.clean) return 0;
    return this.sigmas[Math.min(Math.max(Math.floor(t / this.steps), 0), this.sigmas.length - 1)];
  }
  scale(t) { return 1; }
  rate(t) { return 0; }
  lam2(t) { return 0; }
}

export const SCHEDULES = { EDM, VE, VP, SubVP, Cosine, RectifiedFlow };

// -- laws: mixtures of k Gaussians of the plane ------------------------------------------------------------------------
export class Mixture {
  // means (2k), covariances (3k) as (xx, xy, yy), weights (k) that need not sum to one
  constructor(means, covariances, weights = null) {
    const k = means.length / 2;
    this.k = k;
    this.means = Float64Array.from(means);
    this.cov = Float64Array.from(covariances);
    const w = weights ? Float64Array.from(weights) : new Float64Array(k).fill(1);
    const total = w.reduce((a, b) => a + b, 0);
    this.weights = w.map((v) => v / total);
    this.isotropic = true;
    this.inverse = new Float64Array(3 * k);
    this.logNorm = new Float64Array(k); // log of weight over 2 pi sqrt(det)
    for (let j = 0; j < k; j++) {
      const [a, b, c] = this.cov.subarray(3 * j, 3 * j + 3);
      const det = a * c - b * b;
      this.inverse.set([c / det, -b / det, a / det], 3 * j);
      this.logNorm[j] = Math.log(this.weights[j]) - Math.log(2 * Math.PI) - 0.5 * Math.log(det);
      if (b !== 0 || a !== c) this.isotropic = false;
    }
  }

  static isotropic(means, std, weights = null) {
    const k = means.length / 2;
    const cov = new Float64Array(3 * k);
    for (let j = 0; j < k; j++) {
      const s = typeof std === "number" ? std : std[j];
      cov[3 * j] = cov[3 * j + 2] = s * s;
    }
    return new Mixture(means, cov, weights);
  }

  // the law of scale (Y + sigma eps)
  noised(scale, sigma) {
    const cov = this.cov.map((v, i) => scale * scale * (v + (i % 3 === 1 ? 0 : sigma * sigma)));
    return new Mixture(this.means.map((m) => scale * m), cov, this.weights);
  }

  get mean() {
    let x = 0, y = 0;
    for (let j = 0; j < this.k; j++) { x += this.weights[j] * this.means[2 * j]; y += this.weights[j] * this.means[2 * j + 1]; }
    return [x, y];
  }

  // largest principal standard deviation
  get spread() {
    const [mx, my] = this.mean;
    let a = 0, b = 0, c = 0;
    for (let j = 0; j < this.k; j++) {
      const w = this.weights[j], x = this.means[2 * j] - mx, y = this.means[2 * j + 1] - my;
      a += w * (x * x + this.cov[3 * j]); b += w * (x * y + this.cov[3 * j + 1]); c += w * (y * y + this.cov[3 * j + 2]);
    }
    return Math.sqrt(0.5 * (a + c) + Math.sqrt((0.5 * (a - c)) ** 2 + b * b));
  }

  // smallest principal standard deviation of any component
  get narrowest() {
    let least = Infinity;
    for (let j = 0; j < this.k; j++) {
      const [a, b, c] = this.cov.subarray(3 * j, 3 * j + 3);
      least = Math.min(least, 0.5 * (a + c) - Math.sqrt((0.5 * (a - c)) ** 2 + b * b));
    }
    return Math.sqrt(least);
  }

  // log density (n) and its gradient (2n), of one pass; `logs` may be null
  evaluate(x, grad, logs = null) {
    const { k, means, inverse, logNorm } = this;
    const n = x.length / 2;
    const q = new Float64Array(k);
    if (this.isotropic) return this.evaluateIsotropic(x, grad, logs, q);
    for (let i = 0; i < n; i++) {
      const px = x[2 * i], py = x[2 * i + 1];
      let top = -Infinity;
      for (let j = 0; j < k; j++) {
        const dx = px - means[2 * j], dy = py - means[2 * j + 1];
        const v = logNorm[j] - 0.5 * (inverse[3 * j] * dx * dx + 2 * inverse[3 * j + 1] * dx * dy + inverse[3 * j + 2] * dy * dy);
        q[j] = v;
        if (v > top) top = v;
      }
      let total = 0, gx = 0, gy = 0;
      for (let j = 0; j < k; j++) {
        const e = q[j] - top;
        if (e < -30) continue; // 1e-13 of the largest
        const r = Math.exp(e);
        const dx = px - means[2 * j], dy = py - means[2 * j + 1];
        total += r;
        gx -= r * (inverse[3 * j] * dx + inverse[3 * j + 1] * dy);
        gy -= r * (inverse[3 * j + 1] * dx + inverse[3 * j + 2] * dy);
      }
      grad[2 * i] = gx / total;
      grad[2 * i + 1] = gy / total;
      if (logs) logs[i] = top + Math.log(total);
    }
    return grad;
  }

  // the same where every component is round: what the page does most
  evaluateIsotropic(x, grad, logs, q) {
    const { k, logNorm, inverse } = this, mx = new Float64Array(k), my = new Float64Array(k), rate = new Float64Array(k);
    for (let j = 0; j < k; j++) { mx[j] = this.means[2 * j]; my[j] = this.means[2 * j + 1]; rate[j] = inverse[3 * j]; }
    for (let i = 0; i < x.length / 2; i++) {
      const px = x[2 * i], py = x[2 * i + 1];
      let top = -Infinity;
      for (let j = 0; j < k; j++) {
        const dx = px - mx[j], dy = py - my[j], v = logNorm[j] - 0.5 * rate[j] * (dx * dx + dy * dy);
        q[j] = v;
        if (v > top) top = v;
      }
      let total = 0, gx = 0, gy = 0;
      const least = top - 30;
      for (let j = 0; j < k; j++) {
        if (q[j] < least) continue;
        const r = Math.exp(q[j] - top), pull = r * rate[j];
        total += r;
        gx += pull * (mx[j] - px);
        gy += pull * (my[j] - py);
      }
      grad[2 * i] = gx / total;
      grad[2 * i + 1] = gy / total;
      if (logs) logs[i] = top + Math.log(total);
    }
    return grad;
  }

  score(x, out = new Float64Array(x.length)) { return this.evaluate(x, out); }

  logProb(x) {
    const logs = new Float64Array(x.length / 2);
    this.evaluate(x, new Float64Array(x.length), logs);
    return logs;
  }

  // n draws by a generator of uniform numbers
  sample(n, random) {
    const out = new Float64Array(2 * n);
    const edges = [];
    this.weights.reduce((sum, w, j) => (edges[j] = sum + w), 0);
    for (let i = 0; i < n; i++) {
      const u = random.uniform();
      let lo = 0, hi = this.k - 1;
      while (lo < hi) { const mid = (lo + hi) >> 1; if (edges[mid] <= u) lo = mid + 1; else hi = mid; }
      const [a, b, c] = this.cov.subarray(3 * lo, 3 * lo + 3);
      const l11 = Math.sqrt(a), l21 = b / l11, l22 = Math.sqrt(Math.max(0, c - l21 * l21));
      const e1 = random.normal(), e2 = random.normal();
      out[2 * i] = this.means[2 * lo] + l11 * e1;
      out[2 * i + 1] = this.means[2 * lo + 1] + l21 * e1 + l22 * e2;
    }
    return out;
  }
}

// -- the particles' own law, by kernels of width h ---------------------------------------------------------------------
// log p_h (n) and its gradient (2n) at the points `at`: p_h(x) = 1/n sum_i N(x; x_i, h^2 I). Kernels are left out beyond
// `reach` widths, where they weigh less than e^(-reach^2/2) of their peak, except for a point that has no other.
export function kernelDensity(at, cloud, h, grad, logs = null, reach = 6) {
  const n = cloud.length / 2, m = at.length / 2, side = reach * h;
  const cells = new Map();
  const key = (i, j) => i * 67108864 + j;
  const cell = (v) => Math.floor(v / side);
  for (let i = 0; i < n; i++) {
    const id = key(cell(cloud[2 * i]), cell(cloud[2 * i + 1]));
    const list = cells.get(id);
    if (list) list.push(i); else cells.set(id, [i]);
  }
  const half = 0.5 / (h * h), far = side * side;
  const base = -Math.log(n) - Math.log(2 * Math.PI * h * h);
  for (let i = 0; i < m; i++) {
    const x = at[2 * i], y = at[2 * i + 1], cx = cell(x), cy = cell(y);
    let total = 0, mx = 0, my = 0;
    for (let a = cx - 1; a <= cx + 1; a++) {
      for (let b = cy - 1; b <= cy + 1; b++) {
        const list = cells.get(key(a, b));
        if (!list) continue;
        for (let l = 0; l < list.length; l++) {
          const j = list[l], dx = cloud[2 * j] - x, dy = cloud[2 * j + 1] - y, d2 = dx * dx + dy * dy;
          if (d2 > far) continue;
          const w = Math.exp(-half * d2);
          total += w; mx += w * dx; my += w * dy;
        }
      }
    }
    if (total > 0) {
      grad[2 * i] = mx / total / (h * h);
      grad[2 * i + 1] = my / total / (h * h);
      if (logs) logs[i] = Math.log(total) + base;
      continue;
    }
    let near = Infinity; // a point away from the cloud: its nearest particle decides
    for (let j = 0; j < n; j++) {
      const dx = cloud[2 * j] - x, dy = cloud[2 * j + 1] - y, d2 = dx * dx + dy * dy;
      if (d2 < near) { near = d2; mx = dx; my = dy; }
    }
    grad[2 * i] = mx / (h * h);
    grad[2 * i + 1] = my / (h * h);
    if (logs) logs[i] = -half * near + base;
  }
  return grad;
}

// -- the equation ------------------------------------------------------------------------------------------------------
// beta, g2, lam2: functions of t; `speed` (a function of the logit) takes the place of beta where it is given.
export class DiffFlow {
  constructor({ schedule = null, drifts = false, beta = () => 0, g2 = () => 0, lam2 = () => 0, speed = null, horizon = 1 }) {
    Object.assign(this, { schedule, drifts, beta, g2, lam2, speed, horizon });
  }

  // what multiplies dW, N(0, dt I)
  noise(t) {
    const g2 = this.g2(t), lam2 = this.lam2(t), c2 = g2 - lam2;
    if (Math.abs(c2) <= NEGLIGIBLE * (Math.abs(g2) + Math.abs(lam2))) return 0;
    if (c2 < 0) throw new RangeError(`g2 - lam2 = ${c2} < 0 at t=${t}: raise g2 to at least lam2`);
    return Math.sqrt(c2);
  }

  // the weight of x itself, of grad log r/p (null where it depends on the logit) and of grad log r
  weights(t) {
    const score = 0.5 * this.g2(t), rate = this.drifts ? this.schedule.rate(t) : 0;
    if (this.speed) return { rate, ratio: null, score };
    const beta = this.beta(t), w = beta - score;
    return { rate, ratio: Math.abs(w) <= NEGLIGIBLE * Math.max(Math.abs(beta), Math.abs(score)) ? 0 : w, score };
  }

  needs(t) {
    const { ratio, score } = this.weights(t);
    return { score: score !== 0, ratio: ratio !== 0 };
  }

  // fields.score(x, t) -> (2n); fields.ratio(x, t) -> { logit (n), grad (2n) }. `parts` may receive each term.
  drift(x, t, fields, parts = null) {
    const { rate, ratio, score } = this.weights(t), n2 = x.length;
    const out = new Float64Array(n2);
    const add = (name, term) => {
      for (let i = 0; i < n2; i++) out[i] += term(i);
      if (parts) parts[name] = Float64Array.from({ length: n2 }, (_, i) => term(i));
    };
    if (rate !== 0) add("f", (i) => rate * x[i]);
    if (ratio !== 0) {
      const { logit, grad } = fields.ratio(x, t);
      add("ratio", ratio === null ? (i) => (this.speed(logit[i >> 1]) - score) * grad[i] : (i) => ratio * grad[i]);
    }
    if (score !== 0) {
      const s = fields.score(x, t);
      add("score", (i) => score * s[i]);
    }
    return out;
  }
}

// -- the spectrum ------------------------------------------------------------------------------------------------------
const dial = (v) => (typeof v === "function" ? v : () => v);

// the noise-schedule family: g2 = (1 + churn) lam2, beta = g2/2 + gan lam2/2
export function at(schedule, { gan = 0, churn = 0 } = {}) {
  const z = dial(churn), k = dial(gan), lam2 = (t) => schedule.lam2(t);
  const g2 = (t) => (1 + z(t)) * lam2(t);
  const beta = (t) => 0.5 * g2(t) + 0.5 * k(t) * lam2(t);
  return new DiffFlow({ schedule, drifts: true, beta, g2, lam2, horizon: schedule.horizon });
}

export const probabilityFlow = (schedule) => at(schedule);
export const reverseSDE = (schedule, churn = 1) => at(schedule, { churn });
export const edmChurn = (schedule, rate) =>
  at(schedule, { churn: (t) => rate / (schedule.lam2(t) / (2 * (schedule.scale(t) * schedule.sigma(t)) ** 2)) });
export const slcd = (schedule, g2) =>
  new DiffFlow({ schedule, drifts: true, beta: (t) => 0.5 * g2(t), g2, lam2: (t) => schedule.lam2(t), horizon: schedule.horizon });
export const diffusionGAN = (schedule, { gan = 1, churn = 1 } = {}) => at(schedule, { gan, churn });

// a fixed target: churn 0 is the GAN's flow, 1 is Langevin dynamics
export const fixed = ({ churn, beta = 1, horizon = 1 }) =>
  new DiffFlow({ beta: () => beta, g2: () => 2 * churn * beta, horizon });
export const langevin = ({ beta = 1, horizon = 20 } = {}) => fixed({ churn: 1, beta, horizon });
export const ganFlow = ({ beta = 1, speed = null, horizon = 1 } = {}) => new DiffFlow({ beta: () => beta, speed, horizon });
export const discriminatorFlow = (speed, eta = 1) => ganFlow({ speed: (d) => eta * speed(d) });
export const improvedGAN = (schedule, beta = 1) => new DiffFlow({ schedule, beta: () => beta, horizon: schedule.horizon });

export function annealedLangevin(levels, rate = 0.2) {
  const beta = (t) => rate * levels.sigma(t) ** 2;
  return new DiffFlow({ schedule: levels, beta, g2: (t) => 2 * beta(t), horizon: levels.horizon });
}

// the analytic continuation: lam2 < 0 is noise that nothing balances
export const continued = (sde, lam2) =>
  new DiffFlow({ ...sde, lam2: dial(lam2) });

const sigmoid = (d) => 1 / (1 + Math.exp(-d));
export const SPEEDS = {
  kl: () => 1,
  "non-saturating": (d) => sigmoid(-d), // p/(r + p)
  saturating: (d) => sigmoid(d), // r/(r + p)
};

// -- random numbers: one stream per particle, so that equal seeds mean equal noise, whatever the setting ---------------
// The state is hashed from (seed, stream, step), as in noise.py in spirit; the numbers are others.
export class Random {
  constructor(seed, stream = 0) {
    let a = (seed ^ Math.imul(stream + 1, 0x9e3779b9)) >>> 0;
    a = Math.imul(a ^ (a >>> 16), 0x85ebca6b); a = Math.imul(a ^ (a >>> 13), 0xc2b2ae35);
    this.state = (a ^ (a >>> 16)) >>> 0;
    this.spare = null;
  }
  uniform() { // mulberry32
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  normal() { // Box-Muller
    if (this.spare !== null) { const v = this.spare; this.spare = null; return v; }
    const r = Math.sqrt(-2 * Math.log(1 - this.uniform())), a = 2 * Math.PI * this.uniform();
    this.spare = r * Math.sin(a);
    return r * Math.cos(a);
  }
  normals(n) { return Float64Array.from({ length: n }, () => this.normal()); }
}
