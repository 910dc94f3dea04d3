"""`diffflow demo`: the whole library on real handwritten digits, in minutes on two cores.

Trains a class-conditional denoiser on scikit-learn's digits, moves the same noise along the equation at churn 0, 1/2,
1 and 2 and by annealed Langevin, lets a classifier trained on real digits say whether it sees the digit that was
asked for, checks that the samples are no copies, and writes a report.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import diffflow as df
from diffflow import figures, files
from diffflow.cli import UsageError, parse
from diffflow.cli.conditions import labels_of
from diffflow.cli.sample import Sample
from diffflow.cli.shared import check, check_n, draw_samples, print_metrics
from diffflow.console import Console, say, to_stderr, waiting

if TYPE_CHECKING:
    from torch import Tensor

CHURNS = {0.0: "probability flow", 0.5: "half-way", 1.0: "reverse SDE", 2.0: "over-damped"}
LEVELS, STEPS_PER_LEVEL = 20, 5


@dataclass(frozen=True)
class Demo:
    """Train on handwritten digits, sample along the dial, write a report.

    Run it again to go on after an interruption.

    Examples:
        diffflow demo
        diffflow demo --minutes 10 --out runs/longer
    """

    out: str = "runs/demo"
    """Run directory."""
    minutes: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """Training time; default: the preset's."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 500
    """Samples at each setting, for the numbers."""
    steps: int = 20
    """Steps of the solver."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Load the digits, build the model, estimate the time; train and write nothing."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        from diffflow.models.presets import preset
        from diffflow.models.settings.serialise import replace as settings
        from diffflow.runs import report
        from diffflow.training.train import train

        if self.dry_run:
            from diffflow.cli.train import dry_run

            given = {} if self.minutes is None else {"fit.minutes": self.minutes, "fit.steps": None}
            return dry_run(settings(preset("demo").config, given), self.device)
        ask = Sample(self.out, self.n, steps=self.steps, batch=500)
        check(ask)
        check_n(self.n)
        home, console = Path(self.out), to_stderr()
        done = finished(home)
        if done and self.minutes is not None and 60 * self.minutes > (seconds := trained(home)):
            say(console, f"the demo was trained for {seconds / 60:.3g} minutes: going on until {self.minutes:g}")
            done = False
        if done and (home / "report.html").exists():
            print(f"the demo is finished: open {home / 'report.html'}")
            print(f"to train longer give more --minutes; to start anew remove {home}, or choose another --out")
            return 0
        files.check_folder(home, "--out")
        config = preset("demo").config
        if self.minutes is not None:
            config = settings(config, {"fit.minutes": self.minutes, "fit.steps": None})
        if not done:
            train(config, home, resume="auto", device=self.device, console=console)
        run = df.load(home, device=self.device)
        evaluation, pictures = along_the_dial(run, ask, console)
        print_metrics(evaluation["metrics"])
        print(f"\n{evaluation['summary']}\n")
        print(f"sample   diffflow sample {shlex.quote(str(home))} -n 100 --class 3")
        files.write_json(home / "evaluation.json", evaluation)
        for name, picture in pictures.items():
            files.write(home / f"{name}.png", figures.png(picture))
        print(f"report   {report.write(home)}\npictures {home}/*.png")
        return 0


def finished(home: Path) -> bool:
    """True when the run in this directory has been trained to its end."""
    return (home / "run.json").is_file() and bool(json.loads((home / "run.json").read_text()).get("finished"))


def trained(home: Path) -> float:
    """Seconds of training behind the run in this directory, as its log counts them."""
    from diffflow.training.run_folder import Folder

    log = Folder(home).lines()
    return log[-1]["seconds"] if log else 0.0


def along_the_dial(run: Any, ask: Sample, console: Console) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sample every setting from the same starts.

    Args:
        run: the demo's run.
        ask: how many samples, of how many steps.
        console: where progress goes.

    Returns:
        The content of evaluation.json, and pictures by name.
    """
    import torch

    train, test = df.data.load("digits"), df.data.load("digits", split="test")
    with waiting(console, "training the judge on real digits"):
        if train.y is None:
            raise ValueError("the digits have lost their labels")
        judge = df.metrics.fit_classifier(train.x, train.y, 10)
    labels = labels_of((), run.classes, ask.n)
    if labels is None:
        raise UsageError(f"{run.path} was trained without classes: remove it, or choose another --out.")
    wanted = torch.from_numpy(labels)
    drawn: dict[str, tuple[str, Tensor, int]] = {}
    for churn, remark in CHURNS.items():
        x, nfe = draw_samples(run, replace(ask, churn=churn), labels, console)
        drawn[f"churn {churn:g}"] = (remark, torch.from_numpy(x), nfe)
    with waiting(console, "annealed Langevin"):
        drawn["annealed Langevin"] = ("λ = 0", *annealed(run, wanted))

    rows = []
    metrics = []
    pictures = {}
    for name, (remark, x, nfe) in drawn.items():
        score = df.metrics.accuracy(x, wanted, judge, test.x, test.y)
        what = f"share that a classifier sees as the digit asked for; {nfe} evaluations"
        metrics.append(score.to_dict() | {"name": f"recognised, {name}", "remark": what})
        rows.append(figures.DialRow(name, f"{remark} · {nfe} evaluations", x[:10]))
        pictures[name.replace(" ", "-")] = figures.grid(x[:100], columns=10)
    pictures |= {"samples": pictures["churn-0"], "dial": figures.dial(rows, [run.classes[k] for k in labels[:10]])}

    flow = drawn["churn 0"][1]
    with waiting(console, "measuring"):
        card = {"run": {"step": run.step}, "steps": ask.steps, "churn": 0.0}
        evaluation = df.metrics.evaluate(flow, train, test, card=card)
    share, copies = metrics[0], evaluation["nearest_ratio"]
    summary = (
        f"A classifier that is right about {100 * share['floor']:.1f} % of held-out real digits recognises "
        f"{100 * share['value']:.1f} % (± {100 * share['stderr']:.1f}) of the samples as the digit asked for, at "
        f"{ask.steps} steps. The median distance of the samples to the nearest training digit is {copies.value:.2f} "
        f"(± {copies.stderr:.2f}) times that of held-out digits: copies would have 0."
    )
    result = evaluation.to_dict()
    result["card"]["classifier"] = judge.card()
    return {"summary": summary, "metrics": [*metrics, *result["metrics"]], "card": result["card"]}, pictures


def annealed(run: Any, labels: Tensor) -> tuple[Tensor, int]:
    """Samples of annealed Langevin, from the same noise, and the evaluations that each one cost.

    The levels stand in equal ratio from 20 to 0.05; a denoising follows.
    """
    levels = df.Levels.geometric(20.0, 0.05, LEVELS, STEPS_PER_LEVEL)
    sde = df.annealed_langevin(levels, levels.score(run.denoiser), rate=0.2)
    prior = levels.prior(run.shape, run.data["mean"], run.data["std"])
    start = prior.sample(len(labels), df.Noise(0).fork("start")).to(run.device)  # drawn on the CPU: the same anywhere
    done = df.sample(sde, start, noise=df.Noise(0), cond=labels.to(run.device))
    return run.decode(done.last).cpu(), done.nfe


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Demo, args).main()
