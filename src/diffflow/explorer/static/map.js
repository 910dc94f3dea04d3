// The map of models, Figure 1 of the paper as a place to be: across g2/(2 beta), what share of the pull is the data's
// score; upward lam2/beta, how fast the noise of the target falls beside the pull.
//
//     noise schedule, dials churn z and gan k:  g2/(2 beta) = (1+z)/(1+z+k),  lam2/beta = 2/(1+z+k)
//     fixed target, churn w:                    g2/(2 beta) = w,              lam2 = 0
//     continuation:                             lam2/beta = -extra
//
// Left of the line g2 = lam2 there is no real noise, so nothing is there. Where lam2/beta is small and positive, beta is
// large beside the schedule: the map is cut at LEAST, below which a fixed target begins.

import { svg } from "./elements.js";
import { LANDMARKS } from "./landmarks.js";

const LEAST = 0.25;
export const MOST = { gan: 4, churn: 3, extra: 1 };
const clamp = (v, lo, hi) => Math.min(Math.max(v, lo), hi);
const tidy = (v) => Math.round(100 * v) / 100;

export function place(s) {
  if (s.family === "at") {
    const sum = 1 + s.churn + s.gan;
    return { across: (1 + s.churn) / sum, up: 2 / sum };
  }
  if (s.family === "annealed") return { across: 1, up: -s.extra };
  return { across: s.family === "cooled" ? 0 : s.churn, up: -s.extra };
}

// The setting at a point of the map: the nearest one that exists.
export function settingAt({ across, up }, now) {
  if (up > LEAST / 2) {
    const high = clamp(up, LEAST, 2), x = clamp(across, high / 2, 1);
    const churn = tidy(clamp((2 * x) / high - 1, 0, MOST.churn)), gan = tidy(clamp((2 * (1 - x)) / high, 0, MOST.gan));
    return { ...now, family: "at", churn, gan, extra: 0, speed: "kl", start: now.family === "at" ? now.start : "prior" };
  }
  const extra = up < -0.06 ? tidy(clamp(-up, 0, MOST.extra)) : 0;
  const family = now.family === "annealed" && across > 0.97 ? "annealed" : "static";
  return { ...now, family, churn: tidy(clamp(across, 0, 1)), gan: 0, extra };
}

// -- drawing -----------------------------------------------------------------------------------------------------------
const PAD = { left: 44, right: 96, top: 16, bottom: 36 }, WIDTH = 340, HEIGHT = 300, LOW = -1.08, HIGH = 2.05;
const px = (x) => PAD.left + x * (WIDTH - PAD.left - PAD.right);
const py = (y) => PAD.top + ((HIGH - y) / (HIGH - LOW)) * (HEIGHT - PAD.top - PAD.bottom);
const unx = (v) => (v - PAD.left) / (WIDTH - PAD.left - PAD.right);
const uny = (v) => HIGH - ((v - PAD.top) / (HEIGHT - PAD.top - PAD.bottom)) * (HIGH - LOW);

const element = (parent, ...what) => {
  const e = svg(...what);
  parent.append(e);
  return e;
};

