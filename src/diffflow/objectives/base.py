"""Objectives: all that a training loop needs to know of a model, whose turn it is and the loss of that turn.

An objective is a set of players and a generator. One training step runs the generator once; each `yield Turn(player,
loss)` hands the loop a loss per sample, and when the generator resumes that player has moved:

    for turn in objective.turns(batch, noise):     # yield = backward through this player only, reduce, step, EMA, zero
        ...

so a later turn of the same step already sees the player that moved. An objective draws all its randomness from
`noise`, whose streams belong to the samples of the batch: the same sample gets the same numbers in any batch, process
or resumed run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from ..equation.conditions import Cond
from ..equation.noise import Noise


@dataclass(frozen=True)
class Batch:
    """Batch of data.

    Args:
        x: samples (n, *shape) in model units.
        cond: their classes int64 (n,), or another condition as networks are told it; None: none.
        rows: their rows in the data set, int64 (n,).
        augment: how they were changed (n, 9), as `data.augment` tells it; None: they were not.
    """

    x: Tensor
    cond: Cond
    rows: Tensor
    augment: Tensor | None = None


@dataclass(frozen=True)
class Turn:
    """Turn of one player, which is to descend the mean of its loss.

    Args:
        player: name of the player.
        loss: one entry per sample (n,), differentiable in its parameters.
        log: further numbers worth a line of the log, each a number or 0-d.
    """

    player: str
    loss: Tensor
    log: Mapping[str, Tensor | float] = field(default_factory=dict)


class Objective(Protocol):
    """What is minimised: players by name, the turns of one step, and what else must survive a restart."""

    @property
    def players(self) -> Mapping[str, nn.Module]:
        """The networks that take turns, by name."""
        ...

    def turns(self, batch: Batch, noise: Noise) -> Iterator[Turn]:
        """Turns of one training step: the same players in the same order in every step and process.

        Args:
            batch: data of this step.
            noise: all randomness of this step, stream i for sample i of the batch.

        Yields:
            A turn; when the generator resumes, its player has moved.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors beside the players' that a checkpoint keeps (pools of particles), the same on every process."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a saved `state`. Raises ValueError for one of another objective."""
        ...


class Stateless:
    """Base of objectives (or parts of one) with nothing but their players to keep."""

    def state(self) -> dict[str, Tensor]:
        """No tensors."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Accept an empty state. Raises ValueError for any other: it is of another objective."""
        if state:
            raise ValueError(
                f"this objective keeps no state, but the checkpoint holds {sorted(state)}: it is of another objective"
            )


class InTurn:
    """Several objectives as one: in every step each has its turns, one after the other.

    All see the same batch, each with its own randomness. State of the k-th is kept under "k/...".

    Args:
        objectives: in the order of their turns.

    Raises:
        ValueError: where two objectives name a player alike.
    """

    def __init__(self, objectives: Sequence[Objective]):
        names = [name for o in objectives for name in o.players]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"players {repeated} belong to two of the objectives: every player learns from one")
        self.objectives = list(objectives)

    @property
    def players(self) -> Mapping[str, nn.Module]:
        """The players of all objectives."""
        return {name: module for o in self.objectives for name, module in o.players.items()}

    def turns(self, batch: Batch, noise: Noise) -> Iterator[Turn]:
        """Turns of the first objective, then those of the next."""
        for k, objective in enumerate(self.objectives):
            yield from objective.turns(batch, noise.fork("joint", k))

    def state(self) -> dict[str, Tensor]:
        """Tensors of all objectives, those of the k-th under "k/..."."""
        return {f"{k}/{name}": v for k, o in enumerate(self.objectives) for name, v in o.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Hand each objective its part. Raises ValueError for tensors that none of them keeps."""
        prefixes = tuple(f"{k}/" for k in range(len(self.objectives)))
        if unknown := sorted(name for name in state if not name.startswith(prefixes)):
            raise ValueError(f"the checkpoint holds {unknown}, which none of the {len(prefixes)} objectives keeps")
        for k, objective in enumerate(self.objectives):
            objective.load_state({n.removeprefix(f"{k}/"): v for n, v in state.items() if n.startswith(f"{k}/")})


def gather_rows(v: Tensor) -> Tensor:
    """The rows of all processes, joined, so that what is kept of them is the same on each.

    Args:
        v: the rows of this process (n, ...), as many on each.

    Returns:
        The rows of all, in the order of the processes (processes n, ...).
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return v
    parts = [torch.empty_like(v) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, v.contiguous())
    return torch.cat(parts)
