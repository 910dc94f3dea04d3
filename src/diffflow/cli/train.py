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
from diffflow.data import Data
from diffflow.data.readers.pixels import refuse_dim
from diffflow.models.base import TrainConfig
from diffflow.models.presets import BY_DATA, BY_MODEL, diffusion_preset, preset
from diffflow.models.score_gan import ScoreGANConfig
from diffflow.models.settings import aliases
from diffflow.models.settings.serialise import Choice, families, load_yaml, replace, to_yaml
from diffflow.runs import report
from diffflow.runs.advice import closing_lines
from diffflow.runs.fitted import PRESET, fitted
from diffflow.runs.load import load
from diffflow.runs.sampler import ends_with_its_budget, fit_sampler
from diffflow.runs.train import budget, default_folder
from diffflow.training.distributed import Process, find_device, find_process
from diffflow.training.hooks import Hooks
from diffflow.training.memory import gibibytes
from diffflow.training.memory_plan import plan
from diffflow.training.run_folder import Folder
from diffflow.training.speed_probe import probe
from diffflow.training.train import refuse_existing, refuse_other_run, train


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
    cpu_minutes: Annotated[float | None, tyro.conf.arg(metavar="M")] = None
    """Train for so much of the processor's time, of all threads (short for --fit.cpu-minutes), likewise."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Train until this step (short for --fit.steps, and replaces a preset's --fit.minutes)."""
    resume: Annotated[str | None, tyro.conf.arg(metavar="auto|CHECKPOINT")] = None
    """`auto` (the newest checkpoint that verifies) or the path of a checkpoint."""
    init_from: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """Start from the weights of this run instead of random ones."""
    latent: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Train in the latents of the autoencoder in this folder (short for --data.latent): an AutoencoderKL or
    AutoencoderTiny of diffusers. Samples are decoded."""
    cond: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FILE.npy|NAME=FILE.npy")] = ()
    """What each example is conditioned on in place of its class (short for --data.cond): a file with a row for each
    example, or NAME=FILE for each of several conditions."""
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
    explain: tyro.conf.FlagCreatePairsOff[bool] = False
    """Say why the settings are what they are, where they are chosen for pictures, budget and machine, and stop."""
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
            "data.cond": self.cond or None,
            "data.latent": None if self.latent is None else str(Path(self.latent).expanduser().resolve()),
            "fit.seed": self.seed,
            "fit.precision": self.precision,
            "fit.compile": self.compile or None,
        }
        changes = {key: value for key, value in short.items() if value is not None}
        return replace(self.settings, changes | budget(self.minutes, self.steps, self.cpu_minutes))

    def main(self, preset: str, data: Data | None = None) -> int:
        """Train, or print what would be trained.

        Args:
            preset: what the run directory may be called after.
            data: what is learned, where it was looked at already.
        """
        config = self.resolved()
        if self.print_config:
            print(to_yaml(config), end="")
            return 0
        if not config.data.source and self.resume is None:
            raise UsageError("say what to learn: diffflow train SOURCE (a toy's name, `digits`, or a path).")
        if self.dry_run:
            return dry_run(config, self.device, data)
        out = Path(self.out or default_folder(config.data.source, preset, config.fit.seed))
        console = to_stderr()
        run_dir = train(
            config,
            out,
            resume=self.resume,
            init_from=self.init_from,
            device=self.device,
            data=data,
            console=console,
            hooks=Hooks(trackers=self.trackers),
        )
        if find_process(self.device).rank > 0:
            return 0
        lines: list[str] = []
        config = Folder(run_dir).config()
        if ends_with_its_budget(config) and (data is not None or config.data.source):
            data = config.data.load() if data is None else data
            run = fit_sampler(load(run_dir, device=self.device), data, lambda line: say(console, line))
            lines = closing_lines(run, data) if data.kind == "image" else []
        name = shlex.quote(str(run_dir))
        say(console, f"sample   diffflow sample {name} -n 100\nmeasure  diffflow evaluate {name}")
        say(console, f"report   {report.write(run_dir)}")
        for line in lines:
            say(console, line)
        return 0


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    args = aliases.flags(args)
    helping = "-h" in args or "--help" in args
    flags, source = look_ahead([word for word in args if word not in ("-h", "--help")])
    kind = said_kind(args) or kind_in(flags.config)
    if not (helping or flags.dry_run or flags.print_config):  # before the data are scanned
        files.check_folder(flags.out or "runs", "--out" if flags.out else "")
    conditioned = any(word.split("=")[0] in ("--cond", "--data.cond") for word in args)
    name, base, sized = starting_point(flags, source, helping, kind, conditioned)
    if flags.preset is None and flags.config is None and not helping:
        print(f"settings of {name!r}; --preset and --print-config say more", file=sys.stderr)
    by_data = listing({name: make().about for name, make in BY_DATA.items()})
    by_model = listing({name: make.__doc__ or "" for name, make in BY_MODEL.items()})
    presets = (
        f"\n\nPresets, by data (diffusion models):\n{by_data}\n\nBy model, in the size that fits SOURCE:\n{by_model}"
    )

    def command(settings: TrainConfig) -> Train:
        return parse(Train, args, default=Train(settings=settings), more=presets)

    train = command(base)
    if not sized or not train.source:
        if train.explain:
            raise UsageError(
                "--explain is for pictures without --config, and without --preset or with one by model of colour "
                "pictures: their settings are chosen here."
            )
        return train.main(name)
    asked = train.resolved()
    folder = Folder(Path(train.out or default_folder(asked.data.source, name, asked.fit.seed)))
    writes = not (train.explain or train.dry_run or train.print_config)
    if writes and train.resume is None:
        refuse_existing(folder)
    elif writes and not folder.begun:
        refuse_other_run(folder, asked, train.resume)
    data = asked.data.load()
    override = lambda config: command(started(config, flags.init_from)).resolved()  # noqa: E731
    choice = fitted(base, data, override, train.device, lambda line: print(line, file=sys.stderr), name)
    if train.explain:
        print("\n".join([*choice.reasons, *([choice.unfit] if choice.unfit else [])]))
        return 0
    shown = [line for line in choice.reasons if line.startswith(("net", "memory", "grid", "copies"))]
    print("\n".join([*shown, "--explain says why, and more"]), file=sys.stderr)
    if choice.unfit:
        print(choice.unfit, file=sys.stderr)
    return dataclasses.replace(train, settings=choice.config).main(name, data)


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
    flags: OwnFlags, source: str | None, helping: bool, kind: str | None = None, conditioned: bool = False
) -> tuple[str, TrainConfig, bool]:
    """What flags start from.

    Returns:
        name: which a run directory may be called after.
        settings: of the run to go on with, or of the preset, with the file's.
        sized: whether these are still to be sized to the budget (`runs.fitted`).
    """
    folder = Folder(Path(flags.out)) if flags.out and flags.resume else None
    if flags.preset is None and flags.config is None and folder is not None and folder.begun:
        return folder.path.name, folder.config(), False
    if flags.preset is not None:
        name = flags.preset
    elif source is not None:
        name = diffusion_preset(source, kind, conditioned)
    elif flags.config is not None or helping:
        name = "toy"
    else:
        raise UsageError(
            "name what to learn, `diffflow train SOURCE`, or choose --preset (one of "
            f"{', '.join([*BY_DATA, *BY_MODEL])}); "
            "`diffflow train --help` explains."
        )
    made = preset(name, source if name in BY_MODEL else None, kind)
    base = started(made.config, flags.init_from)
    if flags.config is not None:
        return name, load_yaml(flags.config, base=base), False
    ready = not base.needs_start or flags.init_from is not None  # else it is refused, before anything is tried
    return name, base, PRESET in (name, made.scale) and ready and not helping


def started(config: TrainConfig, run: str | None) -> TrainConfig:
    """Settings with the network of the run that they start from, where they take it over."""
    if run is None or not isinstance(config, ScoreGANConfig):
        return config
    return config.after(Folder(Path(run)).config())


def dry_run(config: TrainConfig, device: str | None, data: Data | None = None) -> int:
    """Do all that training would do before its first step, time three steps that are not kept, and print what is known.

    Returns:
        The exit status.
    """
    data, process = config.data.load() if data is None else data, Process(find_device(device))
    refuse_dim(data.name, data.x.numpy())
    memory = plan(config, data.meta(), process)
    config = memory.config
    parts = config.fit.accumulate  # of a step, of which one is timed
    speed = probe(replace(config, {"fit.batch": config.fit.batch // parts, "fit.accumulate": 1}), data, process)
    step, size = parts * speed.wall, sum(speed.parameters.values())
    for k, line in enumerate(data.describe()):
        print(f"{'' if k else 'data':9}{line}")
    names = ", ".join(f"{name} {count:,}" for name, count in speed.parameters.items())
    print(f"model    {type(config).__name__}, {size:,} parameters: {names}")
    if memory.sentence:
        print(f"memory   {memory.sentence}")
    elif memory.bytes is not None and memory.bound is not None:
        print(
            f"memory   about {gibibytes(memory.bytes)} at the peak; {gibibytes(memory.bound.bytes)} {memory.bound.what}"
        )
    batch = config.fit.batch
    print(f"speed    {batch / step:,.0f} examples/s on {find_device(device)}: {step:.3g} s a step of {batch}")
    clocks = ("minutes", config.fit.minutes, step), ("cpu-minutes", config.fit.cpu_minutes, parts * speed.cpu)
    for clock, minutes, each in clocks:
        if minutes is None:
            continue
        steps = minutes * 60 / each
        passes = steps * config.fit.batch / len(data)
        if steps < 1:
            print(f"warning  one step takes longer than that: more --{clock}, a smaller --fit.batch or a narrower net")
        print(f"plan     {minutes:g} {clock}: about {steps:,.0f} steps, {passes:,.1f} passes over the data")
    if config.fit.steps is not None:
        print(f"plan     {config.fit.steps:,} steps: about {config.fit.steps * step / 60:,.1f} minutes")
    print("nothing was trained or written; leave --dry-run out to start")
    return 0
