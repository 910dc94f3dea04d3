"""Samples of a table: `diffflow train TABLE.csv`, no flags, beside SDV's three, arfpy and ForestDiffusion.

Every method is given train.csv (tables_data.py), trains for the same CPU time, and writes as many rows; all are scored
against test.csv in one place (scores.py): columns, pairs, a classifier that tells samples from test rows, a model
trained on samples, the share of samples nearer to training rows, and cells that the file could not hold. Floors: the
training rows themselves (`train`) and drawn again with noise (`boot`). Of the peers' samples and the same rounded to
the file's decimals within its range, those count that the classifier tells less well.

    python benchmarks/tables/quality.py run ours copula ctgan tvae arf forest train boot --data data/tables \
        --peers PYTHON --splits 0 1 2
    python benchmarks/tables/quality.py run ours --tables flights planes seattle penguins_raw --data data/tables
    python benchmarks/tables/quality.py run ours copula ctgan tvae arf forest --default --splits 0 \
        --tables Computers HousePrices Chile penguins ...
    python benchmarks/tables/quality.py score ours ...     from the samples that are there, once more
    python benchmarks/tables/quality.py table --out results/table-samples.json

PYTHON has the peers (README.md). `--default`: each with its own settings, stopped after ten minutes of CPU time. A cell
is a JSON file under --cells; what is there is not done again, what failed is. `--quick` shows that it all runs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scores
from tables_data import EIGHT, SPLITS, TABLES
from tables_peers import PEERS

from diffflow import files

HERE = Path(__file__).parent
FLOORS = ("train", "boot")
METHODS = ("ours", *PEERS, *FLOORS)
STOP = 600.0  # CPU seconds of a training at its own defaults
SECONDS = 60.0
# Bars: how far behind the best peer still counts, beside the error; what an AUC and a share of near rows may be.
SLACK = {"c2st": 0.0, "shapes": 0.01, "trends": 0.01, "tstr": 0.02}
AUC_BAR, DCR_BAR = 0.65, 0.03


@dataclass(frozen=True)
class Cell:
    """One training, its samples and their scores.

    Args:
        table: of tables_data.py.
        split: of its rows, and the seed of the training.
        method: one of METHODS.
        seconds: of CPU time for the training; None: the method's own defaults.
    """

    table: str
    split: int
    method: str
    seconds: float | None

    @property
    def name(self) -> str:
        """Of its file."""
        how = "own" if self.seconds is None else f"{self.seconds:g}s"
        return f"{self.table}-{self.split}-{self.method}-{how}"


# -- samples -----------------------------------------------------------------------------------------------------------


def spend(command: list[str], limit: float, log: Path, env: dict[str, str]) -> tuple[float, float, int]:
    """CPU seconds, the most memory in GiB and the exit status of a command that is stopped at so many CPU seconds."""
    with open(log, "ab") as out:
        out.write((" ".join(command) + "\n").encode())
        out.flush()
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 6)),
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20, process.returncode


def make(cell: Cell, home: Path, o: argparse.Namespace) -> dict[str, Any]:
    """Train a method and draw its samples, home/samples.csv; what it took.

    Returns:
        `seconds` of CPU time in all (import, reading, training, report, samples), `stopped`, and what the method says.
    """
    train = o.data / cell.table / str(cell.split) / "train.csv"
    samples, log = home / "samples.csv", home / "log.txt"
    for old in (samples, log):
        old.unlink(missing_ok=True)
    n = len(next(iter(scores.read(train)[0].values())))
    limit = STOP if cell.seconds is None else 3 * cell.seconds + 120
    took: dict[str, Any] = {"rows": n, "limit": limit}
    if cell.method == "ours":
        run = home / "run"
        budget = [] if cell.seconds is None else ["--cpu-minutes", f"{cell.seconds / 60:g}"]
        seed = ["--seed", str(cell.split)] if cell.split else []
        start = [sys.executable, "-m", "diffflow.cli"]
        commands = [
            [*start, "train", str(train), "--out", str(run), *budget, *seed],
            [*start, "sample", str(run), "-n", str(n), "--out", str(samples)],
        ]
        names, env = ("train_seconds", "sample_seconds"), {}
    else:
        how = ["--default"] if cell.seconds is None else []
        seconds = ["--seconds", f"{limit if cell.seconds is None else cell.seconds:g}", "--seed", str(cell.split)]
        script = [str(o.peers), str(HERE / "tables_peers.py"), cell.method, str(train)]
        commands, names = [[*script, *how, *seconds, "--out", str(home)]], ("seconds",)
        # CTGAN and TVAE stop by themselves; import and samples are beside that, and a little is left for the rest.
        limit, env = limit + 60, {"PYTHONPATH": "", "TQDM_DISABLE": "1"}
    for command, name in zip(commands, names, strict=True):
        seconds, peak, status = spend(command, limit, log, env)
        took |= {name: seconds, "peak_gib": max(peak, took.get("peak_gib", 0.0))}
        took.setdefault("commands", []).append(command[1:])
        if status:
            took["stopped"] = seconds >= limit
            if not took["stopped"]:
                took["failed"] = log.read_text(errors="replace").splitlines()[-5:]
            break
    about = home / "about.json"
    said = json.loads(about.read_text()) if samples.exists() and about.exists() and cell.method != "ours" else {}
    took["seconds"] = sum(took.get(name, 0.0) for name in names)
    return {"stopped": False} | took | said


def judge(cell: Cell, home: Path, o: argparse.Namespace) -> dict[str, Any]:
    """Scores of a cell's samples: as they are, of peers also rounded, and which of the two counts."""
    folder = o.data / cell.table / str(cell.split)
    (train, delimiter), (test, _) = (scores.read(folder / f"{part}.csv") for part in ("train", "test"))
    columns = scores.decide(train, delimiter)
    of_train, of_test = scores.codes(train, columns), scores.codes(test, columns)
    text = None
    if cell.method == "boot":
        x = scores.smoothed(of_train, columns)
    else:
        text = train if cell.method == "train" else scores.read(home / "samples.csv")[0]
        if missing := [name for name in train if name not in text]:
            raise SystemExit(f"{home / 'samples.csv'} lacks the columns {', '.join(missing)}")
        x = scores.codes(text, columns)
    variants = {"own": x}
    if cell.method in PEERS:
        variants["rounded"] = scores.rounded(x, columns)
    target = TABLES[cell.table].target
    judged = {k: scores.compare(v, of_train, of_test, columns, target, o.resamples) for k, v in variants.items()}
    best = min(judged, key=lambda k: told(judged[k]))
    found = {"best": best, "judged": judged}
    return found if text is None else found | {"validity": scores.validity(text, train, test, columns)}


