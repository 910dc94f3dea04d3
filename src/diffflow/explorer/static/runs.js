// Real runs, through the server of `diffflow explore`: samples on their way from noise under the dials, the frontier
// (a point shows its samples), the curves of a training while it goes on. Without a server there is no such page.

import { short } from "./charts.js";
import { make, svg } from "./elements.js";

// The token comes with the address that the command has printed, and leaves the address bar at once.
export function token() {
  const words = new URLSearchParams(location.search), given = words.get("token");
  try {
    if (given) {
      sessionStorage.setItem("token", given);
      words.delete("token");
      history.replaceState(null, "", location.pathname + (words.size ? `?${words}` : "") + location.hash);
    }
    return given ?? sessionStorage.getItem("token");
  } catch {
    return given;
  }
}

// Columns of a grid of n pictures: at least as many as rows, and as few holes as that allows.
export function across(n) {
  const most = Math.min(n, Math.ceil(1.6 * Math.sqrt(n) + 1)), least = Math.ceil(Math.sqrt(n)), holes = (c) => Math.ceil(n / c) * c - n;
  let best = most;
  for (let c = most; c >= least; c--) if (holes(c) < holes(best)) best = c;
  return best;
}

export class Runs {
  // parent: where the page goes; remember: called with the words of the address that say what is shown
  constructor(parent, key, remember, said) {
    Object.assign(this, { parent, key, remember, said, name: null, line: null, job: null, moments: null, at: 0 });
    this.list = make("section", { className: "runs" });
    this.main = make("section", { className: "run" });
    parent.replaceChildren(this.list, this.main);
  }

  async ask(path, method = "GET", body = undefined) {
    const answer = await fetch(`/api/${path}`, { method, headers: { "X-Token": this.key, ...(body ? { "Content-Type": "application/json" } : {}) }, body: body && JSON.stringify(body) });
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(found.error ?? `the server says ${answer.status}`);
    return found;
  }

  async open(words) {
    try {
      const { runs, home, path } = await this.ask("runs");
      this.path = path;
      this.list.replaceChildren(make("h2", { textContent: `Runs in ${home}/` }), ...runs.map((line) => this.card(line)));
      if (!runs.length) this.list.append(make("p", { className: "hint", textContent: "None yet: train one, for instance with `diffflow demo`, and come back." }));
      const wanted = runs.find((line) => line.name === words.get("run")) ?? runs.find((line) => !line.problem);
      if (wanted) await this.choose(wanted, words); // tells of its own troubles
    } catch (error) {
      this.list.replaceChildren(make("p", { className: "problem", textContent: String(error.message) }));
    }
  }

  card(line) {
    const text = line.problem ? line.problem : `${line.kind} · ${line.data} · ${line.shape.join("×")}${line.training ? " · training" : ""}`;
    const button = make("button", { className: "card", disabled: Boolean(line.problem) }, make("b", { textContent: line.name }), make("small", { textContent: text }));
    button.dataset.run = line.name;
    button.addEventListener("click", () => this.choose(line, new URLSearchParams()));
    return button;
  }

  async choose(line, words) {
    const chosen = (this.chosen = (this.chosen ?? 0) + 1);
    await this.stop(true);
    let found;
    try {
      found = await this.ask(`runs/${encodeURIComponent(line.name)}`);
      if (found.problem) throw new Error(found.problem);
    } catch (error) {
      if (chosen === this.chosen) this.main.replaceChildren(make("h2", { textContent: line.name }), make("p", { className: "problem", textContent: String(error.message) }));
      return;
    }
    if (chosen !== this.chosen) return; // another one was chosen meanwhile
    this.name = line.name;
    this.line = found;
    this.result = null;
    for (const card of this.list.querySelectorAll(".card")) card.setAttribute("aria-pressed", String(card.dataset.run === line.name));
    this.build(words);
    this.curves();
    this.frontier();
    clearTimeout(this.polling);
    this.poll();
    await this.draw(words.get("plans") !== "false");
  }

