"""Training state: everything that changes while training, so that saving and restoring it is all that resuming takes.

Every player has its own optimizer, learning rate, weight averages and clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models.settings.common import PlayerConfig
from ..models.settings.serialise import ConfigError
from ..objectives.base import Objective
from . import optimisers
from .checkpoint import Checkpoint, CheckpointError, Tensors
from .ema import PowerEMA
from .horizon import Horizon
from .learning_rates import LearningRate, checked
from .optimisers import MakeOptimizer, by_player


class Player:
    """A network that learns, with its optimizer and weight averages.

    Args:
        module: the network, on its device.
        config: learning rate, clipping and widths of the averages.
        optimizer: parameters -> optimizer; None: Adam of the settings.
        learning_rate: update -> learning rate; None: that of the settings, or of an optimizer of one's own.

    Raises:
        ConfigError: an optimizer that cannot train or be resumed, or a learning rate that is no number.
    """

    def __init__(
        self,
        module: nn.Module,
        config: PlayerConfig,
        optimizer: MakeOptimizer | None = None,
        learning_rate: LearningRate | None = None,
    ):
        self.module, self.config = module, config
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.own = optimizer is not None
        if optimizer is None:
            self.optimizer = optimisers.of_settings(module, config)
        else:
            self.optimizer = optimisers.own(self.parameters, optimizer)
        self.rate: LearningRate | None = None if self.own else config.rate
        if learning_rate is not None:
            if len(rates := {float(group["lr"]) for group in self.optimizer.param_groups}) > 1:
                raise ConfigError(
                    f"learning_rate would set all parameter groups of the optimizer to one rate, and they have "
                    f"{', '.join(f'{rate:g}' for rate in sorted(rates))}: give the optimizer alone"
                )
            self.rate = checked(learning_rate)
        self.ema = PowerEMA(module, config.ema)

    @property
    def updates(self) -> int:
        """Optimizer steps that it has taken: its own clock."""
        return self.ema.clock

    def gradients(self) -> list[Tensor]:
        """The gradients of all its parameters, zeros where a loss did not reach one."""
        for p in self.parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        return [p.grad for p in self.parameters if p.grad is not None]

    @property
    def anneals(self) -> bool:
        """Whether its rate follows the budget, and not a function of its own or of the settings' steps."""
        return self.config.anneal is not None and self.rate == self.config.rate

    def step(self, norm: Tensor, share: float | None = None) -> None:
        """Take one optimizer step on the gradients, and one of the averages.

        Args:
            norm: of the gradients, 0-d.
            share: share of the peak rate that the budget allows now; None: the rate is a function of the updates.
        """
        if self.config.clip is not None:
            torch._foreach_mul_(self.gradients(), (self.config.clip / norm).clamp(max=1.0))
        if self.rate is not None:
            rate = self.rate(self.updates + 1) if share is None else self.config.lr * share
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        self.optimizer.step()
        self.ema.update()


