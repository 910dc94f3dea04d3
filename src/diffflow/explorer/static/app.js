// The page: one state (state.js), one worker that moves the particles, and everything on screen a view of the two.
import * as address from "./state.js";
import { Chart, MEASURES, short } from "./charts.js";
import { View } from "./view.js";
import { LANDMARKS } from "./landmarks.js";
import { LESSONS } from "./lessons.js";
import { DEFAULTS } from "./simulate.js";
import { Controls } from "./controls.js";
import { make } from "./elements.js";
import * as formula from "./formula.js";
import * as copy from "./copy.js";
import * as save from "./save.js";
import { Runs, token } from "./runs.js";

const $ = (id) => document.getElementById(id);

let state = address.read(location.hash.slice(1));
let now = { k: 0, last: 1, playing: true };
let worker;
let views = [];
let charts = [];
let controls;

// -- colours: Okabe and Ito's, told apart by every eye; the ground follows the theme -----------------------------------
const dark = () => document.documentElement.dataset.theme === "dark";
const colours = () => ({
  ground: dark() ? "#14171c" : "#ffffff", particle: dark() ? "#e8eaed" : "#23272e", trail: dark() ? "rgba(140,160,190,.35)" : "rgba(70,90,120,.28)",
  target: dark() ? [86, 180, 233] : [0, 114, 178], cloud: dark() ? "#e0a030" : "#b06000",
  f: "#009e73", ratio: "#d55e00", score: dark() ? "#56b4e9" : "#0072b2", noise: "#cc79a7", total: dark() ? "#ffffff" : "#000000",
});

// -- talking to the worker ---------------------------------------------------------------------------------------------
const sides = () => (state.b ? [state.a, state.b] : [state.a]);
const tell = (what, more = {}) => worker?.postMessage({ do: what, ...more });

// Whether the user wants it to play; it does unless nobody sees it, or a drawing or a recording is under way.
let wish = true;
function play(on = wish) {
  wish = on;
  tell(wish && !document.hidden && page === "equation" && !drawing && !recording ? "play" : "pause");
}

let round = 0;
function begin() {
  if (!worker) {
    worker = new Worker("worker.js", { type: "module" });
    worker.onmessage = ({ data }) => { if (data.round === round) hear[data.is](data); }; // what is older is of another setting
    worker.onerror = (event) => problem(event.message);
  }
  round += 1;
  awaited?.done(); // a recording of what is no more
  tell("speed", { value: state.pace });
  play();
  tell("set", { round, sides: sides().map((setting) => ({ setting, target: state.target })), points: state.points });
}

const hear = {
  target({ side, ...target }) {
    views[side]?.setTarget(target);
    if (side === 0) charts.forEach((chart) => chart.clear());
  },
  frame(frame) {
    now = frame;
    frame.sides.forEach((s, i) => views[i]?.show(s, frame.k));
    if (frame.k === awaited?.k) awaited.done();
    const { t, sigma } = frame.sides[0];
    $("clock").textContent = `t = ${t.toFixed(2)}${sigma ? `  σ = ${sigma >= 0.1 ? sigma.toFixed(1) : sigma.toFixed(2)}` : ""}`;
    if (document.activeElement !== $("scrub") || frame.playing) $("scrub").value = String(Math.round((1000 * frame.k) / frame.last));
    $("play").textContent = frame.playing ? "❚❚" : "▶";
    $("play").setAttribute("aria-label", frame.playing ? "Pause" : "Play");
    document.body.dataset.step = String(frame.k);
    drawCharts();
  },
  chart({ side, k, values }) {
    for (const chart of charts) chart.add(side, k, values);
    stale = true;
  },
  terms(found) {
    views[found.side].arrows = found;
    views[found.side].draw();
    showParticle(found);
  },
  error: ({ message }) => problem(message),
};

let stale = true;
let drawn = 0;
function drawCharts() {
  const time = performance.now();
  if (!stale && time - drawn < 120 && now.playing) return;
  drawn = time;
  stale = false;
  for (const chart of charts) chart.draw(now.k, now.last, sides().length);
}

const problem = (text) => { $("said").textContent = text; };

