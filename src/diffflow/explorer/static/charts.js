// Small line charts that grow while the particles move. One measure a chart, one line a side, and a dashed floor.

import { make, svg } from "./elements.js";

const WIDTH = 300, HEIGHT = 92, LEFT = 40, BOTTOM = 16, TOP = 18;

export const MEASURES = [
  { key: "kl", title: "KL(p | r)", unit: "nats", floor: null },
  { key: "fisher", title: "Fisher divergence", unit: "", floor: null },
  { key: "distance", title: "Sliced W₂", unit: "", floor: "floor" },
];

export class Chart {
  constructor(parent, measure) {
    this.measure = measure;
    this.caption = make("figcaption");
    this.svg = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}` });
    this.figure = make("figure", {}, this.caption, this.svg);
    this.figure.dataset.measure = measure.key;
    parent.append(this.figure);
    this.clear();
  }

  clear() { this.lines = [new Map(), new Map()]; this.floors = new Map(); this.at = 0; this.last = 1; this.draw(); }

  add(side, k, values) {
    this.lines[side].set(k, values[this.measure.key]);
    if (this.measure.floor && side === 0) this.floors.set(k, values[this.measure.floor]);
  }

  // The value of a side at step k, or the nearest before it.
  value(side, k = this.at) {
    let best = -1;
    for (const j of this.lines[side].keys()) if (j <= k && j > best) best = j;
    return best < 0 ? null : this.lines[side].get(best);
  }

  draw(at = this.at, last = this.last, sides = 1) {
    this.at = at;
    this.last = last;
    const all = this.lines.slice(0, sides).flatMap((m) => [...m.values()]).concat([...this.floors.values()]).filter((v) => v > 0 && isFinite(v));
    const low = Math.log10(Math.max(1e-4, Math.min(...all, 1))), high = Math.log10(Math.max(...all, 10 ** (low + 1), 1e-3));
    const x = (k) => LEFT + (k / Math.max(1, last)) * (WIDTH - LEFT - 6);
    const y = (v) => TOP + ((high - Math.log10(Math.max(v, 10 ** low))) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    const path = (m) => [...m].sort((a, b) => a[0] - b[0]).map(([k, v], i) => `${i ? "L" : "M"}${x(k).toFixed(1)} ${y(v).toFixed(1)}`).join("");
    const ticks = [];
    for (let d = Math.ceil(low - 0.01); d <= high; d++) ticks.push(d);
    const shown = ticks.length > 4 ? ticks.filter((_, i) => i % 2 === 0) : ticks;
    this.svg.innerHTML =
      shown.map((d) => `<line class="rule" x1="${LEFT}" x2="${WIDTH - 6}" y1="${y(10 ** d)}" y2="${y(10 ** d)}"/><text class="tick" x="${LEFT - 5}" y="${y(10 ** d) + 3.5}" text-anchor="end">${d >= 0 && d < 4 ? 10 ** d : `10<tspan dy="-4" font-size="7">${d}</tspan>`}</text>`).join("") +
      (this.floors.size ? `<path class="floor" d="${path(this.floors)}"/>` : "") +
      this.lines.slice(0, sides).map((m, i) => `<path class="line side${i}" d="${path(m)}"/>`).join("") +
      `<line class="now" x1="${x(at)}" x2="${x(at)}" y1="${TOP}" y2="${HEIGHT - BOTTOM}"/>`;
    const numbers = this.lines.slice(0, sides).map((_, i) => this.value(i, at)).map((v) => (v === null ? "" : short(v)));
    this.caption.innerHTML = `<span>${this.measure.title}</span>` + numbers.map((v, i) => `<b class="side${i}">${v}</b>`).join("") +
      (this.measure.floor ? `<small>dashed: two samples of the target</small>` : "");
  }
}

export const short = (v) => (v === 0 ? "0" : Math.abs(v) >= 99.5 ? v.toFixed(0) : Math.abs(v) >= 0.01 ? v.toPrecision(2) : v.toExponential(0));
