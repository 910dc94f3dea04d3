"""Loading: a run directory in, a `Run` out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..data import Coder
from ..data.coder import LatentSpace
from ..models.base import fill
from ..models.diffusion import ended
from ..models.settings.own_net import handing
from ..networks.backbones.own import OwnNet, fresh_copy
from ..registry import import_plugin, load_installed
from ..training.distributed import find_device
from ..training.run_folder import Folder
from ..training.weights import load_averaged
from .run import Run


def load(
    path: str | Path,
    *,
    raw: bool = False,
    sigma_rel: float | None = None,
    device: str | torch.device | None = None,
    modules: Sequence[str | Path] = (),
    net: nn.Module | Callable[..., nn.Module] | None = None,
    coder: Coder | str | Path | None = None,
) -> Run:
    """Open a run directory at its newest whole checkpoint, or at the average that rows kept aside chose (fit.holdout).

    Args:
        path: the run directory.
        raw: the raw weights instead of averaged ones.
        sigma_rel: relative width of the weight average (default: the run's own); any in (0, 0.28), rebuilt from
            snapshots where it was not tracked.
        device: where the networks go; default: the best there is (training/distributed.py).
        modules: files or modules that define what is not ours in the run (my_models.py): a run never imports anything
            by itself. Installed plug-ins (entry points of the group "diffflow.plugins") are known anyway.
        net: the network of a run that was trained with one of the user's: an instance, of which a copy is filled with
            the run's weights, or the class or function that makes it.
        coder: the coder of a run whose model lives in latents, where it came from Python (`Data.with_coder`); or the
            folder of its autoencoder, where that has moved.

    Returns:
        The run, its networks in evaluation mode.

    Raises:
        RunError: no run directory, or none that has trained.
        ConfigError: settings that cannot be read, or a device that is not there.
        CheckpointError: no checkpoint is whole.
        DataError: a coder that is missing, or another one than the run was trained with.
        PluginError: one of `modules` cannot be imported.
        ValueError: raw weights with a width of an average, or a net for a run that has its own.
    """
    if raw and sigma_rel is not None:
        raise ValueError(f"raw weights are not averaged: give raw or sigma_rel = {sigma_rel}, not both")
    load_installed()
    for name in modules:
        import_plugin(name)
    with handing(fresh_copy(net) if isinstance(net, nn.Module) else net):
        run = open_run(path, raw=raw, sigma_rel=sigma_rel, device=device, coder=coder)
    own = any(isinstance(getattr(player, "net", None), OwnNet) for player in run.players.values())
    if net is not None and not own:
        raise ValueError(f"{path} was trained with a network of the library: load it without net")
    return run


def open_run(
    path: str | Path,
    *,
    raw: bool = False,
    sigma_rel: float | None = None,
    device: str | torch.device | None = None,
    coder: Coder | str | Path | None = None,
) -> Run:
    """Open a run as `load` does, importing nothing: for programs that look at the runs of others."""
    folder = Folder(Path(path))
    place = find_device(device)
    about = folder.about()
    if not folder.begun:
        folder.newest()  # raises, where it holds no run at all
    config = folder.config()
    space = LatentSpace.from_meta(about["data"], coder)
    weights, step = load_averaged(folder, raw, sigma_rel)
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):  # build draws first weights; see algebra.py
        players = config.build(about["data"])
    for name, module in players.items():
        fill(module, weights.get(name, {}), f"{name} in {folder.path}")
        module.to(place).eval().requires_grad_(False)
    versions = {k: v for k, v in about.items() if k not in ("data", "finished")}
    average = "raw" if raw else "its own" if sigma_rel is None else f"sigma_rel {sigma_rel:g}"
    run = Run(folder.path, config, about["data"], players, step, versions, average, space)
    sampler = folder.sampler(run.weights)
    return run if sampler is None else replace(run, config=ended(config, sampler["sigma_min"], sampler["churn"]))