// -- changing the setting ----------------------------------------------------------------------------------------------
let waiting = null;
function change(update, restart = true) {
  update(state);
  if (state.b) for (const key of address.SHARED) state.b[key] = state.a[key];
  show();
  if (!restart) return;
  clearTimeout(waiting); // a puck that is dragged begins anew a few times a second, not at every pixel
  waiting = setTimeout(begin, 60);
}
const edited = () => (state.editing === "b" && state.b ? state.b : state.a);
const edit = (update) => change((s) => {
  const which = s.editing === "b" && s.b ? "b" : "a";
  s[which] = typeof update === "function" ? update(s[which]) : { ...s[which], ...update };
  $("lesson").textContent = "";
});

// -- the page ----------------------------------------------------------------------------------------------------------
function build() {
  controls = new Controls($("map"), $("dials"), {
    change, edit,
    chosen(target) {
      if (target === "drawn" && !state.points) return draw(true);
      draw(false, false);
      return change((s) => { s.target = target; });
    },
  });
  charts = MEASURES.map((measure) => new Chart($("charts"), measure));
  for (const lesson of LESSONS) {
    const button = make("button", { textContent: lesson.title });
    button.dataset.lesson = lesson.name;
    button.addEventListener("click", () => teach(lesson));
    $("lessons").append(button);
  }
}

const layout = () => {
  const wanted = sides().length;
  if (views.length !== wanted) {
    $("views").replaceChildren();
    views = sides().map((_, i) => {
      const canvas = make("canvas", { tabIndex: 0 });
      canvas.setAttribute("aria-label", wanted > 1 ? `Particles, ${i ? "right" : "left"} side` : "Particles");
      const button = make("button", { className: "side" });
      button.addEventListener("click", () => { state.editing = i ? "b" : "a"; show(); });
      const box = make("div", { className: `view side${i}` }, canvas, ...(wanted > 1 ? [button] : []));
      $("views").append(box);
      const view = new View(canvas, colours);
      if (drawing) view.board = board;
      listen(view, canvas, i);
      return view;
    });
  }
  document.querySelectorAll("#views button.side").forEach((button, i) => {
    button.textContent = name(sides()[i]);
    button.setAttribute("aria-pressed", String((state.editing === "b") === (i === 1)));
    button.title = "Let map and dials set this side";
  });
};

function name(s) {
  const wrong = s.wrong && formula.weights(s).score ? ", wrong score" : "", same = LANDMARKS.find(({ set }) => ["family", "churn", "gan", "extra"].every((k) => (set[k] ?? 0) === s[k]));
  if (same && s.family === "static" && s.churn === 0 && s.speed !== "kl") return `GAN, ${s.speed}`;
  if (same) return same.title + wrong;
  const w = { at: `churn ${s.churn}, gan ${s.gan}`, static: `churn ${s.churn}`, annealed: "NCSN", cooled: "improved GAN" }[s.family];
  return w + (s.extra ? `, −λ²/β ${s.extra}` : "") + wrong;
}

const remember = (words) => history.replaceState(null, "", String(words) ? `#${words}` : location.pathname + location.search);

function show() {
  layout();
  controls.show(edited(), state.b && (edited() === state.b ? state.a : state.b), state.target);
  formula.show($("terms"), edited());
  $("reading").textContent = formula.reading(edited());
  $("editing").hidden = !state.b;
  $("editing").textContent = state.b ? `sets the ${state.editing === "b" ? "right" : "left"} side` : "";
  for (const key of ["trails", "contours", "cloud"]) {
    $(key).checked = state.looks[key];
    for (const view of views) view.looks[key] = state.looks[key];
  }
  $("split").checked = state.b !== null;
  $("speed").value = String(Math.round((50 * Math.log(state.pace / 6)) / Math.log(10)));
  $("clear").hidden = state.target !== "drawn" && !drawing;
  remember(address.write(state));
  for (const view of views) view.draw();
}

function teach(lesson) {
  draw(false, false);
  change((s) => {
    s.target = lesson.target;
    s.a = { ...DEFAULTS, ...lesson.a, particles: s.a.particles, seed: s.a.seed };
    s.b = { ...s.a, ...lesson.b };
    s.editing = "a";
  }, false);
  // a lesson may give its sides different numbers of steps, which nobody else can
  state.b = { ...state.b, ...lesson.b };
  show();
  $("lesson").textContent = lesson.text;
  wish = true;
  begin();
}