export class SpectrumMap {
  // onMove(setting change as a function of the setting now)
  constructor(parent, onMove) {
    parent.replaceChildren();
    const points = (list) => list.map(([x, y]) => `${px(x)},${py(y)}`).join(" ");
    element(parent, "polygon", { points: points([[0, 0], [1, 0], [1, LOW], [0, LOW]]), class: "beyond" });
    element(parent, "polygon", { points: points([[LEAST / 2, LEAST], [1, LEAST], [1, 2]]), class: "region" });
    element(parent, "line", { x1: px(0), y1: py(0), x2: px(1), y2: py(0), class: "fixed" });
    element(parent, "line", { x1: px(0), y1: py(0), x2: px(1), y2: py(2), class: "edge" });
    element(parent, "text", { x: px(0.18), y: py(1.32), class: "note", "text-anchor": "middle" }, "no real noise:");
    element(parent, "text", { x: px(0.18), y: py(1.32) + 13, class: "note", "text-anchor": "middle" }, "g² < λ²");
    element(parent, "text", { x: px(0.5), y: py(-0.88), class: "note", "text-anchor": "middle" }, "λ² < 0: continuation");
    element(parent, "text", { x: px(0.5), y: HEIGHT - 6, class: "axis", "text-anchor": "middle" }, "discriminator  ←  g² / 2β  →  score");
    element(parent, "text", { x: 0, y: 0, class: "axis", "text-anchor": "middle", transform: `translate(13 ${py(0.75)}) rotate(-90)` }, "λ² / β");
    for (const v of [0, 1, 2]) element(parent, "text", { x: PAD.left - 10, y: py(v) + 4, class: "tick", "text-anchor": "end" }, String(v));
    this.marks = LANDMARKS.map((mark) => {
      const { across, up } = place({ extra: 0, gan: 0, churn: 0, ...mark.set }), [dx, dy, anchor] = mark.label;
      const g = element(parent, "g", { class: "mark", "data-name": mark.name, role: "button", tabindex: "0", "aria-label": mark.title });
      const inner = mark.set.family === "annealed" || mark.set.family === "cooled";
      element(g, "circle", { cx: px(across), cy: py(up), r: inner ? 0 : 3.5 });
      element(g, "text", { x: px(across) + dx, y: py(up) + dy, "text-anchor": anchor }, mark.title);
      return g;
    });
    this.puck = element(parent, "circle", { r: 9, class: "puck" });
    this.ghost = element(parent, "circle", { r: 7, class: "ghost", visibility: "hidden" });
    const at = (event) => {
      const box = parent.getBoundingClientRect(), scale = Math.max(WIDTH / box.width, HEIGHT / box.height);
      const left = (box.width - WIDTH / scale) / 2, top = (box.height - HEIGHT / scale) / 2;
      return { across: unx((event.clientX - box.left - left) * scale), up: uny((event.clientY - box.top - top) * scale) };
    };
    let held = null; // where the pointer went down: a model that is clicked is chosen, and left when it is dragged
    parent.addEventListener("pointerdown", (event) => {
      if (event.isTrusted) parent.setPointerCapture(event.pointerId);
      held = [event.clientX, event.clientY];
      const mark = LANDMARKS[this.marks.indexOf(event.target.closest(".mark"))];
      onMove((now) => (mark ? { ...now, ...mark.set } : settingAt(at(event), now)));
    });
    parent.addEventListener("pointermove", (event) => {
      if (!parent.hasPointerCapture(event.pointerId)) return;
      if (held && Math.hypot(event.clientX - held[0], event.clientY - held[1]) < 5) return;
      held = null;
      onMove((now) => settingAt(at(event), now));
    });
    parent.addEventListener("keydown", (event) => {
      const mark = LANDMARKS[this.marks.indexOf(event.target.closest(".mark"))];
      if (mark && (event.key === "Enter" || event.key === " ")) {
        event.preventDefault();
        return onMove((now) => ({ ...now, ...mark.set }));
      }
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!way) return undefined;
      event.preventDefault();
      const size = event.shiftKey ? 0.2 : 0.05;
      return onMove((now) => {
        const here = place(now), across = here.across + size * way[0];
        let up = here.up + 2 * size * way[1];
        if (here.up === 0 && way[1] > 0) up = LEAST; // over the gap between the two families
        if (here.up > 0 && up < LEAST && way[1] < 0) up = 0;
        if (here.up === 0 && way[1] < 0) up = -0.1;
        const there = settingAt({ across, up }, now), place_ = place(there);
        const stuck = here.up > 0 && way[1] < 0 && Math.hypot(place_.across - here.across, place_.up - here.up) < 1e-6;
        return stuck ? settingAt({ across, up: 0 }, now) : there; // the dials end above the gap between the families
      });
    });
  }

  show(setting, other = null) {
    const set = (circle, s) => {
      const { across, up } = place(s);
      circle.setAttribute("cx", px(across));
      circle.setAttribute("cy", py(up));
    };
    set(this.puck, setting);
    this.ghost.setAttribute("visibility", other ? "visible" : "hidden");
    if (other) set(this.ghost, other);
    const here = place(setting);
    this.marks.forEach((g, i) => {
      const mark = LANDMARKS[i], there = place({ extra: 0, gan: 0, churn: 0, ...mark.set });
      const same = mark.set.family === setting.family && Math.hypot(here.across - there.across, here.up - there.up) < 0.02;
      g.classList.toggle("here", same);
    });
  }
}
