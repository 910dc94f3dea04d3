"""What exactly was trained, and how? One tree of frozen dataclasses of plain values, which build what they describe.

The same tree is the Python API, the YAML file and the command line. Precedence: preset < file < flags. One class per
family of models (`TrainConfig`'s subclasses):

    score.py       a denoiser: score-based diffusion
    ratio.py       a discriminator along a path, alone or beside a denoiser
    joint.py       both, descending one likelihood bound
    particles.py   a generator, and what moves its samples
    distill.py     a generator that is a few steps of a run's sampler
"""

from typing import Any

from . import plain
from .base import DataConfig, Dials, FitConfig, PlayerConfig, TrainConfig
from .distill import DistillConfig, PlanConfig, UNetCriticConfig
from .game import ConvCriticConfig, GameConfig, MLPCriticConfig
from .joint import JointSampling, LikelihoodConfig
from .particles import (
    ConvGeneratorConfig,
    DriftingConfig,
    FieldConfig,
    GANConfig,
    GANNets,
    GeneratorConfig,
    MLPGeneratorConfig,
    MMDConfig,
    MoveConfig,
    ScoreGANConfig,
    SlicedWassersteinConfig,
)
from .plain import FAMILIES, ConfigError, changed, replace, suggest, to_dict, to_yaml
from .ratio import (
    DiffusionGANConfig,
    DiffusionGANSampling,
    DiscriminatorFlowConfig,
    PathConfig,
    PathCriticConfig,
    RangesConfig,
)
from .score import MLPConfig, ModelConfig, SamplingConfig, ScoreConfig, UNetConfig


def from_dict(values: Any, base: TrainConfig = ScoreConfig()) -> Any:
    """`base` with nested plain values put in; `type` names the family. Raises ConfigError for an unknown key, a wrong
    type or an impossible value."""
    return plain.from_dict(values, base)


def from_yaml(text: str, base: TrainConfig = ScoreConfig()) -> Any:
    """`base` with the settings of a YAML text put in. Raises ConfigError."""
    return plain.from_yaml(text, base)


def load_yaml(path: Any, base: TrainConfig = ScoreConfig()) -> Any:
    """`base` with the settings of a YAML file put in. Raises ConfigError, naming the file."""
    return plain.load_yaml(path, base)


__all__ = [
    "FAMILIES", "ConfigError", "ConvCriticConfig", "ConvGeneratorConfig", "DataConfig", "Dials", "DiffusionGANConfig",
    "DiffusionGANSampling", "DiscriminatorFlowConfig", "DistillConfig", "DriftingConfig", "FieldConfig",
    "FitConfig", "GANConfig", "GANNets", "GameConfig", "GeneratorConfig", "JointSampling", "LikelihoodConfig",
    "MLPConfig", "MLPCriticConfig", "MLPGeneratorConfig", "MMDConfig", "ModelConfig", "MoveConfig", "PathConfig",
    "PathCriticConfig", "PlanConfig", "PlayerConfig", "RangesConfig", "SamplingConfig", "ScoreConfig", "ScoreGANConfig",
    "SlicedWassersteinConfig", "TrainConfig", "UNetConfig", "UNetCriticConfig", "changed", "from_dict", "from_yaml",
    "load_yaml", "replace", "suggest", "to_dict", "to_yaml",
]  # fmt: skip
