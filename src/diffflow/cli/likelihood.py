"""`diffflow likelihood`: log-likelihoods of data under a run, in nats and bits per dimension.

The values are lower bounds on average (run.Run.log_likelihood): data are spread over the cells that their bytes or
levels stand for and noised by sigma_min. They belong to the ODE model of the run's probability flow, or with --bound to
the reverse SDE, whose bound needs no solve. Beside the run: likelihood.json (means with standard errors, the protocol),
likelihood.csv (one row an example), likelihood.png (histogram), likelihood-extremes.png (images: the most and the least
likely ones).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import diffflow as df
from diffflow import figures, files
from diffflow.cli import UsageError, parse
from diffflow.console import Console, plus_minus, progress, say, table, to_stderr, to_stdout

if TYPE_CHECKING:
    from torch import Tensor

    from diffflow.data import Data
    from diffflow.likelihood.dequantiser import Dequantiser
    from diffflow.models.settings.common import DataConfig


@dataclass(frozen=True)
class Likelihood:
    """Log-likelihoods of data under a run, with errors: nats, bits per dimension, the most and the least likely.

    Images of bytes are scored byte by byte (bits per dimension), tables in the units of their columns, signals, volumes
    and images of floats in the units of their channels. A generator has no
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
    split: str | None = None
    """Which part of it: train, test or all; default: what was held out of the run's own data, all of another
    table, test of everything else."""
    against: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """A second source to score, and to tell from the first by likelihood alone."""
    n: Annotated[int | None, tyro.conf.arg(aliases=["-n"])] = None
    """At most so many examples of each source, at random; default: 1000 vectors, 100 of other kinds."""
    bound: bool = False
    """The bound of the reverse SDE instead of the likelihood of the ODE model."""
    churn: Annotated[float, tyro.conf.arg(metavar="X")] = 1.0
    """With --bound: stochasticity of the process it bounds; it is tight at 1."""
    times: Annotated[int, tyro.conf.arg(metavar="K")] = 64
    """With --bound: noise levels per example, an even number."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Runge-Kutta steps of the solve, 4 evaluations each; default: adaptive for vectors, 24 for other kinds."""
    probes: Annotated[int, tyro.conf.arg(metavar="K")] = 1
    """Random probes of the divergence, for more than 16 dimensions; fewer dimensions are summed exactly. From 2 on
    the error that they leave is told for every value; one is enough for means."""
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
        """Run the command and return its exit status."""
        from diffflow.runs.likelihood import refuse_latents

        for name, least in {"n": 1, "batch": 1, "probes": 1, "times": 2, "steps": 1, "variational": 0}.items():
            if (value := getattr(self, name)) is not None and value < least:
                raise UsageError(f"--{name} {value} must be at least {least}.")
        if self.bound and (self.steps is not None or self.probes > 1):
            raise UsageError("--bound solves nothing: leave out --steps and --probes.")
        if self.times % 2:
            raise UsageError(f"--times {self.times} must be even: errors are taken from neighbouring noise levels.")
        if self.out is not None:
            files.check(self.out, "--out")
        run, console = df.load(self.run, device=self.device), to_stderr()
        files.check_folder(run.path)
        try:
            refuse_latents(run)
            run.sde(churn=self.noise)  # a generator has none, and says so
        except ValueError as e:
            raise UsageError(f"{'--bound: ' if self.bound else ''}{e}") from e
        sources = [s for s in (self.data or run.config.data.source, self.against) if s is not None]
        chosen = [self.choose(run, s, console) for s in sources]  # all are looked at before the work begins
        if len({c.name for c in chosen}) < len(chosen):
            chosen = [replace(c, name=s) for c, s in zip(chosen, sources, strict=True)]
        q = self.dequantiser(run, console) if self.variational else None
        scored = [self.score(run, s, q, console) for s in chosen]
        record: dict[str, Any] = {
            "run": str(run.path),
            "step": run.step,
            "model": self.model(run),
            "protocol": self.protocol(run, scored[0].nfe),
            "sources": [f.record() for f in scored],
        }
        if len(scored) == 2:
            record["auc"] = auc(scored[0].nats, scored[1].nats)
        print_scores(scored, record.get("auc"))
        say(console, record["model"])
        say(console, f"protocol {files.write_json(run.path / 'likelihood.json', record)}")
        say(console, f"values   {files.write_text(self.out or run.path / 'likelihood.csv', as_csv(scored))}")
        files.write(run.path / "likelihood.png", figures.png(histogram(scored)))
        if run.transform.of_bytes:
            files.write(run.path / "likelihood-extremes.png", figures.png(extremes(scored)))
        return 0

    @property
    def noise(self) -> float:
        """The churn of the model whose likelihood it is."""
        return self.churn if self.bound else 0.0

    def grid(self, run: df.Run) -> int | None:
        """Runge-Kutta steps of the solve; None: adaptive."""
        return self.steps or (None if run.transform.kind == "vector" else 24)

    def model(self, run: df.Run) -> str:
        """The model that the numbers belong to, in words."""
        low = getattr(run.config.sampling, "sigma_min", 0.0)
        model = (
            f"lower bound of the reverse SDE with churn {self.churn:g}, from {self.times} noise levels an example"
            if self.bound
            else "likelihood of the ODE model (the probability flow), not of the sampler with noise"
        )
        return f"{model}; data at noise {low:g}, dequantised where discrete: a lower bound on average"

    def protocol(self, run: df.Run, nfe: int) -> dict[str, Any]:
        """The settings that the numbers belong to."""
        from diffflow.runs.likelihood import EXACT

        exact = math.prod(run.shape) <= EXACT
        how: dict[str, Any] = {"churn": self.churn, "noise_levels": self.times}
        if not self.bound:
            how = {"divergence": "exact" if exact else f"{self.probes} random probes, signs"}
            how |= {"steps": steps} if (steps := self.grid(run)) else {"tolerance": 1e-5, "batch": self.batch}
        return {
            **how,
            "evaluations": nfe,
            "dequantisation": (f"variational, {self.variational} steps" if self.variational else "uniform")
            if run.discrete
            else None,
            "conditional": self.classes,
            "seed": self.seed,
            "versions": {p: version(p) for p in ("diffflow", "torch", "torchdiffeq")},
        }

    def dequantiser(self, run: df.Run, console: Console) -> Dequantiser:
        """A dequantiser, trained on the data that the run was trained on."""
        ask = run.config.data
        if (
            self.data is not None
            and fingerprint(moved := replace(ask, source=self.data), ask.split, run) == (run.data["fingerprint"])
        ):
            ask = moved
        ask.refuse_moved(run.path, "--data SOURCE")
        data = ask.load(like=run.transform)
        with progress("dequantiser", console) as bar:
            noise, steps = df.Noise(self.seed), self.variational
            return run.dequantiser(data.x, steps, noise, self.noise, lambda k, q: bar(k, steps))

    def choose(self, run: df.Run, source: str, console: Console) -> Chosen:
        """The examples of a source that are scored, in their order, checked against what the run knows."""
        import torch

        from diffflow.metrics.base import pick
        from diffflow.runs.evaluate import HELD_OUT

        ask, learned, wanted = replace(run.config.data, source=source), run.data["split"], run.data["fingerprint"]
        from_python = bool(source) and not run.config.data.source
        in_place = Path(source).resolve() == Path(run.config.data.source).resolve() and not from_python
        if in_place:
            ask.refuse_moved(run.path, "--data SOURCE")
        same = in_place
        if not in_place:  # only their content says whether these are its own, which have moved
            same = fingerprint(ask, learned, run) == wanted
            if not same and from_python and learned != "all" and fingerprint(ask, "all", run) == wanted:
                same, learned = True, "all"
        split = "all" if run.transform.kind != "image" and Path(source).is_file() else "test"
        if same:
            split = HELD_OUT.get(learned, "all")
            if in_place and ask.load(learned).fingerprint != wanted:
                raise UsageError(
                    f"{source} has changed since {self.run} was trained on it (its content has another fingerprint), "
                    "so nobody knows what was held out. Score a copy of it under another name: all of it counts then."
                )
            if learned == "all" or self.split in (learned, "all"):
                say(console, "note: the run was trained on these examples, or on some of them")
        data = ask.load(split if self.split is None else self.split, run.transform)
        if data.kind != run.transform.kind or data.shape != run.shape:
            raise UsageError(
                f"{source} holds {data.kind}s of shape {data.shape}, and {self.run} models {run.transform.kind}s of "
                f"shape {run.shape}: give data of that shape."
            )
        n = self.n or (1000 if data.kind == "vector" else 100)
        rows, labels = pick(torch.arange(len(data)), n, self.seed).sort().values, None
        if self.classes:
            if data.y is None or not data.classes or not run.classes or "cond" in run.data:
                raise UsageError(f"--classes needs classes of the model and of {source}: leave it out.")
            if strange := [c for c in data.classes if c not in run.classes]:
                raise UsageError(
                    f"--classes: {source} has {', '.join(strange[:5])}, and {self.run} knows "
                    f"{', '.join(run.classes[:12])}: leave it out."
                )
            labels = torch.tensor([run.classes.index(c) for c in data.classes])[data.y[rows]]
        run.encode(data.x[rows], torch.zeros(len(rows), *run.shape) if run.discrete else None)  # levels, too
        return Chosen(data, data.name, rows, data.x[rows], labels)

    def score(self, run: df.Run, chosen: Chosen, q: Dequantiser | None, console: Console) -> Scored:
        """The examples with their values."""
        import torch

        how: dict[str, Any] = {"steps": self.grid(run), "probes": self.probes}
        if self.bound:
            how = {"churn": self.churn, "times": self.times}
        parts = []
        with progress(f"likelihood of {chosen.data.name}", console, "examples") as bar:
            for first in range(0, len(chosen.x), self.batch):
                part = slice(first, first + self.batch)
                streams = df.Noise(self.seed).fork("likelihood").shift(first)
                labels = None if chosen.labels is None else chosen.labels[part]
                more = {"noise": streams, "batch": self.batch, "dequantiser": q}
                parts.append(run.log_likelihood(chosen.x[part], labels, **more, **how))
                bar(min(first + self.batch, len(chosen.x)), len(chosen.x))
        nats, stderr = (torch.cat([getattr(p, k) for p in parts]) for k in ("value", "stderr"))
        discrete = run.transform.of_bytes or (run.discrete and all(run.transform.levels))
        return Scored(chosen, nats, stderr, math.prod(run.shape), discrete, max(p.nfe for p in parts))


