"""Rows given some columns, measured against the exact conditional: how near each method comes, at what cost.

The table is a Gaussian mixture of 6 components and 5 standardised columns, of which the last two are unknown: the exact
conditional is known in closed form, and so is the expected CRPS of any draws (sampling/observations/exact.py). Reported
is its excess over that of the exact conditional, unbiased, in percent of the latter, with the standard error over rows;
beside it the mean error of the conditional mean in conditional standard deviations (floor .80/sqrt(draws)), and the
median ratio of variances.

    exact           draws of the exact conditional: the floor
    denoiser exact  replacement (one round a level), repaint and langevin at several numbers of levels and rounds
    trained         perceptrons of 128 x 3 on 20,000 rows for --seconds of CPU, once without masks (langevin, repaint)
                    and once with masks in half of the rows (masks, at churn 1 and 0; langevin)

A cell is a method with its settings; all cells are kept in one JSON file, and those measured with these rows, draws
and seconds are skipped.

    python benchmarks/tables/conditional.py --out results/conditional.json           (1000 rows x 256 draws; 2 hours)
    python benchmarks/tables/conditional.py --rows 100 --draws 64 --out build/conditional.json          (10 minutes)
    python benchmarks/tables/conditional.py --only "langevin 40 x 20" --out build/conditional.json        (one cell)
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import diffflow as df
from diffflow.files import write_text
from diffflow.networks.observed import observed
from diffflow.objectives.score_matching import LikelihoodWeighting, ScoreMatching
from diffflow.sampling.observations.exact import Conditional
from diffflow.sampling.observations.observation import Observation
from diffflow.sampling.observations.resampling import METHODS

COLUMNS, COMPONENTS, PARTICLES = 5, 6, 16_384
KNOWN = torch.tensor([True, True, True, False, False])
SCHEDULE = df.EDM(0.01, 80.0)
EXACT = [  # method, levels, rounds
    ("replacement", 40, 1),
    ("repaint", 40, 5),
    ("repaint", 40, 20),
    ("repaint", 40, 40),
    ("repaint", 20, 40),
    ("langevin", 20, 10),
    ("langevin", 20, 20),
    ("langevin", 40, 10),
    ("langevin", 40, 20),
    ("langevin", 40, 40),
]


def table() -> df.GaussianMixture:
    """The law of the rows, columns of mean 0 and variance 1, float64."""
    noise, kind = df.Noise(3), {"dtype": torch.float64}
    means = 1.5 * noise.fork("m").normal(COMPONENTS, (COLUMNS,), **kind)
    roots = noise.fork("a").normal(COMPONENTS, (COLUMNS, COLUMNS), **kind)
    covariances = 0.5 * (roots @ roots.mT / COLUMNS + 0.05 * torch.eye(COLUMNS, **kind))
    weights = noise.fork("w").uniform(COMPONENTS, **kind) + 0.3
    weights = weights / weights.sum()
    means = means - weights @ means
    std = torch.einsum("k,kd->d", weights, covariances.diagonal(dim1=1, dim2=2) + means.square()).sqrt()
    return df.GaussianMixture(means / std, weights=weights, covariances=covariances / std[:, None] / std)


def fitted(law: df.GaussianMixture, masks: float, seconds: float) -> df.Denoiser:
    """A perceptron that learned the table for so many CPU seconds, the average of its weights over the last tenth."""
    torch.manual_seed(0)
    denoiser = df.Denoiser(df.MLP(COLUMNS, width=128, depth=3, masks=masks > 0), 1.0, law.principal_std)
    x, noise = law.sample(20_000, df.Noise(1)).float(), df.Noise(2)
    objective = ScoreMatching(denoiser, LikelihoodWeighting(SCHEDULE.sigma_min), masks=masks)
    optimiser = torch.optim.AdamW(denoiser.parameters(), lr=1e-3)
    begun, step, mean, share = time.process_time(), 0, None, 0
    while (done := (time.process_time() - begun) / seconds) < 1:
        rows = noise.fork("rows", step).randint(256, len(x))
        (turn,) = objective.turns(df.Batch(x[rows], None, rows), noise.fork("step", step))
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, 2 * (1 - done))
        optimiser.zero_grad()
        turn.loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimiser.step()
        step += 1
        if done > 0.9:
            now, share = torch.nn.utils.parameters_to_vector(denoiser.parameters()).detach(), share + 1
            mean = now if mean is None else mean + (now - mean) / share
    if mean is not None:
        torch.nn.utils.vector_to_parameters(mean, denoiser.parameters())
    return denoiser.requires_grad_(False)


def draw(
    source: Any, seen: Observation, method: str, levels: int, inner: int, churn: float = 1.0
) -> tuple[Tensor, int]:
    """Rows given what is seen of each, and the evaluations that each cost."""
    n, noise, parts, nfe = len(seen.values), df.Noise(5), [], 0
    start = SCHEDULE.prior((COLUMNS,))
    for first in range(0, n, PARTICLES):
        part, streams = seen.rows(slice(first, first + PARTICLES)), noise.shift(first)
        sde = df.at(SCHEDULE, SCHEDULE.score(source), churn=churn, start=start)
        if method == "masks":
            sde, solver = observed(sde, part), None
        else:
            solver = METHODS["repaint" if method == "replacement" else method](part, streams, inner)
        solved = df.sample(sde, len(part.values), levels, solver=solver, noise=streams)
        parts.append(part.fill(solved.last))
        nfe = solved.nfe
    return torch.cat(parts), nfe


def score(exact: Conditional, draws: Tensor) -> dict[str, float]:
    """How far the draws (rows, draws, unknown) are from the exact conditional."""
    excess, least = exact.excess_score(draws).mean(1), float(exact.least_score().mean())
    error = (draws.double().mean(1) - exact.mean) / exact.variance.sqrt()
    return {
        "excess_percent": 100 * float(excess.mean()) / least,
        "standard_error": 100 * float(excess.std()) / len(excess) ** 0.5 / least,
        "mean_error": float(error.abs().mean()),
        "variance_ratio": float((draws.double().var(1) / exact.variance).median()),
    }


def cells(options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Names of the cells, each with a function that gives draws (rows, draws, unknown) and their evaluations."""
    law = table()
    x = law.sample(options.rows, df.Noise(11)).float()
    exact, seen = Conditional.of(law, x, KNOWN), Observation(x, KNOWN).repeated(options.draws)
    networks: dict[float, df.Denoiser] = {}

    def trained(masks: float) -> df.Denoiser:
        if masks not in networks:
            networks[masks] = fitted(law, masks, options.seconds)
        return networks[masks]

    def measured(source: Any, *how: Any) -> dict[str, float]:
        source = source() if callable(source) and not hasattr(source, "noised") else source
        begun = time.process_time()
        rows, nfe = draw(source, seen, *how)
        spent = time.process_time() - begun
        unknown = rows.reshape(options.rows, options.draws, COLUMNS)[..., ~KNOWN]
        return score(exact, unknown) | {"evaluations": nfe, "cpu_seconds": spent}

    yield "exact", lambda: score(exact, exact.sample(options.draws, df.Noise(9)))
    for method, levels, inner in EXACT:
        name = f"{method} {levels} x {inner}"
        yield name, lambda how=(method, levels, inner): measured(law.to(torch.float32), *how)
    for name, masks, how in [
        ("trained, langevin 40 x 20", 0.0, ("langevin", 40, 20)),
        ("trained, repaint 40 x 20", 0.0, ("repaint", 40, 20)),
        ("trained with masks, masks 40", 0.5, ("masks", 40, 1)),
        ("trained with masks, masks 40, churn 0", 0.5, ("masks", 40, 1, 0.0)),
        ("trained with masks, langevin 40 x 20", 0.5, ("langevin", 40, 20)),
    ]:
        yield name, lambda masks=masks, how=how: measured(lambda: trained(masks), *how)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the cells, gone on with")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU seconds of training of each network")
    parser.add_argument("--only", default="", help="cells whose name holds this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"rows": options.rows, "draws": options.draws, "seconds": options.seconds}
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    done = found.get("cells", {}) if found.get("settings") == settings else {}
    about = {
        "command": f"python {' '.join(sys.argv)}",
        "versions": {"diffflow": df.__version__, "torch": version("torch"), "python": platform.python_version()},
        "protocol": __doc__,
        "settings": settings,
    }
    for name, measure in cells(options):
        if options.only in name and name not in done:
            done[name] = measure()
            write_text(options.out, json.dumps(about | {"cells": done}, indent=1))
        if name in done:
            print(name.ljust(40), "  ".join(f"{k} {v:.3g}" for k, v in done[name].items()), flush=True)


if __name__ == "__main__":
    main()
