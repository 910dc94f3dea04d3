"""Settings that every family of models has: the data, how a player is trained, the training loop, and the dials."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ... import data as datasets
from ...data import Columns, Data, DataError, Transform
from ...data.condition_files import read_conditions
from ...equation.guidance import Guidance, by_part
from ...equation.schedule import SCHEDULES, Schedule
from ...equation.toys import TOYS
from .serialise import UNSAID, ConfigError, require


@dataclass(frozen=True)
class DataConfig:
    """The data to learn from."""

    source: str = ""
    """A toy's name, "digits", or a path: idx folder, image folder or zip, .npy/.npz, .csv."""
    split: str = "train"
    """Which part of it: train, test or all."""
    flip: bool = False
    """Also show mirror images: right for natural images, wrong for letters and digits."""
    size: int | None = None
    """Image files only: side that they are brought to (`fit`); none: as they are, a common one where sizes differ."""
    dequantise: bool = False
    """Spread the bytes of images over the cells that they stand for: what a density wants (bits per dimension)."""
    column: tuple[str, ...] | None = field(default=None, metadata=UNSAID)
    """Tables: what columns are, in place of what their cells say: NAME=KIND for each, such as age=integer, id=drop,
    code=words, born=date, size=gap=-999 (a number that stands for a gap)."""
    min_count: int = field(default=1, metadata=UNSAID)
    """Tables: words that occur fewer times become one word. Those that occur once may be people: 5 hides them."""
    text: str = field(default="auto", metadata=UNSAID)
    """Tables, the older way in which all columns have densities: words are refused, dropped (drop), or spread over
    cells (levels); auto: as --data.column."""
    constant: str = field(default="auto", metadata=UNSAID)
    """Likewise: columns that never change are refused, or dropped (drop)."""
    discrete: str = field(default="auto", metadata=UNSAID)
    """Likewise: columns of few values are refused, dropped (drop), spread over cells (levels), or continuous (keep)."""
    kind: Literal["image", "signal", "volume", "vector"] | None = field(default=None, metadata=UNSAID)
    """Arrays: what an example is, where the axes leave it open: image (floats stay floats), signal, volume, vector."""
    cond: tuple[str, ...] | None = field(default=None, metadata=UNSAID)
    """What each example is conditioned on in place of its class: a .npy with a row for each example of the source, or
    NAME=FILE.npy for each of several."""
    latent: str | None = field(default=None, metadata=UNSAID)
    """Images: the folder of an autoencoder of diffusers (AutoencoderKL, AutoencoderTiny), in whose latents the model
    lives."""
    fit: Literal["crop", "pad", "resize"] = field(default="crop", metadata=UNSAID)
    """Image files: how one of another shape meets the size: covered and centre-cropped (crop), with background around
    it (pad), or squashed (resize)."""
    background: str = field(default="white", metadata=UNSAID)
    """Images: the colour that transparent ones are laid over, and that pads."""
    augment: float = field(default=0.0, metadata=UNSAID)
    """Pictures of a denoiser: probability of each kind of change (mirrored, turned, scaled, stretched, moved) that
    training shows them with. The network is told of it, so samples are not changed. For few pictures: 0.12."""
    augment_by: tuple[str, ...] | None = field(default=None, metadata=UNSAID)
    """Which kinds: of xflip, yflip, scale, rotate, stretch, shift; none: all."""

    def refuse_moved(self, run: str | Path, remedy: str) -> None:
        """Raise DataError where the data that a run was trained on are no longer where they were.

        Args:
            run: the run, for the message.
            remedy: how to say where they are now, likewise.
        """
        known = self.source in (*TOYS, "digits", "")
        if not known and not Path(self.source).expanduser().exists():
            raise DataError(
                f"the data of {run} were at {self.source!r} and are not there: say where they are, {remedy}"
            )

    def load(self, split: str | None = None, like: Transform | None = None) -> Data:
        """Load the data.

        Args:
            split: "train", "test" or "all"; None: as these settings say.
            like: the transform of other data whose columns and units are wanted.

        Raises:
            DataError: the data cannot be used, or no source is named (a run trained on a `Data` from Python).
        """
        if not self.source:
            raise DataError(
                "the settings name no source of the data: such a run was trained on data from Python. Give them again, "
                "run.evaluate(data), or say where a file of the same rows is (--data FILE)"
            )
        columns = Columns(self.text, self.constant, self.discrete, self.column or (), self.min_count)
        shape = {"fit": self.fit, "background": self.background}
        data = datasets.load(self.source, split or self.split, self.flip, self.size, columns, like, self.kind, **shape)
        data = data.with_cond(read_conditions(self.cond)) if self.cond else data
        return data if self.latent is None else data.with_coder(self.latent)


