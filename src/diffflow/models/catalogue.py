r"""The catalogue: which models are settings of the equation, what does each need, and how is it run?

    dX = [ f + (beta - g2/2) grad log(r/p) + (g2/2) grad log r ] dt + sqrt(g2 - lam2) dW

One row a model: its coefficients, what stands in for the two fields, what drawing a sample costs, the papers and the
commands. `diffflow models` prints it, `benchmarks/models/models.py` measures it, docs/guides/models.md shows both.

Notation of the settings: s scale and σ noise of the schedule, G² = -2 s² σ σ' (the squared diffusion of the noising
process), d the discriminator's logit log(r/p), l the generator's loss, x the particle. Evaluations count networks: a
gradient of a discriminator is 2, a field of the cloud alone 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..equation.papers import bibtex


@dataclass(frozen=True)
class Model:
    """One row.

    generator     whether a network maps noise to a sample in one evaluation
    f, beta, g2, lam2    the setting of the equation, as text
    target        the law r that the particles are moved toward
    field         what stands in for grad log(r/p) and grad log r
    needs         what has to be known or learned: score, ratio, score and ratio, or samples (of the data alone)
    evaluations   network evaluations per sample, as text
    papers        keys of references.BIBTEX; the equation's own goes without saying
    commands      command lines that train it, or train and sample it
    page          its page below docs/
    """

    name: str
    title: str
    generator: bool
    f: str
    beta: str
    g2: str
    lam2: str
    target: str
    field: str
    needs: str
    evaluations: str
    papers: tuple[str, ...]
    commands: tuple[str, ...]
    page: str

    @property
    def setting(self) -> str:
        """The coefficients in one line."""
        return f"f = {self.f}, β = {self.beta}, g² = {self.g2}, λ² = {self.lam2}"

    def cite(self) -> str:
        """BibTeX, the equation's own paper first."""
        return bibtex(*self.papers)


NOISED, COOLED, DATA = "data scaled by s, noised by sσ", "data noised by σ(t), falling", "the data"
LIGHTLY = "data lightly noised"
LEARNED = "a denoiser, trained by score matching"
DISCRIMINATOR = "gradient of a discriminator"
SCORE = "diffflow train 25gaussians --out runs/score"
SCHEDULED = "(s'/s) x"


def _score(
    name: str, title: str, beta: str, g2: str, cost: str, papers: tuple[str, ...], flags: str, page: str
) -> Model:
    """A setting on the noise schedule that weighs the data score alone."""
    commands = (SCORE, f"diffflow sample runs/score {flags}")
    row = (SCHEDULED, beta, g2, "G²", NOISED, LEARNED, "score", cost)
    return Model(name, title, False, *row, papers, commands, page)


def _gan(name: str, title: str, beta: str, papers: tuple[str, ...]) -> Model:
    """A game between a generator and a discriminator: a particle flow, amortised."""
    papers = ("goodfellow2014", "franceschi2023", *papers)
    command = (f"diffflow train 25gaussians --preset {name}",)
    return Model(
        name, title, True, "0", beta, "0", "0", DATA, DISCRIMINATOR, "ratio", "1", papers, command, "theory/gans.md"
    )


def _cloud(
    name: str, title: str, field: str, needs: str, papers: tuple[str, ...], target: str = DATA, cost: str = "0"
) -> Model:
    """A flow of particles along a field made of the cloud itself, without training."""
    row = ("0", "1", "0", "0", target, field, needs, cost)
    command = (f"diffflow flow 25gaussians --model {name}",)
    return Model(name, title, False, *row, papers, command, "theory/particle-flows.md")


def _amortised(name: str, title: str, field: str, papers: tuple[str, ...], preset: str) -> Model:
    """A generator that regresses to particles moved by such a field."""
    row = ("0", "1", "0", "0", DATA, field, "samples", "1")
    command = (f"diffflow train 25gaussians --preset {preset}",)
    return Model(name, title, True, *row, papers, command, "theory/particle-flows.md")


