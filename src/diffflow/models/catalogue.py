r"""The catalogue: every model as a setting of the equation, one row each.

    dX = [ f + (beta - g2/2) grad log(r/p) + (g2/2) grad log r ] dt + sqrt(g2 - lam2) dW

A row says the model's coefficients, what stands in for the two fields, what drawing a sample costs, its papers and
commands. From these rows come `diffflow models`, README's table, the explorer's landmarks and what benchmarks/models
measures. A model from outside the package enters its row under MODULE:NAME.

Notation of the settings: s scale and σ noise of the schedule, G² = -2 s² σ σ' (the squared diffusion of the noising
process), d the discriminator's logit log(r/p), l the generator's loss, x the particle. Evaluations count networks: a
gradient of a discriminator is 2, a field of the cloud alone 0.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..registry import Registry
from .row import Landmark, Model

NOISED = "data scaled by s, noised by sσ"
COOLED = "data noised by σ(t), falling"
LEARNED = "a denoiser, trained by score matching"
DISCRIMINATOR = "gradient of a discriminator"
SCORE = "diffflow train 25gaussians --out runs/score"
SCHEDULED = "(s'/s) x"
KARRAS = ("song2021", "karras2022")
ON_SCHEDULE = {"family": "at", "extra": 0, "speed": "kl", "start": "prior", "wrong": 0}  # of the explorer's dials
ON_TARGET = {"family": "static", "gan": 0, "extra": 0, "speed": "kl", "wrong": 0}


def _score(name: str, title: str, flags: str, page: str, landmark: Landmark, **row: str) -> Model:
    """A setting on the noise schedule that weighs the data score alone."""
    settings = {"f": SCHEDULED, "lam2": "G²", "target": NOISED, "field": LEARNED, "needs": "score"} | row
    commands = (SCORE, f"diffflow sample runs/score {flags}")
    return Model(name=name, title=title, page=page, commands=commands, papers=KARRAS, landmark=landmark, **settings)  # pyright: ignore[reportArgumentType]


def _gan(name: str, title: str, beta: str, papers: tuple[str, ...] = (), **more: object) -> Model:
    """A game between a generator and a discriminator: a particle flow, amortised."""
    return Model(
        name=name,
        title=title,
        page="theory/gans.md",
        commands=(f"diffflow train 25gaussians --preset {name}",),
        generator=True,
        beta=beta,
        field=DISCRIMINATOR,
        needs="ratio",
        papers=("goodfellow2014", "franceschi2023", *papers),
        **more,  # pyright: ignore[reportArgumentType]
    )


def _cloud(name: str, title: str, moved: str, papers: tuple[str, ...], **row: str) -> Model:
    """A flow of particles along a field made of the cloud itself, without training."""
    settings = {"field": moved, "needs": "samples", "evaluations": "0"} | row
    commands = (f"diffflow flow 25gaussians --model {name}",)
    return Model(name=name, title=title, page="theory/particle-flows.md", commands=commands, papers=papers, **settings)  # pyright: ignore[reportArgumentType]


def _amortised(name: str, title: str, moved: str, papers: tuple[str, ...], preset: str) -> Model:
    """A generator that regresses to particles moved by such a field."""
    return Model(
        name=name,
        title=title,
        page="theory/particle-flows.md",
        commands=(f"diffflow train 25gaussians --preset {preset}",),
        generator=True,
        field=moved,
        papers=papers,
    )


_MODELS = (
    _score(
        "score-sde",
        "Score diffusion, reverse SDE",
        "--churn 1",
        "theory/reverse-sde.md",
        Landmark("reverse_sde", "Diffusion SDE", ON_SCHEDULE | {"gan": 0, "churn": 1}, (9, 4, "start")),
        beta="G²",
        g2="2G²",
        evaluations="1 per step",
        python="df.reverse_sde(s, score)",
    ),
    _score(
        "score-ode",
        "Score diffusion, probability flow",
        "--churn 0",
        "theory/probability-flow.md",
        Landmark("probability_flow", "Diffusion ODE", ON_SCHEDULE | {"gan": 0, "churn": 0}, (-8, 4, "end")),
        beta="G²/2",
        g2="G²",
        evaluations="1 per step",
        python="df.probability_flow(s, score)",
    ),
    _score(
        "edm-churn",
        "EDM with churn χ",
        "--solver edm --churn 0.5",
        "theory/edm-churn.md",
        Landmark("edm_churn", "EDM churn", ON_SCHEDULE | {"gan": 0, "churn": 0.3}, (9, 4, "start")),
        beta="G²/2 + χσ²s²",
        g2="2β",
        evaluations="2 per step",
        python="df.edm_churn(s, score, rate=χ)",
    ),
    _score(
        "slcd",
        "SLCD: score only, any noise",
        "--churn 0.5",
        "theory/slcd.md",
        Landmark("slcd", "SLCD", ON_SCHEDULE | {"gan": 0, "churn": 2.5}, (9, 4, "start")),
        beta="g²/2",
        g2="free (1.5 G²)",
        evaluations="1 per step",
        python="df.slcd(s, score, g2=...)",
    ),
    Model(
        name="langevin",
        title="Langevin dynamics",
        page="theory/langevin.md",
        commands=("diffflow flow 25gaussians --model langevin",),
        beta="free",
        g2="2β",
        target="data lightly noised",
        field="a score known or learned",
        needs="score",
        evaluations="1 per step",
        papers=("roberts1996",),
        python="df.langevin(q)",
        landmark=Landmark("langevin", "Langevin", ON_TARGET | {"churn": 1}, (9, 4, "start")),
    ),
    Model(
        name="ncsn",
        title="Annealed Langevin (NCSN)",
        page="theory/annealed-langevin.md",
        commands=("diffflow flow 25gaussians --model ncsn",),
        beta="ρ σₖ² per step",
        g2="2β",
        target="data noised by σₖ, falling",
        field=LEARNED,
        needs="score",
        evaluations="1 per step",
        papers=("song2019",),
        python="df.annealed_langevin(levels, score)",
        landmark=Landmark(
            "annealed_langevin", "NCSN", ON_TARGET | {"family": "annealed", "churn": 1}, (9, 17, "start")
        ),
    ),
    _gan("gan-saturating", "GAN, saturating", "sig(d) = r/(r+p)"),
    _gan(
        "gan",
        "GAN, non-saturating",
        "sig(-d) = p/(r+p)",
        python="df.gan_flow(ratio, beta)",
        landmark=Landmark("gan_flow", "GAN", ON_TARGET | {"churn": 0}, (-9, -7, "end")),
    ),
    _gan("lsgan", "LSGAN", "1 - d", ("mao2017",)),
    _gan("hinge", "Hinge GAN", "1", ("lim2017", "miyato2018")),
    _gan("ipm", "IPM GAN (WGAN-GP)", "1", ("arjovsky2017", "gulrajani2017")),
    _gan("relativistic", "Relativistic GAN (R3GAN)", "sig(-d), d paired", ("jolicoeur2019", "huang2024")),
    _gan("fgan-kl", "f-GAN, KL", "1", ("nowozin2016",)),
    _gan("fgan-pearson", "f-GAN, Pearson χ²", "1", ("nowozin2016",)),
    Model(
        name="improved-gan-independent",
        title="Improved GAN, one discriminator a level",
        page="theory/improved-gan.md",
        commands=("diffflow train 25gaussians --preset improved-gan-independent",),
        beta="free",
        target=COOLED,
        field=DISCRIMINATOR,
        needs="ratio",
        evaluations="2 per step",
        papers=("goodfellow2014",),
    ),
    Model(
        name="improved-gan",
        title="Improved GAN, one shared discriminator",
        page="theory/improved-gan.md",
        commands=("diffflow train 25gaussians --preset improved-gan",),
        beta="free",
        target=COOLED,
        field=DISCRIMINATOR,
        needs="ratio",
        evaluations="2 per step",
        papers=("goodfellow2014",),
        python="df.improved_gan(s, ratio)",
        landmark=Landmark(
            "improved_gan", "improved GAN", ON_TARGET | {"family": "cooled", "churn": 0}, (2, 17, "start")
        ),
    ),
    Model(
        name="discriminator-flow",
        title="Discriminator Flow",
        page="theory/discriminator-flow.md",
        commands=("diffflow train 25gaussians --preset discriminator-flow",),
        beta="-η l'(d)",
        field=DISCRIMINATOR + " along the particles' own path",
        needs="ratio",
        evaluations="2 per step",
        papers=("franceschi2023",),
        python="df.discriminator_flow(ratio, speed)",
    ),
    Model(
        name="score-gan",
        title="Score GAN",
        page="theory/score-gan.md",
        commands=(SCORE, "diffflow train 25gaussians --preset score-gan --init-from runs/score"),
        generator=True,
        beta="ω(σ), σ at random",
        target="data noised by σ",
        field="difference of two denoisers, of data and of generated samples",
        needs="score and ratio",
        papers=("franceschi2023", "luo2023", "yin2024", "yin2024b", "zhou2024"),
    ),
    Model(
        name="diffusion-gan",
        title="Diffusion-GAN",
        page="theory/diffusion-gan.md",
        commands=("diffflow train 25gaussians --preset diffusion-gan",),
        f=SCHEDULED,
        beta="g²/2 + ω k G²/2",
        g2="(1+z) G²",
        lam2="G²",
        target=NOISED,
        field="a denoiser and the gradient of a discriminator that is told k and z; ω = 1 / (1 + σ²/std²), std the "
        "data's",
        needs="score and ratio",
        evaluations="3 per step",
        papers=("song2021", "goodfellow2014", "kim2023"),
        python="df.diffusion_gan(s, score, ratio, gan=k, churn=z)",
        landmark=Landmark("diffusion_gan", "Diffusion-GAN", ON_SCHEDULE | {"gan": 1, "churn": 1}, (-9, 4, "end")),
    ),
    Model(
        name="continuation",
        title="Analytic continuation, of annealed Langevin",
        page="theory/gan-dial.md",
        commands=("diffflow flow 25gaussians --model continuation",),
        f="its parent's: 0",
        beta="its parent's",
        g2="its parent's: 2β",
        lam2="< 0",
        target="data noised by σₖ, falling; reached flattened",
        field=LEARNED,
        needs="score",
        evaluations="1 per step",
        papers=("song2019",),
        python="df.continued(sde, lam2)",
        landmark=Landmark("continued", "continuation", ON_TARGET | {"churn": 1, "extra": 0.4}, (9, 4, "start")),
    ),
    _cloud("mmd", "MMD flow", "-∇ of the first variation of ½ MMD²", ("arbel2019",)),
    _cloud(
        "svgd",
        "SVGD",
        "∇log(r/p), smoothed by a kernel",
        ("liu2016",),
        needs="score",
        target=COOLED,
        evaluations="1 per step",
        python="df.gan_flow(df.SVGD(score))",
    ),
    _cloud(
        "ksd",
        "KSD descent",
        "-∇ of the first variation of ½ KSD²",
        ("korba2021",),
        needs="score",
        target=COOLED,
        evaluations="2 per step",
    ),
    _cloud("sliced-wasserstein", "Sliced-Wasserstein flow", "-∇ of the first variation of ½ SW₂²", ("liutkus2019",)),
    _cloud("score-difference", "Score-difference flow", "∇log(r/p), both by kernels", ("weber2023",), target=COOLED),
    _cloud("drifting", "Drifting field", "mean shift to the data minus mean shift to the cloud", ("deng2026",)),
    Model(
        name="monoflow",
        title="MonoFlow, any speed h(d) > 0",
        page="theory/particle-flows.md",
        commands=("diffflow flow 25gaussians --model mid",),
        beta="sig(-d) = p/(r+p)",
        target=COOLED,
        field="∇log(r/p), by kernels",
        evaluations="0",
        papers=("yi2023", "gao2019"),
    ),
    _amortised(
        "drifting-generator",
        "Drifting generator",
        "mean shift to the data minus mean shift to the batch",
        ("deng2026",),
        "drifting",
    ),
    _amortised(
        "mmd-generator",
        "Generator moved by the MMD field",
        "-∇ of the first variation of ½ MMD²",
        ("franceschi2023", "arbel2019"),
        "mmd-generator",
    ),
    _amortised(
        "sw-generator",
        "Generator moved by the sliced-Wasserstein field",
        "-∇ of the first variation of ½ SW₂²",
        ("franceschi2023", "liutkus2019"),
        "sw-generator",
    ),
)
MODELS: Registry[Model] = Registry("model", {model.name: model for model in _MODELS})

# What the flows without training do, one line each, by the names of `flows.FLOWS`, which makes them
FLOWS: dict[str, str] = {
    "svgd": "Stein variational gradient descent (needs a score)",
    "mmd": "descent of the energy distance (MMD, kernel -|x - y|)",
    "ksd": "descent of the kernel Stein discrepancy (needs a score)",
    "sliced-wasserstein": "descent of the sliced Wasserstein distance",
    "score-difference": "difference of the two scores by kernels, at falling noise",
    "drifting": "mean shift to the data minus mean shift to the others",
    "kl": "Wasserstein flow of KL(p | q)",
    "reverse-kl": "Wasserstein flow of KL(q | p)",
    "chi2": "Wasserstein flow of chi2(p | q)",
    "reverse-chi2": "Wasserstein flow of chi2(q | p)",
    "js": "Wasserstein flow of 2 JS(p, q), the saturating GAN",
    "mid": "Wasserstein flow of 2 KL((p + q)/2 | q), the non-saturating GAN",
    "hellinger": "Wasserstein flow of the squared Hellinger distance",
    "langevin": "Langevin dynamics at one noise level (needs a score)",
    "ncsn": "annealed Langevin dynamics (needs a score)",
    "continuation": "annealed Langevin dynamics with lam2 = -1: more noise, a flattened law (needs a score)",
}

# Places on the explorer's map between the models
BETWEEN = (
    Landmark("discriminator_guidance", "Guided ODE", ON_SCHEDULE | {"gan": 1, "churn": 0}, (-9, 4, "end")),
    Landmark("static", "half and half", ON_TARGET | {"churn": 0.5}, (26, -8, "middle")),
)


def landmarks() -> list[Landmark]:
    """The places on the explorer's map: the library's models that have one, and two between them."""
    return [m.landmark for m in _MODELS if m.landmark is not None] + list(BETWEEN)


def landmarks_js() -> str:
    """The explorer's static/landmarks.js, which holds these places for the page."""
    rows = [{"name": k.name, "title": k.title, "set": dict(k.dials), "label": list(k.label)} for k in landmarks()]
    lines = "".join(f"  {json.dumps(row)},\n" for row in rows)
    return f"""// The named places of the map; `set` is what choosing one changes. Written from the catalogue of models:
// python -m diffflow.models.catalogue writes it again, and a test compares.

export const LANDMARKS = [
{lines}];
"""


def markdown() -> str:
    """README's table of the models that one call builds."""
    head = "| model | f | β | g² | λ² | needs | |\n|---|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| [{m.title}](docs/{m.page}) | {m.f} | {m.beta} | {m.g2} | {m.lam2} | {m.needs} | `{m.python}` |\n"
        for m in _MODELS
        if m.python
    )


if __name__ == "__main__":
    (Path(__file__).parents[1] / "explorer" / "static" / "landmarks.js").write_text(landmarks_js())