def told(judged: dict[str, Any]) -> float:
    """How well samples are told from test rows; an AUC below one half is chance."""
    return max(judged["c2st"]["value"], 0.5)


def measure(cell: Cell, o: argparse.Namespace, again: bool = False) -> dict[str, Any]:
    """A cell's record: made and judged, what of it is not there yet."""
    path, home = o.cells / f"{cell.name}.json", o.cells / cell.name
    record = json.loads(path.read_text()) if path.exists() else {}
    if record and "failed" not in record["made"] and not again:
        return record
    home.mkdir(parents=True, exist_ok=True)
    made = record.get("made", {})
    if cell.method not in FLOORS and (not made or "failed" in made):
        made = make(cell, home, o)
    record = {"cell": asdict(cell), "made": made}
    if cell.method in FLOORS or (home / "samples.csv").exists():
        record |= judge(cell, home, o)
    files.write_json(path, record)
    return record


# -- tables ------------------------------------------------------------------------------------------------------------


def values_of(
    records: list[dict[str, Any]], measure_of: str, variant: str | None = None
) -> tuple[float, float, np.ndarray | None]:
    """Mean over splits of a measure, its standard error, and the means of its bootstrap samples.

    The error is that of the splits' own errors or that of the splits' spread, whichever is larger.
    """
    found = [r["judged"][variant or r["best"]] for r in records]
    if any(measure_of not in f for f in found):
        return np.nan, np.nan, None
    own = [told(f) if measure_of == "c2st" else f[measure_of]["value"] for f in found]
    errors = [f[measure_of]["stderr"] for f in found]
    error = float(np.sqrt(np.sum(np.square(errors)))) / len(own)
    if len(own) > 1:
        error = max(error, statistics.stdev(own) / len(own) ** 0.5)
    again = [f[measure_of]["resampled"] for f in found if "resampled" in f[measure_of]]
    return float(np.mean(own)), error, np.mean(again, 0) if again else None


