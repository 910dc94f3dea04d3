// Draws a cloud, its target and what moves a particle, on a canvas. The camera shows y = x / scale, shrunk while noise is
// large, so that the data always has the same size at the end.

export class View {
  constructor(canvas, colours) {
    this.canvas = canvas;
    this.colours = colours;
    this.looks = { trails: true, contours: true, cloud: false };
    this.target = null;
    this.frame = null;
    this.past = [];
    this.arrows = null;
    this.board = null; // (ink, side): what is drawn instead of particles
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  resize() {
    const { canvas } = this, box = canvas.getBoundingClientRect(), ratio = Math.min(window.devicePixelRatio || 1, 2);
    const side = Math.max(40, Math.round(box.width * ratio));
    if (canvas.width !== side) {
      canvas.width = canvas.height = side;
      this.ratio = ratio;
      this.drawTarget();
      this.draw();
    }
  }

  // What is drawn behind: the target's log density on a grid.
  setTarget({ density, cells, centre, reach, half, spread }) {
    this.target = { density, cells, centre, reach, half, spread };
    this.past = [];
    this.arrows = this.frame = null;
    this.drawTarget();
  }

  drawTarget() {
    if (!this.target) return;
    const { density, cells } = this.target, small = new OffscreenCanvas(cells, cells), ink = small.getContext("2d");
    const image = ink.createImageData(cells, cells), top = density.reduce((a, b) => Math.max(a, b), -Infinity);
    const [r, g, b] = this.colours().target;
    for (let i = 0; i < cells * cells; i++) {
      const row = cells - 1 - Math.floor(i / cells), at = 4 * (row * cells + (i % cells));
      image.data.set([r, g, b, 150 * Math.max(0, Math.min(1, 1 + (density[i] - top) / 5))], at);
    }
    ink.putImageData(image, 0, 0);
    this.backdrop = small;
  }

  // Data units to pixels, at the present camera.
  get camera() {
    const { centre, half, spread } = this.target, { scale = 1, sigma = 0 } = this.frame ?? {};
    const grow = Math.hypot(spread, sigma) / spread; // 1 at the end
    const size = this.canvas.width / (2 * half * grow);
    return { centre, size, scale, middle: this.canvas.width / 2 };
  }

  toPixel(x, y) {
    const { centre, size, scale, middle } = this.camera;
    return [middle + (x / scale - centre[0]) * size, middle - (y / scale - centre[1]) * size];
  }

  toPoint(px, py) {
    const { centre, size, scale, middle } = this.camera;
    return [scale * (centre[0] + (px - middle) / size), scale * (centre[1] - (py - middle) / size)];
  }

  // A frame of the worker: positions x (2n), t, sigma, scale and the step k.
  show(frame, k) {
    if (k !== this.k) {
      const on = this.frame && k > this.k && k <= this.k + 16; // further on, and not by a leap
      this.past = on ? [...this.past, this.frame].slice(-14) : [];
      this.arrows = null;
    }
    this.frame = frame;
    this.k = k;
    this.draw();
  }

  draw() {
    const { canvas, frame } = this, ink = canvas.getContext("2d"), colours = this.colours(), side = canvas.width;
    if (!this.board && !(frame && this.target)) return undefined;
    ink.fillStyle = colours.ground;
    ink.fillRect(0, 0, side, side);
    if (this.board) return this.board(ink, side);
    const camera = this.camera;
    if (this.looks.contours && this.backdrop) {
      const { centre, reach } = this.target, size = 2 * reach * camera.size;
      ink.imageSmoothingEnabled = true;
      ink.imageSmoothingQuality = "high";
      ink.drawImage(this.backdrop, camera.middle - size / 2, camera.middle - size / 2, size, size);
    }
    const { x } = frame, n = x.length / 2, dot = Math.max(1.5, side / 300), { size, scale, middle } = camera;
    const gain = size / scale, ox = middle - camera.centre[0] * size, oy = middle + camera.centre[1] * size;
    if (this.looks.trails && this.past.length > 1) {
      ink.strokeStyle = colours.trail;
      ink.lineWidth = Math.max(1, side / 700);
      ink.beginPath();
      const every = Math.max(1, Math.floor(n / 160));
      for (let i = 0; i < n; i += every) {
        this.past.forEach((f, j) => {
          const px = ox + (f.x[2 * i] / f.scale) * size, py = oy - (f.x[2 * i + 1] / f.scale) * size;
          if (j) ink.lineTo(px, py); else ink.moveTo(px, py);
        });
        ink.lineTo(ox + x[2 * i] * gain, oy - x[2 * i + 1] * gain);
      }
      ink.stroke();
    }
    if (this.looks.cloud) this.drawCloud(ink, ox, oy, gain);
    ink.fillStyle = colours.particle;
    for (let i = 0; i < n; i++) ink.fillRect(ox + x[2 * i] * gain - dot / 2, oy - x[2 * i + 1] * gain - dot / 2, dot, dot);
    if (this.arrows) this.drawArrows(ink);
    return undefined;
  }

  // The particles' own density, counted on a grid and smoothed.
  drawCloud(ink, ox, oy, gain) {
    const cells = 40, side = this.canvas.width, counts = new Float64Array(cells * cells), { x } = this.frame;
    for (let i = 0; i < x.length / 2; i++) {
      const a = Math.floor(((ox + x[2 * i] * gain) / side) * cells), b = Math.floor(((oy - x[2 * i + 1] * gain) / side) * cells);
      if (a >= 0 && b >= 0 && a < cells && b < cells) counts[b * cells + a] += 1;
    }
    const smooth = (from, step) => from.map((v, i) => {
      const place = step === 1 ? i % cells : Math.floor(i / cells);
      return 0.5 * v + 0.25 * ((place > 0 ? from[i - step] : 0) + (place < cells - 1 ? from[i + step] : 0));
    });
    const field = smooth(smooth(smooth(smooth(counts, 1), cells), 1), cells), top = Math.max(...field) || 1;
    ink.strokeStyle = this.colours().cloud;
    ink.lineWidth = Math.max(1, side / 500);
    ink.beginPath();
    for (const level of [0.08, 0.25, 0.5, 0.75]) contour(ink, field, cells, level * top, side / cells);
    ink.stroke();
  }

  // arrows: { x, parts: { name: [dx, dy] }, total, noise }, one length for the longest
  drawArrows(ink) {
    const { x, parts, total, noise } = this.arrows, [px, py] = this.toPixel(...x), colours = this.colours();
    const longest = Math.max(1e-9, Math.hypot(...total), ...Object.values(parts).map((v) => Math.hypot(...v)));
    const length = (0.22 * this.canvas.width) / longest;
    for (const [name, v] of [...Object.entries(parts), ["total", total]]) {
      arrow(ink, px, py, px + v[0] * length, py - v[1] * length, colours[name], name === "total" ? 2 : 3.5);
    }
    if (noise > 0) {
      ink.strokeStyle = colours.noise;
      ink.setLineDash([4, 4]);
      ink.lineWidth = 2;
      ink.beginPath();
      ink.arc(px, py, 0.07 * this.canvas.width, 0, 2 * Math.PI);
      ink.stroke();
      ink.setLineDash([]);
    }
    ink.fillStyle = colours.total;
    ink.beginPath();
    ink.arc(px, py, 4, 0, 2 * Math.PI);
    ink.fill();
  }
}

function arrow(ink, x0, y0, x1, y1, colour, width) {
  const angle = Math.atan2(y1 - y0, x1 - x0), head = 4 + 2 * width;
  if (Math.hypot(x1 - x0, y1 - y0) < 3) return;
  ink.strokeStyle = ink.fillStyle = colour;
  ink.lineWidth = width;
  ink.beginPath();
  ink.moveTo(x0, y0);
  ink.lineTo(x1 - 0.7 * head * Math.cos(angle), y1 - 0.7 * head * Math.sin(angle));
  ink.stroke();
  ink.beginPath();
  ink.moveTo(x1, y1);
  for (const turn of [2.6, -2.6]) ink.lineTo(x1 + head * Math.cos(angle + turn), y1 + head * Math.sin(angle + turn));
  ink.fill();
}

// Marching squares: the line where a field (cells x cells, one value per cell's middle) passes a level.
function contour(ink, field, cells, level, size) {
  const at = (i, j) => field[i * cells + j] - level, middle = (v) => (v + 0.5) * size;
  for (let i = 0; i < cells - 1; i++) {
    for (let j = 0; j < cells - 1; j++) {
      const corners = [at(i, j), at(i, j + 1), at(i + 1, j + 1), at(i + 1, j)];
      const places = [[j, i], [j + 1, i], [j + 1, i + 1], [j, i + 1]], ends = [];
      for (let e = 0; e < 4; e++) {
        const a = corners[e], b = corners[(e + 1) % 4];
        if (a > 0 === b > 0) continue;
        const u = a / (a - b), [ax, ay] = places[e], [bx, by] = places[(e + 1) % 4];
        ends.push([middle(ax + u * (bx - ax)), middle(ay + u * (by - ay))]);
      }
      for (let e = 0; e + 1 < ends.length; e += 2) { ink.moveTo(...ends[e]); ink.lineTo(...ends[e + 1]); }
    }
  }
}
