"""Weights of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from ..models.base import TrainConfig
from .checkpoint import Checkpoint, Tensors
from .early_stopping import chosen
from .ema import Profile, exponent, mixture
from .run_folder import Folder, RunError


def weights(folder: Folder, saved: Checkpoint, profiles: Mapping[str, float] | None) -> dict[str, Tensors]:
    """Weights by player at a checkpoint: raw where `profiles` is None, else averaged with a relative width per player.

    A width that was tracked is read; any other one is rebuilt from the snapshots by least squares (ema.py). Buffers
    are the raw ones.
    """
    players: dict[str, Tensors] = {}
    for key, v in saved.tensors["players"].items():
        name, k = key.split("/", 1)
        players.setdefault(name, {})[k] = v
    if profiles is None:
        return players
    stored = [*folder.snapshots(saved.state["step"] - 1), saved.tensors["ema"]]
    for name, own in players.items():
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
            own[k] = torch.as_tensor(total).to(own[k].dtype)
    return players


def default_profiles(config: TrainConfig) -> dict[str, float]:
    """The relative EMA widths that sampling uses when nobody says otherwise, by player."""
    return {name: config.sampling.ema or player.ema[0] for name, player in config.players().items()}


def load_averaged(folder: Folder, raw: bool = False, sigma_rel: float | None = None) -> tuple[dict[str, Tensors], int]:
    """The weights of a run's players, and their step: those of its newest whole checkpoint, averaged as its settings
    say; or the average that rows kept aside chose. `raw`: not averaged; `sigma_rel`: another width.

    Raises RunError or CheckpointError where there is none."""
    saved, profiles = folder.newest(), default_profiles(folder.config())
    if sigma_rel is not None:
        profiles = dict.fromkeys(profiles, sigma_rel)
    found, step = weights(folder, saved, None if raw else profiles), saved.state["step"]
    if not raw and sigma_rel is None and (best := chosen(folder, step)) is not None:
        step = best[0].step
        for key, v in best[1].items():
            name, k = key.split("/", 1)
            found[name][k] = v
    return found, step


def start_weights(path: str | Path) -> dict[str, Tensors]:
    """The weights of a finished or running run, by player, for a run that starts from it."""
    folder = Folder(Path(path))
    if not folder.path.is_dir():
        raise RunError(f"--init-from {path}: there is no such run directory")
    return load_averaged(folder)[0]
