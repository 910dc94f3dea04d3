"""Players of pictures at one total time: a GAN, a denoiser, and a denoiser that is distilled into one evaluation.

    gan          `diffflow train FOLDER --preset relativistic`                        one evaluation a sample
    denoiser     `diffflow train FOLDER`                                              18, and for comparison one
    distilled    two thirds of the time the same, one third `diffflow distill`        one

All without other flags, for 30 minutes of CPU time in all, on the 32-pixel pictures of pictures.py, and judged by its
three judges over their floors, with bootstrap errors. What a distillation adds to a denoiser's training (choosing the
sampler of a run that is only begun from) is in its time.

    python benchmarks/models/players.py run --source FOLDER        the cells that are missing
    python benchmarks/models/players.py run gan --seed 1 ...       one of another seed
    python benchmarks/models/players.py table --out results/players.json

FOLDER holds the 64-pixel pictures of emoji-datasource-twitter (package/img/twitter/64), or is CIFAR-10's. A cell is a
JSON file under --cells; what is there is not done again, and a training that was killed goes on from its checkpoint.
`--quick` shows that it all runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pictures
import torch

import diffflow as df
from diffflow import figures, files
from diffflow.metrics.base import pick
from diffflow.runs.evaluate import draw, training_data

Words = Callable[[bool], list[str]]
SHARE = 2 / 3  # of a distilled sampler's time that trains its denoiser
EVALUATIONS = {"gan": (1,), "denoiser": (pictures.EVALUATIONS, 1), "distilled": (1,)}


@dataclass(frozen=True)
class Cell:
    """A player, its training and its samples.

    Args:
        data: emoji or cifar10.
        player: a key of EVALUATIONS.
        minutes: of CPU time, in all.
        seed: of its trainings.
        n: samples.
    """

    data: str
    player: str
    minutes: float
    seed: int
    n: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.data}-{self.player}-{self.minutes:g}min-seed{self.seed}-n{self.n}"


def stages(cell: Cell, o: argparse.Namespace) -> dict[str, tuple[float, Words]]:
    """The commands of a player: minutes, and words of a run that is new or goes on, by its directory's name."""
    home, seed = o.cells / cell.name, ["--seed", str(cell.seed)] if cell.seed else []
    short = o.short if o.quick else []

    def train(*more: str) -> Words:
        fresh = [str(pictures.source(o)), *more, *seed, *short]
        return lambda again: ["train", *(["--resume", "auto"] if again else fresh)]

    def distill(again: bool) -> list[str]:
        resumed, fresh = ["--resume", "auto"], ["--steps", "1", *seed]
        return ["distill", str(home / "begun"), *(resumed if again else fresh)]

    if cell.player == "distilled":
        return {"begun": (SHARE * cell.minutes, train()), "run": ((1 - SHARE) * cell.minutes, distill)}
    return {"run": (cell.minutes, train("--preset", "relativistic") if cell.player == "gan" else train())}


def trained(cell: Cell, o: argparse.Namespace) -> dict[str, Any]:
    """Train a cell, or go on with it; what each stage took."""
    home, found = o.cells / cell.name, {}
    home.mkdir(parents=True, exist_ok=True)
    for name, (minutes, words) in stages(cell, o).items():
        done = home / f"{name}.json"
        if not done.exists():

            def timed(again: bool, words: Words = words, minutes: float = minutes) -> list[str]:
                return [*words(again), "--cpu-minutes", f"{minutes:g}"]

            seconds, peak = pictures.finish(timed, home / name, home / f"{name}-cpu.json", o.at_most)
            run = df.load(home / name)
            parameters = {k: sum(p.numel() for p in player.parameters()) for k, player in run.players.items()}
            about = {"steps": run.step, "seconds": seconds, "peak_gib": peak, "parameters": parameters}
            files.write_json(done, about | {"minutes": minutes, "images": run.metrics()[-1]["images"]})
        found[name] = json.loads(done.read_text())
    return found


def sampled(cell: Cell, evaluations: int, o: argparse.Namespace) -> torch.Tensor:
    """Samples of a trained cell, bytes (n, 3, h, w)."""
    path = o.cells / cell.name / f"samples-{evaluations}.npy"
    if not path.exists():
        run = df.load(o.cells / cell.name / "run")
        data, _ = training_data(run)
        dials, steps = {}, min(run.dials.steps, evaluations)
        if cell.player == "denoiser":  # a solver may take more evaluations than steps
            while draw(run, data, 1, {"steps": steps})[1]["sampler"]["evaluations"] > evaluations and steps > 1:
                steps -= 1
            dials = {"steps": steps}
        x, card = draw(run, data, cell.n, dials, seed=cell.seed)
        np.save(path, (x * 255).round().clamp(0, 255).byte().numpy())
        files.write_json(path.with_suffix(".json"), card)
    return torch.from_numpy(np.load(path))