def fingerprint(ask: DataConfig, split: str, run: df.Run) -> str | None:
    """The fingerprint of a part of some data as a run would read them; None where it cannot, or where there is none."""
    from diffflow.data import DataError

    try:
        return ask.load(split, run.transform).fingerprint
    except DataError:
        return None


@dataclass(frozen=True)
class Chosen:
    """Examples of a source.

    Args:
        data: the source.
        name: what it is called.
        rows: which of its rows (n,).
        x: the examples (n, *shape), as loaded.
        labels: their classes (n,) as the run numbers them, or None.
    """

    data: Data
    name: str
    rows: Tensor
    x: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Scored:
    """Examples of a source with their values.

    Args:
        chosen: the examples.
        nats: log-likelihoods (n,).
        stderr: the error of each by its probes (n,); nan: unknown.
        dims: dimensions of an example.
        discrete: whether every coordinate has a probability, so that bits are meant.
        nfe: network evaluations, an example.
    """

    chosen: Chosen
    nats: Tensor
    stderr: Tensor
    dims: int
    discrete: bool
    nfe: int

    @property
    def name(self) -> str:
        """What the source is called."""
        return self.chosen.name

    @property
    def bits(self) -> Tensor:
        """Bits per dimension (n,): these are probabilities already."""
        return df.bits_per_dim(self.nats, self.dims, 1.0)

    def record(self) -> dict[str, Any]:
        """Means with standard errors, and what they are of, for JSON."""
        c, n = self.chosen, len(self.nats)
        entry: dict[str, Any] = {"source": c.name, "split": c.data.split, "n": n, "of": len(c.data)}
        entry["sha256"] = c.data.fingerprint
        for name, v in {"nats": self.nats, "bits_per_dim": self.bits if self.discrete else None}.items():
            if v is not None:
                entry |= {name: v.mean().item(), f"{name}_stderr": v.std().item() / math.sqrt(n) if n > 1 else None}
        return entry


