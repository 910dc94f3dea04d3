"""Own networks before the first step: called once as training will, and refused where they cannot be trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..console import Console, say
from ..models.base import TrainConfig
from ..models.settings.serialise import ConfigError
from ..networks.backbones import own
from ..networks.denoiser import Denoiser
from .distributed import Process


def check_own_nets(
    modules: Mapping[str, nn.Module], meta: dict[str, Any], config: TrainConfig, process: Process, console: Console
) -> None:
    """Call the user's networks once, as training will, and say what was decided. Raises ConfigError for unfit ones."""
    for denoiser in modules.values():
        if not (isinstance(denoiser, Denoiser) and isinstance(net := denoiser.net, own.OwnNet)):
            continue
        try:
            lines = own.check(net, tuple(meta["shape"]), process.device)
        except own.OwnNetError as error:
            raise ConfigError(f"net: {error}") from error
        if own.has_batch_norm(net) and process.world * config.fit.accumulate > 1:
            raise ConfigError(
                f"net: BatchNorm sees the whole batch: train in one process with --fit.accumulate 1, not in "
                f"{process.world} x {config.fit.accumulate} parts"
            )
        if own.has_batch_norm(net) and config.fit.batch == 1:
            raise ConfigError("net: BatchNorm sees no spread in a batch of one example: give fit.batch = 2 or more")
        if not net.net.training:  # as pretrained networks come; parts that stand still are left so
            net.net.train()
            lines.append(f"{type(net.net).__name__} was in evaluation mode, and is trained in training mode")
        settings = getattr(getattr(config, "model", None), "net", None)
        if getattr(settings, "instance", False):
            name = type(net.net).__name__
            lines.append(f"the network is yours: another process must hand it back, df.load(path, net={name}(...))")
        for line in lines if process.rank == 0 else ():
            say(console, line)
