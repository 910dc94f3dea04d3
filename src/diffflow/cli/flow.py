"""`diffflow flow`: particles follow a target at once, nothing is trained.

The models are those of flows.py: settings of the equation whose fields are made of the particles themselves, of the
target's points, or of a score that is known (toys) or borrowed from a trained run (--score). Files as in `sample`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

import diffflow as df
from diffflow import figures, files
from diffflow.cli import UsageError, listing, parse
from diffflow.cli.sample import as_tiles
from diffflow.cli.shared import destination, drawable, known_suffixes
from diffflow.cli.writers import WRITERS
from diffflow.console import Console, progress, say, to_stderr
from diffflow.models.catalogue import FLOWS

if TYPE_CHECKING:
    import torch

    from diffflow.models import flows


@dataclass(frozen=True)
class Flow:
    """Move particles to a target, without training.

    SOURCE is a toy (25gaussians, checkerboard, ...), `digits`, or a path as in `diffflow train`. What is printed: the
    setting of the equation, and the sliced Wasserstein distance to held-out data beside what real data scores. Flows
    toward the points of a file end near those very points; toys are followed as laws.

    Examples:
        diffflow flow 25gaussians --model score-difference --animate particles.gif
        diffflow flow checkerboard --model sliced-wasserstein -n 2000 --out points.csv
        diffflow flow digits --model mmd -n 100 --out digits.png
        diffflow flow digits --model ncsn --score runs/demo -n 100 --animate digits.gif
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """The target."""
    model: Annotated[str, tyro.conf.arg(metavar="NAME")] = "score-difference"
    """Which flow; the list stands above."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """How many particles. They see each other: the time grows with their square."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Steps of the solver; default: as many as the model is good for."""
    points: Annotated[int, tyro.conf.arg(metavar="M")] = 2000
    """At most so many points of a file are the target."""
    score: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None
    """Run whose denoiser gives the score of the target; toys know their own."""
    seed: int = 0
    """Random seed."""
    kind: Annotated[Literal["image", "signal", "volume", "vector"] | None, tyro.conf.arg(name="data.kind")] = None
    """Of arrays: what an example is, where the axes leave it open."""
    out: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """File to write: .png, .zip, .npz, .npy or .csv, replaced if it is there; default: samples.png, or samples.csv
    where there is no plane to draw, or the next free name (samples-2.png)."""
    animate: Annotated[str | None, tyro.conf.arg(metavar="FILE.gif")] = None
    """Write the particles on their way, too: all that can be drawn, but vectors only of two columns."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        from diffflow.metrics.base import pick
        from diffflow.models import flows
        from diffflow.training.distributed import find_device

        known_suffixes(self.out, self.animate)
        self.check()
        data, test = self.load("train"), self.load("test")
        out = destination(self.out, self.source, data.transform)
        if self.animate:
            drawable(self.animate, self.source, data.kind, data.shape)
        place = find_device(self.device)
        target: Any = data.law
        if target is None:
            target = data.encode(pick(data.x, self.points, self.seed)).to(place)
        elif place.type != "cpu":
            target = target.to(place)
        ready = flows.build(
            self.model,
            target,
            score=borrowed(self.score, self.source, data, place),
            particles=self.n,
            steps=self.steps,
            noise=df.Noise(self.seed),
        )
        console = to_stderr()
        for note in data.notes:
            say(console, f"note: {note}")
        say(console, f"{self.model}: {setting(ready.sde)}")
        path = self.move(ready, console)
        x = data.decode(path.last).cpu()
        sets = (x, data.x, test.x)
        if not data.transform.of_bytes:  # a distance of floats is that of their points
            sets = tuple(v.flatten(1) for v in sets)
        print(df.metrics.sliced_w2(*sets, seed=self.seed))
        if self.out is None:
            out = files.unused(out)
        files.write(out, WRITERS[out.suffix][1](x.numpy(), None, None, data.transform))
        print(f"{out}: {self.n} particles, {ready.steps} steps, {path.nfe} network evaluations each, seed {self.seed}")
        if self.animate:
            truth = data.x[:3000].numpy() if data.kind == "vector" else None
            states: list[tuple[float, Any]] = [(t, data.decode(z).cpu()) for t, z in path.kept]
            states = states if data.kind == "vector" else as_tiles(states)
            files.write(self.animate, figures.animate(states, truth=truth, title=self.model))
        return 0

    def load(self, split: str) -> df.data.Data:
        """The source; as the run has it whose score is borrowed."""
        if self.score is not None:
            return replace(df.load(self.score).config.data, source=self.source, latent=None).load(split)
        columns = df.data.Columns(text="drop", constant="drop", discrete="keep")  # a cloud needs no density
        return df.data.load(self.source, split, columns=columns, kind=self.kind)

    def check(self) -> None:
        """Refuse before any work what cannot be meant."""
        from diffflow.models import flows

        if self.model not in FLOWS:
            near = get_close_matches(self.model, FLOWS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"--model {self.model}: no such flow.{hint} There are {', '.join(FLOWS)}.")
        for flag, value, least in (("-n", self.n, 2), ("--steps", self.steps, 1), ("--points", self.points, 2)):
            if value is not None and value < least:
                raise UsageError(f"{flag} {value} makes no sense: give at least {least}.")
        if self.animate and (self.steps or 2) < 2:
            raise UsageError(f"--animate {self.animate!r}: one step is no path to show. Give more --steps.")
        if flows.FLOWS[self.model].needs_score and self.score is None and self.source not in df.TOYS:
            raise UsageError(
                f"--model {self.model} needs the score of {self.source}, and only toys know theirs. Train a denoiser "
                f"with `diffflow train {self.source} --out RUN` and give --score RUN, or take a model that needs "
                f"points alone: {', '.join(name for name, flow in flows.FLOWS.items() if not flow.needs_score)}."
            )

    def move(self, ready: flows.Ready, console: Console) -> df.Trajectory:
        """The particles' way, with a progress bar. Raises UsageError where it leaves the finite numbers."""
        import torch

        keep = math.ceil(ready.steps / (figures.FRAMES - 1)) if self.animate else None
        with progress("flowing", console) as bar, torch.no_grad():
            path = df.sample(
                ready.sde,
                ready.x0,
                ready.steps,
                noise=df.Noise(self.seed),
                keep=keep,
                on_step=lambda done: bar(done.index, done.total),
            )
        lost = int((~path.last.flatten(1).isfinite().all(1)).sum())
        if lost:
            raise UsageError(
                f"--model {self.model}: {lost} of {self.n} particles left the finite numbers; its steps are too long "
                f"for this target. Give more --steps than {ready.steps}, or more particles."
            )
        return path


def borrowed(run: str | None, source: str, data: Any, place: torch.device) -> Any:
    """The denoiser of a run that was trained on such data, or None."""
    if run is None:
        return None
    held = df.load(run, device=str(place))
    if held.space is not None:
        raise UsageError(f"--score {run} lives in latents, and particles move among the data: name a run without them.")
    if held.transform != data.transform:
        raise UsageError(f"--score {run} was trained on {held.data['name']}, not on {source}: their units differ.")
    return held.denoiser


def setting(sde: df.DiffFlow) -> str:
    """The coefficients, as numbers where they are constant."""

    def text(c: Any, variable: str) -> str:
        return f"a function of {variable}" if callable(c) else f"{float(c):.4g}"

    beta = text(sde.beta, "the log-ratio" if isinstance(sde.beta, df.Speed) else "t")
    rest = f"g2 = {text(sde.g2, 't')}, lam2 = {text(sde.lam2, 't')}"
    return f"f = 0, beta = {beta}, {rest}, t from 0 to {sde.horizon:.4g}"


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Flow, args, more=f"\n\nModels:\n{listing(FLOWS)}").main()