def as_csv(scored: Sequence[Scored]) -> str:
    """CSV text, one line an example.

    `row` counts from 0 within the split, `trace_stderr` is the error of the random probes (or noise levels) alone: each
    value is also one draw of noise and cells.
    """
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    lines.writerow(("source", "row", "nats", "trace_stderr", "bits_per_dim"))
    for f in scored:
        columns = (f.chosen.rows.tolist(), f.nats.tolist(), f.stderr.tolist(), f.bits.tolist())
        for row, nats, err, bits in zip(*columns, strict=True):
            error = "" if math.isnan(err) else f"{err:.3g}"
            lines.writerow((f.name, row, f"{nats:.7g}", error, f"{bits:.6g}" if f.discrete else ""))
    return buffer.getvalue()


def histogram(scored: Sequence[Scored]):
    """A figure of how the values of each source are distributed."""
    fig = figures.figure(5.6, 3.2)
    fig.set_layout_engine("constrained")
    ax = fig.add_subplot()
    values = [f.bits if f.discrete else f.nats for f in scored]
    low, high = min(v.min().item() for v in values), max(v.max().item() for v in values)
    for colour, f, v in zip(figures.COLOURS, scored, values, strict=False):
        ax.hist(
            v.numpy(),
            bins=40,
            range=(low, high),
            color=colour,
            alpha=0.55,
            label=figures.plain(f"{f.name} ({f.chosen.data.split})"),
        )
    ax.set(xlabel="bits per dimension" if scored[0].discrete else "nats", ylabel="examples")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return fig