def beside(records: dict[str, list[dict[str, Any]]], measure_of: str, variant: str | None = None) -> dict[str, Any]:
    """Ours beside the best peer in one measure on one table.

    Args:
        records: by method, of the splits.
        measure_of: c2st (small is good), shapes, trends or tstr.
        variant: "own", as the libraries write their samples; None: or rounded, what is told less well.

    Returns:
        Values of all, the best peer, `behind` (how much worse ours is; negative: better), its `error` (paired, of
        bootstrap samples that share their test rows; of c2st both errors together) and whether the bar is met.
    """
    sign = 1 if measure_of == "c2st" else -1
    found = {m: values_of(r, measure_of, variant) for m, r in records.items()}
    peers = [m for m in PEERS if m in found and not np.isnan(found[m][0])]
    line: dict[str, Any] = {"values": {m: v[:2] for m, v in found.items()}}
    if "ours" not in found or not peers:
        return line
    best = min(peers, key=lambda m: sign * found[m][0])
    (ours, error, again), (theirs, their_error, their_again) = found["ours"], found[best]
    if measure_of != "c2st" and again is not None and their_again is not None:
        error = float(np.nanstd(again - their_again))
    else:
        error = float(np.hypot(error, their_error))
    # Of a model trained on samples the bar is the slack alone.
    allowed = SLACK["tstr"] if measure_of == "tstr" else max(SLACK[measure_of], error)
    behind = sign * (ours - theirs)
    return line | {"best": best, "behind": behind, "error": error, "met": bool(behind <= allowed)}


def bars(found: list[dict[str, Any]], seconds: float, variant: str | None = None) -> dict[str, Any]:
    """What the records say of every bar, by table, with the peers' samples as in `beside`."""
    equal = [r for r in found if r["cell"]["seconds"] == seconds and "judged" in r]
    tables: dict[str, Any] = {}
    for table in TABLES:
        records: dict[str, list[dict[str, Any]]] = {}
        for r in equal:
            if r["cell"]["table"] == table:
                records.setdefault(r["cell"]["method"], []).append(r)
        if not records:
            continue
        line = {m: beside(records, m, variant) for m in SLACK}
        line["dcr"] = {"values": {m: values_of(r, "dcr", variant)[:2] for m, r in records.items()}}
        if "ours" in records:
            share, error = line["dcr"]["values"]["ours"]
            line["dcr"]["met"] = bool(abs(share - 0.5) <= max(DCR_BAR, 2 * error))
            line["c2st"]["low"] = bool(line["c2st"]["values"]["ours"][0] <= AUC_BAR)
            cells = ("non_integers", "outside", "unknown", "gaps_off", "too_fine", "copied", "repeated")
            line["validity"] = {k: sum(r["validity"][k] for r in records["ours"]) for k in cells}
            line["validity"]["header"] = all(r["validity"]["header"] for r in records["ours"])
        line["splits"] = {m: len(r) for m, r in records.items()}
        tables[table] = line
    eight = [tables[t] for t in EIGHT if t in tables]

    def counted(m: str, key: str) -> str:
        return f"{sum(t[m].get(key, False) for t in eight)} of {len(eight)}"

    wins = {m: counted(m, "met") for m in (*SLACK, "dcr")} | {f"c2st <= {AUC_BAR}": counted("c2st", "low")}
    all_cells = [t["validity"] for t in tables.values() if "validity" in t]
    impossible = ("non_integers", "outside", "unknown")
    wins["cells that the file could not hold"] = sum(v[k] for v in all_cells for k in impossible)
    wins["columns whose gaps are off, over splits"] = sum(v["gaps_off"] for v in all_cells)
    return {"tables": tables, "wins": wins}


def own_defaults(found: list[dict[str, Any]]) -> dict[str, Any]:
    """CPU seconds of every method at its own defaults, by table and summed, and the peers' median."""
    seconds: dict[str, dict[str, Any]] = {}
    for r in found:
        if r["cell"]["seconds"] is None:
            made = r["made"]
            of_method = seconds.setdefault(r["cell"]["method"], {})
            of_method[r["cell"]["table"]] = {"seconds": made["seconds"], "stopped": made["stopped"]}
    tables = set.intersection(*(set(v) for v in seconds.values())) if seconds else set()
    sums = {m: sum(v[t]["seconds"] for t in tables) for m, v in seconds.items()}
    peers = [s for m, s in sums.items() if m in PEERS]
    median = statistics.median(peers) if peers else None
    return {"seconds": seconds, "tables": sorted(tables), "sums": sums, "median of peers": median}


