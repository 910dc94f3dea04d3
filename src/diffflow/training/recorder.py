"""What does a run leave behind while it trains? Numbers, pictures, checkpoints and a line for whoever watches.

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

import numpy as np
import torch
from PIL import Image

from .. import figures, files
from ..console import Console, bars, say
from ..models.settings.common import FitConfig
from ..sampling.sample import NotFinite
from . import checkpoint
from .ema import early_share, snapshot_due
from .health import Watch
from .run_folder import Folder
from .state import Outcome, TrainingState

Draw = Callable[[], torch.Tensor]
Judge = Callable[[torch.Tensor], dict[str, float]]
PATIENCE = 15.0  # seconds between lines where there is no terminal to redraw


class Recorder:
    """Writes a run directory while it trains.

    draw   () -> samples of the players as they are now, decoded: images (n, c, h, w) in [0, 1] or vectors (n, d)
    judge  those samples, of the averaged weights -> numbers for the next line of the log
    main   whether this is the process that writes
    """

    def __init__(
        self,
        folder: Folder,
        config: FitConfig,
        draw: Draw,
        console: Console,
        main: bool,
        begin: int = 0,
        judge: Judge | None = None,
    ):
        self.folder, self.config, self.draw, self.console, self.main = folder, config, draw, console, main
        self.judge = judge or (lambda x: {})
        self.recent: list[Outcome] = []
        self.found: dict[str, float] = {}
        self.watch = Watch(folder.lines() if main else ())
        now = time.monotonic()
        self.logged, self.saved, self.drawn, self.said = (now, begin), now, now, now
        self.board = tensorboard(folder.path / "tensorboard", begin) if main and config.tensorboard else None
        self.progress = bars(console, shown=main)
        self.bar = self.progress.add_task("training", total=None, completed=begin, note="")
        self.progress.start()

    def say(self, text: str) -> None:
        if self.main:
            say(self.console, text)

    def after(self, training: TrainingState, outcomes: list[Outcome]) -> None:
        """What is due after a step."""
        if not self.main:
            return
        self.recent += outcomes
        self.progress.update(self.bar, completed=training.step)
        if snapshot_due(training.step):
            clocks = {n: p.updates for n, p in training.players.items()}
            # rows kept aside may choose any of them
            self.folder.snapshot(training.step, training.averages(), clocks, forget=not self.config.holdout)
        if training.step % self.config.log_every == 0:
            self.log(training)
        now = time.monotonic()
        if now - self.saved >= 60 * self.config.checkpoint_minutes:
            self.save(training)
        if now - self.drawn >= 60 * self.config.sample_minutes:
            self.picture(training)

    def log(self, training: TrainingState) -> None:
        """One line of metrics.jsonl: means over the steps since the last one."""
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
        line["log"] |= {f"samples/{k}": v for k, v in self.found.items()}
        self.recent, self.found = [], {}
        if warnings := self.watch.see(line):
            line["warnings"] = warnings
        with open(self.folder.metrics, "a") as file:
            file.write(json.dumps(line) + "\n")
        if self.board is not None:
            for group in ("loss", "grad", "lr", "log"):
                for name, value in line[group].items():
                    self.board.add_scalar(f"{group}/{name}", value, training.step)
            self.board.add_scalar("images per second", rate, training.step)
        self.warn(training, warnings)
        losses = "  ".join(f"{k} {v:.4f}" for k, v in line["loss"].items())
        text = f"{losses}  {rate:,.0f} images/s" + (f"  {training.skipped} skipped" if training.skipped else "")
        left = self.left(training)
        if self.progress.disable:
            if now - self.said >= PATIENCE:
                self.said = now
                self.say(f"step {training.step}  {text}" + ("" if left is None else f"  {left / 60:.1f} min left"))
        else:
            total = None if left is None else training.step + left * rate / self.config.batch
            self.progress.update(self.bar, total=total, note=text)

    def warn(self, training: TrainingState, warnings: list[str]) -> None:
        for text in warnings:
            self.say(f"warning at step {training.step}: {text}")

    def left(self, training: TrainingState) -> float | None:
        """Seconds to go, by whichever budget ends first."""
        ends = []
        if self.config.minutes is not None:
            ends.append(60 * self.config.minutes - training.seconds)
        if self.config.steps is not None and training.step:
            ends.append((self.config.steps - training.step) * training.seconds / training.step)
        return max(0.0, min(ends)) if ends else None

    def save(self, training: TrainingState) -> Path | None:
        """Write a checkpoint now."""
        self.saved = time.monotonic()
        if not self.main:
            return None
        return checkpoint.save(
            self.folder.checkpoints, training.step, training.tensors(), training.state(), self.config.keep
        )

    def picture(self, training: TrainingState) -> None:
        """The sample grid, from the same noise every time: raw weights on the left, the first average on the right."""
        self.drawn = time.monotonic()
        try:
            raw = self.draw()
            with ExitStack() as stack:
                for player in training.players.values():
                    stack.enter_context(player.ema.applied(player.config.ema[0]))
                averaged = self.draw()
        except NotFinite as error:  # a young model may not be able to draw yet, and goes on learning
            self.say(f"warning: no sample grid at step {training.step}: {error}")
            return
        self.found = self.judge(averaged)
        image = beside(raw, averaged)
        files.write(self.folder.path / "samples" / f"{training.step:06d}.png", figures.png(image))
        if self.board is not None:
            self.board.add_image("samples", np.array(image), training.step, dataformats="HWC")
        self.drawn = time.monotonic()

    def finish(self, training: TrainingState) -> None:
        """The last grid, and a word if the averages are not yet worth using."""
        self.picture(training)
        if self.recent:
            self.log(training)
        elif self.found:  # the last line stood before this grid was drawn
            *earlier, last = self.folder.lines()
            judged = {f"samples/{k}": v for k, v in self.found.items()}
            last["log"] |= judged
            if warnings := self.watch.see({"log": judged, "grad": {}}):
                last["warnings"] = [*last.get("warnings", ()), *warnings]
            self.folder.keep([*earlier, last])
            self.warn(training, warnings)
        for name, player in training.players.items():
            for s in player.config.ema:
                share = early_share(s, player.config.warmup, player.updates)
                if share > 0.01:
                    self.say(
                        f"warning: the average of {name} (ema {s}) reaches back further than the training so far: "
                        f"{share:.0%} of its weight lies in the {player.config.warmup} warm-up steps of "
                        f"{player.updates}. Train longer, or sample the raw weights"
                    )

    def close(self) -> None:
        self.progress.stop()
        if self.board is not None:
            self.board.close()


def tensorboard(path: Path, begin: int) -> Any | None:
    """A TensorBoard writer, where it is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(path), purge_step=begin + 1)


def beside(raw: torch.Tensor, averaged: torch.Tensor) -> Image.Image:
    """Two sets of samples next to each other: grids of images, or scatter plots of the first two columns of vectors."""
    pictures = []
    for x in (raw, averaged):
        x = x.float().cpu()
        if x.dim() == 2:
            x = torch.cat([x, torch.zeros(len(x), 1)], 1) if x.shape[1] == 1 else x
            content = figures.png(figures.scatter(x[:, :2].nan_to_num(0.0)))
        else:
            content = figures.png(figures.grid(x, columns=10))
        pictures.append(content)
    left, right = (Image.open(io.BytesIO(c)).convert("RGB") for c in pictures)
    sheet = Image.new("RGB", (left.width + right.width + 16, max(left.height, right.height)), "white")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + 16, 0))
    return sheet
