"""Discriminator Flow trained in two ways, by a pool of particles and by simulation: evaluations and quality compared.

    pool     PathDiscriminator: particles at all times of the path, each moves one step after the update that saw it
    again    the algorithm as published (derivations.md 6.4): for every update, particles are simulated from the start
             along all N - 1 steps, and each is judged at one of them

Both train the same network with the same game, penalty, optimizer, batch and number of steps N, from the same weights,
on the same data in the same order. Counted are network evaluations per sample and update, where a backward pass or an
input gradient doubles a call: learning costs both the same, moving costs 2 or 2 (N - 1). `again` is measured twice:
after as many updates as the pool, and at the update where it has used as many evaluations.

Quality: sliced W2 of samples against held-out data, beside its floor (other real data), with averaged weights (ema
0.05) and N steps; on toys 4000 samples and exact draws of the law, on digits 500 samples and the held-out images.

A cell is one training (target, method, seed), a JSON file under --cells; finished cells are skipped, so the script can
be stopped and started again. The summary is written to --out.

    python benchmarks/training/pool.py --out results/pool.json             (all: about an hour on one core)
    python benchmarks/training/pool.py --quick --out build/pool.json       (half a minute)
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import diffflow as df
from diffflow.equation.noise import Noise
from diffflow.equation.spectrum import discriminator_flow
from diffflow.models.discriminator_flow import PathConfig
from diffflow.models.settings.common import FitConfig, PlayerConfig
from diffflow.networks.backbones.discriminator import ConvDiscriminator, MLPDiscriminator
from diffflow.networks.discriminator import Discriminator
from diffflow.networks.games import GAMES, Penalty
from diffflow.objectives.base import Batch, Turn
from diffflow.objectives.discriminator_path import Particles, PathDiscriminator
from diffflow.objectives.paths import ParticlePath
from diffflow.training.batches import Batches
from diffflow.training.distributed import Process
from diffflow.training.loop import fit
from diffflow.training.state import Outcome, TrainingState


@dataclass(frozen=True)
class Settings:
    """One target's training, the same for both methods."""

    game: str
    eta: float
    steps: int
    updates: int
    batch: int
    lr: float
    decay: int
    penalty: Penalty
    width: int
    slowing: float = 1.0

    def player(self) -> PlayerConfig:
        return PlayerConfig(lr=self.lr, decay=self.decay)


TOY = Settings("vanilla", 1.0, 25, 3000, 128, 1e-3, 500, Penalty(fake=0.02), 64)
TARGETS = {
    "25gaussians": TOY,
    "checkerboard": TOY,
    "digits": Settings("vanilla", 128.0, 25, 3000, 64, 1e-3, 1000, Penalty(between=0.3), 24, 2.0),
}


class Again(PathDiscriminator):
    """The path simulated anew for every update, no pool: each sample's particle runs from the start, all of them as
    long as the longest, and is judged at a place of its own.
    """

    def visit(self, slots: Tensor, cond: Tensor, noise: Noise) -> tuple[Particles, int]:
        self.pool = replace(self.pool, k=torch.full_like(self.pool.k, -1))
        return super().visit(slots, cond, noise)

    def turns(self, batch: Batch, noise: Noise) -> Iterator[Turn]:
        yield next(super().turns(batch, noise))  # and nothing moves after it

    def evaluations(self, particles: Particles, t: Tensor, births: int) -> int:
        return super().evaluations(particles, t, births - 1)  # the step that does not follow


METHODS: dict[str, type[PathDiscriminator]] = {"pool": PathDiscriminator, "again": Again}


# -- a cell ------------------------------------------------------------------------------------------------------------
@dataclass
class Measurement:
    """What a training has come to after some updates."""

    updates: int
    evaluations: float  # per sample, so far
    sliced_w2: float
    stderr: float
    floor: float
    seconds: float


class Lab:
    """Measures a training when a count of updates or of evaluations is reached; a `Watch` of the loop."""

    def __init__(self, target: str, path: ParticlePath, data: df.data.Data, seed: int, marks: list[float]):
        self.target, self.path, self.data, self.seed = target, path, data, seed
        self.marks, self.spent, self.done = sorted(marks), 0.0, []
        self.begun = time.monotonic()

    def after(self, training: TrainingState, outcomes: list[Outcome]) -> None:
        self.spent += outcomes[0].log["evaluations"]
        if self.marks and self.spent >= self.marks[0]:
            del self.marks[0]
            self.measure(training)

    @torch.no_grad()
    def measure(self, training: TrainingState) -> None:
        seconds = time.monotonic() - self.begun
        player, noise = training.players["discriminator"], Noise(self.seed)
        with player.ema.applied(player.config.ema[0]):
            flow = self.path.flow(player.module.ratio())
            x = self.data.decode(df.sample(flow, self.size, self.path.steps, noise=noise.fork("samples")).last)
        if self.data.law is not None:
            real, other = (self.data.law.sample(self.size, noise.fork(name)) for name in ("real", "other"))
        else:
            real, other = (split.decode(split.encode(split.x[:500])) for split in (held(self.target), self.data))
        score = df.metrics.sliced_w2(x, real, other, limit=self.size, seed=self.seed)
        assert score.floor is not None
        row = Measurement(training.step, self.spent, score.value, score.stderr, score.floor, round(seconds, 1))
        self.done.append(row)
        self.begun = time.monotonic() - seconds  # measuring is not training

    @property
    def size(self) -> int:
        return 4000 if self.data.law is not None else 500