def measured(cell: Cell, o: argparse.Namespace) -> dict[str, Any]:
    """A cell's record: trained, sampled and judged, what of it is not there yet."""
    path = o.cells / f"{cell.name}.json"
    if path.exists():
        return json.loads(path.read_text())
    real = pick(pictures.prepare(o), o.reference + cell.n, 0)
    took, judged = trained(cell, o), {}
    for evaluations in EVALUATIONS[cell.player]:
        x = sampled(cell, evaluations, o)
        name = f"{cell.name}-{evaluations}"
        judged[str(evaluations)] = pictures.judge(
            x, real[cell.n :], real[: cell.n],
            weights=o.weights, resamples=o.resamples, cells=o.cells,
            stream=1 + int(hashlib.sha256(name.encode()).hexdigest()[:6], 16),
        )  # fmt: skip
        grid = figures.grid(x[:100].float().div(255).numpy(), columns=10)
        files.write(o.cells / f"{name}.png", figures.png(grid))
    record = {"cell": asdict(cell), "trained": took, "judged": judged}
    files.write_json(path, record)
    return record


def shown(record: dict[str, Any]) -> list[str]:
    """A record as lines of a table."""
    lines = []
    for evaluations, found in record["judged"].items():
        values = [f"{v['excess']:.3g} ± {v['stderr']:.1g}" for v in found["judges"].values()]
        steps = " + ".join(str(stage["steps"]) for stage in record["trained"].values())
        recall = found["shares"]["recall"]["value"]
        name = Cell(**record["cell"]).name
        lines.append(f"| {name} | {evaluations} | {steps} | {' | '.join(values)} | {recall:.2f} |")
    return lines


def comparisons(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every player beside the others of the same data, minutes and seed: ratios of excesses, with errors."""
    lines = []
    entries = [(record["cell"], k, judged) for record in found for k, judged in record["judged"].items()]
    for i, (a, evaluations, mine) in enumerate(entries):
        for b, others, theirs in entries[:i]:
            if all(a[k] == b[k] for k in ("data", "minutes", "seed", "n")):
                sides = [f"{a['player']} at {evaluations}", f"{b['player']} at {others}"]
                lines.append({"cell": a, "sides": sides, "ratios": pictures.ratio(mine, theirs)})
    return lines


def table(o: argparse.Namespace) -> None:
    """Print and write what was measured."""
    found = [json.loads(path.read_text()) for path in sorted(o.cells.glob("*-n*.json"))]
    judges = " | ".join(f"{j} over its floor" for j in pictures.JUDGES)
    print(f"| cell | evaluations | steps | {judges} | recall |")
    print("|---" * (4 + len(pictures.JUDGES)) + "|")
    for record in found:
        print("\n".join(shown(record)))
    lines = comparisons(found)
    for line in lines:
        values = ", ".join(f"{k} {v['ratio']:.2f} ± {v['stderr']:.2f}" for k, v in line["ratios"].items())
        print(f"{' / '.join(line['sides'])}, seed {line['cell']['seed']}: {values}")
    pictures.write_table(o, found, lines)


def main(args: list[str] | None = None) -> int:
    """Do what of the cells is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("players", nargs="*", help=f"{', '.join(EVALUATIONS)}; default: all")
    pictures.common_flags(parser, 30.0, "players")
    o = parser.parse_args(args)
    if unknown := set(o.players) - EVALUATIONS.keys():
        parser.error(f"no player called {', '.join(unknown)}; there are {', '.join(EVALUATIONS)}")
    if o.source is None and o.what == "run":
        parser.error("--source FOLDER says where the pictures are")
    o.cells, o.out = o.cells.absolute(), o.out.absolute()
    o.reference, o.resamples, o.short = pictures.REFERENCE, pictures.RESAMPLES, []
    if o.quick:
        o.cells, o.reference, o.resamples, o.n, o.minutes = o.cells / "quick", 40, 2, 16, min(o.minutes, 0.1)
        o.short = ["--fit.batch", "4"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if o.what == "table":
            table(o)
        for player in (o.players or EVALUATIONS) if o.what == "run" else ():
            print("\n".join(shown(measured(Cell(o.data, player, o.minutes, o.seed, o.n), o))), flush=True)
    finally:
        torch.set_num_threads(threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
