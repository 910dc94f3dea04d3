"""What does a training loop need to know of a model to train it? Only whose turn it is, and the loss of that turn.

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

from ..equation.noise import Noise


@dataclass(frozen=True)
class Batch:
    """Samples x (n, *shape) in model units, their classes cond int64 (n,) or None, and their rows (n,) in the data
    set.
    """

    x: Tensor
    cond: Tensor | None
    rows: Tensor


@dataclass(frozen=True)
class Turn:
    """`player` is to descend the mean of `loss` (n,), one entry per sample. `log` holds further numbers worth a
    line.
    """

    player: str
    loss: Tensor
    log: Mapping[str, Tensor | float] = field(default_factory=dict)


class Objective(Protocol):
    """Players by name, the turns of one step, and whatever else must survive a restart (pools of particles), as named
    tensors.

    `turns` yields the same players in the same order in every step and process; `state` is the same on every process.
    """

    @property
    def players(self) -> Mapping[str, nn.Module]: ...

    def turns(self, batch: Batch, noise: Noise) -> Iterator[Turn]: ...

    def state(self) -> dict[str, Tensor]: ...

    def load_state(self, state: Mapping[str, Tensor]) -> None: ...


class Stateless:
    """An objective (or a part of one) with nothing but its players to keep."""

    def state(self) -> dict[str, Tensor]:
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if state:
            raise ValueError(
                f"this objective keeps no state, but the checkpoint holds {sorted(state)}: it is of another objective"
            )


class InTurn:
    """Several objectives as one: in every step each has its turns, one after the other, on the same batch and with its
    own randomness. State of the k-th is kept under "k/...".

    Raises ValueError where two objectives name a player alike.
    """

    def __init__(self, objectives: Sequence[Objective]):
        names = [name for o in objectives for name in o.players]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"players {twice} belong to two of the objectives: every player learns from one")
        self.objectives = list(objectives)

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return {name: module for o in self.objectives for name, module in o.players.items()}

    def turns(self, batch: Batch, noise: Noise) -> Iterator[Turn]:
        for k, objective in enumerate(self.objectives):
            yield from objective.turns(batch, noise.fork("joint", k))

    def state(self) -> dict[str, Tensor]:
        return {f"{k}/{name}": v for k, o in enumerate(self.objectives) for name, v in o.state().items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        known = tuple(f"{k}/" for k in range(len(self.objectives)))
        if alien := sorted(name for name in state if not name.startswith(known)):
            raise ValueError(f"the checkpoint holds {alien}, which none of the {len(known)} objectives keeps")
        for k, objective in enumerate(self.objectives):
            objective.load_state({n.removeprefix(f"{k}/"): v for n, v in state.items() if n.startswith(f"{k}/")})


def everywhere(v: Tensor) -> Tensor:
    """The rows (n, ...) of all processes, so that what is kept of them is the same on each."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return v
    parts = [torch.empty_like(v) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, v.contiguous())
    return torch.cat(parts)