  // -- the controls ----------------------------------------------------------------------------------------------------
  build(words) {
    const { dials, classes, players, shape } = this.line, generator = players.includes("generator"), images = shape.length > 1;
    this.inputs = {};
    const field = (key, label, value, low, high, step) => {
      const input = make("input", { type: "number", min: low, max: high, step, value: words.get(key) ?? value, placeholder: value, id: `ask-${key}` });
      input.addEventListener("change", () => this.draw());
      this.inputs[key] = input;
      return make("label", {}, make("span", { textContent: label }), input);
    };
    const fields = [];
    if (classes) {
      const select = make("select", { id: "ask-class" }, make("option", { value: "", textContent: "all in turn" }), ...classes.map((c, i) => make("option", { value: String(i), textContent: c })));
      select.value = words.get("class") ?? "";
      select.addEventListener("change", () => this.draw());
      this.inputs.class = select;
      fields.push(make("label", {}, make("span", { textContent: "class" }), select));
    }
    fields.push(field("n", "samples", images ? 16 : 300, 1, images ? 64 : 1000, 1), field("seed", "seed", 0, 0, 2 ** 31 - 1, 1));
    if (!generator) fields.push(field("steps", "steps", dials.steps, 1, 1000, 1), field("churn", "churn", dials.churn, 0, 100, 0.1));
    if (players.includes("discriminator") && !generator) fields.push(field("gan", "gan", dials.gan, 0, 100, 0.1));
    if (classes && !generator) fields.push(field("guidance", "guidance", dials.guidance, -20, 20, 0.5));
    this.go = make("button", { id: "ask", textContent: "Draw again" });
    this.go.addEventListener("click", () => { this.inputs.seed.value = String(Number(this.inputs.seed.value) + 1); this.draw(); });
    this.cancel = make("button", { id: "cancel", textContent: "Stop", hidden: true });
    this.cancel.addEventListener("click", () => this.stop());
    this.bar = make("progress", { max: 1, value: 0, hidden: true });
    this.status = make("output", { id: "ask-status" });
    this.status.setAttribute("role", "status");
    this.canvas = make("canvas", { id: "samples", width: 10, height: 10 });
    this.canvas.setAttribute("aria-label", "Samples on their way from noise");
    this.scrub = make("input", { type: "range", min: 0, max: 1, value: 1, step: 1, id: "moment" });
    this.scrub.setAttribute("aria-label", "Moment on the way from noise to sample");
    this.scrub.addEventListener("input", () => { this.at = Number(this.scrub.value); this.playing = null; this.paint(); });
    this.again = make("button", { textContent: "▶", id: "replay" });
    this.again.setAttribute("aria-label", "Play the way from noise");
    this.again.addEventListener("click", () => this.play());
    this.charts = make("div", { id: "training" });
    this.front = make("div", { id: "front" });
    this.code = make("button", { textContent: "Copy as Python" });
    this.code.addEventListener("click", () => this.said(this.python(), "program"));
    this.line_ = make("button", { textContent: "Copy as command" });
    this.line_.addEventListener("click", () => this.said(this.command(), "command"));
    this.main.replaceChildren(
      make("h2", { textContent: this.name }), make("div", { className: "asks" }, ...fields, this.go, this.cancel),
      make("div", { className: "progress" }, this.bar, this.status), this.canvas,
      make("div", { className: "moments" }, this.again, this.scrub), make("div", { className: "both" }, this.front, this.charts),
      make("div", { className: "asks" }, this.code, this.line_),
    );
  }

  // What the controls say; an emptied one says what it began with.
  wanted() {
    const found = this.plans ? {} : { plans: false };
    for (const [key, input] of Object.entries(this.inputs)) {
      const said = input.value === "" ? input.placeholder : input.value;
      if (said) found[key] = Number(said);
    }
    return found;
  }

