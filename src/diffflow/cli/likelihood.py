"""`diffflow likelihood`: how probable are data under a run, in nats and bits per dimension?

The values are lower bounds on average (run.Run.log_likelihood): data are spread over the cells that their bytes or
levels stand for and noised by sigma_min. They belong to the ODE model of the run's probability flow, or with --bound to
the reverse SDE, whose bound needs no solve. Beside the run: likelihood.json (means with standard errors, the protocol),
likelihood.csv (one row an example), likelihood.png (histogram), likelihood-extremes.png (images: the most and the least
likely ones).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

import diffflow as df
from diffflow import figures
from diffflow.cli import UsageError, parse
from diffflow.dequantise import Dequantiser
from diffflow.metrics.base import pick
from diffflow.report import plus_minus


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihoods of data under a run, with errors: nats, bits per dimension, the most and the least likely.

    Images are scored byte by byte (bits per dimension), tables in the units of their columns. A generator has no
    density: asking for one is an error.

    Examples:
        diffflow likelihood runs/mnist -n 200
        diffflow likelihood runs/mnist --against path/to/fashion-mnist      two sources under one model
        diffflow likelihood runs/mnist --bound                              the bound of the reverse SDE, no solve
        diffflow likelihood runs/table --data new.csv --out scores.csv
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    data: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """What to score; default: the held-out split of the run's own data."""
    split: str = "test"
    """Which part of it: train, test or all."""
    against: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """A second source to score, and to tell from the first by likelihood alone."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 100
    """At most so many examples of each source."""
    bound: bool = False
    """The bound of the reverse SDE instead of the likelihood of the ODE model."""
    churn: Annotated[float, tyro.conf.arg(metavar="X")] = 1.0
    """With --bound: stochasticity of the process it bounds; it is tight at 1."""
    times: Annotated[int, tyro.conf.arg(metavar="K")] = 64
    """With --bound: noise levels per example."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Runge-Kutta steps of the solve, 4 evaluations each; default: 24 for images, adaptive for vectors."""
    probes: Annotated[int, tyro.conf.arg(metavar="K")] = 1
    """Random probes of the divergence, for more than 16 dimensions; fewer dimensions are summed exactly."""
    variational: Annotated[int, tyro.conf.arg(metavar="STEPS")] = 0
    """Train for so many steps where in its cell a discrete value is best put (variational dequantisation): a tighter
    bound; 0: uniformly."""
    classes: bool = False
    """Score each example within its own class (models and data with classes)."""
    seed: int = 0
    """Random seed: which examples, where in their cells, noise and probes."""
    batch: int = 64
    """Examples solved together."""
    out: Annotated[str | None, tyro.conf.arg(metavar="FILE.csv")] = None
    """Where the values of every example go; default: likelihood.csv in the run directory."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""

    def main(self) -> int:
        if self.n < 2 or self.batch < 1 or self.probes < 1:
            raise UsageError(f"-n {self.n} must be at least 2, --batch {self.batch} and --probes {self.probes} 1.")
        run = df.load(self.run, device=self.device)
        run.sde(churn=self.churn if self.bound else 0.0)  # a generator has none, and says so
        console = Console(stderr=True)
        q = self.dequantiser(run, console) if self.variational else None
        sources = [s for s in (self.data or run.config.data.source, self.against) if s is not None]
        found = [self.score(run, source, q, console) for source in sources]
        out = self.out or str(run.path / "likelihood.csv")
        figures.save(out, as_csv(found))
        figures.save(run.path / "likelihood.png", figures.png(histogram(found)))
        if run.transform.kind == "image":
            figures.save(run.path / "likelihood-extremes.png", figures.png(extremes(found)))
        record = {
            "run": str(run.path),
            "step": run.step,
            "protocol": self.protocol(run),
            "sources": [f.record() for f in found],
        }
        if len(found) == 2:
            record["auc"] = auc(found[0].nats, found[1].nats)
        where = figures.save(run.path / "likelihood.json", json.dumps(record, indent=1).encode())
        show(found, record.get("auc"))
        console.print(
            f"{self.protocol(run)['model']}\nvalues   {out}\nprotocol {where}", highlight=False, soft_wrap=True
        )
        return 0

    def protocol(self, run: df.Run) -> dict[str, Any]:
        """What the numbers are, in words and settings."""
        low = run.config.sampling.sigma_min if hasattr(run.config.sampling, "sigma_min") else 0.0
        model = (
            f"lower bound of the reverse SDE with churn {self.churn:g}, {self.times} noise levels an example"
            if self.bound
            else "likelihood of the ODE model (the probability flow), not of the sampler with noise"
        )
        return {
            "model": f"{model}; data at noise {low:g}, dequantised where discrete: a lower bound on average",
            "examples": self.n,
            "split": self.split,
            "seed": self.seed,
            "conditional": self.classes,
            "dequantisation": f"variational, {self.variational} steps" if self.variational else "uniform",
            **(
                {"churn": self.churn, "times": self.times}
                if self.bound
                else {"steps": self.steps, "probes": self.probes}
            ),
        }

    def dequantiser(self, run: df.Run, console: Console) -> Dequantiser:
        """Trained on the data that the run was trained on."""
        data = run.config.data.load(like=run.transform)
        with bar("dequantiser", self.variational, console) as advance:
            return run.dequantiser(data.x, self.variational, df.Noise(self.seed), lambda k, q: advance(1))

    def score(self, run: df.Run, source: str, q: Dequantiser | None, console: Console) -> Scored:
        data = replace(run.config.data, source=source).load(self.split, run.transform)
        if data.kind != run.transform.kind or data.shape != run.shape:
            raise UsageError(
                f"{source} holds {data.kind}s of shape {data.shape}, and {self.run} models {run.transform.kind}s of "
                f"shape {run.shape}: give data of that shape."
            )
        if self.classes and (data.y is None or not run.classes or len(data.classes or ()) > len(run.classes)):
            raise UsageError(f"--classes needs classes of the model and of {source}: leave it out.")
        rows = pick(torch.arange(len(data)), self.n, self.seed)
        x, labels = data.x[rows], data.y[rows] if self.classes and data.y is not None else None
        images = run.transform.kind == "image"
        how = (
            {"churn": self.churn, "times": self.times}
            if self.bound
            else {"steps": self.steps or (24 if images else None), "probes": self.probes}
        )
        parts = []
        with bar(f"likelihood of {data.name}", len(x), console) as advance:
            for first in range(0, len(x), self.batch):
                part = slice(first, first + self.batch)
                own = df.Noise(self.seed).fork("likelihood").shift(first)
                own_labels = None if labels is None else labels[part]
                more = {"noise": own, "batch": self.batch, "dequantiser": q}
                parts.append(run.log_likelihood(x[part], own_labels, **more, **how))
                advance(len(x[part]))
        nats, stderr = (torch.cat([getattr(p, k) for p in parts]) for k in ("value", "stderr"))
        return Scored(data.name, self.split, x, rows, nats, stderr, math.prod(run.shape), run.discrete)


@contextmanager
def bar(what: str, total: int, console: Console) -> Iterator[Callable[[int], None]]:
    """Progress with the time that is left, where there is a terminal to show it."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as display:
        task = display.add_task("", total=total)
        yield lambda n: display.advance(task, n)


