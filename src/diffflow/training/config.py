"""What exactly was trained, and how? One tree of frozen dataclasses of plain values, which build what they describe.

The same tree is the Python API, the YAML file and the command line. Precedence: preset < file < flags. A key nobody
knows is an error with a suggestion, because a misspelt option that is silently ignored costs a night of training.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
import yaml
from torch import nn

from ..denoiser import FORMS, Denoiser
from ..fields import guide
from ..objectives.score import EDMWeighting, EpsWeighting, FlowWeighting, VWeighting
from ..schedule import EDM
from ..sde import DiffFlow
from ..spectrum import at


class ConfigError(ValueError):
    """A setting that cannot be meant; the message names it and what would do."""


def suggest(name: str, known: list[str]) -> str:
    """'; did you mean ...?' for a misspelt name, or the list of what there is."""
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"


def _require(ok: bool, what: str) -> None:
    if not ok:
        raise ConfigError(what)


@dataclass(frozen=True)
class DataConfig:
    """What to learn from."""

    source: str = ""
    """A toy's name, "digits", or a path: idx folder, image folder or zip, .npy/.npz, .csv."""
    split: str = "train"
    """Which part of it: train, test or all."""
    flip: bool = False
    """Also show mirror images: right for natural images, wrong for letters and digits."""
    size: int | None = None
    """Image files only: side of a resize and centre crop."""


@dataclass(frozen=True)
class MLPConfig:
    """The net for vectors (nets/mlp.py)."""

    width: int = 256
    """Units of a layer."""
    depth: int = 4
    """Residual blocks."""
    embed: int = 64
    """Fourier features of the noise level."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        from ..nets.mlp import MLP

        _require(
            len(shape) == 1,
            f"MLPConfig is for vectors, and the data has shape {shape}: use a UNetConfig (model.net.type in a --config "
            "file, or another --preset)",
        )
        return MLP(shape[0], classes, self.width, self.depth, self.embed)


@dataclass(frozen=True)
class UNetConfig:
    """The net for images (nets/unet.py)."""

    widths: tuple[int, ...] = (32, 64, 64)
    """Channels at each resolution; each level halves the image."""
    layers: int = 1
    """Residual blocks at each resolution."""
    attention: bool = True
    """Self-attention at the lowest resolution."""
    head: int = 32
    """Channels of an attention head."""
    groups: int = 8
    """Groups of the group normalisation."""

    def build(self, shape: tuple[int, ...], classes: int) -> nn.Module:
        from ..nets.unet import UNet

        _require(
            len(shape) == 3,
            f"UNetConfig is for images, and the data has shape {shape}: use an MLPConfig (model.net.type in a --config "
            "file, or another --preset)",
        )
        return UNet(
            (shape[0], shape[1], shape[2]), classes, self.widths, self.layers, self.attention, self.head, self.groups
        )


@dataclass(frozen=True)
class ModelConfig:
    """The denoiser."""

    net: UNetConfig | MLPConfig = UNetConfig()
    """The network."""
    form: str = "edm"
    """What the network predicts, a row of denoiser.FORMS: edm, eps, v, x0, flow, score."""
    label_dropout: float = 0.1
    """Share of samples trained without their class, for guidance."""

    def __post_init__(self) -> None:
        _require(self.form in FORMS, f"model.form = {self.form!r} is unknown{suggest(self.form, list(FORMS))}")
        _require(0 <= self.label_dropout < 1, f"model.label_dropout = {self.label_dropout} must be in [0, 1)")

    def build(self, meta: Mapping[str, Any]) -> Denoiser:
        """The denoiser for data described by `meta` (Data.meta())."""
        net = self.net.build(tuple(meta["shape"]), len(meta["classes"] or ()))
        return Denoiser(net, meta["std"], meta["spread"], form=FORMS[self.form])


@dataclass(frozen=True)
class PlayerConfig:
    """How one player moves (Adam)."""

    lr: float = 1e-3
    """Learning rate after the warm-up."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Adam's memories of the gradient and of its square."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    clip: float | None = 1.0
    """Largest gradient norm; none: no clipping."""
    warmup: int = 100
    """Steps of linear increase of the learning rate."""
    decay: int | None = None
    """Step from which the rate falls as 1/sqrt(step); none: constant. It knows no end, so runs can be extended."""
    ema: tuple[float, ...] = (0.05, 0.10)
    """Widths of the power-function averages kept; the first is what sampling uses by default."""

    def __post_init__(self) -> None:
        _require(self.lr > 0 and math.isfinite(self.lr), f"lr = {self.lr} must be positive")
        _require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
            f"betas = {self.betas} must be two numbers in [0, 1)",
        )
        _require(self.weight_decay >= 0, f"weight_decay = {self.weight_decay} must not be negative")
        _require(self.clip is None or self.clip > 0, f"clip = {self.clip} must be positive, or none")
        _require(
            self.warmup >= 0 and (self.decay is None or self.decay > 0),
            f"warmup = {self.warmup}, decay = {self.decay} must be counts of steps",
        )
        _require(
            len(self.ema) > 0 and all(0 < s < 0.28 for s in self.ema), f"ema = {self.ema} must be widths in (0, 0.28)"
        )

    def rate(self, update: int) -> float:
        """Learning rate of update number `update` (1-based)."""
        rate = self.lr * min(1.0, update / self.warmup if self.warmup else 1.0)
        return rate / math.sqrt(max(1.0, update / self.decay)) if self.decay else rate