def shown(record: dict[str, Any]) -> str:
    """A record as a line of a table."""
    cell, made = Cell(**record["cell"]), record["made"]
    seconds = f"{made['seconds']:.0f} s" + (", stopped" if made["stopped"] else "") if made else ""
    if "judged" not in record:
        return f"| {cell.name} | {seconds} | {made.get('failed', ['no samples'])[-1][:100]} |"
    j = record["judged"][record["best"]]
    values = [f"{j[m]['value']:.3f} ± {j[m]['stderr']:.3f}" if m in j else "" for m in (*SLACK, "dcr")]
    cells = record.get("validity", {})
    bad = [str(cells.get(k, "")) for k in ("non_integers", "outside", "unknown", "gaps_off")]
    return f"| {cell.name} | {seconds} | {' | '.join(values)} | {' | '.join(bad)} |"


HEADER = f"| cell | CPU | {' | '.join((*SLACK, 'dcr'))} | non-integers | outside | unknown | gaps off |"


def table(o: argparse.Namespace) -> None:
    """Print and write what was measured."""
    found = [json.loads(path.read_text()) for path in sorted(o.cells.glob("*.json"))]
    print(HEADER + "\n" + "|---" * 11 + "|")
    for record in found:
        print(shown(record))
    summary = bars(found, o.seconds) | {"peers not rounded": bars(found, o.seconds, "own")}
    defaults = own_defaults(found)
    for name, line in summary["tables"].items():
        for m in SLACK:
            if "best" in line[m]:
                (ours, _), (theirs, _) = line[m]["values"]["ours"], line[m]["values"][line[m]["best"]]
                met = "met" if line[m]["met"] else "NOT met"
                print(f"{name}, {m}: {ours:.3f}, best peer {line[m]['best']} {theirs:.3f}, {met}")
    for name, value in summary["wins"].items():
        print(f"{name}: {value}; peers not rounded: {summary['peers not rounded']['wins'][name]}")
    print(f"CPU seconds at own defaults: {defaults['sums']}")
    for record in found:
        for judged in record.get("judged", {}).values():
            for m in judged.values():
                m.pop("resampled", None)
    hours = sum(r["made"].get("seconds", 0.0) for r in found) / 3600
    about = {"command": sys.argv, "diffflow": version("diffflow"), "quick": o.quick, "core_hours": hours}
    files.write_json(o.out, {"about": about, **summary, "own defaults": defaults, "cells": found})


def main(args: list[str] | None = None) -> int:
    """Do what of the cells is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "score", "table"))
    parser.add_argument("methods", nargs="*", help=", ".join(METHODS))
    parser.add_argument("--data", type=Path, default=Path("data/tables"), help="folder that tables_data.py wrote")
    parser.add_argument("--tables", nargs="+", default=list(EIGHT), help=", ".join(TABLES))
    parser.add_argument("--splits", nargs="+", type=int, default=list(range(SPLITS)))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of CPU time of a training")
    parser.add_argument("--default", action="store_true", help="each method with its own settings and time")
    parser.add_argument("--peers", default=sys.executable, help="an interpreter that has the peers")
    parser.add_argument("--cells", type=Path, default=Path("runs/table-samples"))
    parser.add_argument("--out", type=Path, default=Path("results/table-samples.json"))
    parser.add_argument("--quick", action="store_true", help="shows that it runs")
    o = parser.parse_args(args)
    if unknown := set(o.methods) - set(METHODS):
        parser.error(f"no method called {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    if unknown := set(o.tables) - set(TABLES):
        parser.error(f"no table called {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    o.cells, o.out, o.resamples = o.cells.absolute(), o.out.absolute(), scores.RESAMPLES
    if o.quick:
        o.cells, o.seconds, o.resamples = o.cells / "quick", 2.0, 4
    if o.what == "table":
        table(o)
        return 0
    print(HEADER)
    for name in o.tables:
        for split in o.splits:
            for method in o.methods:
                cell = Cell(name, split, method, None if o.default else o.seconds)
                print(shown(measure(cell, o, again=o.what == "score")), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