// -- one particle, and drawing a target --------------------------------------------------------------------------------
let drawing = false;
let strokes = []; // (x0, y0, x1, y1, ...) on a board of [-2, 2]^2
function draw(on, use = true) {
  if (on === drawing) return;
  drawing = on;
  for (const view of views) view.board = on ? board : null;
  $("draw").setAttribute("aria-pressed", String(on));
  $("draw").textContent = on ? "Use this drawing" : "Draw a target";
  document.body.classList.toggle("drawing", on);
  if (on) strokes = [];
  else if (use && strokes.length >= 2) { wish = true; change((s) => { s.points = thinned(strokes); s.target = "drawn"; }); }
  play();
  show();
}

function board(ink, side) {
  ink.fillStyle = colours().cloud;
  for (let i = 0; i < strokes.length; i += 2) {
    ink.beginPath();
    ink.arc((side * (2 + strokes[i])) / 4, (side * (2 - strokes[i + 1])) / 4, side / 90, 0, 7);
    ink.fill();
  }
}

const thinned = (points, most = 300) => {
  const n = points.length / 2, every = Math.ceil(n / most);
  return points.filter((_, i) => Math.floor(i / 2) % every === 0).map((v) => Math.round(100 * v) / 100);
};

function listen(view, canvas, side) {
  const place = (event) => {
    const box = canvas.getBoundingClientRect(), k = canvas.width / box.width;
    return [(event.clientX - box.left) * k, (event.clientY - box.top) * k];
  };
  let before = null;
  const put = (event) => {
    const unit = 4 / canvas.width, [px, py] = place(event), here = [px * unit - 2, 2 - py * unit], from = before ?? here;
    const steps = Math.max(1, Math.ceil(Math.hypot(here[0] - from[0], here[1] - from[1]) / 0.04));
    for (let j = 1; j <= steps; j++) strokes.push(from[0] + (j / steps) * (here[0] - from[0]), from[1] + (j / steps) * (here[1] - from[1]));
    before = here;
    for (const each of views) each.draw();
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (drawing) { canvas.setPointerCapture(event.pointerId); before = null; return put(event); }
    play(false);
    return tell("terms", { side, point: view.toPoint(...place(event)) });
  });
  canvas.addEventListener("pointermove", (event) => { if (drawing && canvas.hasPointerCapture(event.pointerId)) put(event); });
  canvas.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    play(false);
    tell("terms", { side, point: view.toPoint(canvas.width / 2, canvas.height / 2) });
  });
}

function showParticle({ parts, total, noise, index }) {
  const size = (v) => Math.hypot(...v), names = { f: "f: the schedule's scaling", ratio: "discriminator: ∇log r/p", score: "score: ∇log r" };
  const rows = Object.entries(parts).map(([k, v]) => [names[k], size(v), k]);
  rows.push(["whole drift", size(total), "total"], ["noise √(g² − λ²)", noise, "noise"]);
  $("particle").replaceChildren(
    make("p", { textContent: `Particle ${index}: lengths of the arrows, weights included` }),
    make("table", {}, ...rows.map(([text, v, kind]) => make("tr", { className: kind }, make("td", { textContent: text }), make("td", { textContent: short(v) })))),
  );
}

