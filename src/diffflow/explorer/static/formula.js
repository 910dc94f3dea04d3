// The equation above the map: the same four terms whatever the setting, as large as they weigh.
const digits = (v) => String(Math.round(100 * v) / 100);
const times = (v, unit) => (v === 0 ? "0" : v === 1 ? unit : `${digits(v)} ${unit}`);

// What each term weighs, in units of lam2 on a schedule and of beta elsewhere, with the words for it.
export function weights(s) {
  const scheduled = s.family === "at", unit = scheduled ? "λ²" : "β";
  const score = scheduled ? (1 + s.churn) / 2 : s.churn, ratio = scheduled ? s.gan / 2 : s.family === "annealed" ? 0 : 1 - s.churn;
  const lam2 = scheduled ? 1 : -s.extra, noise = 2 * score - lam2;
  return { unit, score, ratio, noise, drifts: scheduled && !["EDM", "VE"].includes(s.schedule), speed: s.speed !== "kl" && !scheduled && s.churn === 0 };
}

const SPEED = { "non-saturating": "p/(r+p)", saturating: "r/(r+p)" };

export function terms(s) {
  const w = weights(s), size = (v) => Math.min(1, Math.sqrt(Math.max(0, v)));
  return [
    { name: "f", symbol: w.drifts ? "(s′/s) X" : "f", value: w.drifts ? "" : "0", size: w.drifts ? 0.6 : 0, help: "what the schedule's scaling dictates" },
    { name: "ratio", symbol: "(β − g²/2) ∇log r/p", value: w.speed ? SPEED[s.speed] : times(w.ratio, w.unit), size: w.speed ? 1 : size(w.ratio), help: "the log-ratio of target and particles: a discriminator" },
    { name: "score", symbol: "(g²/2) ∇log r", value: times(w.score, w.unit), size: size(w.score), help: "the data score: a denoiser" },
    { name: "noise", symbol: "√(g² − λ²) dW", value: w.noise === 0 ? "0" : `√(${times(w.noise, w.unit)})`, size: size(w.noise), help: "fresh noise for every particle" },
  ];
}

export function show(parent, s) {
  const t = terms(s);
  const html = (x) => `<span class="term ${x.name}${x.size ? "" : " gone"}" data-term="${x.name}" data-size="${x.size.toFixed(3)}" title="${x.help}"><b>${x.symbol}</b><small>${x.value}</small></span>`;
  parent.innerHTML = `<span class="plain">dX = [</span>${html(t[0])}<span class="plain">+</span>${html(t[1])}<span class="plain">+</span>${html(t[2])}<span class="plain">] dt +</span>${html(t[3])}`;
  for (const span of parent.querySelectorAll("[data-size]")) span.style.setProperty("--size", span.dataset.size);
}

// The setting in a sentence.
export function reading(s) {
  const w = weights(s);
  if (s.family === "annealed") return `Annealed Langevin dynamics: twelve noise levels, Langevin steps at each${s.extra ? ", with extra noise that flattens the law" : ""}.`;
  if (s.family === "cooled") return "The improved GAN: particles follow the log-ratio toward data whose noise falls; there is no score.";
  const needs = w.ratio && w.score ? "a score and a discriminator" : w.score ? "a score alone" : "a discriminator alone";
  if (s.family === "at") {
    const kind = w.noise === 0 ? "an ordinary differential equation" : s.churn === 1 ? "the reverse SDE's noise" : "its own noise";
    const law = s.wrong ? "The score is of another law, so the cloud is, too; the log-ratio sees it." : s.start !== "prior" ? "The cloud begins elsewhere than r_t; β pulls it there." : "The cloud is r_t at every time, whatever churn and gan.";
    return `On a noise schedule: ${needs}, ${kind}. ${law}`;
  }
  const noise = s.extra ? "More noise than its drift balances: the law is flattened." : w.noise ? "" : "No noise: neighbours stay neighbours.";
  const pace = s.wrong && w.score ? "The score is of another law, so that is where it leads." : "The law falls toward the target in KL, at the same pace for every churn.";
  return `A fixed target: ${needs}. ${noise || pace}`;
}
