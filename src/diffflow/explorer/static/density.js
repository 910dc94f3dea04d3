// The density of a cloud and its gradient by kernels of width h, in time that grows with the number of particles and not
// with its square: particles are spread over the corners of their grid cells, the grid is convolved along its two axes,
// and read between its corners. Spreading and reading each blur by d^2/6 a direction (d the spacing), which the kernel's
// own h^2 gives up in advance. kernelDensity (equation.js) is the exact sum; tests compare the two.
import { kernelDensity } from "./equation.js";

const FINE = 4; // cells per h
const REACH = 4.5; // widths of a kernel
const LARGEST = 220; // cells along the longer side

export function binnedDensity(at, cloud, h, grad, logs = null) {
  const n = cloud.length / 2, m = at.length / 2;
  let x0 = Infinity, x1 = -Infinity, y0 = Infinity, y1 = -Infinity;
  for (let i = 0; i < n; i++) {
    const x = cloud[2 * i], y = cloud[2 * i + 1];
    if (x < x0) x0 = x;
    if (x > x1) x1 = x;
    if (y < y0) y0 = y;
    if (y > y1) y1 = y;
  }
  const pad = (REACH + 1) * h, d = Math.max(h / FINE, (Math.max(x1 - x0, y1 - y0) + 2 * pad) / LARGEST);
  if (d > 0.7 * h || n < 400) return kernelDensity(at, cloud, h, grad, logs); // too wide a cloud for such a kernel, or a small one
  x0 -= pad;
  y0 -= pad;
  const w = Math.ceil((x1 + pad - x0) / d) + 2, v = Math.ceil((y1 + pad - y0) / d) + 2;
  const mass = new Float64Array(w * v);
  for (let i = 0; i < n; i++) {
    const a = (cloud[2 * i] - x0) / d, b = (cloud[2 * i + 1] - y0) / d, ia = Math.floor(a), ib = Math.floor(b), fa = a - ia, fb = b - ib, k = ib * w + ia;
    mass[k] += (1 - fa) * (1 - fb);
    mass[k + 1] += fa * (1 - fb);
    mass[k + w] += (1 - fa) * fb;
    mass[k + w + 1] += fa * fb;
  }
  const h2 = h * h - (d * d) / 3, r = Math.ceil((REACH * h) / d), kernel = new Float64Array(2 * r + 1), slope = new Float64Array(2 * r + 1);
  for (let j = -r; j <= r; j++) {
    kernel[j + r] = Math.exp((-0.5 * (j * d) ** 2) / h2);
    slope[j + r] = ((-j * d) / h2) * kernel[j + r];
  }
  const rows = along(mass, w, v, kernel, r, 1, w), tilted = along(mass, w, v, slope, r, 1, w);
  const p = along(rows, v, w, kernel, r, w, 1), gx = along(tilted, v, w, kernel, r, w, 1), gy = along(rows, v, w, slope, r, w, 1);
  const base = -Math.log(n * 2 * Math.PI * h2), lost = [];
  for (let i = 0; i < m; i++) {
    const a = (at[2 * i] - x0) / d, b = (at[2 * i + 1] - y0) / d, ia = Math.floor(a), ib = Math.floor(b);
    if (!(ia >= 0 && ib >= 0 && ia < w - 1 && ib < v - 1)) { lost.push(i); continue; }
    const fa = a - ia, fb = b - ib, k = ib * w + ia, w00 = (1 - fa) * (1 - fb), w10 = fa * (1 - fb), w01 = (1 - fa) * fb, w11 = fa * fb;
    const here = w00 * p[k] + w10 * p[k + 1] + w01 * p[k + w] + w11 * p[k + w + 1];
    if (here < 1e-3) { lost.push(i); continue; } // of one particle's peak: the grid's rounding would count
    grad[2 * i] = (w00 * gx[k] + w10 * gx[k + 1] + w01 * gx[k + w] + w11 * gx[k + w + 1]) / here;
    grad[2 * i + 1] = (w00 * gy[k] + w10 * gy[k + 1] + w01 * gy[k + w] + w11 * gy[k + w + 1]) / here;
    if (logs) logs[i] = Math.log(here) + base;
  }
  if (lost.length) {
    const few = new Float64Array(2 * lost.length), g = new Float64Array(few.length), l = new Float64Array(lost.length);
    lost.forEach((i, j) => { few[2 * j] = at[2 * i]; few[2 * j + 1] = at[2 * i + 1]; });
    kernelDensity(few, cloud, h, g, l);
    lost.forEach((i, j) => { grad[2 * i] = g[2 * j]; grad[2 * i + 1] = g[2 * j + 1]; if (logs) logs[i] = l[j]; });
  }
  return grad;
}

// Every line of a grid convolved: `lines` lines of `length` numbers, `step` apart within a line, `next` between lines.
function along(field, length, lines, kernel, r, step, next) {
  const out = new Float64Array(field.length);
  for (let line = 0; line < lines; line++) {
    const start = line * next;
    for (let i = 0; i < length; i++) {
      const value = field[start + i * step];
      if (value === 0) continue; // most of a grid is empty before it is blurred
      const lo = Math.max(0, i - r), hi = Math.min(length - 1, i + r);
      for (let j = lo; j <= hi; j++) out[start + j * step] += value * kernel[j - i + r];
    }
  }
  return out;
}
