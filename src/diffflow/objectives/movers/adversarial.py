"""Adversarial mover: a discriminator that learns beside the generator moves its samples, which makes a GAN.

With q the law of the data, p that of the generated samples, d a logit and (L, l) a row of `games.GAMES`,

    d descends  E L(d(y), d(x)),  y ~ q, x ~ p;        v(x) = beta(d(x)) grad d(x),  beta = -l'    (derivations.md 3.1)

and one regression step of a generator toward x + eta v(x) is eta times the gradient of E_z l(d(G(z))): the GAN step.
At the optimal logistic d = log q/p the samples follow grad log q/p at the speed beta(d) of the game. In a paired game
the speed is read at d(x) - d(y), y the sample's real partner in the batch.

Shapes: x, y, v (n, *shape), logits (n,), cond int64 (n,) or None.

References:
    Goodfellow et al. 2014, arXiv:1406.2661. Franceschi et al. 2023, arXiv:2305.16150. Zhang et al. 2023,
    arXiv:2307.02159, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...equation.noise import Noise
from ...equation.times import per_particle
from ...networks.discriminator import Discriminator, DiscriminatorRatio
from ...networks.games import Game, Penalty, game_signals
from ..base import Batch, Stateless, Turn
from .adaptive import AdaptiveAugmentation
from .base import DrawFake, at_least_one

UNPENALISED = Penalty()


@dataclass(frozen=True)
class DiscriminatorMover(Stateless):
    """Mover v = beta(d) grad d by a discriminator, player "discriminator", that learns beside the generator.

    A turn logs the signals of the game (`games.game_signals`).

    Args:
        discriminator: d(x), without dials; it is told time 0.
        game: its loss, and the speed beta.
        penalty: what is added to its loss.
        updates: turns of the discriminator in each step, each against freshly generated samples.
        sigma: noise on the real samples, in units of x, so that the target is the data blurred by it (Algorithm 1's
            sigma_0).
        penalty_share: share of the samples in (0, 1] at which the penalty is taken, at 1/share of its weight: the same
            in expectation, and cheaper, as second derivatives are what a turn costs.
        instance_noise: fresh noise, in units of x, on whatever the discriminator sees, real and generated alike: it
            compares the two laws blurred by as much, and leaves details finer than that alone.
        data_range: coordinates are shown between -data_range and data_range, before that noise: where samples are cut
            off when they are saved, nothing beyond is judged, and no velocity points further out.
        augment: changes of pictures before that noise, real and generated alike, more of them the surer the
            discriminator is of real ones; None: none.

    Raises:
        ValueError: for settings out of range, a penalty between samples at a share of them, and a discriminator with
            dials.

    References:
        Sonderby et al. 2017, arXiv:1610.04490 (instance noise).
    """

    discriminator: Discriminator
    game: Game
    penalty: Penalty = UNPENALISED
    updates: int = 1
    sigma: float = 0.0
    penalty_share: float = 1.0
    instance_noise: float = 0.0
    data_range: float = math.inf
    augment: AdaptiveAugmentation | None = None

    def __post_init__(self) -> None:
        at_least_one("updates", self.updates)
        if not 0 < self.penalty_share <= 1:
            raise ValueError(
                f"penalty_share = {self.penalty_share}: the penalty is taken at a share of the samples in (0, 1]"
            )
        if self.penalty_share < 1 and self.penalty.between:
            raise ValueError(
                f"penalty_share = {self.penalty_share} goes with penalties at real and generated points, not "
                "between them"
            )
        if not 0 <= self.sigma < math.inf:
            raise ValueError(f"sigma = {self.sigma}: noise on the real samples is finite and >= 0")
        if not 0 <= self.instance_noise < math.inf:
            raise ValueError(
                f"instance_noise = {self.instance_noise}: noise on what the discriminator sees is finite and >= 0"
            )
        if not self.data_range > 0:
            raise ValueError(
                f"data_range = {self.data_range}: coordinates are shown between -data_range and data_range, a "
                "positive number"
            )
        if self.discriminator.dials:
            raise ValueError("a generator has no dials, but this discriminator takes some: build its net with dials=0")

    @property
    def players(self) -> Mapping[str, nn.Module]:
        """The discriminator."""
        return {"discriminator": self.discriminator}

    @property
    def classes(self) -> int:
        """Number of classes of the discriminator."""
        return self.discriminator.classes

    def learn(self, batch: Batch, draw_fake: DrawFake, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        """Turns of the discriminator, on the loss of the game, the penalty and that of its twin classifiers."""
        for k in range(self.updates):
            fork = noise.fork("update", k)
            real = self._shown(self._real(batch, fork), fork.fork("seen", "real"))
            fake = self._shown(draw_fake(fork.fork("fake")), fork.fork("seen", "fake"))
            a, b = (self.discriminator.output(x, 0.0, cond) for x in (real, fake))
            loss = self.game.discriminator(a.logit, b.logit) + self._penalised(real, fake, cond, fork)
            if cond is not None and a.real is not None and b.made is not None:  # twin classifiers, each of its own law
                loss = loss + F.nll_loss(a.real, cond, reduction="none") + F.nll_loss(b.made, cond, reduction="none")
            log = game_signals(self.game, a.logit, b.logit)
            if self.augment is not None:
                log["augmented"] = torch.tensor(self.augment.p)
                self.augment.follow(self.game, a.logit.detach(), b.logit.detach())
            yield Turn("discriminator", loss, log)

    def _penalised(self, real: Tensor, fake: Tensor, cond: Tensor | None, noise: Noise) -> Tensor:
        """The penalty per sample (n,); zero at those that are left out."""
        chosen = noise.fork("share").uniform(len(real), device=real.device) < self.penalty_share
        total = torch.zeros(len(real), dtype=real.dtype, device=real.device)
        at = chosen.nonzero().flatten()
        if not len(at):
            return total
        classes = None if cond is None else cond[at]  # sample i is of one class, real and generated

        def logit(x: Tensor, nearer_real: Tensor) -> Tensor:
            return self.discriminator(x, 0.0, classes)

        penalty = self.penalty(logit, real[at], fake[at], noise.fork("between"))
        return total.index_copy(0, at, penalty / self.penalty_share)

    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        """Velocity beta(d) grad d, at the samples as the discriminator is shown them."""
        seen = noise.fork("seen", "fake")
        shown = self._shown(x.detach(), seen)
        logit, grad = DiscriminatorRatio(self.discriminator, cond=cond).value_and_grad(shown, 0.0)
        if self.augment is not None:
            grad = self.augment.back(grad, seen)
        if self.game.paired:
            with torch.no_grad():
                real = self._shown(self._real(batch, noise), noise.fork("seen", "real"))
                logit = logit - self.discriminator(real, 0.0, cond)
        return inside(per_particle(self.game.beta(logit), x) * grad, x, self.data_range)

    def state(self) -> dict[str, Tensor]:
        """The probability of augmentation and what it follows, where there is one."""
        return {} if self.augment is None else self.augment.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a saved `state`. Raises ValueError for one of another mover."""
        if self.augment is None:
            super().load_state(state)
        else:
            self.augment.load_state(state)

    def _real(self, batch: Batch, noise: Noise) -> Tensor:
        """The real samples that the game is played with, (n, *shape)."""
        return _noised(batch.x, self.sigma, noise.fork("real"))

    def _shown(self, x: Tensor, noise: Noise) -> Tensor:
        """What the discriminator is shown of x (n, *shape)."""
        if self.data_range != math.inf:
            x = x.clamp(-self.data_range, self.data_range)
        if self.augment is not None:
            x = self.augment(x, noise)
        return _noised(x, self.instance_noise, noise)


def inside(v: Tensor, x: Tensor, data_range: float) -> Tensor:
    """Velocity with the entries zeroed that would push a coordinate further outside the data's range.

    Args:
        v: velocity (n, *shape).
        x: samples (n, *shape).
        data_range: the range is [-data_range, data_range], in units of x; inf for none.

    Returns:
        The velocity (n, *shape).
    """
    return v if data_range == math.inf else v.masked_fill(v * (x - x.clamp(-data_range, data_range)) > 0, 0.0)


def _noised(x: Tensor, sigma: float, noise: Noise) -> Tensor:
    """Samples x + sigma xi, (n, *shape)."""
    if not sigma:
        return x
    return x + sigma * noise.normal(len(x), tuple(x.shape[1:]), dtype=x.dtype, device=x.device)