  // Draw what the controls say, by a calibrated plan where there is one. A number that is held down asks many times, so
  // the last word counts.
  async draw(plans = true) {
    const asked = (this.asked = (this.asked ?? 0) + 1), old = () => asked !== this.asked || this.parent.hidden;
    this.plans = plans;
    this.playing = null;
    await this.stop(true);
    await new Promise((done) => setTimeout(done, 80));
    if (old()) return;
    const wanted = this.wanted();
    this.remember(new URLSearchParams({ run: this.name, ...Object.fromEntries(Object.entries(wanted).map(([k, v]) => [k, String(v)])) }));
    try {
      let job = await this.ask(`runs/${encodeURIComponent(this.name)}/samples`, "POST", wanted);
      if (old()) return void this.ask(`jobs/${job.job}`, "DELETE").catch(() => {});
      this.job = job.job;
      this.cancel.hidden = this.bar.hidden = false;
      while (job.state === "queued" || job.state === "running") {
        this.bar.value = job.total ? job.done / job.total : 0;
        this.status.textContent = job.state === "queued" ? "waiting for its turn" : `step ${job.done} of ${job.total}`;
        await new Promise((done) => setTimeout(done, 120));
        if (old()) return void this.ask(`jobs/${job.job}`, "DELETE").catch(() => {});
        job = await this.ask(`jobs/${job.job}`);
      }
      if (old()) return;
      this.status.textContent = { done: "", stopped: "stopped", failed: job.error }[job.state];
      if (job.state === "done") {
        const r = job.result;
        this.status.textContent = `${r.n} samples, ${r.evaluations} evaluation${r.evaluations === 1 ? "" : "s"} each, ${job.seconds.toFixed(2)} s, weights of step ${r.step}`;
        await this.receive(r);
      }
    } catch (error) {
      if (!old()) this.status.textContent = String(error.message);
    }
    if (!old()) { this.job = null; this.cancel.hidden = this.bar.hidden = true; }
  }

  async stop(quiet = false) {
    const job = this.job;
    this.job = null;
    if (!job) return;
    await this.ask(`jobs/${job}`, "DELETE").catch(() => {});
    if (!quiet) this.status.textContent = "stopped";
  }

  // -- what came -------------------------------------------------------------------------------------------------------
  async receive(result) {
    this.result = result;
    if (result.png) {
      const image = new Image();
      image.src = `data:image/png;base64,${result.png}`;
      await image.decode();
      this.image = image;
    }
    this.scrub.max = String(result.times.length - 1);
    this.scrub.parentElement.hidden = result.times.length < 2;
    this.at = result.times.length - 1;
    this.canvas.dataset.moments = String(result.times.length);
    this.play();
  }

  play() {
    if (!this.result) return;
    const many = this.result.times.length, turn = (this.playing = {}); // the last one that was begun goes on
    let k = 0;
    const tick = () => {
      if (this.playing !== turn || !this.canvas.isConnected) return;
      this.at = Math.min(k, many - 1);
      this.scrub.value = String(this.at);
      this.paint();
      k += 1;
      if (k < many) setTimeout(tick, 90);
    };
    tick();
  }

