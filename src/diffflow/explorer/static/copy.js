// The setting on screen as a program and as a command line of the library.
import { TOP } from "./simulate.js";

const py = (v) => (Number.isInteger(v) ? v.toFixed(1) : String(v));
const clockOf = (s) => (s.schedule in TOP ? `df.${s.schedule}(0.01, ${py(TOP[s.schedule])})` : `df.${s.schedule}(sigma_min=0.01)`);

function law(state) {
  if (state.target !== "drawn") return `q = df.TOYS["${state.target}"]()`;
  const rows = [];
  for (let i = 0; i < state.points.length; i += 2) rows.push(`[${state.points[i].toFixed(2)}, ${state.points[i + 1].toFixed(2)}]`);
  return `q = df.GaussianMixture([${rows.join(", ")}], 0.07)`;
}

export function python(state) {
  const s = state.editing === "b" && state.b ? state.b : state.a;
  const head = ["import diffflow as df", "", law(state)];
  const run = `x = df.sample(sde, ${s.particles}, steps=${s.steps}${s.gan ? ", solver=df.Exponential(1)" : ""}, noise=df.Noise(${s.seed})).last`;
  const tail = ["print(q.log_prob(x).mean(), q.log_prob(q.sample(len(x))).mean())"];
  const blurred = (h) => `df.KernelRatio(q, ${h})`;
  if (s.family === "at") {
    const ratio = s.gan ? [`ratio = df.KernelRatio(lambda t: s.law(q, t), lambda t: s.scale(t) * (0.12**2 + (0.3 * s.sigma(t)) ** 2) ** 0.5)`] : [];
    const wrong = s.wrong ? [`believed = df.GaussianMixture(q.means + ${s.wrong} * (q.means.new_tensor([1.0, 0.0])), covariances=q.covariances(), weights=q.weights)`] : [];
    const args = [`s, s.score(${s.wrong ? "believed" : "q"})`, ...(s.gan ? ["ratio", `gan=${py(s.gan)}`] : []), `churn=${py(s.churn)}`, ...(s.wrong ? ["start=s.law(q, 0.0)"] : [])];
    return [...head, `s = ${clockOf(s)}`, ...wrong, ...ratio, `sde = df.at(${args.join(", ")})`, run, ...tail].join("\n");
  }
  const start = `start = df.Gaussian(${s.start === "away" ? "q.mean - q.mean.new_tensor([3 * q.spread, 0.0])" : "q.mean"}, ${{ prior: "", away: "0.4 * ", narrow: "0.15 * " }[s.start]}q.spread)`;
  if (s.family === "annealed") {
    const count = 12, ratio = (0.03 / 3) ** (1 / (count - 1)), each = Math.max(1, Math.round(s.steps / count));
    const lines = [`levels = df.Levels(tuple(3 * ${ratio.toFixed(6)}**k for k in range(${count})), steps=${each})`, "sde = df.annealed_langevin(levels, levels.score(q))"];
    if (s.extra) lines.push(`sde = df.continued(sde, lambda t: -${s.extra} * 0.2 * levels.sigma(t) ** 2)`);
    return [...head, ...lines, `x = df.sample(sde, ${s.particles}, noise=df.Noise(${s.seed})).last`, ...tail].join("\n");
  }
  if (s.family === "cooled") {
    return [...head, "s = df.VE(0.05, 1.0)", start, "ratio = df.KernelRatio(lambda t: s.law(q, t), 0.12)", `sde = df.improved_gan(s, ratio, ${py(s.horizon)}, start)`, `x = df.sample(sde, ${s.particles}, steps=${s.steps}, solver=df.Euler(), noise=df.Noise(${s.seed})).last`, ...tail].join("\n");
  }
  const solver = "solver=df.Euler()", lines = [start];
  if (s.churn === 0 && s.speed !== "kl") {
    const speed = s.speed === "saturating" ? "lambda d: d.sigmoid()" : "lambda d: (-d).sigmoid()";
    lines.push(`sde = df.gan_flow(${blurred(0.12)}, df.Speed(${speed}), horizon=${py(s.horizon)}, start=start)`);
  } else {
    lines.push(`sde = df.static(q, ${s.churn < 1 ? blurred(0.12) : "None"}, churn=${py(s.churn)}, horizon=${py(s.horizon)}, start=start)`);
  }
  if (s.extra) lines.push(`sde = df.continued(sde, ${-s.extra})`);
  return [...head, ...lines, `x = df.sample(sde, ${s.particles}, steps=${Math.max(s.steps, 1000)}, ${solver}, noise=df.Noise(${s.seed})).last`, ...tail].join("\n");
}

export function command(state) {
  const s = state.editing === "b" && state.b ? state.b : state.a;
  if (state.target === "drawn") return "# a drawn target has no name: copy it as Python";
  const name = state.target;
  if (s.family === "at" && s.gan === 0) return `diffflow train ${name} --out runs/${name}\ndiffflow sample runs/${name} -n ${s.particles} --steps ${s.steps} --churn ${s.churn} --seed ${s.seed}`;
  if (s.family === "at") return `diffflow train ${name} --preset diffusion-gan --out runs/${name}-diffusion-gan\ndiffflow sample runs/${name}-diffusion-gan -n ${s.particles} --steps ${s.steps} --gan ${s.gan} --churn ${s.churn} --seed ${s.seed}`;
  const model = s.family === "annealed" ? (s.extra ? "continuation" : "ncsn") : s.family === "cooled" ? null : s.churn === 1 ? "langevin" : s.churn === 0 && s.speed === "kl" ? "score-difference" : null;
  if (model) return `diffflow flow ${name} --model ${model} -n ${s.particles} --seed ${s.seed}`;
  if (s.family === "cooled") return `diffflow train ${name} --preset improved-gan`;
  if (s.churn === 0) return `diffflow train ${name} --preset ${s.speed === "saturating" ? "gan-saturating" : "gan"}`;
  return "# between a GAN and Langevin dynamics on a fixed target there is no command: copy it as Python";
}
