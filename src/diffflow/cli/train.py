"""`diffflow train`: from data to a run directory.

Settings are the fields of `diffflow.models.base.TrainConfig`; a preset gives their values, a YAML file overrides
the preset, and flags override the file. The resolved values are saved with the run, so going on needs no flags:
`diffflow train --out RUN --resume auto`.
"""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import sys
import time
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro
import yaml

from diffflow import files
from diffflow.cli import UsageError, listing, parse
from diffflow.console import say, to_stderr
from diffflow.models.base import TrainConfig
from diffflow.models.presets import BY_DATA, BY_MODEL, fitting, preset
from diffflow.models.score_gan import ScoreGANConfig
from diffflow.models.settings import aliases
from diffflow.models.settings.serialise import Choice, families, load_yaml, replace, to_yaml
from diffflow.runs import report
from diffflow.runs.train import budget, default_folder
from diffflow.training.batches import Batches
from diffflow.training.distributed import Process, find_device, find_process
from diffflow.training.hooks import Hooks
from diffflow.training.loop import fit
from diffflow.training.run_folder import Folder
from diffflow.training.state import TrainingState
from diffflow.training.train import train


@dataclass(frozen=True)
class OwnFlags:
    """The flags of the command itself; those of the settings depend on them and on SOURCE."""

    preset: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Named settings to start from; an unknown name lists them."""
    config: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """YAML file over the preset; keys that it does not mention keep the preset's value."""
    out: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Run directory; default runs/SOURCE, or runs/SOURCE-PRESET for a preset by model, with -seedN for a --seed N."""
    minutes: Annotated[float | None, tyro.conf.arg(metavar="M")] = None
    """Train for this long, resumed parts included (short for --fit.minutes, and replaces a preset's --fit.steps)."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Train until this step (short for --fit.steps, and replaces a preset's --fit.minutes)."""
    resume: Annotated[str | None, tyro.conf.arg(metavar="auto|CHECKPOINT")] = None
    """`auto` (the newest checkpoint that verifies) or the path of a checkpoint."""
    init_from: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """Start from the weights of this run instead of random ones."""
    latent: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Train in the latents of the autoencoder in this folder (short for --data.latent): an AutoencoderKL or
    AutoencoderTiny of diffusers. Samples are decoded."""
    trackers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME"), tyro.conf.UseAppendAction] = ()
    """Where numbers and pictures go as well: wandb, mlflow, trackio or tensorboard."""
    flip: tyro.conf.FlagCreatePairsOff[bool] = False
    """Mirror images at random (short for --data.flip); right for natural images, wrong for letters and digits."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Random seed (short for --fit.seed)."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""
    precision: Annotated[Literal["fp32", "bf16"] | None, tyro.conf.arg(metavar="fp32|bf16")] = None
    """Arithmetic of the network (short for --fit.precision)."""
    compile: tyro.conf.FlagCreatePairsOff[bool] = False
    """torch.compile the network (short for --fit.compile)."""
    print_config: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the resolved settings as YAML (good for --config) and stop."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Scan the data, build the model, estimate the time, train nothing."""


