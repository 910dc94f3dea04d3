"""Score differences: two denoisers move samples so that their noised law becomes the data's at every noise level.

    y = x + sigma eps,    v(x) = E_{sigma, eps} omega(sigma) (grad log q_sigma - grad log p_sigma)(y)

is minus the gradient of the first variation of E_sigma [omega(sigma) KL(p_sigma | q_sigma)] (derivations.md 6.3), p the
law of the generated samples and p_sigma that law noised. Both scores are denoisers, grad log q_sigma(y) = (D(y, sigma)
- y) / sigma^2: the data's is given and stays as it is, that of the generated samples learns beside the generator. Score
GAN, Diff-Instruct, DMD and SiD differ in the law of sigma and in how the two make v (a `Pull`).

Shapes: x, y, v (n, *shape), sigma (n,), cond int64 (n,) or None.

References:
    Franceschi et al. 2023, arXiv:2305.16150 (Score GAN). Luo et al. 2023, arXiv:2305.18455 (Diff-Instruct).
    Yin et al. 2024, arXiv:2311.18828 (DMD). Zhou et al. 2024, arXiv:2404.04057 (SiD).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ...equation.noise import Noise
from ...equation.times import per_particle
from ...networks.denoiser import Denoiser
from ..base import Batch, Turn
from ..score_matching import NoiseWeighting, ScoreMatching
from .base import DrawFake, at_least_one

Denoise = Callable[[Tensor], Tensor]  # y (n, *shape) -> D(y, sigma), at noise levels already chosen


class Pull(Protocol):
    """How two denoisers make a velocity."""

    def __call__(self, x: Tensor, y: Tensor, sigma: Tensor, data: Denoise, fake: Denoise) -> Tensor:
        """Velocity of generated samples.

        Args:
            x: generated samples (n, *shape).
            y: the same, noised: x + sigma eps (n, *shape).
            sigma: the noise levels (n,).
            data: the data's denoiser at these levels.
            fake: that of the generated law.

        Returns:
            The velocity (n, *shape).
        """
        ...


@dataclass(frozen=True)
class ScoreGAN:
    """Pull of Score GAN: sigma^power (data score_data(y) - fake score_fake(y)).

    power = 1, both weights 1: Score GAN, the gradient flow of E_sigma [sigma KL(p_sigma | q_sigma)] (derivations.md
    6.3). Any other power is a weight of the integral KL of Diff-Instruct (derivations.md 7.9); power = 2 weighs the
    difference of the denoisers alike at all levels.

    Args:
        power: of sigma, the weight of the levels.
        data: weight of the data's score.
        fake: weight of the generated law's score.

    References:
        Franceschi et al. 2023, arXiv:2305.16150. Luo et al. 2023, arXiv:2305.18455.
    """

    power: float = 1.0
    data: float = 1.0
    fake: float = 1.0

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor, sigma: Tensor, data: Denoise, fake: Denoise) -> Tensor:
        """Velocity by the difference of the two scores (n, *shape)."""
        pull = self.data * (data(y) - y) - self.fake * (fake(y) - y)
        return per_particle(sigma ** (self.power - 2), x) * pull


@dataclass(frozen=True)
class DMD:
    """Pull of DMD: (D_data(y) - D_fake(y)) / mean |x - D_data(y)|, of the same size for every sample.

    References:
        Yin et al. 2024, arXiv:2311.18828, eq. 8; derivations.md 7.10.
    """

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor, sigma: Tensor, data: Denoise, fake: Denoise) -> Tensor:
        """Velocity by the difference of the two denoisers, scaled (n, *shape)."""
        D = data(y)
        return (D - fake(y)) / per_particle(_distance(x, D), x)


@dataclass(frozen=True)
class SiD:
    """Pull of SiD: minus the gradient, through y, of the estimated score divergence.

    That estimate is [ (1 - alpha) |D_data - D_fake|^2 + <D_data - D_fake, D_fake - x> ] / mean |x - D_data|.

    Args:
        alpha: weight of the first term's correction; 1 leaves the second term alone.

    References:
        Zhou et al. 2024, arXiv:2404.04057, eq. 23; derivations.md 7.12.
    """

    alpha: float = 1.2

    @torch.enable_grad()
    def __call__(self, x: Tensor, y: Tensor, sigma: Tensor, data: Denoise, fake: Denoise) -> Tensor:
        """Velocity by backpropagation through both denoisers (n, *shape)."""
        x0 = x.detach().requires_grad_(True)
        y0 = x0 + (y - x).detach()
        D, G = data(y0), fake(y0)
        error = (1 - self.alpha) * (D - G).square() + (D - G) * (G - x0)
        (grad,) = torch.autograd.grad((error / per_particle(_distance(x, D).detach(), x)).sum(), x0)
        return -grad


def _distance(x: Tensor, D: Tensor) -> Tensor:
    """Mean |x - D| over the entries of each sample (n,)."""
    return (x - D).abs().flatten(1).mean(1)


# -- at which noise levels ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LogUniformLevels:
    """Noise levels with ln sigma uniform, and EDM's weight for the denoiser that learns at them.

    Args:
        sigma_min: smallest noise level, in data units, > 0.
        sigma_max: largest noise level, > sigma_min.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max, both finite.
    """

    sigma_min: float = 0.05
    sigma_max: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(f"noise levels need 0 < sigma_min < sigma_max, got {self.sigma_min} and {self.sigma_max}")

    def sigma(self, u: Tensor) -> Tensor:
        """Noise levels (n,) from uniform numbers u (n,)."""
        return self.sigma_max * (self.sigma_min / self.sigma_max) ** u

    def weight(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """1/sigma^2 + 1/sigma_data^2."""
        return sigma**-2 + sigma_data**-2


@dataclass(frozen=True)
class KarrasLevels(LogUniformLevels):
    """Noise levels of EDM's sampling grid, at a uniform place of it (derivations.md 6.3).

    Args:
        sigma_min: smallest noise level, in data units, > 0.
        sigma_max: largest noise level, > sigma_min.
        rho: sigma^(1/rho) is uniform, > 0.

    Raises:
        ValueError: for values out of range.

    References:
        Karras et al. 2022, arXiv:2206.00364, eq. 5.
    """

    sigma_min: float = 0.02
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rho > 0:
            raise ValueError(f"rho = {self.rho} must be positive")

    def sigma(self, u: Tensor) -> Tensor:
        """Noise levels (n,) from uniform numbers u (n,)."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        return (high + u * (low - high)) ** self.rho


