r"""Two denoisers as a velocity: where do samples go to bring their noised law to the data's, at every noise level?

    y = x + sigma eps,    v(x) = E_{sigma, eps} omega(sigma) (grad log q_sigma - grad log p_sigma)(y)   (derivations.md
    6.3)

minus the gradient of the first variation of E_sigma [omega(sigma) KL(p_sigma | q_sigma)], p the law of the generated
samples and p_sigma that law noised. Both scores are denoisers, grad log q_sigma(y) = (D(y, sigma) - y) / sigma^2: the
data's is given and stays as it is, that of the generated samples learns beside the generator. Score GAN (Franceschi et
al. 2023), Diff-Instruct, DMD and SiD differ in the law of sigma and in how the two make v (a `Pull`).

Shapes: x, y, v (n, *shape), sigma (n,), cond int64 (n,) or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ...equation.noise import Noise
from ...networks.denoiser import Denoiser, per_particle
from ..base import Batch, Turn
from ..score_matching import ScoreMatching, Weighting
from .base import Draw, at_least_one

Denoise = Callable[[Tensor], Tensor]  # y (n, *shape) -> D(y, sigma), at noise levels already chosen


class Pull(Protocol):
    """How two denoisers make a velocity: x (n, *shape) the generated samples, y = x + sigma eps, sigma (n,)."""

    def __call__(self, x: Tensor, y: Tensor, sigma: Tensor, data: Denoise, fake: Denoise) -> Tensor: ...


@dataclass(frozen=True)
class ScoreGAN:
    """sigma^power (data score_data(y) - fake score_fake(y)).

    power = 1, both weights 1: Score GAN (derivations.md 6.3), the gradient flow of E_sigma [sigma KL(p_sigma |
    q_sigma)].
    Any other power is a weight of the integral KL of Diff-Instruct (Luo et al. 2023; derivations.md 7.9); power = 2
    weighs the difference of the denoisers alike at all levels.
    """

    power: float = 1.0
    data: float = 1.0
    fake: float = 1.0

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor, sigma: Tensor, data: Denoise, fake: Denoise) -> Tensor:
        pull = self.data * (data(y) - y) - self.fake * (fake(y) - y)
        return per_particle(sigma ** (self.power - 2), x) * pull


@dataclass(frozen=True)
class DMD:
    """(D_data(y) - D_fake(y)) / mean |x - D_data(y)|: every sample's pull has the same size (Yin et al. 2024, eq. 8;
    derivations.md 7.10).
    """

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor, sigma: Tensor, data: Denoise, fake: Denoise) -> Tensor:
        D = data(y)
        return (D - fake(y)) / _distance(x, D)


@dataclass(frozen=True)
class SiD:
    """Minus the gradient, through y, of the estimated score divergence (Zhou et al. 2024, eq. 23; derivations.md 7.12):

    [ (1 - alpha) |D_data - D_fake|^2 + <D_data - D_fake, D_fake - x> ] / mean |x - D_data|
    """

    alpha: float = 1.2

    @torch.enable_grad()
    def __call__(self, x: Tensor, y: Tensor, sigma: Tensor, data: Denoise, fake: Denoise) -> Tensor:
        x0 = x.detach().requires_grad_(True)
        y0 = x0 + (y - x).detach()
        D, G = data(y0), fake(y0)
        error = (1 - self.alpha) * (D - G).square() + (D - G) * (G - x0)
        (grad,) = torch.autograd.grad((error / _distance(x, D).detach()).sum(), x0)
        return -grad


def _distance(x: Tensor, D: Tensor) -> Tensor:
    """mean |x - D| over the entries of each sample, shaped to divide x."""
    return per_particle((x - D).abs().flatten(1).mean(1), x)


# -- at which noise levels ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LogUniformLevels:
    """ln sigma uniform. `weight` is EDM's, for the denoiser that learns at these levels (Karras et al. 2022)."""

    sigma_min: float = 0.05
    sigma_max: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"noise levels need 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    def sigma(self, u: Tensor) -> Tensor:
        return self.sigma_max * (self.sigma_min / self.sigma_max) ** u

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        return sigma**-2 + sigma_data**-2


