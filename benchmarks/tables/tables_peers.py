"""The peers of quality.py: five libraries trained on a CSV file for so many CPU seconds, and as many rows drawn.

    copula   SDV's GaussianCopulaSynthesizer; it takes what it takes, seconds
    ctgan    SDV's CTGANSynthesizer: epochs until the time is over
    tvae     SDV's TVAESynthesizer: the same
    arf      arfpy: the number of trees that a trial says fits into the time (30 is its own)
    forest   ForestDiffusion, by flow: the largest of a ladder of settings that a trial says fits

    python benchmarks/tables/tables_peers.py ctgan train.csv --seconds 60 --seed 0 --out FOLDER
    python benchmarks/tables/tables_peers.py ctgan train.csv --default --seconds 600 --seed 0 --out FOLDER

writes FOLDER/samples.csv and FOLDER/about.json. `--default` takes each library's own settings; CTGAN and TVAE then end
with the epoch in which the time is over, and say so, the others are stopped from outside. Import and reading are not
counted.

What is kinder to them than a first try would be: gaps, which neither arfpy nor ForestDiffusion can draw, are a word of
their own, or a column beside the number (which is the median there) by which they come back; ForestDiffusion is told
which columns are of words and which are whole; columns that SDV would take for names or addresses are words to it; the
time of a trial is not counted.

Run by an interpreter that has the peers (README.md); quality.py does so.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PEERS = ("copula", "ctgan", "tvae", "arf", "forest")
GAPS = ["NA", "", "?"]
GAP = "(gap)"
BESIDE = " is a gap"  # name of the column beside a number with gaps
LADDER = (  # n_t, duplicate_K, n_estimators of ForestDiffusion; the first is its own
    (50, 100, 100), (50, 50, 100), (50, 20, 100), (20, 20, 100), (20, 10, 100), (20, 10, 50), (10, 10, 50),
    (10, 6, 50), (10, 3, 50), (5, 3, 30), (5, 1, 20),
)  # fmt: skip
TREES = 30  # arfpy's own

Found = tuple[Any, dict[str, Any]]  # a data frame of samples, and what was done


class Clock:
    """CPU seconds of this process since the clock was started."""

    def __init__(self, limit: float):
        self.limit, self.begun, self.rounds, self.over = limit, time.process_time(), 0, False

    @property
    def seconds(self) -> float:
        """Spent."""
        return time.process_time() - self.begun

    def __call__(self, iterable: Iterable[int], **_: Any) -> Iterator[int]:
        """Stands in for tqdm: the rounds of a loop until the time is over."""
        for k in iterable:
            if self.seconds > self.limit:
                self.over = True
                return
            self.rounds += 1
            yield k


# -- SDV ---------------------------------------------------------------------------------------------------------------


def sdv(method: str, frame: Any, o: argparse.Namespace) -> Found:
    """One of SDV's synthesizers, trained and sampled."""
    import ctgan.synthesizers.ctgan
    import ctgan.synthesizers.tvae
    import torch
    from sdv import single_table
    from sdv.metadata import Metadata

    torch.manual_seed(o.seed)
    torch.set_num_threads(1)
    metadata = Metadata.detect_from_dataframes({"t": frame})
    for name, column in metadata.tables["t"].columns.items():
        if column["sdtype"] not in ("numerical", "categorical", "boolean"):  # a person's name, an address, an id
            kind = "categorical" if frame[name].dtype == object else "numerical"
            metadata.update_column(column_name=name, table_name="t", sdtype=kind)
    metadata.tables["t"].primary_key = None
    own = {} if method == "copula" or o.default else {"epochs": 10**6}
    name = {"copula": "GaussianCopula", "ctgan": "CTGAN", "tvae": "TVAE"}[method]
    if method == "ctgan":
        own["cuda" if "cuda" in single_table.CTGANSynthesizer.__init__.__code__.co_varnames else "enable_gpu"] = False
    clock = Clock(o.seconds)
    ctgan.synthesizers.ctgan.tqdm = ctgan.synthesizers.tvae.tqdm = clock  # pyright: ignore
    made = getattr(single_table, name + "Synthesizer")(metadata, **own)
    made.fit({"t": frame})
    trained = clock.seconds
    drawn = made.sample(num_rows=o.n)
    drawn = drawn["t"] if isinstance(drawn, dict) else drawn
    return drawn, {
        "train_seconds": trained,
        "sample_seconds": clock.seconds - trained,
        "epochs": clock.rounds,
        "stopped": clock.over and o.default,
        "settings": {k: v for k, v in own.items() if k == "epochs"},
    }


# -- arfpy and ForestDiffusion -----------------------------------------------------------------------------------------


def without_gaps(frame: Any) -> Any:
    """A frame whose gaps are words, or words beside a number that is the median there."""
    same = frame.copy()
    for name in frame.columns:
        missing = frame[name].isna()
        if frame[name].dtype == object:
            same[name] = frame[name].fillna(GAP).astype(str)
        elif missing.any():
            same[name] = frame[name].fillna(frame[name].median())
            same[name + BESIDE] = np.where(missing, "yes", "no")
    return same