def extremes(scored: Sequence[Scored]):
    """A figure of each source's most likely images, and of its least likely ones, with their bits."""
    rows = []
    for f in scored:
        order = f.nats.argsort(descending=True)
        k = min(10, len(order))
        for name, which in (("most likely", order[:k]), ("least likely", order[-k:].flip(0))):
            bits = f.bits[which]
            remark = f"{bits.min():.2f} to {bits.max():.2f} bits/dim"
            rows.append(figures.DialRow(f"{f.name}: {name}", remark, f.chosen.x[which].float() / 255))
    return figures.dial(rows)


def auc(a: Tensor, b: Tensor) -> float:
    """The chance that an example of the first source is more likely than one of the second; ties count half."""
    diff = a[:, None] - b[None]
    return ((diff > 0).double() + 0.5 * (diff == 0).double()).mean().item()


def print_scores(scored: Sequence[Scored], chance: float | None) -> None:
    """Print the means, and the chance that an example of the first source is more likely than one of the second."""
    rows = table("source", "split", "n", "nats", "bits/dim")
    for f in scored:
        r = f.record()
        bits = plus_minus(r["bits_per_dim"], r["bits_per_dim_stderr"]) if f.discrete else "-"
        count = str(r["n"]) if r["n"] == r["of"] else f"{r['n']} of {r['of']}"
        rows.add_row(f.name, f.chosen.data.split, count, plus_minus(r["nats"], r["nats_stderr"]), bits)
    to_stdout().print(rows)
    if chance is not None:
        print(f"an example of {scored[0].name} is more likely than one of {scored[1].name} in {chance:.1%} of pairs")


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Likelihood, args).main()
