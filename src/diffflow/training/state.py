"""Who is being trained, and what must be remembered of it? Every player has its own optimizer, learning rate,
averages and clock.

`TrainingState` is everything that changes while training, so saving it and putting it back is all that resuming takes.
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
from .checkpoint import Checkpoint, CheckpointError, Tensors
from .ema import PowerEMA


class Player:
    """A network that learns: its parameters, optimizer and averages. `updates` counts the steps it has taken: its own
    clock.
    """

    def __init__(self, module: nn.Module, config: PlayerConfig):
        self.module, self.config = module, config
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        fused = all(p.device.type in ("cpu", "cuda") for p in self.parameters)
        self.optimizer = torch.optim.AdamW(
            self.parameters, config.lr, config.betas, weight_decay=config.weight_decay, fused=fused
        )
        self.ema = PowerEMA(module, config.ema)

    @property
    def updates(self) -> int:
        return self.ema.clock

    def gradients(self) -> list[Tensor]:
        for p in self.parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        return [p.grad for p in self.parameters if p.grad is not None]

    def step(self, norm: Tensor) -> None:
        """One optimizer step on the gradients, whose norm is given, and one of the averages."""
        if self.config.clip is not None:
            torch._foreach_mul_(self.gradients(), (self.config.clip / norm).clamp(max=1.0))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.updates + 1)
        self.optimizer.step()
        self.ema.update()


class TrainingState:
    """Everything that changes while training: the players, the objective's own state and the counters. What a
    checkpoint holds.
    """

    def __init__(self, objective: Objective, configs: Mapping[str, PlayerConfig]):
        if objective.players.keys() != configs.keys():
            raise ConfigError(
                f"settings for players {sorted(configs)}, but the objective has {sorted(objective.players)}"
            )
        self.objective = objective
        self.players = {name: Player(module, configs[name]) for name, module in objective.players.items()}
        self.step = self.turns = self.skipped = self.streak = 0
        self.seconds = 0.0

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
            for i, moments in player.optimizer.state_dict()["state"].items():
                out["optimizer"] |= {f"{name}/{i}/{k}": v for k, v in moments.items()}
        return out

    def averages(self) -> Tensors:
        return {
            f"{n}/{s}/{k}": v
            for n, p in self.players.items()
            for s, mean in p.ema.averages.items()
            for k, v in mean.items()
        }

    def state(self) -> dict[str, Any]:
        counters = {k: getattr(self, k) for k in ("step", "turns", "skipped", "streak", "seconds")}
        return counters | {"updates": {name: player.updates for name, player in self.players.items()}}

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
                for key, v in under(saved.tensors["optimizer"], name).items():
                    i, k = key.split("/")
                    moments.setdefault(int(i), {})[k] = v
                groups = player.optimizer.state_dict()["param_groups"]
                player.optimizer.load_state_dict({"state": moments, "param_groups": groups})
            self.objective.load_state(saved.tensors["objective"])
            for k in ("step", "turns", "skipped", "streak", "seconds"):
                setattr(self, k, saved.state[k])
        except (KeyError, RuntimeError, ValueError) as e:
            raise CheckpointError(f"{saved.path} does not fit this configuration: {e}") from e


def under(tensors: Tensors, prefix: str) -> Tensors:
    """The tensors whose names begin with `prefix/`, without it."""
    return {k.removeprefix(f"{prefix}/"): v for k, v in tensors.items() if k.startswith(f"{prefix}/")}


@dataclass(frozen=True)
class Outcome:
    """What one turn came to, averaged over processes. `skipped`: a number was not finite, so the player did not
    move.
    """

    player: str
    loss: float
    grad: float
    lr: float
    skipped: bool
    log: dict[str, float]
