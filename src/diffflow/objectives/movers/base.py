"""Where should generated samples go? A mover gives every sample x = G(z) of a generator a velocity v(x); a generator
follows it (particles.py).

    DiscriminatorMover  beta(d) grad d of a discriminator that learns beside it (GAN)
    ScoreDifference   score of the data minus that of the generated law (difference.py; Score GAN and its kin)
    Moments           what means and variances lack, of all generated samples of late (moments.py)
    CloudMover        a field made of the generated cloud and the data themselves (drifting, MMD, ...)
    Endpoints         to where a given generator, a fine solution of an equation, brings the same z (distillation)
    Together          a weighted sum of these
    Lead              one of these first, then another

Shapes: x (n, *shape), velocity (n, *shape), cond int64 (n,) or None, loss (n,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ...equation.noise import Noise
from ..base import Batch, Turn

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


# -- several at once --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class WeightedSum:
    """sum_j weight_j v_j: a score difference sharpened by a little of a discriminator, for one."""

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
class TeacherFirst:
    """`teacher` moves the first `samples` samples of the training, then `then` does; the players of `then` learn from
    the beginning, so that they know the generator when its turn comes. `teacher` has no players.

    Which sample it is, the noise knows: stream i belongs to sample number i. With a multiple of the batch the change
    falls between two steps, however these are cut."""

    teacher: Mover
    samples: int
    then: Mover

    def __post_init__(self) -> None:
        if self.teacher.players:
            raise ValueError(f"the mover that leads has players {list(self.teacher.players)}: take one that has none")

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return self.then.players

    @property
    def classes(self) -> int | None:
        return self.teacher.classes if self.then.classes is None else self.then.classes

    def learn(self, batch: Batch, fake: Draw, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        return self.then.learn(batch, fake, cond, noise)

    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        mover = self.teacher if noise.first < self.samples else self.then
        return mover.velocity(x, cond, batch, noise, z)

    def state(self) -> dict[str, Tensor]:
        parts = {"first": self.teacher.state(), "then": self.then.state()}
        return {f"{name}/{k}": v for name, part in parts.items() for k, v in part.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        for name, mover in (("first", self.teacher), ("then", self.then)):
            mover.load_state({k.removeprefix(f"{name}/"): v for k, v in state.items() if k.startswith(f"{name}/")})