def with_gaps(drawn: Any, frame: Any) -> Any:
    """Samples with their gaps again."""
    drawn = drawn.copy()
    for name in frame.columns:
        if name + BESIDE in drawn:
            drawn[name] = drawn[name].where(drawn[name + BESIDE] != "yes")
        elif frame[name].dtype == object:
            drawn[name] = drawn[name].where(drawn[name].astype(str) != GAP)
    return drawn[list(frame.columns)]


def arf(frame: Any, o: argparse.Namespace) -> Found:
    """Arfpy, trained and sampled."""
    if not hasattr(np, "in1d"):  # arfpy asks for it; numpy 2.4 has it no more
        np.in1d = np.isin  # pyright: ignore  # noqa: NPY201
    from arfpy.arf import arf as forest

    table = without_gaps(frame)

    def fit(trees: int) -> Any:
        np.random.seed(o.seed)  # noqa: NPY002 (the library draws from it)
        made = forest(table, num_trees=trees, verbose=False, random_state=o.seed, n_jobs=1)
        made.forde()
        return made

    trees, trial = TREES, None
    if not o.default:
        trial = timed(lambda: (fit(2), 0)[1], o) / 2
        trees = int(np.clip(o.seconds / trial, 1, 10 * TREES))
    clock = Clock(o.seconds)
    made = fit(trees)
    trained = clock.seconds
    drawn = made.forge(o.n)
    return with_gaps(drawn, frame), {
        "train_seconds": trained,
        "sample_seconds": clock.seconds - trained,
        "stopped": False,
        "settings": {"num_trees": trees},
        "trial_seconds": trial,
    }


def forest(frame: Any, o: argparse.Namespace) -> Found:
    """ForestDiffusion, trained and sampled."""
    from ForestDiffusion import ForestDiffusionModel

    table = without_gaps(frame)
    words = {n: sorted(set(table[n])) for n in table.columns if table[n].dtype == object}
    many = [n for n in words if len(words[n]) > 2]
    # Columns of words first: it finds their dummies by "0_" and would take those of column 10 for those of column 0.
    order = many + [n for n in table.columns if n not in many]
    x = np.stack([np.searchsorted(words[n], table[n]) if n in words else table[n] for n in order], 1).astype(float)
    whole = [k for k, n in enumerate(order) if n not in words and bool((x[:, k] % 1 == 0).all())]
    two = [k for k, n in enumerate(order) if n in words and n not in many]
    where = {"cat_indexes": list(range(len(many))), "int_indexes": whole, "bin_indexes": two}

    def fit(steps: int, copies: int, trees: int) -> Any:
        return ForestDiffusionModel(
            x, n_t=steps, duplicate_K=copies, n_estimators=trees, n_jobs=1, nthread=1, seed=o.seed, **where
        )

    setting, trial = LADDER[0], None
    if not o.default:
        # Time is about steps x trees x (a + b copies): two trials.
        one, three = (timed(lambda k=k: (fit(2, k, 10), 0)[1], o) / 20 for k in (1, 4))
        slope = max((three - one) / 3, 1e-6)
        cost = {s: s[0] * s[2] * (max(one - slope, 0) + slope * s[1]) for s in LADDER}
        setting = next((s for s in LADDER if cost[s] <= o.seconds), LADDER[-1])
        trial = cost[setting]
    np.random.seed(o.seed)  # noqa: NPY002
    clock = Clock(o.seconds)
    made = fit(*setting)
    trained = clock.seconds
    values = made.generate(batch_size=o.n)
    drawn = table.iloc[: 0].reindex(range(o.n))
    for k, n in enumerate(order):
        column = values[:, k]
        if n in words:
            column = np.array(words[n], dtype=object)[np.clip(column.round().astype(int), 0, len(words[n]) - 1)]
        elif k in whole:
            column = column.round().astype(int)
        drawn[n] = column
    return with_gaps(drawn, frame), {
        "train_seconds": trained,
        "sample_seconds": clock.seconds - trained,
        "stopped": False,
        "settings": dict(zip(("n_t", "duplicate_K", "n_estimators"), setting, strict=True)),
        "trial_seconds": trial,
    }


def timed(work: Callable[[], Any], o: argparse.Namespace) -> float:
    """CPU seconds of a trial."""
    clock = Clock(o.seconds)
    work()
    return max(clock.seconds, 1e-3)


def main() -> int:
    """Train and sample one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=PEERS)
    parser.add_argument("train", type=Path, help="CSV file")
    parser.add_argument("--seconds", type=float, default=60.0, help="of CPU time for the training")
    parser.add_argument("--default", action="store_true", help="the library's own settings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, help="rows to draw; default: as many as training rows")
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    import pandas as pd

    warnings.filterwarnings("ignore")
    np.random.seed(o.seed)  # noqa: NPY002
    frame = pd.read_csv(o.train, keep_default_na=False, na_values=GAPS)
    o.n = o.n or len(frame)
    work = {"arf": arf, "forest": forest}.get(o.method)
    drawn, about = work(frame, o) if work else sdv(o.method, frame, o)
    libraries = ("sdv", "ctgan", "copulas", "rdt", "arfpy", "ForestDiffusion", "xgboost", "torch")
    about["versions"] = {name: version(name) for name in libraries}
    o.out.mkdir(parents=True, exist_ok=True)
    drawn.to_csv(o.out / "samples.csv", index=False)
    (o.out / "about.json").write_text(json.dumps(about, indent=1))
    print(json.dumps(about))
    return 0


if __name__ == "__main__":
    sys.exit(main())