def held(target: str) -> df.data.Data:
    return df.data.load(target, split="test")


def cell(target: str, method: str, seed: int, s: Settings, budget: float) -> list[Measurement]:
    """Train one way and measure: after all updates, and, if it comes before, when `budget` evaluations are spent."""
    data = df.data.load(target)
    torch.manual_seed(seed)
    if len(data.shape) == 1:
        net = MLPDiscriminator(data.shape[0], width=s.width, waves=32)
    else:
        channels, height, width = data.shape
        net = ConvDiscriminator((channels, height, width), widths=(s.width, 2 * s.width))
    discriminator, game = Discriminator(net), GAMES[s.game]
    meta = data.meta()
    std, mean = float(meta["std"]), float(meta["mean"])
    start = df.Gaussian(torch.full(data.shape, mean), std)
    grid = PathConfig(slowing=s.slowing).grid
    path = ParticlePath(
        lambda ratio: replace(discriminator_flow(ratio, game.speed, s.eta * std**2, start), grid=grid), s.steps
    )
    objective = METHODS[method](discriminator, path, game, s.penalty, size=s.batch)
    training = TrainingState(objective, {"discriminator": s.player()})
    lab = Lab(target, path, data, seed, [budget])
    config, cpu = FitConfig(batch=s.batch, steps=s.updates, minutes=None, seed=seed), torch.device("cpu")
    if fit(training, Batches(data, seed, cpu), config, Process(cpu), lab):
        raise KeyboardInterrupt
    if not lab.done or lab.done[-1].updates < training.step:
        lab.measure(training)
    return lab.done


def stored(file: Path, make, settings: dict[str, Any]) -> dict[str, Any]:
    """The cell's JSON, made if it is missing or of other settings."""
    if file.exists() and (old := json.loads(file.read_text()))["settings"] == settings:
        return old
    rows = [asdict(row) for row in make()]
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = {"settings": settings, "measured": rows}
    part = file.with_suffix(".tmp")
    part.write_text(json.dumps(whole, indent=1))
    part.replace(file)
    return whole


# -- the comparison ----------------------------------------------------------------------------------------------------
def compare(target: str, seed: int, s: Settings, cells: Path, console: Console) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {}
    budget = float("inf")
    for method in METHODS:  # the pool first: what it spends is the other's budget
        settings = json.loads(json.dumps(asdict(s) | {"target": target, "method": method, "seed": seed}))
        console.print(f"{target}, seed {seed}: {method}", highlight=False)
        name = f"{target}--{method}--{seed}.json"
        found[method] = stored(cells / name, lambda m=method, b=budget: cell(target, m, seed, s, b), settings)[
            "measured"
        ]
        budget = found["pool"][-1]["evaluations"]
    pool, again = found["pool"][-1], found["again"]
    each = {method: rows[-1]["evaluations"] / rows[-1]["updates"] for method, rows in found.items()}
    return {
        "target": target,
        "seed": seed,
        "evaluations_per_update": each,
        "times_fewer": each["again"] / each["pool"],
        "pool": pool,
        "again_at_equal_updates": again[-1],
        "again_at_equal_evaluations": again[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/pool.json"))
    parser.add_argument("--cells", type=Path, default=Path("build/pool"), help="folder of the cells")
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--updates", type=int, help="instead of each target's own")
    parser.add_argument("--quick", action="store_true", help="20 updates: to see that it works")
    args = parser.parse_args()
    torch.set_num_threads(1)
    console, rows = Console(stderr=True), []
    for target in args.targets:
        s = TARGETS[target]
        updates = 20 if args.quick else args.updates or s.updates
        s = replace(s, updates=updates)
        for seed in range(args.seeds):
            rows.append(compare(target, seed, s, args.cells / str(updates), console))
    table = Table("target", "seed", "evaluations per update", "fewer", "sliced W2: pool", "equal updates", "equal cost")
    for row in rows:
        per = row["evaluations_per_update"]
        scores = [row[k] for k in ("pool", "again_at_equal_updates", "again_at_equal_evaluations")]
        table.add_row(
            row["target"],
            str(row["seed"]),
            f"{per['pool']:.1f} / {per['again']:.1f}",
            f"{row['times_fewer']:.1f} x",
            f"{scores[0]['sliced_w2']:.3f} (floor {scores[0]['floor']:.3f})",
            *(f"{score['sliced_w2']:.3f} ({score['updates']} updates)" for score in scores[1:]),
        )
    Console().print(table)
    versions = {"python": platform.python_version(), "torch": version("torch"), "diffflow": df.__version__}
    settings = {target: asdict(TARGETS[target]) for target in args.targets}
    text = {"command": " ".join(["python", *sys.argv]), "versions": versions, "settings": settings, "rows": rows}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(text, indent=1) + "\n")
    console.print(f"written: {args.out}")


if __name__ == "__main__":
    main()