@dataclass(frozen=True)
class Train(OwnFlags):
    """Train a model.

    SOURCE is the name of a toy (8gaussians, moons, ...), `digits`, or a path: a folder or zip of images (subfolder =
    class), an idx folder (MNIST), the CIFAR-10 form, .npy/.npz, .csv. Without --preset a fitting one is taken.

    Examples:
        diffflow train 8gaussians --minutes 1
        diffflow train path/to/images --flip --minutes 60 --out runs/flowers
        diffflow train path/to/mnist --preset mnist --denoiser.lr 5e-4 --model.net.widths 48 96 96
        diffflow train --resume auto --out runs/flowers --minutes 90          (half an hour more)
        diffflow train path/to/table.csv --dry-run
        diffflow train digits --preset discriminator-flow --minutes 5         (any model: `diffflow models` lists them)
        diffflow train digits --preset score-gan --init-from runs/digits      (a one-step generator of that run)
    """

    source: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")] = None
    """What to learn; optional where the preset, the file or the run to resume says it."""
    settings: Annotated[TrainConfig, tyro.conf.arg(name="")] = dataclasses.field(
        default_factory=lambda: preset("toy").config
    )

    def resolved(self) -> TrainConfig:
        """The settings with the short flags put in their places."""
        short: dict[str, Any] = {
            "data.source": self.source,
            "data.flip": self.flip or None,
            "data.latent": None if self.latent is None else str(Path(self.latent).expanduser().resolve()),
            "fit.seed": self.seed,
            "fit.precision": self.precision,
            "fit.compile": self.compile or None,
        }
        changes = {key: value for key, value in short.items() if value is not None}
        return replace(self.settings, changes | budget(self.minutes, self.steps))

    def main(self, preset: str) -> int:
        """Train, or print what would be trained; `preset` is what the run directory may be called after."""
        config = self.resolved()
        if self.print_config:
            print(to_yaml(config), end="")
            return 0
        if not config.data.source and self.resume is None:
            raise UsageError("say what to learn: diffflow train SOURCE (a toy's name, `digits`, or a path).")
        if self.dry_run:
            return dry_run(config, self.device)
        out = Path(self.out or default_folder(config.data.source, preset, config.fit.seed))
        console = to_stderr()
        run_dir = train(
            config,
            out,
            resume=self.resume,
            init_from=self.init_from,
            device=self.device,
            console=console,
            hooks=Hooks(trackers=self.trackers),
        )
        if find_process(self.device).rank > 0:
            return 0
        name = shlex.quote(str(run_dir))
        say(console, f"sample   diffflow sample {name} -n 100\nmeasure  diffflow evaluate {name}")
        say(console, f"report   {report.write(run_dir)}")
        return 0


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    args = aliases.flags(args)
    helping = "-h" in args or "--help" in args
    flags, source = look_ahead([word for word in args if word not in ("-h", "--help")])
    kind = said_kind(args) or kind_in(flags.config)
    if not (helping or flags.dry_run or flags.print_config):  # before the data are scanned
        files.check_folder(flags.out or "runs", "--out" if flags.out else "")
    name, base = starting_point(flags, source, helping, kind)
    if flags.preset is None and flags.config is None and not helping:
        print(f"settings of {name!r}; --preset and --print-config say more", file=sys.stderr)
    by_data = listing({name: make().about for name, make in BY_DATA.items()})
    by_model = listing({name: make.__doc__ or "" for name, make in BY_MODEL.items()})
    presets = (
        f"\n\nPresets, by data (diffusion models):\n{by_data}\n\nBy model, in the size that fits SOURCE:\n{by_model}"
    )
    return parse(Train, args, default=Train(settings=base), more=presets).main(name)


def look_ahead(args: Sequence[str]) -> tuple[OwnFlags, str | None]:
    """The command's own flags, and SOURCE wherever it stands: they decide which settings there are.

    SOURCE is the first word that is neither a flag nor the value of one.
    """
    flags, rest = tyro.cli(OwnFlags, prog="diffflow train", args=args, return_unknown_args=True, add_help=False)
    counts = value_counts(TrainConfig)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            return flags, word
        if "=" not in word:
            flag = word.lstrip("-").replace("-", "_")
            count = 0 if flag.rpartition(".")[2].startswith("no_") else counts.get(flag, 1)
            if count is None:
                count = next((i for i, following in enumerate(rest) if following[:1] == "-"), len(rest))
            del rest[:count]
    return flags, None


def said_kind(args: Sequence[str]) -> str | None:
    """The value of --data.kind, without which some data cannot be looked at; None where it is not said."""
    words = list(itertools.chain.from_iterable(w.split("=", 1) if w.startswith("--") else [w] for w in args))
    return next((value for flag, value in itertools.pairwise(words) if flag == "--data.kind"), None)