// -- listening ---------------------------------------------------------------------------------------------------------
function wire() {
  const toggle = () => play(!wish), still = (what) => { play(false); tell(what); };
  $("play").addEventListener("click", toggle);
  $("restart").addEventListener("click", () => tell("restart"));
  for (const id of ["back", "step"]) $(id).addEventListener("click", () => still(id));
  $("scrub").addEventListener("input", () => { play(false); tell("seek", { at: Number($("scrub").value) / 1000 }); });
  $("speed").addEventListener("input", () => {
    state.pace = Math.round(6 * 10 ** (Number($("speed").value) / 50));
    tell("speed", { value: state.pace });
    show();
  });
  for (const key of ["trails", "contours", "cloud"]) $(key).addEventListener("change", () => change((s) => { s.looks[key] = $(key).checked; }, false));
  $("split").addEventListener("change", () => change((s) => {
    const other = { at: { churn: s.a.churn ? 0 : 1 }, static: { churn: s.a.churn < 1 ? 1 : 0 } }[s.a.family] ?? { family: "static", churn: 1 };
    s.b = $("split").checked ? address.tidied({ ...s.a, ...other }) : null;
    s.editing = s.b ? "b" : "a";
  }));
  $("draw").addEventListener("click", () => draw(!drawing));
  $("clear").addEventListener("click", () => {
    strokes = [];
    if (drawing) return show();
    return change((s) => { s.target = "8gaussians"; s.points = null; });
  });
  $("theme").addEventListener("click", () => theme(dark() ? "light" : "dark"));
  $("share").addEventListener("click", () => copied(location.href.replace(/[?&]token=[^&#]*/, ""), "address"));
  document.querySelectorAll("[data-copy]").forEach((b) => b.addEventListener("click", () => copied(copy[b.dataset.copy](state), b.dataset.copy === "python" ? "program" : "command")));
  document.querySelectorAll("[data-save]").forEach((b) => b.addEventListener("click", () => exported(b.dataset.save)));
  document.addEventListener("visibilitychange", () => play());
  addEventListener("hashchange", route);
  for (const name of ["equation", "runs"]) $(`tab-${name}`).addEventListener("click", () => turn(name, new URLSearchParams()));
  addEventListener("keydown", (event) => {
    if (page !== "equation" || event.target.closest?.("input, select, textarea, #map, canvas") || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = { " ": toggle, ".": () => still("step"), ",": () => still("back"), Home: () => tell("restart") }[event.key];
    if (key && !(event.key === " " && event.target.closest?.("button"))) { event.preventDefault(); key(); }
  });
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  try { localStorage.setItem("theme", name); } catch { /* a page from a file keeps nothing */ }
  for (const view of views) { view.drawTarget(); view.draw(); }
  runs?.paint();
}

async function copied(text, what) {
  document.body.dataset.copied = text;
  try {
    await navigator.clipboard.writeText(text);
    problem(`The ${what} is on the clipboard.`);
  } catch {
    const area = make("textarea", { value: text, readOnly: true });
    $("said").replaceChildren("Copy this: ", area);
    area.select();
  }
}

let recording = false;
let awaited = null; // the step k that a recording waits for
async function exported(kind) {
  if (recording) return undefined;
  const title = `diffflow-${state.target}`, names = sides().map(name);
  if (kind === "png") return save.download(`${title}.png`, await save.png(views, names));
  if (kind === "svg") return save.download(`${title}.svg`, save.svg(views, names));
  problem("Recording ...");
  recording = true;
  play();
  const taken = round;
  try {
    const film = await save.film(views, names, now.last, async (at, k) => {
      tell("seek", { at });
      await new Promise((done) => { awaited = { k, done }; });
      awaited = null;
      if (round !== taken) throw new Error("The setting changed while it was recorded: nothing was saved.");
    });
    save.download(`${title}.gif`, film);
    problem(`Saved ${title}.gif.`);
  } catch (error) {
    problem(String(error.message));
  }
  recording = false;
  return play();
}

// -- two pages ---------------------------------------------------------------------------------------------------------
let page = "equation";
let runs = null;
const key = token();
function turn(name, words) {
  draw(false, false);
  page = name;
  for (const other of ["equation", "runs"]) {
    $(`page-${other}`).hidden = other !== name;
    $(`tab-${other}`).setAttribute("aria-pressed", String(other === name));
  }
  if (name === "equation") {
    show();
    return begin();
  }
  play();
  runs ??= new Runs($("page-runs"), key, (words_) => { if (page === "runs") remember(words_); }, copied);
  return runs.open(words);
}

// What the address says, on whichever page that is.
function route() {
  const words = new URLSearchParams(location.hash.slice(1));
  if (key && words.has("run")) return turn("runs", words);
  state = address.read(location.hash.slice(1));
  return turn("equation");
}

// For the console, and for tests: what is shown, as numbers.
globalThis.explorer = {
  get state() { return structuredClone(state); },
  get now() { return { k: now.k, last: now.last, playing: now.playing, sides: (now.sides ?? []).map((s) => ({ ...s, x: [...s.x] })) }; },
  get step() { return now.k; },
  get charts() { return charts.map((c) => ({ key: c.measure.key, values: sides().map((_, i) => c.value(i)), points: c.lines.map((m) => m.size) })); },
};

let remembered = null;
try { remembered = localStorage.getItem("theme"); } catch { /* as above */ }
document.documentElement.dataset.theme = remembered ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
build();
wire();
$("tab-runs").hidden = !key;
route();
