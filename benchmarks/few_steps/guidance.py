r"""Discriminator guidance measured: distance to the data of a weak denoiser's samples, by weight of the log-ratio.

Does the log-ratio repair the score, and when does that pay?

The law p of the samples of an under-trained denoiser is not the data's r. A discriminator that tells noised data from
noised samples, at every noise level, learns log r_t/p_t, and the score of p_t plus its gradient is that of r_t:

    D* = y + sigma^2 [ score(y) + kappa grad d(y) ]         exact for kappa = 1 where the denoiser is the score of its
                                                            own samples (derivations.md eq. 8, 7.13; Kim et al. 2023)

For every run (a denoiser, trained too briefly on purpose) and every seed: draw --fakes samples, train d on them and on
the data, and sample with each kappa from the same noise. Frechet distance in a judge's features against kappa, with
kappa = 0 the unguided run, at equal steps; and the unguided run with three times the steps, which costs as much as the
guided one (an input gradient is two evaluations).

    diffflow train digits --steps 250 --out runs/weak
    python benchmarks/few_steps/guidance.py runs/weak --out results/x
    python benchmarks/few_steps/guidance.py RUN --data path/to/mnist --features lenet=path/to/lenet.pth --out results/x

writes x.json and x.png.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

import diffflow as df
from diffflow import figures, files
from diffflow.metrics import embedding, extractor, frechet
from diffflow.models.presets import DATA_SCALES, scale_for
from diffflow.models.settings.games import along
from diffflow.models.settings.serialise import replace
from diffflow.networks.discriminator import Discriminator, DiscriminatorRatio
from diffflow.networks.games import GAMES, Penalty

LOW, HIGH = 0.02, 20.0  # noise levels, in data standard deviations, at which d learns


def trained(
    run: df.Run,
    real: Tensor,
    labels: Tensor | None,
    fake: Tensor,
    cond: Tensor | None,
    o: argparse.Namespace,
    seed: int,
) -> Discriminator:
    """The discriminator of noised data and noised samples, averaged over the second half of its training."""
    torch.manual_seed(seed)
    std, schedule = float(run.data["std"]), df.EDM()
    net = DATA_SCALES[scale_for(o.data or run.config.data.source)].discriminator.build(
        run.shape, len(run.classes or ()), timed=True
    )
    d = along(net, schedule, std).to(run.device)
    penalty = Penalty(real=o.penalty, fake=o.penalty)
    optimizer = torch.optim.AdamW(d.parameters(), 1e-3, (0.9, 0.99), weight_decay=0.01)
    mean = torch.optim.swa_utils.AveragedModel(d)
    noise, game = df.Noise(seed).fork("discriminator"), GAMES["vanilla"]
    for k in range(o.updates):
        own = noise.fork(k)
        i = torch.randint(len(real), (o.batch,))
        # the same class for both, where there are classes: the ratio within a class
        j = torch.randint(len(fake), (o.batch,)) if cond is None or labels is None else matching(labels[i], cond)
        sigma = std * torch.exp(torch.empty(o.batch).uniform_(*torch.tensor([LOW, HIGH]).log().tolist()))
        t = schedule.time(sigma.double())
        c = None if labels is None else labels[i]
        spread = sigma.view(-1, *[1] * len(run.shape))
        ys = [x + spread * own.fork(n).normal(o.batch, run.shape) for n, x in (("real", real[i]), ("fake", fake[j]))]

        def logit(y: Tensor, t: Tensor = t, c: Tensor | None = c) -> Tensor:
            return d(y, t, c)

        loss = game.discriminator(logit(ys[0]), logit(ys[1])).mean()
        if o.penalty:
            loss = loss + penalty(lambda y, *_: logit(y), ys[0], ys[1], own.fork("between")).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if k >= o.updates // 2:
            mean.update_parameters(d)
    d.load_state_dict(mean.module.state_dict())
    return d.eval()


def matching(wanted: Tensor, have: Tensor) -> Tensor:
    """Random places of `have` that hold the wanted classes."""
    places = [(have == c).nonzero().flatten() for c in range(int(have.max()) + 1)]
    return torch.stack([places[int(c)][torch.randint(len(places[int(c)]), ())] for c in wanted])


def drawn(
    run: df.Run, d: Discriminator | None, kappa: float, steps: int, labels: Tensor | None, n: int, o: Any, seed: int
) -> tuple[Tensor, float]:
    """n samples in [0, 1], and seconds per 1000."""
    schedule, parts, begun = df.EDM(), [], time.perf_counter()
    score = schedule.score(run.denoiser)
    start = schedule.prior(run.shape, float(run.data["mean"]), float(run.data["std"]))
    ratio = None if d is None or kappa == 0 else DiscriminatorRatio(d)
    sde = df.at(
        schedule, score, ratio, gan=kappa * (1 + o.churn) if ratio is not None else 0.0, churn=o.churn, start=start
    )
    for first in range(0, n, 250):
        size = min(250, n - first)
        cond = None if labels is None else labels[first : first + size]
        with torch.no_grad():
            x = df.sample(sde, size, steps=steps, noise=df.Noise(500 + seed).shift(first), cond=cond).last
        parts.append(run.decode(x))
    return torch.cat(parts), 1000 * (time.perf_counter() - begun) / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--data")
    parser.add_argument("--features", default="own")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--churn", type=float, default=0.0)
    parser.add_argument("--kappa", type=float, nargs="+", default=[0.0, 0.25, 0.5, 1.0, 1.5, 2.0])
    parser.add_argument("--fakes", type=int, default=4000)
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--penalty", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("-n", type=int, default=2000)
    parser.add_argument("--out", default="results/guidance")
    o = parser.parse_args()
    o.kappa = sorted({0.0, *o.kappa})
    torch.set_num_threads(1)
    run, say = df.load(o.run, device="cpu"), Console(stderr=True)
    ask = run.config.data if o.data is None else replace(run.config.data, {"source": o.data})
    data = ask.load()
    see = embedding(extractor(o.features, data, 0))
    real, known = see(data.x), data.y
    encoded, settings = run.encode(data.x), [(k, o.steps) for k in o.kappa] + [(0.0, 3 * o.steps)]
    rows: list[dict[str, Any]] = []
    with Progress(console=say) as bar:
        task = bar.add_task("seeds x settings", total=len(o.seeds) * (1 + len(settings)))
        for seed in o.seeds:
            cond = torch.arange(o.fakes) % len(run.classes) if run.classes else None
            fake, _ = drawn(run, None, 0.0, o.steps, cond, o.fakes, o, 100 + seed)
            d = trained(run, encoded, known if run.classes else None, run.encode(fake), cond, o, seed)
            bar.advance(task)
            for kappa, steps in settings:
                labels = torch.arange(o.n) % len(run.classes) if run.classes else None
                x, seconds = drawn(run, d, kappa, steps, labels, o.n, o, seed)
                found = frechet(see((x * 255).round().byte()), real, limit=o.n)
                rows.append({
                    "seed": seed, "kappa": kappa, "steps": steps, "frechet": found.value, "stderr": found.stderr,
                    "seconds": seconds,
                })  # fmt: skip
                bar.advance(task)
    lines = []
    for kappa, steps in settings:
        cells = [r for r in rows if (r["kappa"], r["steps"]) == (kappa, steps)]
        none = {r["seed"]: r["frechet"] for r in rows if (r["kappa"], r["steps"]) == (0.0, o.steps)}
        less = [none[r["seed"]] - r["frechet"] for r in cells]
        lines.append({
            "kappa": kappa, "steps": steps, "frechet": statistics.fmean(r["frechet"] for r in cells),
            "seconds": statistics.fmean(r["seconds"] for r in cells), "less": statistics.fmean(less),
            "stderr": statistics.stdev(less) / len(less) ** 0.5 if len(less) > 1 else None,
        })  # fmt: skip
    record = {
        "command": " ".join(["python", *sys.argv]),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ("diffflow", "torch")},
        "run": {"data": run.data["name"], "step": run.step},
        "settings": {k: v for k, v in vars(o).items() if k not in ("run", "data", "out", "features")},
        "summary": lines,
        "rows": rows,
    }
    where = Path(o.out).with_suffix(".json")
    files.write_json(where, record)
    fig = figures.figure(5.0, 3.4)
    ax = fig.subplots()
    for seed in o.seeds:
        mine = [r for r in rows if r["seed"] == seed and r["steps"] == o.steps]
        ax.errorbar(
            [r["kappa"] for r in mine], [r["frechet"] for r in mine], yerr=[r["stderr"] for r in mine], marker="o",
            ms=4, lw=1.2, capsize=2, label=f"seed {seed}",
        )  # fmt: skip
    ax.axhline(lines[-1]["frechet"], color="grey", ls="--", lw=1, label=f"unguided, {3 * o.steps} steps")
    ax.set(xlabel="κ, weight of the log-ratio", ylabel=f"Frechet distance@{o.n} ({o.features.partition('=')[0]})")
    ax.grid(alpha=0.2)
    ax.legend(fontsize=8)
    fig.tight_layout()
    files.write(where.with_suffix(".png"), figures.png(fig))
    table = Table("kappa", "steps", "Frechet", "less than unguided", "s per 1000", box=None)
    for line in lines:
        error = "" if line["stderr"] is None else f" ± {line['stderr']:.3f}"
        table.add_row(
            f"{line['kappa']:g}", str(line["steps"]), f"{line['frechet']:.3f}", f"{line['less']:.3f}{error}",
            f"{line['seconds']:.1f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