def kind_in(path: str | None) -> str | None:
    """The kind of the data that a file of settings says; None where it says none, or cannot be read (yet)."""
    try:
        return None if path is None else yaml.safe_load(Path(path).read_text(encoding="utf-8"))["data"]["kind"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None


def value_counts(kind: Any, path: str = "") -> dict[str, int | None]:
    """How many words follow each flag of a type of settings; None: all up to the next flag."""
    if kind is TrainConfig:
        families()  # registers them
    if isinstance(kind, type) and Choice in kind.__bases__:  # of any kind: their flags of one name take as many words
        options = tuple(kind.kinds.values())
    else:
        options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    counts: dict[str, int | None] = {}
    for option in options:
        if option is bool:
            counts[path] = 0
        elif get_origin(option) is tuple:
            counts[path] = None if ... in get_args(option) else len(get_args(option))
        elif isinstance(option, type) and Choice in option.__bases__ and option is not kind:
            counts |= value_counts(option, path)
        elif dataclasses.is_dataclass(option):
            for name, part in get_type_hints(option).items():
                counts |= value_counts(part, f"{path}.{name}" if path else name)
    return counts


def starting_point(
    flags: OwnFlags, source: str | None, helping: bool, kind: str | None = None
) -> tuple[str, TrainConfig]:
    """The name that a run directory may be called after, and the settings that flags start from."""
    folder = Folder(Path(flags.out)) if flags.out and flags.resume else None
    if flags.preset is None and flags.config is None and folder is not None and folder.begun:
        return folder.path.name, folder.config()
    if flags.preset is not None:
        name = flags.preset
    elif source is not None:
        name = fitting(source, kind)
    elif flags.config is not None or helping:
        name = "toy"
    else:
        raise UsageError(
            "name what to learn, `diffflow train SOURCE`, or choose --preset (one of "
            f"{', '.join([*BY_DATA, *BY_MODEL])}); "
            "`diffflow train --help` explains."
        )
    base = preset(name, source if name in BY_MODEL else None, kind).config
    if flags.init_from is not None and isinstance(base, ScoreGANConfig):
        base = base.after(Folder(Path(flags.init_from)).config())
    return name, base if flags.config is None else load_yaml(flags.config, base=base)


def dry_run(config: TrainConfig, device: str | None) -> int:
    """Do all that training would do before its first step, time three steps that are not kept, and print what is known.

    Returns:
        The exit status.
    """
    data = config.data.load()
    meta = data.meta()
    process = Process(find_device(device))
    modules = {name: module.to(process.device) for name, module in config.build(meta).items()}
    training = TrainingState(config.objective(modules, meta), config.players())
    how = config.data
    batches = Batches(data, config.fit.seed, process.device, how.dequantise, how.augment, how.augment_by)
    seconds = []
    for k in range(3):
        begun = time.perf_counter()
        fit(training, batches, dataclasses.replace(config.fit, steps=k + 1, minutes=None), process)
        seconds.append(time.perf_counter() - begun)
    step = min(seconds)
    size = sum(p.numel() for player in training.players.values() for p in player.parameters)
    for k, line in enumerate(data.describe()):
        print(f"{'' if k else 'data':9}{line}")
    names = ", ".join(f"{n} {sum(p.numel() for p in v.parameters):,}" for n, v in training.players.items())
    print(f"model    {type(config).__name__}, {size:,} parameters: {names}")
    batch = config.fit.batch
    print(f"speed    {batch / step:,.0f} examples/s on {process.device}: {step:.3g} s a step of {batch}")
    if config.fit.minutes is not None:
        steps = config.fit.minutes * 60 / step
        passes = steps * config.fit.batch / len(data)
        print(f"plan     {config.fit.minutes:g} minutes: about {steps:,.0f} steps, {passes:,.1f} passes over the data")
    if config.fit.steps is not None:
        print(f"plan     {config.fit.steps:,} steps: about {config.fit.steps * step / 60:,.1f} minutes")
    print("nothing was trained or written; leave --dry-run out to start")
    return 0