_MODELS = (
    _score("score-sde", "Score diffusion, reverse SDE", "G²", "2G²", "1 per step", ("song2021", "karras2022"),
           "--churn 1", "theory/reverse-sde.md"),
    _score("score-ode", "Score diffusion, probability flow", "G²/2", "G²", "1 per step", ("song2021", "karras2022"),
           "--churn 0", "theory/probability-flow.md"),
    _score("edm-churn", "EDM with churn χ", "G²/2 + χσ²s²", "2β", "2 per step", ("song2021", "karras2022"),
           "--solver edm --churn 0.5", "theory/edm-churn.md"),
    _score("slcd", "SLCD: score only, any noise", "g²/2", "free (1.5 G²)", "1 per step",
           ("song2021", "karras2022"), "--churn 0.5", "theory/slcd.md"),
    Model("langevin", "Langevin dynamics", False, "0", "free", "2β", "0", LIGHTLY, "a score known or learned",
          "score", "1 per step", ("roberts1996",), ("diffflow flow 25gaussians --model langevin",),
          "theory/langevin.md"),
    Model("ncsn", "Annealed Langevin (NCSN)", False, "0", "ρ σₖ² per step", "2β", "0", "data noised by σₖ, falling",
          LEARNED, "score", "1 per step", ("song2019",), ("diffflow flow 25gaussians --model ncsn",),
          "theory/annealed-langevin.md"),
    _gan("gan-saturating", "GAN, saturating", "sig(d) = r/(r+p)", ()),
    _gan("gan", "GAN, non-saturating", "sig(-d) = p/(r+p)", ()),
    _gan("lsgan", "LSGAN", "1 - d", ("mao2017",)),
    _gan("hinge", "Hinge GAN", "1", ("lim2017", "miyato2018")),
    _gan("ipm", "IPM GAN (WGAN-GP)", "1", ("arjovsky2017", "gulrajani2017")),
    _gan("relativistic", "Relativistic GAN (R3GAN)", "sig(-d), d paired", ("jolicoeur2019", "huang2024")),
    _gan("fgan-kl", "f-GAN, KL", "1", ("nowozin2016",)),
    _gan("fgan-pearson", "f-GAN, Pearson χ²", "1", ("nowozin2016",)),
    Model("improved-gan-independent", "Improved GAN, one discriminator a level", False, "0", "free", "0", "0",
          COOLED, DISCRIMINATOR, "ratio", "2 per step", ("goodfellow2014",),
          ("diffflow train 25gaussians --preset improved-gan-independent",), "theory/improved-gan.md"),
    Model("improved-gan", "Improved GAN, one shared discriminator", False, "0", "free", "0", "0",
          COOLED, DISCRIMINATOR, "ratio", "2 per step", ("goodfellow2014",),
          ("diffflow train 25gaussians --preset improved-gan",), "theory/improved-gan.md"),
    Model("discriminator-flow", "Discriminator Flow", False, "0", "-η l'(d)", "0", "0", DATA,
          DISCRIMINATOR + " along the particles' own path", "ratio", "2 per step", ("franceschi2023",),
          ("diffflow train 25gaussians --preset discriminator-flow",), "theory/discriminator-flow.md"),
    Model("score-gan", "Score GAN", True, "0", "ω(σ), σ at random", "0", "0", "data noised by σ",
          "difference of two denoisers, of data and of generated samples", "score and ratio", "1",
          ("franceschi2023", "luo2023", "yin2024", "yin2024b", "zhou2024"),
          (SCORE, "diffflow train 25gaussians --preset score-gan --init-from runs/score"), "theory/score-gan.md"),
    Model("diffusion-gan", "Diffusion-GAN", False, SCHEDULED, "g²/2 + ω k G²/2", "(1+z) G²", "G²", NOISED,
          "a denoiser and the gradient of a discriminator that is told k and z; ω = 1 / (1 + σ²/std²), std the data's",
          "score and ratio", "3 per step",
          ("song2021", "goodfellow2014", "kim2023"), ("diffflow train 25gaussians --preset diffusion-gan",),
          "theory/diffusion-gan.md"),
    Model("continuation", "Analytic continuation, of annealed Langevin", False, "its parent's: 0", "its parent's",
          "its parent's: 2β", "< 0", "data noised by σₖ, falling; reached flattened", LEARNED, "score", "1 per step",
          ("song2019",), ("diffflow flow 25gaussians --model continuation",), "theory/gan-dial.md"),
    _cloud("mmd", "MMD flow", "-∇ of the first variation of ½ MMD²", "samples", ("arbel2019",)),
    _cloud("svgd", "SVGD", "∇log(r/p), smoothed by a kernel", "score", ("liu2016",), COOLED, "1 per step"),
    _cloud("ksd", "KSD descent", "-∇ of the first variation of ½ KSD²", "score", ("korba2021",),
           COOLED, "2 per step"),
    _cloud("sliced-wasserstein", "Sliced-Wasserstein flow", "-∇ of the first variation of ½ SW₂²", "samples",
           ("liutkus2019",)),
    _cloud("score-difference", "Score-difference flow", "∇log(r/p), both by kernels", "samples", ("weber2023",),
           COOLED),
    _cloud("drifting", "Drifting field", "mean shift to the data minus mean shift to the cloud", "samples",
           ("deng2026",)),
    Model("monoflow", "MonoFlow, any speed h(d) > 0", False, "0", "sig(-d) = p/(r+p)", "0", "0", COOLED,
          "∇log(r/p), by kernels", "samples", "0", ("yi2023", "gao2019"),
          ("diffflow flow 25gaussians --model mid",), "theory/particle-flows.md"),
    _amortised("drifting-generator", "Drifting generator", "mean shift to the data minus mean shift to the batch",
               ("deng2026",), "drifting"),
    _amortised("mmd-generator", "Generator moved by the MMD field", "-∇ of the first variation of ½ MMD²",
               ("franceschi2023", "arbel2019"), "mmd-generator"),
    _amortised("sw-generator", "Generator moved by the sliced-Wasserstein field",
               "-∇ of the first variation of ½ SW₂²", ("franceschi2023", "liutkus2019"), "sw-generator"),
)  # fmt: skip
MODELS: dict[str, Model] = {model.name: model for model in _MODELS}
