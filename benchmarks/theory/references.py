"""Tightness of the likelihood bound measured on exact laws, by reference process: the paper's closing question.

For the exact score of a mixture in the plane and every churn, the gap between log-likelihood and bound, averaged over
data, for three references that noise the data (diffflow.likelihood.elbo): with the model's own noise (the paper's, by
Girsanov's theorem), with the schedule's, and blended. By quadrature: no chance.

    python benchmarks/theory/references.py    (a minute; also draws the figure of docs/guides/likelihood.md)
"""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch

import diffflow as df
from diffflow import figures, files
from diffflow.likelihood.elbo import Quadrature, blended, elbo

LAW = df.GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]], dtype=torch.float64), 0.3, [0.4, 0.6])
CHURNS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 2.5, 3.0, 4.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/references.json"))
    parser.add_argument("--picture", type=Path, default=Path("docs/assets/likelihood/references.png"))
    args = parser.parse_args()
    s, x, rule = df.EDM(0.03, 20.0), LAW.sample(40, df.Noise(0)), Quadrature(64, 16)
    tight = elbo(df.at(s, s.score(LAW), churn=1.0), x, rule=rule).value  # the likelihood, seen from noised data
    gaps: dict[str, list[float]] = {"the model's noise": [], "the schedule's noise": [], "blended": []}
    for churn in CHURNS:
        sde = df.at(s, s.score(LAW), churn=churn)
        for name, gamma in zip(gaps, (churn, 1.0, blended(sde)), strict=True):
            gaps[name].append((tight - elbo(sde, x, rule=rule, reference=gamma).value).mean().item())
        print(churn, *(f"{name} {v[-1]:.3f}" for name, v in gaps.items()), flush=True)
    fig = figures.figure(5.6, 3.4)
    fig.set_layout_engine("constrained")
    ax = fig.add_subplot()
    for colour, (name, values) in zip(figures.COLOURS, gaps.items(), strict=False):
        ax.plot(CHURNS, values, color=colour, marker="o", markersize=3, label=name)
    ax.set(xscale="log", xlabel="churn", ylabel="gap to the log-likelihood, nats", ylim=(-0.1, 4))
    ax.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#e4e7ec", linewidth=0.6)
    ax.legend(frameon=False, title="reference")
    files.write(args.picture, figures.png(fig))
    record = {
        "command": " ".join(["python", "benchmarks/theory/references.py", *sys.argv[1:]]),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in ("diffflow", "torch")},
        "churn": CHURNS,
        "gap_nats": gaps,
    }
    files.write_json(args.out, record)


if __name__ == "__main__":
    main()
