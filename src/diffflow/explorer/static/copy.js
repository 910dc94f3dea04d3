// The setting on screen as a program and as a command line of the library.
import { TOP } from "./simulate.js";
import { TOYS, drawn } from "./toys.js";

const py = (v) => (Number.isInteger(v) ? v.toFixed(1) : String(v));
const clockOf = (s) => (s.schedule in TOP ? `df.${s.schedule}(0.01, ${py(TOP[s.schedule])})` : `df.${s.schedule}(sigma_min=0.01)`);
const chosen = (state) => (state.editing === "b" && state.b ? state.b : state.a);

function law(state) {
  if (state.target !== "drawn") return `q = df.TOYS["${state.target}"]()`;
  const rows = [];
  for (let i = 0; i < state.points.length; i += 2) rows.push(`[${state.points[i].toFixed(2)}, ${state.points[i + 1].toFixed(2)}]`);
  return `q = df.GaussianMixture([${rows.join(", ")}], 0.07)`;
}

export function python(state) {
  const s = chosen(state), q = state.target === "drawn" ? drawn(state.points) : TOYS[state.target].make();
  const width = Number((1.2 * Math.max(q.narrowest, 0.05 * q.spread)).toPrecision(3)); // of the kernels (simulate.js)
  const lines = ["import diffflow as df", "", law(state)], score = s.wrong ? "believed" : "q";
  if (s.wrong && s.family !== "cooled" && !(s.family === "static" && s.churn === 0)) {
    lines.push(`shift = q.means.new_tensor([${s.wrong}, 0.0])`, "believed = df.GaussianMixture(q.means + shift, covariances=q.covariances(), weights=q.weights)");
  }
  // where particles begin, as the page has it: beside the target, in its middle, or as wide as `top`
  const begun = (middle, top) => {
    const std = { prior: top, away: "0.4 * q.principal_std", narrow: "0.15 * q.principal_std" }[s.start];
    return `start = df.Gaussian(${middle}${s.start === "away" ? " - q.mean.new_tensor([3 * q.principal_std, 0.0])" : ""}, ${std})`;
  };
  const euler = "solver=df.Euler()", sample = (...words) => `x = df.sample(sde, ${[s.particles, ...words, `noise=df.Noise(${s.seed})`].join(", ")}).last`;
  const end = "print(q.log_prob(x).mean(), q.log_prob(q.sample(len(x))).mean())";
  if (s.family === "at") {
    lines.push(`s = ${clockOf(s)}`);
    if (s.gan) lines.push(`ratio = df.KernelRatio(lambda t: s.law(q, t), lambda t: s.scale(t) * (${width}**2 + (0.3 * s.sigma(t)) ** 2) ** 0.5)`);
    if (s.start !== "prior") lines.push(begun("s.scale(0.0).item() * q.mean", ""));
    const start = s.start !== "prior" ? ["start=start"] : s.wrong ? ["start=s.law(q, 0.0)"] : [];
    lines.push(`sde = df.at(${[`s, s.score(${score})`, ...(s.gan ? ["ratio", `gan=${py(s.gan)}`] : []), `churn=${py(s.churn)}`, ...start].join(", ")})`);
    return [...lines, sample(`steps=${s.steps}`, ...(s.gan ? ["solver=df.Exponential(1)"] : [])), end].join("\n");
  }
  if (s.family === "annealed") {
    const count = 12, ratio = (0.03 / 3) ** (1 / (count - 1)), each = Math.max(1, Math.round(s.steps / count));
    lines.push(`levels = df.Levels(tuple(3 * ${ratio.toFixed(6)}**k for k in range(${count})), steps=${each})`, begun("q.mean", "3.0"));
    lines.push(`sde = df.annealed_langevin(levels, levels.score(${score}))`);
    if (s.extra) lines.push(`sde = df.continued(sde, lambda t: -${s.extra} * 0.2 * levels.sigma(t) ** 2)`);
    return [...lines, `x = df.sample(sde, start.sample(${s.particles}, df.Noise(${s.seed}).fork("start")), noise=df.Noise(${s.seed})).last`, end].join("\n");
  }
  lines.push(begun("q.mean", "q.principal_std"));
  if (s.family === "cooled") {
    lines.push("s = df.VE(0.05, 1.0)", `ratio = df.KernelRatio(lambda t: s.law(q, t), lambda t: (${width}**2 + (0.3 * s.sigma(t)) ** 2) ** 0.5)`);
    return [...lines, `sde = df.improved_gan(s, ratio, ${py(s.horizon)}, start)`, sample(`steps=${Math.max(s.steps, 1000)}`, euler), end].join("\n");
  }
  const ratio = s.churn < 1 ? `df.KernelRatio(q, ${width})` : "None";
  if (s.churn === 0 && s.speed !== "kl") {
    const speed = s.speed === "saturating" ? "lambda d: d.sigmoid()" : "lambda d: (-d).sigmoid()";
    lines.push(`sde = df.gan_flow(${ratio}, df.Speed(${speed}), horizon=${py(s.horizon)}, start=start)`);
  } else {
    lines.push(`sde = df.static(${s.churn === 0 ? "q" : score}, ${ratio}, churn=${py(s.churn)}, horizon=${py(s.horizon)}, start=start)`);
  }
  if (s.extra) lines.push(`sde = df.continued(sde, ${-s.extra})`);
  return [...lines, sample(`steps=${Math.max(s.steps, 1000)}`, euler), end].join("\n"); // Euler wants smaller steps than the page's
}

export function command(state) {
  const s = chosen(state);
  if (state.target === "drawn") return "# a drawn target has no name: copy it as Python";
  const [lines, known] = words(state.target, s);
  const left = [["wrong", 0], ["start", "prior"], ["extra", 0]].filter(([k, plain]) => s[k] !== plain && !known.includes(k)).map(([k]) => ({ wrong: "the wrong score", start: "the start", extra: "the extra noise" })[k]);
  return left.length ? `# without ${left.join(" and ")}, which only Python has\n${lines}` : lines;
}

// The command, and what of the setting it expresses beyond the dials.
function words(name, s) {
  const draw = (run, dials) => `diffflow sample runs/${run} -n ${s.particles} --steps ${s.steps} ${dials} --seed ${s.seed}`;
  if (s.family === "at" && s.gan === 0) return [`diffflow train ${name} --out runs/${name}\n${draw(name, `--churn ${s.churn}`)}`, []];
  if (s.family === "at") {
    const run = `${name}-diffusion-gan`;
    return [`diffflow train ${name} --preset diffusion-gan --out runs/${run}\n${draw(run, `--gan ${s.gan} --churn ${s.churn}`)}`, []];
  }
  const flow = (model, known = []) => [`diffflow flow ${name} --model ${model} -n ${s.particles} --seed ${s.seed}`, known];
  if (s.family === "annealed") return s.extra ? flow("continuation", ["extra"]) : flow("ncsn");
  if (s.family === "cooled") return [`diffflow train ${name} --preset improved-gan`, []];
  if (s.churn === 1) return flow("langevin");
  if (s.churn === 0 && s.speed === "kl") return flow("score-difference");
  if (s.churn === 0) return [`diffflow train ${name} --preset ${s.speed === "saturating" ? "gan-saturating" : "gan"}`, []];
  return ["# between a GAN and Langevin dynamics on a fixed target there is no command: copy it as Python", ["wrong", "start", "extra"]];
}