class TrainingState:
    """Everything that changes while training, which is what a checkpoint holds.

    These are the players, the objective's own state and the counters: `step`, `turns`, `skipped` turns, the present
    `streak` of skipped turns, and `seconds`.

    Args:
        objective: what is minimised, with its networks by player.
        configs: settings by player.
        optimizer: as of `Player`, for all players or by name.
        learning_rate: likewise.

    Raises:
        ConfigError: objective and settings name different players, or one of these cannot be trained.
    """

    def __init__(
        self,
        objective: Objective,
        configs: Mapping[str, PlayerConfig],
        optimizer: MakeOptimizer | Mapping[str, MakeOptimizer] | None = None,
        learning_rate: LearningRate | Mapping[str, LearningRate] | None = None,
    ):
        if objective.players.keys() != configs.keys():
            raise ConfigError(
                f"settings for players {sorted(configs)}, but the objective has {sorted(objective.players)}"
            )
        self.objective = objective
        makers = by_player(optimizer, objective.players, "optimizer")
        rates = by_player(learning_rate, objective.players, "learning_rate")
        self.players = {
            name: Player(module, configs[name], makers.get(name), rates.get(name))
            for name, module in objective.players.items()
        }
        self.step = self.turns = self.skipped = self.streak = 0
        self.seconds = self.cpu_seconds = 0.0
        self.horizon = Horizon()

    @property
    def anneals(self) -> bool:
        """Whether the rate of a player follows the budget, whose end must then be known."""
        return any(player.anneals for player in self.players.values())

    def share(self, player: Player) -> float | None:
        """The share of its peak rate that a player moves with in this step; None: its rate is its own affair."""
        return self.horizon.rate(self.step, player.config.anneal or 0.0) if player.anneals else None

    def tensors(self) -> dict[str, Tensors]:
        """The four files of a checkpoint."""
        out: dict[str, Tensors] = {
            "players": {},
            "ema": self.averages(),
            "optimizer": {},
            "objective": self.objective.state(),
        }
        for name, player in self.players.items():
            out["players"] |= {f"{name}/{k}": v for k, v in player.module.state_dict().items()}
            if player.own:
                moved: Tensors = {}
                optimisers.pack(player.optimizer.state_dict(), moved)
                out["optimizer"] |= {f"{name}/{k}": v for k, v in moved.items()}
                continue
            for i, moments in player.optimizer.state_dict()["state"].items():
                out["optimizer"] |= {f"{name}/{i}/{k}": v for k, v in moments.items()}
        return out

    def averages(self) -> Tensors:
        """The weight averages of all players by "player/width/name"."""
        return {
            f"{n}/{s}/{k}": v
            for n, p in self.players.items()
            for s, mean in p.ema.averages.items()
            for k, v in mean.items()
        }

    def state(self) -> dict[str, Any]:
        """The counters, the updates of each player, and of optimizers of one's own what is no tensor."""
        counters = {k: getattr(self, k) for k in ("step", "turns", "skipped", "streak", "seconds")}
        counters |= {"updates": {name: player.updates for name, player in self.players.items()}}
        counters |= {"cpu_seconds": self.cpu_seconds, "horizon": self.horizon.state()}
        own = {name: player.optimizer.state_dict() for name, player in self.players.items() if player.own}
        return counters | ({"optimizer": {k: optimisers.pack(v, {}) for k, v in own.items()}} if own else {})

    def restore(self, saved: Checkpoint) -> None:
        """Go back to a checkpoint, bit by bit. Raises CheckpointError when it is of other networks."""
        try:
            for name, player in self.players.items():
                player.module.load_state_dict(under(saved.tensors["players"], name))
                player.ema.clock = saved.state["updates"][name]
                for s, mean in player.ema.averages.items():
                    stored = under(saved.tensors["ema"], f"{name}/{s}")
                    for k, v in mean.items():
                        v.copy_(stored[k])
                moments: dict[int, Tensors] = {}
                moved = under(saved.tensors["optimizer"], name)
                if player.own:
                    player.optimizer.load_state_dict(optimisers.unpack(saved.state["optimizer"][name], moved))
                    continue
                for key, v in moved.items():
                    i, k = key.split("/")
                    moments.setdefault(int(i), {})[k] = v
                groups = player.optimizer.state_dict()["param_groups"]
                player.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            self.objective.load_state(saved.tensors["objective"])
            for k in ("step", "turns", "skipped", "streak", "seconds"):
                setattr(self, k, saved.state[k])
            self.cpu_seconds = saved.state.get("cpu_seconds", self.seconds)  # checkpoints of before have no such clock
            self.horizon.load(saved.state.get("horizon", ()))
        except (KeyError, RuntimeError, ValueError) as e:
            raise CheckpointError(f"{saved.path} does not fit this configuration: {e}") from e


def under(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with `prefix/`, without it."""
    return {k.removeprefix(f"{prefix}/"): v for k, v in tensors.items() if k.startswith(f"{prefix}/")}


@dataclass(frozen=True)
class Outcome:
    """What one turn came to, averaged over processes.

    Args:
        player: who moved.
        loss: mean over the batch.
        grad: norm of the gradient, before clipping.
        lr: learning rate.
        skipped: whether a number was not finite, so that the player did not move.
        log: what else the objective reports, by name.
    """

    player: str
    loss: float
    grad: float
    lr: float
    skipped: bool
    log: dict[str, float]