SCORE_GAN, EDM_GRID = ScoreGAN(), KarrasLevels()


# -- the mover ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ScoreDifference:
    """Mover by the data's score minus that of the generated law, each after noise of one level per sample.

    A turn of player "fake" logs `error`, the mean square error of its denoiser per dimension.

    Args:
        data: the data's denoiser; frozen here. Its tensors are the state of the objective, so that a checkpoint needs
            no other file.
        fake: the denoiser of the generated samples, player "fake", learning at the same levels; usually it starts as a
            copy of `data`.
        pull: how the two make a velocity: ScoreGAN(), ScoreGAN(power=...), DMD(), SiD().
        levels: the law of the noise levels: KarrasLevels, LogUniformLevels or any `NoiseWeighting`.
        updates: turns of `fake` in each step, each on freshly generated samples.
        guidance: weight of the class in the data's denoiser; 1 is the plain conditional one.
        label_dropout: share of samples whose class is hidden from `fake`.

    Raises:
        ValueError: for guidance without classes, denoisers of different classes or with shared weights, and values out
            of range.

    References:
        Franceschi et al. 2023, arXiv:2305.16150; derivations.md 6.3. Ho & Salimans 2022, arXiv:2207.12598 (guidance).
    """

    data: Denoiser
    fake: Denoiser
    pull: Pull = SCORE_GAN
    levels: NoiseWeighting = EDM_GRID
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
        """The denoiser of the generated samples."""
        return {"fake": self.fake}

    @property
    def classes(self) -> int:
        """Number of classes of the denoisers."""
        return self.fake.classes

    def learn(self, batch: Batch, draw_fake: DrawFake, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        """Turns of `fake`, denoising score matching on generated samples."""
        matching = ScoreMatching(self.fake, self.levels, self.label_dropout)
        for k in range(self.updates):
            fork = noise.fork("update", k)
            for turn in matching.turns(Batch(draw_fake(fork.fork("fake")), cond, batch.rows), fork):
                yield replace(turn, player="fake")

    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        """Velocity by the pull, at one noise level per sample."""
        x, n = x.detach(), len(x)
        sigma = self.levels.sigma(noise.fork("sigma").uniform(n, dtype=x.dtype, device=x.device))
        eps = noise.fork("eps").normal(n, tuple(x.shape[1:]), dtype=x.dtype, device=x.device)

        def data(y: Tensor) -> Tensor:
            D = self.data(y, sigma, cond)
            if self.guidance == 1.0:
                return D
            unconditional = self.data(y, sigma)
            return unconditional + self.guidance * (D - unconditional)

        y = x + per_particle(sigma, x) * eps
        return self.pull(x, y, sigma, data, lambda y: self.fake(y, sigma, cond)).detach()

    def state(self) -> dict[str, Tensor]:
        """Tensors of the data's denoiser, under "data/..."."""
        return {f"data/{k}": v for k, v in self.data.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a saved denoiser of the data. Raises ValueError where tensors are missing."""
        if missing := sorted(self.state().keys() - state.keys()):
            raise ValueError(
                f"the checkpoint lacks the data's denoiser ({len(missing)} tensors, such as {missing[0]}): "
                "it is of another objective, or incomplete"
            )
        self.data.load_state_dict({k.removeprefix("data/"): v for k, v in state.items()})