  paint() {
    const { result, canvas } = this;
    if (!result) return;
    const ink = canvas.getContext("2d");
    if (result.png) {
      const [, h, w] = result.shape, n = result.n, columns = across(n), rows = Math.ceil(n / columns), gap = 2;
      const k = Math.max(1, Math.floor(760 / (columns * (w + gap))));
      canvas.width = columns * (w * k + gap) + gap;
      canvas.height = rows * (h * k + gap) + gap;
      ink.imageSmoothingEnabled = false;
      for (let i = 0; i < n; i++) ink.drawImage(this.image, i * w, this.at * h, w, h, gap + (i % columns) * (w * k + gap), gap + Math.floor(i / columns) * (h * k + gap), w * k, h * k);
      return;
    }
    canvas.width = canvas.height = 560;
    const all = result.points[result.points.length - 1], now = result.points[this.at], wide = result.shape[0];
    const ranges = [0, 1].map((axis) => {
      const values = all.map((row) => row[axis] ?? 0), low = Math.min(...values), high = Math.max(...values), pad = 0.15 * (high - low) || 1;
      return [low - pad, high - low + 2 * pad];
    });
    const place = (row, axis) => (530 * ((row[axis] ?? 0) - ranges[axis][0])) / ranges[axis][1];
    ink.fillStyle = getComputedStyle(document.body).color;
    for (const row of now) ink.fillRect(24 + place(row, 0), 532 - place(row, 1), 4, 4);
    ink.font = "12px sans-serif";
    ink.fillText(`first column${wide > 2 ? ` of ${wide}` : ""}, from ${ranges[0][0].toPrecision(3)} to ${(ranges[0][0] + ranges[0][1]).toPrecision(3)}`, 28, 552);
    ink.rotate(-Math.PI / 2);
    if (wide > 1) ink.fillText(`second column, from ${ranges[1][0].toPrecision(3)} to ${(ranges[1][0] + ranges[1][1]).toPrecision(3)}`, -530, 14);
  }

