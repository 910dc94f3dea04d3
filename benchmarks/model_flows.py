"""The rows of the catalogue that train nothing of their own, as functions of the shared denoiser and the data.

Each is (run, data, n, noise, quick) -> Drawn. All work in the run's model units, where data have a width of about 1:
noise levels, bandwidths and steps mean the same on every dataset. Score-based rows sample the denoiser's equation;
flows move n particles from the data's Gaussian along a field made of the particles, which targets the training points,
or the score of the data noised at a fixed level (learned: the denoiser's), followed by one denoising.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import diffflow as df
from diffflow import kernels, spectrum

POINTS = 1000  # training points that a flow targets
LEVEL = {False: 0.03, True: 0.15}  # noise of the score that flows follow: vectors, images
BLUR = {False: 0.1, True: 0.3}  # that of SVGD and KSD, whose step falls with its square
RATE = 0.2  # of a Langevin step: the share of the way to the denoised value


@dataclass(frozen=True)
class Drawn:
    """Samples in data units, network evaluations each, what it took, and the classes asked for."""

    x: Tensor
    nfe: int
    settings: dict[str, Any]
    labels: Tensor | None = None


Sampler = Callable[[df.Run, df.data.Data, int, df.Noise, bool], Drawn]


def classes(run: df.Run, n: int) -> Tensor | None:
    """One class after the other, where the model knows classes."""
    return torch.arange(n) % len(run.classes) if run.classes else None


# -- from the denoiser -------------------------------------------------------------------------------------------------
def dial(steps: int, churn: float, solver: Any = None) -> Sampler:
    """The schedule's family at a churn."""

    def draw(run: df.Run, data: df.data.Data, n: int, noise: df.Noise, quick: bool) -> Drawn:
        labels = classes(run, n)
        path = run.sample(n, cond=labels, steps=steps, churn=churn, noise=noise, solver=solver)
        name = "default" if solver is None else type(solver).__name__
        return Drawn(path.last, path.nfe, {"steps": steps, "churn": churn, "solver": name}, labels)

    return draw


def stairs(top: float | None, count: int, steps: int, extra: float = 0.0) -> Sampler:
    """Langevin steps at `count` noise levels from `top` down to LEVEL (at LEVEL alone: top None), then a denoising.

    extra: lam2 = -extra beta, the analytic continuation.
    """

    def draw(run: df.Run, data: df.data.Data, n: int, noise: df.Noise, quick: bool) -> Drawn:
        low, each = LEVEL[data.kind == "image"], 3 if quick else steps
        levels = df.Levels((low,), each) if top is None else df.Levels.geometric(top, low, count, each)
        sde = df.annealed_langevin(levels, levels.score(run.denoiser), rate=RATE)
        if extra:
            beta = sde.beta
            sde = df.continued(sde, lambda t: -extra * beta(t))
        labels = classes(run, n)
        start = levels.prior(run.shape, run.data["mean"], run.data["std"]).sample(n, noise.fork("start"))
        cond = None if labels is None else labels.to(run.device)
        path = df.sample(sde, start.to(run.device), noise=noise, cond=cond)
        settings = {"levels": count, "steps_per_level": each, "sigma_min": low, "rate": RATE, "lam2_over_beta": -extra}
        return Drawn(run.decode(path.last).cpu(), path.nfe, settings, labels)

    return draw


SAMPLERS: dict[str, Sampler] = {
    "score-sde": dial(50, 1.0),
    "score-ode": dial(20, 0.0),
    "edm-churn": dial(25, 0.5, df.NoiseRaising()),
    "slcd": dial(50, 0.5),
    "langevin": stairs(None, 1, 200),
    "ncsn": stairs(20.0, 20, 10),
    "continuation": stairs(None, 1, 200, extra=1.0),
}


# -- from the cloud ----------------------------------------------------------------------------------------------------
def flow(
    make: Callable[[Tensor, df.Field, bool], df.Field],
    horizon: tuple[float, float],
    steps: int,
    beta: Any = 1.0,
    scored: bool = False,
) -> Sampler:
    """Particles along the field make(target points, score, whether images), in `steps` equal Euler steps.

    horizon  of a flow of vectors, and of one of images
    scored   the field follows the score of noised data, so the particles are denoised at the end
    """

    def draw(run: df.Run, data: df.data.Data, n: int, noise: df.Noise, quick: bool) -> Drawn:
        image, count = data.kind == "image", 10 if quick else steps
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
        points, levels = run.encode(data.x[order[:POINTS]]), df.Levels((BLUR[image],), 1)
        score = levels.score(run.denoiser)
        sde = spectrum.gan_flow(make(points, score, image), beta, horizon=horizon[image])
        start = df.Gaussian(torch.full(run.shape, run.data["mean"]), run.data["std"]).sample(n, noise.fork("start"))
        path = df.sample(sde, start, steps=count, solver=df.Euler(), noise=noise)
        x, nfe = (score.denoise(path.last, 0.0), path.nfe + 1) if scored else (path.last, path.nfe)
        settings = {"horizon": horizon[image], "steps": count, "points": len(points)}
        return Drawn(run.decode(x).cpu(), nfe, settings | ({"sigma": BLUR[image]} if scored else {}))

    return draw


def falling(top: float, low: float) -> Callable[[Any], float]:
    """A bandwidth that falls in equal ratio from `top` at t = 0 to `low` at t = 1."""
    return lambda t: top * (low / top) ** min(float(t), 1.0)


WIDTH = {False: falling(1.0, 0.05), True: falling(3.0, 0.5)}
FLOWS: dict[str, Sampler] = {
    "mmd": flow(lambda y, s, image: kernels.MMD(y), (120.0, 2000.0), 200),
    "svgd": flow(lambda y, s, image: kernels.SVGD(s, kernels.GaussianKernel(3.0 if image else 0.1)), (5.0, 20.0), 200, scored=True),
    "ksd": flow(lambda y, s, image: kernels.KSD(s), (0.02, 1.0), 200, scored=True),
    "sliced-wasserstein": flow(lambda y, s, image: kernels.SlicedWasserstein(y, 128), (300.0, 6400.0), 200),
    "score-difference": flow(lambda y, s, image: kernels.KernelRatio(y, WIDTH[image]), (1.0, 1.0), 100),
    "drifting": flow(lambda y, s, image: kernels.Drifting(y, kernels.LaplaceKernel(0.2)), (100.0, 100.0), 100),
    "monoflow": flow(lambda y, s, image: kernels.KernelRatio(y, WIDTH[image]), (1.0, 1.0), 100),
}