@dataclass(frozen=True)
class PlayerConfig:
    """How one player is trained, by Adam.

    Raises:
        ConfigError: a number out of its range.
    """

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
    optimizer: Literal["muon"] | None = field(default=None, metadata=UNSAID)
    """muon: orthogonalised steps for weight matrices (training/muon.py); none: Adam for all."""
    anneal: float | None = field(default=None, metadata=UNSAID)
    """Let the rate follow the budget: up over this share of the training, then down to zero at its end as a cosine;
    none: warmup and decay."""

    def __post_init__(self) -> None:
        require(self.lr > 0 and math.isfinite(self.lr), f"lr = {self.lr} must be positive")
        require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas),
            f"betas = {self.betas} must be two numbers in [0, 1)",
        )
        require(self.weight_decay >= 0, f"weight_decay = {self.weight_decay} must not be negative")
        require(self.clip is None or self.clip > 0, f"clip = {self.clip} must be positive, or none")
        require(
            self.warmup >= 0 and (self.decay is None or self.decay > 0),
            f"warmup = {self.warmup}, decay = {self.decay} must be counts of steps",
        )
        require(self.anneal is None or 0 <= self.anneal < 1, f"anneal = {self.anneal} must be a share in [0, 1)")
        require(
            len(self.ema) > 0 and all(0 < s < 0.28 for s in self.ema), f"ema = {self.ema} must be widths in (0, 0.28)"
        )

    def rate(self, update: int) -> float:
        """The learning rate of an update, which are counted from 1."""
        rate = self.lr * min(1.0, update / self.warmup if self.warmup else 1.0)
        return rate / math.sqrt(max(1.0, update / self.decay)) if self.decay else rate


@dataclass(frozen=True)
class FitConfig:
    """The training loop.

    Raises:
        ConfigError: a number out of its range.
    """

    batch: int = 128
    """Samples per step, over all processes and micro-batches together."""
    accumulate: int = 1
    """Micro-batches per step: more of them, less memory."""
    steps: int | None = None
    """Stop at this step, counted over the whole training, resumed parts included."""
    minutes: float | None = None
    """Stop after this long, counted likewise; whichever comes first."""
    cpu_minutes: float | None = field(default=None, metadata=UNSAID)
    """Stop after so much processor time of all threads, counted likewise; whichever comes first."""
    holdout: float = 0.0
    """Share of the training rows kept aside. At the end, the average along the training (its time and width) with the
    least loss on them becomes the model: early stopping after the fact. For few rows; models of one player only."""
    patience: float | None = field(default=None, metadata=UNSAID)
    """End the training when no average was better on the rows kept aside within so many times the steps of the best
    one, such as 2; none: at the end of the budget."""
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
        require(self.batch >= 1, f"fit.batch = {self.batch} must be at least 1")
        require(
            self.accumulate >= 1 and self.batch % self.accumulate == 0,
            f"fit.accumulate = {self.accumulate} must divide fit.batch = {self.batch}",
        )
        require(self.steps is None or self.steps >= 1, f"fit.steps = {self.steps} must be at least 1")
        for name in ("minutes", "cpu_minutes"):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, f"fit.{name} = {value} must be positive and finite")
        require(
            self.log_every >= 1 and self.keep >= 1,
            f"fit.log_every = {self.log_every} and fit.keep = {self.keep} must be at least 1",
        )
        require(self.patience is None or self.patience > 1, f"fit.patience = {self.patience} must be more than 1")
        require(
            self.patience is None or self.holdout > 0,
            f"fit.patience = {self.patience} looks at rows kept aside: give fit.holdout, such as 0.1",
        )
        require(0 <= self.holdout <= 0.5, f"fit.holdout = {self.holdout} must be a share between 0 and 0.5")
        require(
            min(self.checkpoint_minutes, self.sample_minutes) > 0,
            f"checkpoint_minutes = {self.checkpoint_minutes}, sample_minutes = {self.sample_minutes} must be positive",
        )


@dataclass(frozen=True)
class Dials:
    """The dials of a sampler.

    Args:
        steps: steps of the solver.
        gan: weight of the log-ratio; 0 is the score alone.
        churn: stochasticity; 0 is the probability flow, 1 the reverse SDE.
        guidance: classifier-free guidance; 1 is none; or a weight for each part of a condition, by name.
    """

    steps: int = 20
    gan: float = 0.0
    churn: float = 0.0
    guidance: Guidance = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.guidance, float | int):  # a dict, or what JSON made of the pairs
            weights = by_part(self.guidance)
            whole = len(weights) == 1 and "" in weights
            object.__setattr__(self, "guidance", weights[""] if whole else tuple(sorted(weights.items())))


def make_schedule(name: str, sigma_min: float, sigma_max: float) -> Schedule:
    """The noise schedule of a name between two noise levels. Raises ConfigError for levels out of its reach."""
    make = SCHEDULES[name]
    try:
        return make(sigma_min=sigma_min, sigma_max=sigma_max)
    except ValueError as e:
        raise ConfigError(f"sampling.schedule = {name!r}: {e}") from e