  // -- frontier and training -------------------------------------------------------------------------------------------
  frontier() {
    const swept = this.line.swept;
    this.front.replaceChildren();
    if (this.line.players.includes("generator")) return undefined; // a point beside those of its origin
    if (!swept) return this.front.append(make("p", { className: "hint", textContent: `No frontier yet: diffflow frontier ${this.where}` }));
    const points = swept.points.filter((p) => p?.distance > 0 && p.evaluations > 0 && p.dials);
    if (!points.length) return this.front.append(make("p", { className: "hint", textContent: "frontier.json holds no points." }));
    const W = 420, H = 240, L = 52, B = 34, log = Math.log10;
    const xs = points.map((p) => log(p.evaluations)), ys = points.map((p) => log(p.distance)), x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 0.3), y0 = Math.min(...ys), y1 = Math.max(...ys, y0 + 0.3);
    const x = (v) => L + 12 + ((v - x0) / (x1 - x0)) * (W - L - 26), y = (v) => 14 + ((y1 - v) / (y1 - y0)) * (H - B - 24);
    const chart = svg("svg", { viewBox: `0 0 ${W} ${H}` }), put = (...what) => {
      const e = svg(...what);
      chart.append(e);
      return e;
    };
    for (const v of [...new Set(points.map((p) => p.evaluations))]) put("text", { x: x(log(v)), y: H - 16, class: "tick", "text-anchor": "middle" }, String(v));
    put("text", { x: (L + W) / 2, y: H - 2, class: "tick", "text-anchor": "middle" }, "evaluations");
    for (const v of [y0, (y0 + y1) / 2, y1]) put("text", { x: L - 8, y: y(v) + 3, class: "tick", "text-anchor": "end" }, short(10 ** v));
    for (const p of points) {
      const [px, py] = [x(log(p.evaluations)), y(log(p.distance))];
      const dot = p.name ? put("rect", { x: px - 5, y: py - 5, width: 10, height: 10, role: "img" }) : put("circle", { cx: px, cy: py, r: 6, class: p.plan ? "planned" : "", tabindex: 0, role: "button" });
      const label = `${p.distance.toPrecision(3)} at ${p.evaluations} evaluations: ${p.name || `churn ${p.dials.churn}, gan ${p.dials.gan}${p.plan ? ", plan" : ""}`}`;
      dot.setAttribute("aria-label", label);
      dot.append(svg("title", {}, label));
      const show = () => {
        if (p.name) return;
        for (const key of ["steps", "churn", "gan", "guidance"]) if (this.inputs[key]) this.inputs[key].value = String(p.dials[key]);
        this.draw(Boolean(p.plan));
      };
      dot.addEventListener("click", show);
      dot.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        show();
      });
    }
    return this.front.append(make("h3", { textContent: swept.distance }), chart, make("p", { className: "hint", textContent: `A point shows its samples. Filled: a calibrated plan; hollow: the default solver; square: a run beside. Swept at step ${swept.step}.` }));
  }

  curves() {
    const log = this.line.log.filter((l) => l.loss), W = 420, H = 200, L = 46;
    this.charts.replaceChildren(make("h3", { textContent: `Training${this.line.training ? ", going on" : ""}` }));
    if (log.length < 2) return this.charts.append(make("p", { className: "hint", textContent: "Nothing logged yet." }));
    const names = [...new Set(log.flatMap((l) => Object.keys(l.loss)))], dashes = ["solid", "dashed", "dotted"], last = log[log.length - 1].step, all = log.flatMap((l) => Object.values(l.loss)).filter(Number.isFinite);
    const low = Math.min(...all), high = Math.max(...all, low + 1e-9), chart = svg("svg", { viewBox: `0 0 ${W} ${H}` });
    const x = (v) => L + (v / last) * (W - L - 10), y = (v) => 10 + ((high - v) / (high - low)) * (H - 40);
    chart.innerHTML = names.map((name, i) => `<path class="line side${i % 3}" d="${log.filter((l) => Number.isFinite(l.loss[name])).map((l, j) => `${j ? "L" : "M"}${x(l.step).toFixed(1)} ${y(l.loss[name]).toFixed(1)}`).join("")}"/>`).join("") +
      [low, high].map((v) => `<text class="tick" x="${L - 6}" y="${y(v) + 4}" text-anchor="end">${short(v)}</text>`).join("") + `<text class="tick" x="${W - 10}" y="${H - 8}" text-anchor="end">step ${Number(last)}</text>`;
    return this.charts.append(chart, make("p", { className: "hint", textContent: `Loss: ${names.map((n, i) => (names.length > 1 ? `${n} (${dashes[i % 3]})` : n)).join(", ")}.` }));
  }

  // While a run trains, its curves are asked for again.
  poll() {
    if (!this.line?.training) return;
    const name = this.name;
    this.polling = setTimeout(async () => {
      if (name !== this.name || this.parent.hidden) return this.poll();
      try {
        const found = await this.ask(`runs/${encodeURIComponent(name)}`);
        if (name !== this.name) return undefined; // another one was chosen meanwhile, and polls for itself
        this.line = { ...this.line, ...found };
        this.charts.dataset.polls = String(Number(this.charts.dataset.polls ?? 0) + 1);
        this.curves();
      } catch { /* the server is gone, or the run is */ }
      return this.poll();
    }, 3000);
  }

  // -- as a program ----------------------------------------------------------------------------------------------------
  get where() {
    const path = `${this.path}/${this.name}`;
    return /^[\w./~+-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`; // as a shell wants it
  }

  python() {
    const w = this.wanted(), dials = ["steps", "churn", "gan", "guidance"].filter((k) => k in w).map((k) => `${k}=${w[k]}`);
    const cond = "class" in w ? `cond=${w.class}` : this.line.classes ? `cond=torch.arange(${w.n}) % ${this.line.classes.length}` : "";
    const torch = cond.includes("torch") ? "import torch\n\n" : "\n";
    return `import diffflow as df\n${torch}run = df.load(${JSON.stringify(`${this.path}/${this.name}`)})\nx = run.sample(${[w.n, cond, ...dials, ...("plans" in w ? ["plans=False"] : []), `noise=df.Noise(${w.seed})`].filter(Boolean).join(", ")}).last`;
  }

  command() {
    const w = this.wanted(), flags = ["steps", "churn", "gan", "guidance"].filter((k) => k in w).map((k) => ` --${k} ${w[k]}`).join("");
    return `diffflow sample ${this.where} -n ${w.n}${"class" in w ? ` --class ${w.class}` : ""}${flags}${"plans" in w ? " --solver exponential" : ""} --seed ${w.seed}`;
  }
}