@dataclass(frozen=True)
class FitConfig:
    """The training loop."""

    batch: int = 128
    """Samples per step, over all processes and micro-batches together."""
    accumulate: int = 1
    """Micro-batches per step: more of them, less memory."""
    steps: int | None = None
    """Stop at this step, counted over the whole training, resumed parts included."""
    minutes: float | None = None
    """Stop after this long, counted likewise; whichever comes first."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """fp32, or bf16 autocast."""
    compile: bool = False
    """torch.compile the networks."""
    seed: int = 0
    """Seed of weights, data order and noise."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    checkpoint_minutes: float = 2.0
    """Time between checkpoints."""
    sample_minutes: float = 3.0
    """Time between sample grids."""
    keep: int = 2
    """How many checkpoints stay."""
    tensorboard: bool = True
    """Write TensorBoard scalars where it is installed."""

    def __post_init__(self) -> None:
        _require(self.batch >= 1, f"fit.batch = {self.batch} must be at least 1")
        _require(
            self.accumulate >= 1 and self.batch % self.accumulate == 0,
            f"fit.accumulate = {self.accumulate} must divide fit.batch = {self.batch}",
        )
        _require(self.steps is None or self.steps >= 1, f"fit.steps = {self.steps} must be at least 1")
        _require(self.minutes is None or self.minutes > 0, f"fit.minutes = {self.minutes} must be positive")
        _require(
            self.log_every >= 1 and self.keep >= 1,
            f"fit.log_every = {self.log_every} and fit.keep = {self.keep} must be at least 1",
        )
        _require(
            min(self.checkpoint_minutes, self.sample_minutes) > 0,
            f"checkpoint_minutes = {self.checkpoint_minutes}, sample_minutes = {self.sample_minutes} must be positive",
        )


@dataclass(frozen=True)
class SamplingConfig:
    """How samples are drawn when nobody says otherwise, on the EDM schedule from sigma_max to sigma_min."""

    steps: int = 20
    """Steps of the solver."""
    churn: float = 0.0
    """0 is the deterministic probability flow, 1 the reverse SDE."""
    guidance: float = 1.0
    """1 is the class-conditional law itself; more sharpens it (classifier-free guidance)."""
    sigma_min: float = 0.002
    """Lowest noise level."""
    sigma_max: float = 80.0
    """Highest noise level."""
    ema: float | None = None
    """Width of the weight average to use; none: the player's first."""

    def __post_init__(self) -> None:
        _require(self.steps >= 1, f"steps = {self.steps} must be at least 1")
        _require(self.churn >= 0, f"churn = {self.churn} must not be negative: 0 is the deterministic flow")
        _require(math.isfinite(self.guidance), f"guidance = {self.guidance} must be a finite number: 1 is none")
        _require(
            0 < self.sigma_min < self.sigma_max,
            f"sigma_min = {self.sigma_min} must be positive and below sigma_max = {self.sigma_max}",
        )

    @property
    def schedule(self) -> EDM:
        return EDM(self.sigma_min, self.sigma_max)

    def sde(self, denoiser: Any, meta: Mapping[str, Any], cond: torch.Tensor | int | None = None) -> DiffFlow:
        """The DiffFlow of a trained denoiser on data described by `meta`, in model units; with the Gaussian that
        samples start from, on the denoiser's device.
        """
        score = guide(self.schedule.score(denoiser), self.guidance)
        start = self.schedule.prior(tuple(meta["shape"]), meta["mean"], meta["std"])
        sde = at(self.schedule, score, churn=self.churn, start=start.to(next(denoiser.parameters()).device))
        return sde if cond is None else sde.given(cond)


@dataclass(frozen=True)
class TrainConfig:
    """A whole run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: EDMWeighting | EpsWeighting | VWeighting | FlowWeighting = field(default_factory=EDMWeighting)
    denoiser: PlayerConfig = PlayerConfig()
    fit: FitConfig = FitConfig()
    sampling: SamplingConfig = SamplingConfig()


# -- to and from plain values ------------------------------------------------------------------------------------------


def _classes(kind: Any) -> list[type]:
    """The dataclasses that a field's type admits."""
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return [k for k in options if dataclasses.is_dataclass(k) and isinstance(k, type)]


