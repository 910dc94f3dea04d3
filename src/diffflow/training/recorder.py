"""Recorder: writes what a run leaves behind while it trains, which is numbers, pictures, checkpoints and progress.

All of it hangs on the loop's `after(training, outcomes)` and none of it touches the state of the training, so how
often it happens changes no weight. Only the first process writes. Files are written whole or not at all.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .. import figures, files
from ..console import Console, bars, say
from ..data import tiles
from ..models.settings.common import FitConfig
from ..sampling.sample import NotFinite
from . import checkpoint
from .ema import early_share, snapshot_due
from .health import HealthMonitor
from .hooks import Hooks
from .optimisers import called
from .run_folder import Folder
from .state import Outcome, TrainingState
from .trackers import Trackers

SampleGrid = Callable[[], torch.Tensor]  # as previews.grid_sampler
SampleCounts = Callable[[torch.Tensor], dict[str, float]]  # as previews.mode_counter
LINE_SECONDS = 15.0  # between lines of progress where there is no terminal to redraw


class Recorder:
    """Writes a run directory while it trains, as a `StepObserver` of the loop.

    Args:
        folder: the run directory.
        config: how often it is written.
        draw: () -> samples of the players as they are now, decoded (n, *shape).
        console: where progress goes.
        main: whether this is the process that writes.
        begin: step at which the training begins or goes on.
        count: such samples, of the averaged weights -> numbers for the next line of the log.
        hooks: callbacks of the caller's.
        trackers: where numbers and pictures go as well; they are started already.
        ended: why the training ends with this step, "" where it goes on, asked whenever averages are kept; None: never.
    """

    def __init__(
        self,
        folder: Folder,
        config: FitConfig,
        draw: SampleGrid,
        console: Console,
        main: bool,
        begin: int = 0,
        count: SampleCounts | None = None,
        hooks: Hooks | None = None,
        trackers: Trackers | None = None,
        ended: Callable[[], str] | None = None,
    ):
        self.folder = folder
        self.config = config
        self.draw = draw
        self.console = console
        self.main = main
        self.count = count or (lambda x: {})
        self.recent: list[Outcome] = []  # since the last line of the log
        self.counts: dict[str, float] = {}  # of a grid that is not in the log yet
        self.undrawn = False  # whether a grid could not be drawn
        self.health = HealthMonitor(folder.lines() if main else ())
        now = time.monotonic()
        self.logged = (now, begin)
        self.saved = self.drawn = self.printed = now
        self.hooks = hooks or Hooks()
        self.trackers = trackers or Trackers()
        self.ended = ended
        self.stopped = ""  # by whom and when, where a callback ended the training
        self.told = begin  # step of the last checkpoint that on_checkpoint knows
        self.progress = bars(console, shown=main)
        self.bar = self.progress.add_task("training", total=None, completed=begin, note="")
        self.progress.start()

    def say(self, text: str) -> None:
        """Print a line for whoever watches, in the first process."""
        if self.main:
            say(self.console, text)

    def after(self, training: TrainingState, outcomes: list[Outcome]) -> bool:
        """Log, save and draw what is due after a step. Returns whether a callback stops the training."""
        if not self.main:
            return False
        self.recent += outcomes
        self.progress.update(self.bar, completed=training.step)
        if snapshot_due(training.step):
            clocks = {n: p.updates for n, p in training.players.items()}
            # rows kept aside may choose any of them, but not where only the end is good
            forget = training.anneals or not self.config.holdout
            self.folder.snapshot(training.step, training.averages(), clocks, forget)
            if self.ended is not None and (why := self.ended()):
                self.stopped = f"step {training.step}: {why}"
                self.say(self.stopped)
        if training.step % self.config.log_every == 0 and self.log(training):
            self.stopped = f"on_log ({called(self.hooks.on_log)}) after step {training.step}"
            self.say(f"stopped by {self.stopped}")
        now = time.monotonic()
        if now - self.saved >= 60 * self.config.checkpoint_minutes:
            self.save(training)
        if now - self.drawn >= 60 * self.config.sample_minutes:
            self.picture(training)
        return bool(self.stopped)

    def log(self, training: TrainingState) -> bool:
        """Write one line of metrics.jsonl: means over the steps since the last one.

        Returns:
            Whether on_log answers that the training shall stop.
        """
        now, (then, since) = time.monotonic(), self.logged
        rate = (training.step - since) * self.config.batch / max(now - then, 1e-9)
        self.logged = (now, training.step)
        line: dict[str, Any] = {
            "step": training.step,
            "images": training.step * self.config.batch,
            "seconds": round(training.seconds, 3),
        }
        line |= {"rate": round(rate, 2), "loss": {}, "grad": {}, "lr": {}, "skipped": training.skipped, "log": {}}
        for name in dict.fromkeys(o.player for o in self.recent):
            mine = [o for o in self.recent if o.player == name and not o.skipped]
            if not mine:
                continue
            line["loss"][name] = sum(o.loss for o in mine) / len(mine)
            line["grad"][name] = sum(o.grad for o in mine) / len(mine)
            line["lr"][name] = mine[-1].lr
            line["log"] |= {f"{name}/{k}": sum(o.log[k] for o in mine) / len(mine) for k in mine[-1].log}
        line["log"] |= {f"samples/{k}": v for k, v in self.counts.items()}
        self.recent, self.counts = [], {}
        if warnings := self.health.see(line):
            line["warnings"] = warnings
        written = json.dumps(line)
        with open(self.folder.metrics, "a") as file:
            file.write(written + "\n")
        groups = ("loss", "grad", "lr", "log")
        values = {f"{group}/{name}": value for group in groups for name, value in line[group].items()}
        self.trackers.log(values | {"images per second": rate}, training.step)
        self.warn(training, warnings)
        losses = "  ".join(f"{k} {v:.4f}" for k, v in line["loss"].items())
        text = f"{losses}  {rate:,.0f} examples/s" + (f"  {training.skipped} skipped" if training.skipped else "")
        seconds = self.seconds_left(training)
        if self.progress.disable:
            if now - self.printed >= LINE_SECONDS:
                self.printed = now
                remaining = "" if seconds is None else f"  {seconds / 60:.1f} min left"
                self.say(f"step {training.step}  {text}{remaining}")
        else:
            total = None if seconds is None else training.step + seconds * rate / self.config.batch
            self.progress.update(self.bar, total=total, note=text)
        if self.hooks.on_log is None:
            return False
        try:
            return self.hooks.on_log(json.loads(written)) is True
        except Exception:  # it ends the training, which can go on from here
            self.save(training)
            raise

    def warn(self, training: TrainingState, warnings: list[str]) -> None:
        """Print warnings with the step they are of."""
        for text in warnings:
            self.say(f"warning at step {training.step}: {text}")

    def seconds_left(self, training: TrainingState) -> float | None:
        """Seconds to go, by whichever budget ends first."""
        ends = []
        if self.config.minutes is not None:
            ends.append(60 * self.config.minutes - training.seconds)
        if self.config.steps is not None and training.step:
            ends.append((self.config.steps - training.step) * training.seconds / training.step)
        return max(0.0, min(ends)) if ends else None

    def save(self, training: TrainingState) -> Path | None:
        """Write a checkpoint now and return its path, in the first process."""
        self.saved = time.monotonic()
        if not self.main:
            return None
        path = checkpoint.save(
            self.folder.checkpoints, training.step, training.tensors(), training.state(), self.config.keep
        )
        if self.hooks.on_checkpoint is not None and training.step != self.told:
            self.told = training.step
            self.hooks.on_checkpoint(path, training.step)
        return path

    def picture(self, training: TrainingState) -> None:
        """Draw the sample grid, from the same noise every time: raw weights left, the first average right."""
        self.drawn = time.monotonic()
        try:
            raw = self.draw()
            with ExitStack() as stack:
                for player in training.players.values():
                    stack.enter_context(player.ema.applied(player.config.ema[0]))
                averaged = self.draw()
            counts, image = self.count(averaged), beside(raw, averaged)
        except NotFinite as error:  # a young model may not be able to draw yet, and goes on learning
            self.say(f"warning: no sample grid at step {training.step}: {error}")
            return
        except Exception as error:  # what cannot be drawn can be learned
            if not self.undrawn:
                self.say(f"warning: no sample grids, the training goes on: {type(error).__name__}: {error}")
            self.undrawn = True
            return
        self.counts = counts
        files.write(self.folder.path / "samples" / f"{training.step:06d}.png", figures.png(image))
        self.trackers.picture(image, training.step)
        self.drawn = time.monotonic()

    def finish(self, training: TrainingState) -> None:
        """Draw the last grid, say what was spent, and warn of averages that are not yet worth using."""
        self.picture(training)
        clock, processor = training.seconds / 60, training.cpu_seconds / 60
        self.say(f"{training.step:,} steps in {clock:.3g} minutes, {processor:.3g} minutes of the processor")
        if self.recent:
            self.log(training)
        elif self.counts:  # the last line stood before this grid was drawn
            *earlier, last = self.folder.lines()
            counts = {f"samples/{k}": v for k, v in self.counts.items()}
            last["log"] |= counts
            if warnings := self.health.see({"log": counts, "grad": {}}):
                last["warnings"] = [*last.get("warnings", ()), *warnings]
            self.folder.keep([*earlier, last])
            self.trackers.log({f"log/{name}": value for name, value in counts.items()}, training.step)
            self.warn(training, warnings)
        for name, player in training.players.items():
            warmup, updates = player.config.warmup, player.updates
            if player.anneals:
                continue  # its warm-up is a share of the training, as the averages are
            shares = {s: early_share(s, warmup, updates) for s in player.config.ema}
            if early := {s: share for s, share in shares.items() if share > 0.01}:
                self.say(
                    f"warning: a short training: the averaged weights of {name} that samples are drawn with (ema "
                    f"{', '.join(map(str, early))}) are {max(early.values()):.0%} those of its {warmup} warm-up steps, "
                    f"of {updates}. Train longer, or sample the raw weights: df.load(path, raw=True)"
                )

    def close(self) -> None:
        """End the progress bar and the trackers."""
        self.progress.stop()
        self.trackers.finish()


def beside(raw: torch.Tensor, averaged: torch.Tensor) -> Image.Image:
    """A picture of two sets of samples: grids of tiles, or scatter plots of the first two columns of vectors."""
    pictures = []
    for x in (raw, averaged):
        x = x.float().cpu()
        if x.dim() == 2:
            x = torch.cat([x, torch.zeros(len(x), 1)], 1) if x.shape[1] == 1 else x
            content = figures.png(figures.scatter(x[:, :2].nan_to_num(0.0)))
        else:
            content = figures.png(tiles.picture(x, columns=10))
        pictures.append(content)
    left, right = (Image.open(io.BytesIO(c)).convert("RGB") for c in pictures)
    sheet = Image.new("RGB", (left.width + right.width + 16, max(left.height, right.height)), "white")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + 16, 0))
    return sheet
