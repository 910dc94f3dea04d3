"""Where should generated samples go? A mover gives every sample x = G(z) of a generator a velocity v(x); a generator
follows it (particles.py).

    Critic            beta(d) grad d of a discriminator that learns beside it (GAN)
    ScoreDifference   score of the data minus that of the generated law (difference.py; Score GAN and its kin)
    Moments           what means and variances lack, of all generated samples of late (moments.py)
    CloudMover        a field made of the generated cloud and the data themselves (drifting, MMD, ...)
    Endpoints         to where a given generator, a fine solution of an equation, brings the same z (distillation)
    Together          a weighted sum of these
    Lead              one of these first, then another

Shapes: x (n, *shape), velocity (n, *shape), cond int64 (n,) or None, loss (n,).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..equation.kernels import CloudField, Injected
from ..equation.noise import Noise
from ..networks.denoiser import spread_over
from ..networks.discriminator import CriticRatio, Discriminator
from ..networks.games import Game, Penalty, signals
from ..networks.generator import Generator
from .objective import Batch, Stateless, Turn

UNPENALISED = Penalty()
Draw = Callable[[Noise], Tensor]  # fresh generated samples (n, *shape), detached, of the classes asked for


class Mover(Protocol):
    """Where generated samples should go. `classes`: how many it tells apart, None: whatever it is given."""

    @property
    def players(self) -> Mapping[str, nn.Module]: ...

    @property
    def classes(self) -> int | None: ...

    def learn(self, batch: Batch, fake: Draw, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        """Its own players' turns of this step (there may be none). cond (n,) are the classes of the batch and of the
        generated samples alike, None where the generator has no classes."""
        ...

    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        """The velocity (n, *shape) of generated samples x = G(z) (n, *shape), detached. z (n, *latent_shape): where
        each particle began, for movers that follow it from there."""
        ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: Mapping[str, Tensor]) -> None: ...


def at_least_one(name: str, value: int) -> None:
    if int(value) != value or value < 1:
        raise ValueError(f"{name} = {value} must be a whole number, at least 1")


# -- a discriminator --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Critic(Stateless):
    """v = beta(d) grad d of a discriminator, player "discriminator", that plays `game` under `penalty`.

    updates   turns of the discriminator in each step, each against freshly generated samples
    sigma     noise on the real samples, so that the target is the data blurred by it (Algorithm 1's sigma_0)
    share     share of the samples at which the penalty is taken, at 1/share of its weight: the same in expectation, and
              cheaper, as second derivatives are what a turn costs
    instance  fresh noise on whatever the discriminator sees, real and generated alike (instance noise, Sonderby et al.
              2017): it compares the two laws blurred by as much, and leaves details finer than that alone
    clip      coordinates are shown between -clip and clip, before that noise: where samples are cut off when they are
              saved, nothing beyond is judged, and no velocity points further out
    """

    discriminator: Discriminator
    game: Game
    penalty: Penalty = UNPENALISED
    updates: int = 1
    sigma: float = 0.0
    share: float = 1.0
    instance: float = 0.0
    clip: float = math.inf

    def __post_init__(self) -> None:
        at_least_one("updates", self.updates)
        if not 0 < self.share <= 1:
            raise ValueError(f"share = {self.share}: the penalty is taken at a share of the samples in (0, 1]")
        if self.share < 1 and self.penalty.between:
            raise ValueError(f"share = {self.share} goes with penalties at real and generated points, not between them")
        if not 0 <= self.sigma < math.inf:
            raise ValueError(f"sigma = {self.sigma}: noise on the real samples is finite and >= 0")
        if not 0 <= self.instance < math.inf:
            raise ValueError(f"instance = {self.instance}: noise on what the discriminator sees is finite and >= 0")
        if not self.clip > 0:
            raise ValueError(f"clip = {self.clip}: coordinates are shown between -clip and clip, a positive number")
        if self.discriminator.dials:
            raise ValueError("a generator has no dials, but this discriminator takes some: build its net with dials=0")

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return {"discriminator": self.discriminator}

    @property
    def classes(self) -> int:
        return self.discriminator.classes

    def learn(self, batch: Batch, fake: Draw, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        for k in range(self.updates):
            own = noise.fork("update", k)
            real = self._seen(self._real(batch, own), own.fork("seen", "real"))
            made = self._seen(fake(own.fork("fake")), own.fork("seen", "fake"))
            a, b = (self.discriminator.opinion(x, 0.0, cond) for x in (real, made))
            loss = self.game.critic(a.logit, b.logit) + self._penalised(real, made, cond, own)
            if cond is not None and a.real is not None and b.made is not None:  # twin classifiers, each of its own law
                loss = loss + F.nll_loss(a.real, cond, reduction="none") + F.nll_loss(b.made, cond, reduction="none")
            yield Turn("discriminator", loss, signals(self.game, a.logit, b.logit))

    def _penalised(self, real: Tensor, made: Tensor, cond: Tensor | None, noise: Noise) -> Tensor:
        """The penalty per sample (n,); zero at those that are left out."""
        some = noise.fork("share").uniform(len(real), device=real.device) < self.share
        total = torch.zeros(len(real), dtype=real.dtype, device=real.device)
        if not some.any():
            return total
        at = some.nonzero().flatten()
        classes = None if cond is None else cond[at]  # sample i is of one class, real and generated

        def logit(x: Tensor, nearer_real: Tensor) -> Tensor:
            return self.discriminator(x, 0.0, classes)

        return total.index_copy(0, at, self.penalty(logit, real[at], made[at], noise.fork("between")) / self.share)

    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        seen = self._seen(x.detach(), noise.fork("seen", "fake"))
        logit, grad = CriticRatio(self.discriminator, cond=cond).value_and_grad(seen, 0.0)
        if self.game.paired:
            with torch.no_grad():
                real = self._seen(self._real(batch, noise), noise.fork("seen", "real"))
                logit = logit - self.discriminator(real, 0.0, cond)
        return inside(spread_over(self.game.beta(logit), x) * grad, x, self.clip)

    def _real(self, batch: Batch, noise: Noise) -> Tensor:
        """The real samples that the game is played with, (n, *shape)."""
        return _noised(batch.x, self.sigma, noise.fork("real"))

    def _seen(self, x: Tensor, noise: Noise) -> Tensor:
        """What the discriminator is shown of x (n, *shape)."""
        return _noised(x if self.clip == math.inf else x.clamp(-self.clip, self.clip), self.instance, noise)


def inside(v: Tensor, x: Tensor, clip: float) -> Tensor:
    """v (n, *shape) without what moves a coordinate of x beyond `clip` further out."""
    return v if clip == math.inf else v.masked_fill(v * (x - x.clamp(-clip, clip)) > 0, 0.0)


def _noised(x: Tensor, sigma: float, noise: Noise) -> Tensor:
    """x + sigma xi, (n, *shape)."""
    if not sigma:
        return x
    return x + sigma * noise.normal(len(x), tuple(x.shape[1:]), dtype=x.dtype, device=x.device)


# -- the cloud itself --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class CloudMover(Stateless):
    """A field of the generated cloud itself (kernels/): drifting, MMD, sliced Wasserstein, ... with the batch as its
    target points; SVGD and KSD keep their score. Nothing learns beside the generator.

    For a conditional generator the field acts within classes: generated samples of a class see each other and the data
    of that class only. A sample that is alone of its class has no cloud, and rests.

    The cloud is the batch that it is handed, so the field of a step depends on how the batch is cut: this mover wants
    it whole, without micro-batches and in one process. Forces of data and cloud nearly cancel, so they are computed in
    full precision, under autocast too.
    """

    field: CloudField | Injected

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return {}

    @property
    def classes(self) -> None:
        return None

    def learn(self, batch: Batch, fake: Draw, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        return iter(())

    @torch.no_grad()
    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self._velocity(x.detach(), cond, batch, noise)

    def _velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise) -> Tensor:
        if cond is None:
            return self.field.on(batch.x, noise).observe(x, 0.0)(x, 0.0)
        v = torch.zeros_like(x)
        for label in cond.unique():
            at = cond == label
            cloud = x[at]
            if len(cloud) > 1:
                field = self.field.on(batch.x[at], noise.fork("class", int(label))).given(label).observe(cloud, 0.0)
                v[at] = field(cloud, 0.0)
        return v


# -- a finer solution --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Endpoints:
    """v(x) = F(z) - x, x = G(z): to where the generator `fine` brings the same z, whatever the cloud does. Of a fine
    solution of the probability flow this is plain distillation of the solver (Luhman & Luhman 2021), fresh z in every
    step. The tensors of `fine` are the state of the objective."""

    fine: Generator

    def __post_init__(self) -> None:
        self.fine.requires_grad_(False).eval()

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return {}

    @property
    def classes(self) -> int:
        return self.fine.classes

    def learn(self, batch: Batch, fake: Draw, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        return iter(())

    @torch.no_grad()
    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        if z is None or tuple(z.shape[1:]) != self.fine.latent_shape:
            raise ValueError(
                f"endpoints are those of z of shape {self.fine.latent_shape}, and the generator's are "
                f"{None if z is None else tuple(z.shape[1:])}"
            )
        return self.fine(z, cond) - x.detach()

    def state(self) -> dict[str, Tensor]:
        return {f"fine/{k}": v for k, v in self.fine.state_dict().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if missing := sorted(self.state().keys() - state.keys()):
            raise ValueError(f"the checkpoint lacks the fine generator ({len(missing)} tensors, such as {missing[0]})")
        self.fine.load_state_dict({k.removeprefix("fine/"): v for k, v in state.items()})


# -- several at once --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Together:
    """sum_j weight_j v_j: a score difference sharpened by a little of a critic, for one."""

    parts: Sequence[tuple[float, Mover]]

    def __post_init__(self) -> None:
        names = [name for _, mover in self.parts for name in mover.players]
        if len(set(names)) < len(names):
            raise ValueError(f"the players {names} of the movers must have different names")
        if len({mover.classes for _, mover in self.parts} - {None}) > 1:
            raise ValueError(f"the movers tell {[m.classes for _, m in self.parts]} classes apart: they must agree")

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return {name: module for _, mover in self.parts for name, module in mover.players.items()}

    @property
    def classes(self) -> int | None:
        return next((mover.classes for _, mover in self.parts if mover.classes is not None), None)

    def learn(self, batch: Batch, fake: Draw, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        for j, (_, mover) in enumerate(self.parts):
            yield from mover.learn(batch, fake, cond, noise.fork(j))

    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        parts = [w * mover.velocity(x, cond, batch, noise.fork(j), z) for j, (w, mover) in enumerate(self.parts)]
        return torch.stack(parts).sum(0)

    def state(self) -> dict[str, Tensor]:
        return {f"{j}/{k}": v for j, (_, mover) in enumerate(self.parts) for k, v in mover.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        for j, (_, mover) in enumerate(self.parts):
            mover.load_state({k.removeprefix(f"{j}/"): v for k, v in state.items() if k.startswith(f"{j}/")})


@dataclass(frozen=True)
class Lead:
    """`first` moves the first `samples` samples of the training, then `then` does; the players of `then` learn from the
    beginning, so that they know the generator when its turn comes. `first` has no players.

    Which sample it is, the noise knows: stream i belongs to sample number i. With a multiple of the batch the change
    falls between two steps, however these are cut."""

    first: Mover
    samples: int
    then: Mover

    def __post_init__(self) -> None:
        if self.first.players:
            raise ValueError(f"the mover that leads has players {list(self.first.players)}: take one that has none")

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return self.then.players

    @property
    def classes(self) -> int | None:
        return self.first.classes if self.then.classes is None else self.then.classes

    def learn(self, batch: Batch, fake: Draw, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        return self.then.learn(batch, fake, cond, noise)

    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        mover = self.first if noise.first < self.samples else self.then
        return mover.velocity(x, cond, batch, noise, z)

    def state(self) -> dict[str, Tensor]:
        parts = {"first": self.first.state(), "then": self.then.state()}
        return {f"{name}/{k}": v for name, part in parts.items() for k, v in part.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        for name, mover in (("first", self.first), ("then", self.then)):
            mover.load_state({k.removeprefix(f"{name}/"): v for k, v in state.items() if k.startswith(f"{name}/")})
