"""Feature metrics compared with torch-fidelity's, on the same features: Frechet distance, KID, precision and recall.

The features are random, correlated and far from normal, of as many dimensions as a judge has; what either library makes
of them must agree. Ours are taken again in another process: they must not move.

It wants an environment of its own, since torch-fidelity brings torchvision:

    python -m venv .fidelity && .fidelity/bin/pip install -e . -c constraints.txt
    .fidelity/bin/pip install torch-fidelity -c constraints.txt
    .fidelity/bin/python benchmarks/metrics/fidelity.py --out results/fidelity.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from diffflow import files
from diffflow.metrics import frechet, kid
from diffflow.metrics.base import matched
from diffflow.metrics.neighbours import prdc

NEIGHBOURS = 5


def features(n: int, d: int, shift: float, seed: int) -> Tensor:
    """(n, d): rectified mixtures of normal numbers, as the last layers of classifiers are."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99)) / d**0.5
    return (torch.randn(n, d, generator=generator) @ mix + shift * torch.linspace(-1, 1, d)).relu()


def ours(x: Tensor, y: Tensor) -> dict[str, float]:
    n = len(x)
    scores = {m.name: m.value for m in prdc(x, y, k=NEIGHBOURS, limit=n)}
    return {
        "frechet": frechet(x, y, limit=n).value,
        "kid": kid(x, y, limit=n).value,
        "precision": scores["precision"],
        "recall": scores["recall"],
    }


def theirs(x: Tensor, y: Tensor) -> dict[str, float]:
    """The same by torch-fidelity, in double precision."""
    try:
        import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
    except RuntimeError:  # compiled for another torch; nothing here needs its operators, but they must have a name
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    from torch_fidelity import metric_fid, metric_kid, metric_prc  # pyright: ignore[reportMissingImports]

    x, y = matched(x, y, None, len(x), 0)  # in the order that decides which pairs the KID leaves out
    stats = [metric_fid.fid_features_to_statistics(v) for v in (x, y)]
    found = metric_fid.fid_statistics_to_metric(*stats, verbose=False)
    kernels = [metric_kid.kernel_poly(u.numpy(), v.numpy()) for u, v in ((x, x), (x, y), (y, y))]
    # both estimators are unbiased; this one, of pairs, has a standard error, and is ours
    pairs = {"kid": float(metric_kid.mmd2(*kernels, mmd_est="u-statistic"))}
    prc = metric_prc.prc_features_to_metric(
        x, y, prc_neighborhood=NEIGHBOURS, prc_batch_size=10_000, save_cpu_ram=False, verbose=False
    )
    values = {k.lower(): float(v) for part in (found, pairs, prc) for k, v in part.items()}
    return {
        "frechet": next(v for k, v in values.items() if "frechet" in k),
        "kid": values["kid"],
        "precision": values["precision"],
        "recall": values["recall"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 84, 512])
    parser.add_argument("--out", default="results/fidelity.json")
    o = parser.parse_args()
    rows: list[dict[str, Any]] = []
    table = Table("features", "metric", "diffflow", "torch-fidelity", "relative difference", box=None)
    for d in o.dims:
        x, y = features(o.n, d, 0.3, 1), features(o.n, d, 0.0, 2)
        mine, peer = ours(x, y), theirs(x, y)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            elsewhere = pool.starmap(ours, [(x, y)])[0]
        for name, value in mine.items():
            off = abs(value - peer[name]) / abs(peer[name])
            rows.append({"dims": d, "metric": name, "ours": value, "theirs": peer[name], "relative": off})
            rows[-1]["same_in_another_process"] = elsewhere[name] == value
            table.add_row(str(d), name, f"{value:.8g}", f"{peer[name]:.8g}", f"{off:.1e}")
    record = {
        "command": " ".join(["python", *sys.argv]),
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("diffflow", "torch", "torch-fidelity")},
        "n": o.n,
        "rows": rows,
    }
    files.write_json(Path(o.out), record)
    Console().print(table)


if __name__ == "__main__":
    main()