@dataclass(frozen=True)
class Scored:
    """A source with its values: x (n, *shape), rows (n,), nats (n,), stderr (n,) of each by chance."""

    name: str
    split: str
    x: Tensor
    rows: Tensor
    nats: Tensor
    stderr: Tensor
    dims: int
    discrete: bool

    @property
    def bits(self) -> Tensor:
        """Bits per dimension (n,)."""
        return -self.nats / (self.dims * math.log(2))

    def record(self) -> dict[str, Any]:
        n = len(self.nats)
        return {
            "source": self.name,
            "split": self.split,
            "n": n,
            "nats": self.nats.mean().item(),
            "nats_stderr": self.nats.std().item() / math.sqrt(n),
            "bits_per_dim": self.bits.mean().item(),
            "bits_per_dim_stderr": self.bits.std().item() / math.sqrt(n),
        }


def as_csv(found: Sequence[Scored]) -> bytes:
    buffer = io.StringIO()
    rows = csv.writer(buffer, lineterminator="\n")
    rows.writerow(("source", "row", "nats", "stderr", "bits_per_dim"))
    for f in found:
        for row, nats, err, bits in zip(*(t.tolist() for t in (f.rows, f.nats, f.stderr, f.bits)), strict=True):
            rows.writerow((f.name, row, f"{nats:.7g}", f"{err:.3g}", f"{bits:.6g}"))
    return buffer.getvalue().encode()


def histogram(found: Sequence[Scored]):
    """How the values of each source are spread."""
    fig = figures.figure(5.6, 3.2)
    fig.set_layout_engine("constrained")
    ax = fig.add_subplot()
    values = [f.bits if f.discrete else f.nats for f in found]
    low, high = min(v.min().item() for v in values), max(v.max().item() for v in values)
    for colour, f, v in zip(figures.COLOURS, found, values, strict=False):
        ax.hist(v.numpy(), bins=40, range=(low, high), color=colour, alpha=0.55, label=f"{f.name} ({f.split})")
    ax.set(xlabel="bits per dimension" if found[0].discrete else "nats", ylabel="examples")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return fig


def extremes(found: Sequence[Scored]):
    """Of each source a row of the most likely images, and a row of the least likely ones."""
    rows = []
    for f in found:
        order = f.nats.argsort(descending=True)
        k = min(10, len(order))
        rows += [f.x[order[:k]], f.x[order[-k:].flip(0)]]
    return figures.grid(torch.cat(rows).float() / 255, columns=len(rows[0]))


def auc(a: Tensor, b: Tensor) -> float:
    """The chance that an example of the first source is more likely than one of the second; ties count half."""
    diff = a[:, None] - b[None]
    return ((diff > 0).double() + 0.5 * (diff == 0).double()).mean().item()


def show(found: Sequence[Scored], chance: float | None) -> None:
    table = Table("source", "split", "n", "nats", "bits/dim", box=None, header_style="bold", padding=(0, 2, 0, 0))
    for f in found:
        r = f.record()
        bits = plus_minus(r["bits_per_dim"], r["bits_per_dim_stderr"]) if f.discrete else "-"
        table.add_row(f.name, f.split, str(r["n"]), plus_minus(r["nats"], r["nats_stderr"]), bits)
    Console().print(table)
    if chance is not None:
        Console().print(
            f"an example of {found[0].name} is more likely than one of {found[1].name} in {chance:.1%} of pairs",
            highlight=False,
        )


def main(args: Sequence[str]) -> int:
    return parse(Likelihood, args).main()
