"""Movers: what gives every sample x = G(z) of a generator a velocity v(x), which the generator follows.

    DiscriminatorMover    beta(d) grad d of a discriminator that learns beside it (GAN; adversarial.py)
    ScoreDifference       score of the data minus that of the generated law (Score GAN and its kin; score_difference.py)
    Moments               what means and variances lack, of all generated samples of late (moments.py)
    CloudMover            a field made of the generated cloud and the data themselves (drifting, MMD, ...; cloud.py)
    EndpointDistillation  to where a given generator, a fine solution of an equation, brings the same z (endpoints.py)
    WeightedSum           a weighted sum of these
    TeacherFirst          one of these for the first samples of the training, then another

How the generator follows, and why for the first of them that is a GAN's gradient, says follow_velocity.py.

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

DrawFake = Callable[[Noise], Tensor]  # noise -> generated samples (n, *shape), detached, of the batch's classes


class Mover(Protocol):
    """Where generated samples should go."""

    @property
    def players(self) -> Mapping[str, nn.Module]:
        """The networks that learn beside the generator, by name; there may be none."""
        ...

    @property
    def classes(self) -> int | None:
        """Number of classes it tells apart; None: whatever it is given."""
        ...

    def learn(self, batch: Batch, draw_fake: DrawFake, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        """Turns of its own players in one step.

        Args:
            batch: data of this step.
            draw_fake: draws as many generated samples, detached, from the noise that it is given.
            cond: classes of the batch and of the generated samples alike (n,), None where the generator has none.
            noise: all randomness of these turns, stream i for sample i.

        Yields:
            Turns of its players.
        """
        ...

    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        """Velocity of generated samples.

        Args:
            x: generated samples G(z) (n, *shape).
            cond: their classes (n,), or None.
            batch: data of this step.
            noise: all randomness of it, stream i for sample i.
            z: where each particle began (n, *latent_shape), for movers that follow it from there.

        Returns:
            The velocity (n, *shape) in units of x, detached.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors beside the players' that a checkpoint keeps, the same on every process."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a saved `state`. Raises ValueError for one of another mover."""
        ...


def at_least_one(name: str, value: int) -> None:
    """Check of a count. Raises ValueError, by its name, unless it is a whole number, at least 1."""
    if int(value) != value or value < 1:
        raise ValueError(f"{name} = {value} must be a whole number, at least 1")


# -- several at once --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class WeightedSum:
    """Weighted sum of movers, sum_j weight_j v_j: a score difference with a little of a discriminator, for one.

    Args:
        parts: pairs (weight, mover); state of the j-th is kept under "j/...".

    Raises:
        ValueError: where two movers name a player alike, or tell different classes apart.
    """

    parts: Sequence[tuple[float, Mover]]

    def __post_init__(self) -> None:
        names = [name for _, mover in self.parts for name in mover.players]
        if len(set(names)) < len(names):
            raise ValueError(f"the players {names} of the movers must have different names")
        if len({mover.classes for _, mover in self.parts} - {None}) > 1:
            raise ValueError(f"the movers tell {[m.classes for _, m in self.parts]} classes apart: they must agree")

    @property
    def players(self) -> Mapping[str, nn.Module]:
        """The players of all parts."""
        return {name: module for _, mover in self.parts for name, module in mover.players.items()}

    @property
    def classes(self) -> int | None:
        """Number of classes that the parts tell apart; None: whatever they are given."""
        return next((mover.classes for _, mover in self.parts if mover.classes is not None), None)

    def learn(self, batch: Batch, draw_fake: DrawFake, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        """Turns of the first part's players, then those of the next, each part with its own noise."""
        for j, (_, mover) in enumerate(self.parts):
            yield from mover.learn(batch, draw_fake, cond, noise.fork(j))

    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        """Weighted sum of the parts' velocities."""
        parts = [w * mover.velocity(x, cond, batch, noise.fork(j), z) for j, (w, mover) in enumerate(self.parts)]
        return torch.stack(parts).sum(0)

    def state(self) -> dict[str, Tensor]:
        """Tensors of all parts, those of the j-th under "j/..."."""
        return {f"{j}/{k}": v for j, (_, mover) in enumerate(self.parts) for k, v in mover.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Hand each part its own."""
        for j, (_, mover) in enumerate(self.parts):
            mover.load_state({k.removeprefix(f"{j}/"): v for k, v in state.items() if k.startswith(f"{j}/")})


@dataclass(frozen=True)
class TeacherFirst:
    """Two movers in succession: a teacher moves the first samples of the training, then another does.

    The players of `then` learn from the beginning, so that they know the generator when its turn comes.

    Args:
        teacher: moves the first samples; it has no players.
        samples: how many samples of the training that is. Which sample it is, the noise knows: stream i belongs to
            sample number i. With a multiple of the batch the change falls between two steps, however these are cut.
        then: moves all later ones.

    Raises:
        ValueError: for a teacher with players.
    """

    teacher: Mover
    samples: int
    then: Mover

    def __post_init__(self) -> None:
        if self.teacher.players:
            raise ValueError(f"the mover that leads has players {list(self.teacher.players)}: take one that has none")

    @property
    def players(self) -> Mapping[str, nn.Module]:
        """The players of `then`."""
        return self.then.players

    @property
    def classes(self) -> int | None:
        """Number of classes that `then` tells apart, or else the teacher."""
        return self.teacher.classes if self.then.classes is None else self.then.classes

    def learn(self, batch: Batch, draw_fake: DrawFake, cond: Tensor | None, noise: Noise) -> Iterator[Turn]:
        """Turns of the players of `then`, from the beginning."""
        return self.then.learn(batch, draw_fake, cond, noise)

    def velocity(self, x: Tensor, cond: Tensor | None, batch: Batch, noise: Noise, z: Tensor | None = None) -> Tensor:
        """Velocity by the teacher for the first samples, by `then` for later ones."""
        mover = self.teacher if noise.first < self.samples else self.then
        return mover.velocity(x, cond, batch, noise, z)

    def state(self) -> dict[str, Tensor]:
        """Tensors of both, under "first/..." and "then/..."."""
        parts = {"first": self.teacher.state(), "then": self.then.state()}
        return {f"{name}/{k}": v for name, part in parts.items() for k, v in part.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Hand each its own."""
        for name, mover in (("first", self.teacher), ("then", self.then)):
            mover.load_state({k.removeprefix(f"{name}/"): v for k, v in state.items() if k.startswith(f"{name}/")})
