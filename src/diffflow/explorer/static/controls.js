// The dials under the map, and the map: what sets the setting. `edit` changes the side that is being set, `change` the
// whole state, and `show` brings every control to what the state says.
import { make } from "./elements.js";
import { MOST, SpectrumMap } from "./map.js";
import { SCHEDULES } from "./equation.js";
import { TOYS } from "./toys.js";

const NUMBERS = [["particles", 50, 20000], ["steps", 12, 2000], ["seed", 0, 2 ** 31 - 1]];
const SPEEDS = [["kl", "KL: β = 1"], ["non-saturating", "non-saturating"], ["saturating", "saturating"]];
const STARTS = [["prior", "as the target is wide"], ["away", "beside the target"], ["narrow", "a point in its middle"]];

export class Controls {
  // chosen(name): a target is asked for
  constructor(map, parent, { change, edit, chosen }) {
    Object.assign(this, { parent, edit, map: new SpectrumMap(map, edit), sliders: {} });
    const shared = (key) => (value) => change((s) => { for (const side of [s.a, s.b]) if (side) side[key] = value; });
    this.slider("churn", "churn", 0, MOST.churn, "score");
    this.slider("gan", "gan", 0, MOST.gan, "ratio");
    this.slider("extra", "−λ²/β", 0, MOST.extra, "noise");
    this.target = this.choice("target", "target", [...Object.entries(TOYS).map(([k, t]) => [k, t.title]), ["drawn", "drawn by you"]], chosen);
    this.schedule = this.choice("schedule", "schedule", Object.keys(SCHEDULES).map((k) => [k, k]), shared("schedule"));
    this.speed = this.choice("speed", "generator's loss", SPEEDS, (speed) => edit({ speed }));
    this.start = this.choice("start", "start", STARTS, (start) => edit({ start }));
    this.slider("wrong", "the score is shifted by", -1.5, 1.5);
    this.numbers = NUMBERS.map(([key, min, max]) => {
      const input = make("input", { type: "number", min, max, id: `number-${key}`, inputMode: "numeric" });
      input.addEventListener("change", () => {
        const value = Math.round(Math.min(Math.max(Number(input.value), min), max));
        if (Number.isFinite(value)) shared(key)(value);
      });
      return { key, input, row: make("label", {}, make("span", { textContent: key }), input) };
    });
    parent.append(make("div", { className: "numbers" }, ...this.numbers.map(({ row }) => row)));
  }

  slider(key, label, min, max, colour = "") {
    const input = make("input", { type: "range", min, max, step: 0.05, id: `dial-${key}` }), value = make("output");
    input.addEventListener("input", () => this.edit({ [key]: Number(input.value) }));
    const row = make("label", { className: `dial ${colour}` }, make("span", { textContent: label }), input, value);
    this.parent.append(row);
    this.sliders[key] = { row, input, value };
  }

  choice(key, label, options, set) {
    const select = make("select", { id: `choose-${key}` }, ...options.map(([value, textContent]) => make("option", { value, textContent })));
    select.addEventListener("change", () => set(select.value));
    const row = make("label", { className: "choice" }, make("span", { textContent: label }), select);
    this.parent.append(row);
    return { row, select };
  }

  // s: the side that is being set; other: the other one, if there is one
  show(s, other, target) {
    this.map.show(s, other);
    this.sliders.churn.input.max = s.family === "at" ? MOST.churn : 1;
    for (const [key, { input, value }] of Object.entries(this.sliders)) {
      input.value = s[key];
      value.textContent = String(Math.round(100 * s[key]) / 100);
    }
    for (const { key, input } of this.numbers) input.value = s[key];
    const scheduled = s.family === "at", gan = s.family === "static" && s.churn === 0;
    const applies = { churn: scheduled || s.family === "static", gan: scheduled, extra: s.family === "static" || s.family === "annealed", wrong: s.family !== "cooled" && !gan };
    for (const [key, yes] of Object.entries(applies)) this.sliders[key].row.hidden = !yes;
    this.schedule.row.hidden = !scheduled;
    this.speed.row.hidden = !gan;
    this.target.select.value = target;
    for (const key of ["schedule", "speed", "start"]) this[key].select.value = s[key];
  }
}