@dataclass(frozen=True)
class KarrasLevels(LogUniformLevels):
    """The levels of EDM's sampling grid, at a uniform place of it (Karras et al. 2022, eq. 5; derivations.md 6.3)."""

    sigma_min: float = 0.02
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rho > 0:
            raise ValueError(f"rho = {self.rho} must be positive")

    def sigma(self, u: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (high + u * (low - high)) ** self.rho


SCORE_GAN, EDM_GRID = ScoreGAN(), KarrasLevels()


# -- the mover ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ScoreDifference:
    """The data's score minus that of the generated law, each after noise of one level per sample (derivations.md 6.3).

    data            the data's denoiser; frozen here. Its tensors are the state of the objective, so that a checkpoint
                    needs no other file
    fake            the denoiser of the generated samples, player "fake", learning at the same levels; usually it starts
                    as a copy of `data`
    pull            how the two make a velocity: ScoreGAN(), ScoreGAN(power=...), DMD(), SiD()
    levels          the law of the noise levels (KarrasLevels, LogUniformLevels or any Weighting)
    updates         turns of `fake` in each step, each on freshly generated samples
    guidance        weight of the class in the data's denoiser (Ho & Salimans 2022); 1 is the plain conditional one
    label_dropout   share of samples whose class is hidden from `fake`
    """

    data: Denoiser
    fake: Denoiser
    pull: Pull = SCORE_GAN
    levels: Weighting = EDM_GRID
    updates: int = 1
    guidance: float = 1.0
    label_dropout: float = 0.0

    def __post_init__(self) -> None:
        at_least_one("updates", self.updates)
        if not math.isfinite(self.guidance) or (self.guidance != 1.0 and not self.data.classes):
            raise ValueError(f"guidance = {self.guidance} needs a finite number and a data denoiser that knows classes")
        if self.data.classes != self.fake.classes:
            raise ValueError(f"the data's denoiser knows {self.data.classes} classes, the other {self.fake.classes}")
        if {id(p) for p in self.data.parameters()} & {id(p) for p in self.fake.parameters()}:
            raise ValueError("the two denoisers share weights, but only one of them may learn: give `fake` a copy")
        self.data.requires_grad_(False).eval()

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return {"fake": self.fake}

    @property
    def classes(self) -> int:
        return self.fake.classes

    def learn(self, batch: Batch, fake: Draw, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        matching = ScoreMatching(self.fake, self.levels, self.label_dropout)
        for k in range(self.updates):
            own = noise.fork("update", k)
            for turn in matching.turns(Batch(fake(own.fork("fake")), cond, batch.rows), own):
                yield replace(turn, player="fake")

    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        x, n = x.detach(), len(x)
        sigma = self.levels.sigma(noise.fork("sigma").uniform(n, dtype=x.dtype, device=x.device))
        eps = noise.fork("eps").normal(n, tuple(x.shape[1:]), dtype=x.dtype, device=x.device)

        def data(y: Tensor) -> Tensor:
            D = self.data(y, sigma, cond)
            if self.guidance == 1.0:
                return D
            free = self.data(y, sigma)
            return free + self.guidance * (D - free)

        y = x + per_particle(sigma, x) * eps
        return self.pull(x, y, sigma, data, lambda y: self.fake(y, sigma, cond)).detach()

    def state(self) -> dict[str, Tensor]:
        return {f"data/{k}": v for k, v in self.data.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if missing := sorted(self.state().keys() - state.keys()):
            raise ValueError(
                f"the checkpoint lacks the data's denoiser ({len(missing)} tensors, such as {missing[0]}): "
                "it is of another objective, or incomplete"
            )
        self.data.load_state_dict({k.removeprefix("data/"): v for k, v in state.items()})
