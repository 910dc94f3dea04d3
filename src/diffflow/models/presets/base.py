"""Presets: named starting points for a run, and their two tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...registry import Registry
from ..base import TrainConfig


@dataclass(frozen=True)
class Preset:
    """A named starting point for a run.

    Args:
        name: its name in the table.
        about: one line about it.
        config: the settings.
        scale: of a preset by model, the name of the scale that it was made for; "" for one of no name.
    """

    name: str
    about: str
    config: TrainConfig
    scale: str = ""


BY_DATA: Registry[Callable[[], Preset]] = Registry("preset")  # diffusion models, by data
BY_MODEL: Registry[Callable[..., Preset]] = Registry("preset")  # by model, for a scale or its name
