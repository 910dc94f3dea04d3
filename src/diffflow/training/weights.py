"""Weights of a run: raw, averaged with any width, or the average that held-out rows chose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..models.base import TrainConfig
from .checkpoint import Checkpoint, Tensors
from .early_stopping import load_choice
from .ema import Profile, exponent, mixture
from .run_folder import Folder, RunError


def weights(folder: Folder, saved: Checkpoint, profiles: Mapping[str, float] | None) -> dict[str, Tensors]:
    """Weights by player at a checkpoint.

    A width that was tracked is read; any other one is rebuilt from the snapshots by least squares (ema.py). Buffers
    are the raw ones.

    Args:
        folder: the run directory, for its snapshots.
        saved: the checkpoint.
        profiles: relative width of the average by player; None: raw weights.
    """
    players: dict[str, Tensors] = {}
    for key, v in saved.tensors["players"].items():
        name, k = key.split("/", 1)
        players.setdefault(name, {})[k] = v
    if profiles is None:
        return players
    stored = [*folder.snapshots(saved.state["step"] - 1), saved.tensors["ema"]]
    for name, averaged in players.items():
        clock, profile = saved.state["updates"][name], profiles[name]
        sources: list[tuple[Profile, Tensors]] = []
        for group in stored:
            t = int(group[f"{name}/clock"]) if f"{name}/clock" in group else clock
            widths: dict[float, Tensors] = {}
            for key, v in group.items():
                if key.startswith(f"{name}/") and key != f"{name}/clock":
                    _, width, k = key.split("/", 2)
                    widths.setdefault(float(width), {})[k] = v
            if group is saved.tensors["ema"] and profile in widths:
                sources = [(Profile(t, exponent(profile)), widths[profile])]
                break
            sources += [(Profile(t, exponent(s)), w) for s, w in widths.items()]
        parts = mixture([p for p, _ in sources], Profile(clock, exponent(profile)))
        for k in sources[0][1]:
            total = sum(float(x) * w[k].double() for x, (_, w) in zip(parts, sources, strict=True))
            averaged[k] = torch.as_tensor(total).to(averaged[k].dtype)
    return players


def default_profiles(config: TrainConfig) -> dict[str, float]:
    """The relative EMA widths that sampling uses when nobody says otherwise, by player."""
    return {name: config.sampling.ema or player.ema[0] for name, player in config.players().items()}


def load_averaged(folder: Folder, raw: bool = False, sigma_rel: float | None = None) -> tuple[dict[str, Tensors], int]:
    """The weights of a run's players by player and name, and the training step that they are of.

    Those of the newest whole checkpoint, averaged as the run's settings say, or the average that held-out rows chose.

    Args:
        folder: the run directory.
        raw: weights as they are, not averaged.
        sigma_rel: another relative width of the average, in (0, 0.28).

    Raises:
        RunError: the run holds no checkpoint.
        CheckpointError: none that is whole.
    """
    saved, profiles = folder.newest(), default_profiles(folder.config())
    if sigma_rel is not None:
        profiles = dict.fromkeys(profiles, sigma_rel)
    players, step = weights(folder, saved, None if raw else profiles), saved.state["step"]
    if not raw and sigma_rel is None and (best := load_choice(folder, step)) is not None:
        step = best[0].step
        for key, v in best[1].items():
            name, k = key.split("/", 1)
            players[name][k] = v
    return players, step


def start_weights(path: str | Path) -> dict[str, Tensors]:
    """The averaged weights of a run, by player, for a run that starts from it. Raises RunError where there is none."""
    folder = Folder(Path(path))
    if not folder.path.is_dir():
        raise RunError(f"--init-from {path}: there is no such run directory")
    return load_averaged(folder)[0]