def to_dict(config: Any) -> dict[str, Any]:
    """A config as nested plain values; where a field admits several dataclasses, `type` says which it is."""
    out: dict[str, Any] = {}
    hints = get_type_hints(type(config))
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            tag = {"type": type(value).__name__} if len(_classes(hints[entry.name])) > 1 else {}
            out[entry.name] = tag | to_dict(value)
        else:
            out[entry.name] = list(value) if isinstance(value, tuple) else value
    return out


def _scalar(kind: Any, value: Any, path: str) -> Any:
    """`value` as the plain type `kind`, or ConfigError."""
    if get_origin(kind) in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        return _scalar(next(k for k in get_args(kind) if k is not type(None)), value, path)
    if get_origin(kind) is Literal:
        _require(value in get_args(kind), f"{path} = {value!r} must be one of {', '.join(map(str, get_args(kind)))}")
        return value
    if get_origin(kind) is tuple:
        _require(isinstance(value, list | tuple), f"{path} = {value!r} must be a list")
        first, *more = get_args(kind)
        if more != [...]:
            _require(len(value) == 1 + len(more), f"{path} = {value!r} must be a list of {1 + len(more)}")
        return tuple(_scalar(first, v, f"{path}[{i}]") for i, v in enumerate(value))
    if kind is float and not isinstance(value, bool):
        try:
            return float(value)  # also the text "1e-3", which YAML 1.1 does not take for a number
        except (TypeError, ValueError):
            pass
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"{path} = {value!r} must be of type {kind.__name__}")


def _read(base: Any, values: Any, path: str) -> Any:
    """`base` with the nested `values` put in."""
    _require(isinstance(values, Mapping), f"{path or 'the configuration'} = {values!r} must be a mapping of settings")
    hints, names = get_type_hints(type(base)), [f.name for f in dataclasses.fields(base)]
    new = {}
    for key, value in values.items():
        here = f"{path}.{key}" if path else str(key)
        _require(key in names, f"unknown setting {here!r}{suggest(str(key), names)}")
        kinds = _classes(hints[key])
        if not kinds:
            new[key] = _scalar(hints[key], value, here)
            continue
        inner = getattr(base, key)
        if isinstance(value, Mapping) and len(kinds) > 1 and "type" in value:
            table = {k.__name__: k for k in kinds}
            tag = value["type"]
            _require(tag in table, f"{here}.type = {tag!r} is unknown{suggest(str(tag), list(table))}")
            inner = inner if type(inner) is table[tag] else table[tag]()
            value = {k: v for k, v in value.items() if k != "type"}
        new[key] = _read(inner, value, here)
    try:
        return dataclasses.replace(base, **new)
    except ConfigError:
        raise
    except ValueError as e:
        raise ConfigError(f"{path}: {e}") from e


def from_dict(values: Mapping[str, Any], base: TrainConfig = TrainConfig()) -> TrainConfig:
    """`base` with nested plain values put in. Raises ConfigError for an unknown key, a wrong type or an impossible
    value.
    """
    return _read(base, values, "")


def replace(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """`config` with dotted keys set: replace(config, {"fit.steps": 100, "denoiser.lr": 3e-4})."""
    nested: dict[str, Any] = {}
    for dotted, value in settings.items():
        *parents, leaf = dotted.split(".")
        inner = nested
        for name in parents:
            inner = inner.setdefault(name, {})
        inner[leaf] = value
    return from_dict(nested, config)


def to_yaml(config: TrainConfig) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def from_yaml(text: str, base: TrainConfig = TrainConfig()) -> TrainConfig:
    """`base` with the settings of a YAML text put in. Raises ConfigError."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as e:
        raise ConfigError(f"this is not YAML: {e}") from e
    return from_dict({} if values is None else values, base)


def load_yaml(path: str | Path, base: TrainConfig = TrainConfig()) -> TrainConfig:
    """`base` with the settings of a YAML file put in. Raises ConfigError, naming the file."""
    try:
        return from_yaml(Path(path).read_text(encoding="utf-8"), base)
    except (OSError, UnicodeDecodeError, ConfigError) as e:
        raise ConfigError(f"{path}: {e}") from e


FREE = (
    "fit.steps",
    "fit.minutes",
    "fit.log_every",
    "fit.checkpoint_minutes",
    "fit.sample_minutes",
    "fit.keep",
    "fit.tensorboard",
    "sampling",
)


def changed(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Dotted keys in which two configurations differ, apart from those that leave the trained weights alone (FREE)."""

    def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in values.items():
            out |= flat(value, f"{path}{key}.") if isinstance(value, Mapping) else {f"{path}{key}": value}
        return out

    a, b = flat(to_dict(old)), flat(to_dict(new))
    return [k for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k) and not k.startswith(FREE)]
