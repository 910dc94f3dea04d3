"""Pictures per minute of one core: `diffflow train FOLDER`, no flags, beside the tools that people use.

The same array for all: 32 pixels, on white. The peers (pictures_peers.py) are screened with four settings each at 3
minutes of CPU time and 256 samples; the best of each is trained for 15 minutes, the better of these with a second seed
and for 60. All are sampled with 18 evaluations, the peers by DDIM from raw and from averaged weights, of which the
better counts. Three judges, each as excess over what real pictures score at the same n: the Frechet distance in
features of ResNet-20 and of EfficientNet-Lite0, and sliced W2; none alone sees what the eye sees. Errors: bootstrap of
samples and real pictures alike.

    python benchmarks/models/pictures.py screen ddpm diffusers --data emoji --source FOLDER --peers PYTHON
    python benchmarks/models/pictures.py train ddpm --data emoji --source FOLDER --peers PYTHON --minutes 15 --seed 1
    python benchmarks/models/pictures.py sample ddpm ...      the same flags
    python benchmarks/models/pictures.py judge ddpm ...       the same flags; trains and samples first where it must
    python benchmarks/models/pictures.py table --out results/pictures.json

FOLDER holds the 64-pixel pictures of emoji-datasource-twitter (package/img/twitter/64), or is CIFAR-10's; PYTHON has
the peers (models/README.md). A cell is a JSON file under --cells; what is there is not done again. A process trains for
30 minutes of CPU time at most, and the next goes on. `--quick` shows that it all runs: a second of training a cell.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor

import diffflow as df
from diffflow import figures, files
from diffflow.metrics.base import pick
from diffflow.runs.evaluate import draw, training_data

HERE = Path(__file__).parent
SIZE = 32
PEERS = ("ddpm", "diffusers")
EVALUATIONS = 18
REFERENCE = 2000  # real pictures that samples and other real ones are compared with
RESAMPLES = 40
SETTINGS = [(lr, width) for width in (32, 48) for lr in (1e-3, 3e-4)]
JUDGES = ("frechet_resnet20", "frechet_imagenet", "sliced_w2")


@dataclass(frozen=True)
class Cell:
    """One training, its samples and what the judges say of them.

    Args:
        data: emoji or cifar10.
        method: ours or one of PEERS.
        minutes: of CPU time.
        seed: of the training.
        n: samples.
        lr: of a peer.
        width: of a peer.
    """

    data: str
    method: str
    minutes: float
    seed: int
    n: int
    lr: float | None = None
    width: int | None = None

    @property
    def name(self) -> str:
        """Of its file."""
        setting = "" if self.lr is None else f"-lr{self.lr:g}-w{self.width}"
        return f"{self.data}-{self.method}{setting}-{self.minutes:g}min-seed{self.seed}-n{self.n}"


# -- data --------------------------------------------------------------------------------------------------------------


def emoji(folder: Path, size: int = SIZE) -> Tensor:
    """Pictures with transparency as bytes (n, 3, size, size): laid on white first, then averaged over boxes."""
    found = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            picture = Image.new("RGBA", image.size, "white")
            picture.alpha_composite(image.convert("RGBA"))
        small = picture.convert("RGB").resize((size, size), Image.Resampling.BOX)
        found.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
    if not found:
        raise SystemExit(f"no .png files in {folder}: unpack emoji-datasource-twitter and give package/img/twitter/64")
    return torch.stack(found)


def prepare(o: argparse.Namespace) -> Tensor:
    """The pictures of --data (n, 3, 32, 32) as bytes; they are kept for the peers, and as files for ours."""
    kept = o.cells / f"{o.data}.npy"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        if o.source is None:
            raise SystemExit(f"--source FOLDER says where the pictures of {o.data} are")
        x = emoji(o.source) if o.data == "emoji" else df.data.load(str(o.source), "train").x
        np.save(kept, x.numpy())
    x = torch.from_numpy(np.load(kept))
    if not source(o).exists():
        source(o).mkdir()
        for k, picture in enumerate(x):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(source(o) / f"{k:05d}.png")
    return x


def source(o: argparse.Namespace) -> Path:
    """What `diffflow train` is given: CIFAR-10's own folder (it has classes), else a folder of the pictures."""
    return o.source if o.data == "cifar10" and o.source else o.cells / o.data


# -- judges ------------------------------------------------------------------------------------------------------------


@cache
def eyes(weights: str | None) -> dict[str, Callable[[Tensor], Tensor]]:
    """Features by the name of their judge."""
    resnet = "resnet20" if weights is None else f"resnet20={weights}"
    found = {"frechet_resnet20": resnet, "frechet_imagenet": "imagenet"}
    return {name: df.metrics.embedding(df.metrics.extractor(spec)) for name, spec in found.items()}


def half_of(features: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and a matrix c with c^T c the covariance, of rows (n, k) that are there so many times."""
    n, x = counts.sum(), features.double()
    mean = counts @ x / n
    c = ((counts / (n - 1)).sqrt()[:, None] * (x - mean))[counts > 0]
    return mean, torch.linalg.qr(c, mode="r").R if len(c) > c.shape[1] else c


def frechet(x: Tensor, y: Tensor, count_x: Tensor, count_y: Tensor) -> float:
    """Frechet distance of features (n, k) and (m, k) that are there so many times (floats (n,) and (m,)).

    With c^T c the covariance the overlap is the sum of the singular values of c_x c_y^T: no eigenvectors, so that it
    can be resampled with more features than points.
    """
    (mean, a), (other, b) = half_of(x, count_x), half_of(y, count_y)
    overlap = torch.linalg.svdvals(a @ b.T).sum()
    return float((mean - other).square().sum() + a.square().sum() + b.square().sum() - 2 * overlap)


def times_drawn(n: int, generator: torch.Generator) -> Tensor:
    """How often each of n rows comes in a bootstrap sample."""
    return torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n).double()


Seen = dict[str, Tensor]  # pictures themselves, and their features by the name of the judge


def seen(x: Tensor, see: dict[str, Callable[[Tensor], Tensor]]) -> Seen:
    """What is compared of pictures x, bytes (n, 3, h, w)."""
    return {name: features(x) for name, features in see.items()} | {"sliced_w2": x}


def distances(x: Seen, real: Seen, resamples: int, stream: int) -> dict[str, list[float]]:
    """Distances of pictures to real ones by each judge, and those of bootstrap samples of both behind them.

    The real rows are drawn alike whatever x is, so that ratios of two methods share what the reference does.

    Args:
        x: n pictures, as `seen`.
        real: m real ones.
        resamples: bootstrap samples.
        stream: of the draws of x.
    """
    n, m = len(x["sliced_w2"]), len(real["sliced_w2"])
    counts = [(torch.ones(n).double(), torch.ones(m).double())]
    for k in range(resamples):
        of_x, of_real = (torch.Generator().manual_seed(1000 * s + k) for s in (stream, 0))
        counts.append((times_drawn(n, of_x), times_drawn(m, of_real)))

    def distance(name: str, of_x: Tensor, of_real: Tensor) -> float:
        a, b = x[name], real[name]
        if name != "sliced_w2":
            return frechet(a, b, of_x, of_real)
        return df.metrics.sliced_w2(a.repeat_interleave(of_x.long(), 0), b.repeat_interleave(of_real.long(), 0)).value

    return {name: [distance(name, *pair) for pair in counts] for name in x}


def shares(x: Seen, real: Seen) -> dict[str, dict[str, float]]:
    """Precision and recall in EfficientNet's features, with errors."""
    found = df.metrics.prdc(x["frechet_imagenet"], real["frechet_imagenet"])
    return {m.name: {"value": m.value, "stderr": m.stderr} for m in found if m.name in ("precision", "recall")}


def judge(
    samples: Tensor,
    real_train: Tensor,
    real_other: Tensor,
    *,
    weights: str | None = None,
    resamples: int = RESAMPLES,
    stream: int = 1,
    cells: Path | None = None,
) -> dict[str, Any]:
    """What three judges say of samples: value, floor and excess over it with its bootstrap error, and recall.

    Args:
        samples: bytes (n, 3, h, w).
        real_train: the reference, bytes (m, 3, h, w).
        real_other: other real pictures, as many as samples: the floor.
        weights: file of ResNet-20; None: where `diffflow weights` puts it.
        resamples: bootstrap samples.
        stream: of the draws of samples: another for each method.
        cells: folder where features and floors of real pictures are kept; None: nowhere.

    Returns:
        `judges`: by name, value, floor, excess and its stderr; `resampled`: the excesses of the bootstrap samples;
        precision and recall in EfficientNet's features; `score`, the geometric mean of the three excesses.
    """
    if len(samples) != len(real_other):
        raise ValueError(f"the floor needs as many real pictures as samples, {len(real_other)} != {len(samples)}")
    see = eyes(weights)
    key = hashlib.sha256(b"".join(v.contiguous().numpy().tobytes() for v in (real_train, real_other))).hexdigest()
    kept = None if cells is None else cells / f"floor-{key[:12]}-{resamples}.pt"
    if kept is not None and kept.exists():
        beside = torch.load(kept)
    else:
        real, other = seen(real_train, see), seen(real_other, see)
        beside = {"real": real, "floors": distances(other, real, resamples, 99), "shares": shares(other, real)}
        if kept is not None:
            torch.save(beside, kept)
    x, real, floors = seen(samples, see), beside["real"], beside["floors"]
    ours = distances(x, real, resamples, stream)
    excess = {name: [a - b for a, b in zip(ours[name], floors[name], strict=True)] for name in ours}
    return {
        "n": len(samples),
        "reference": len(real_train),
        "judges": {
            name: {
                "value": ours[name][0],
                "floor": floors[name][0],
                "excess": values[0],
                "stderr": float(np.std(values[1:], ddof=1)) if resamples > 1 else math.nan,
            }
            for name, values in excess.items()
        },
        "resampled": {name: values[1:] for name, values in excess.items()},
        "shares": {name: v | {"floor": beside["shares"][name]["value"]} for name, v in shares(x, real).items()},
        "score": math.exp(sum(math.log(positive(v[0], floors[k][0])) for k, v in excess.items()) / len(excess)),
    }


def positive(excess: float, floor: float) -> float:
    """An excess that a ratio can be taken of: at least a hundredth of the floor."""
    return max(excess, 0.01 * floor)


def ratio(a: dict[str, Any], b: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Excess of a over that of b by each judge, and their geometric mean, with bootstrap errors.

    Args:
        a: what `judge` found of samples.
        b: the same of others, beside the same real pictures.
    """
    logs = {}
    for name, of_a in a["judges"].items():
        floor = of_a["floor"]
        pairs = [
            (of_a["excess"], b["judges"][name]["excess"]),
            *zip(a["resampled"][name], b["resampled"][name], strict=True),
        ]
        logs[name] = np.array([math.log(positive(x, floor) / positive(y, floor)) for x, y in pairs])
    logs["geometric_mean"] = np.mean(list(logs.values()), axis=0)
    return {
        name: {"ratio": float(np.exp(v[0])), "stderr": float(np.exp(v[0]) * v[1:].std(ddof=1))}
        for name, v in logs.items()
    }


# -- cells -------------------------------------------------------------------------------------------------------------


def train(cell: Cell, o: argparse.Namespace) -> dict[str, Any]:
    """Train a cell, or go on with it; what it took."""
    home = o.cells / cell.name
    done = home / "trained.json"
    if done.exists():
        return json.loads(done.read_text())
    prepare(o)
    home.mkdir(parents=True, exist_ok=True)
    if cell.method == "ours":
        found = train_ours(cell, home, o)
    else:
        found = {"finished": False}
        while not found["finished"]:
            peer(cell, o, "train", "--minutes", f"{cell.minutes:g}", "--at-most", f"{o.at_most:g}")
            found = json.loads((home / "about.json").read_text())
    files.write_json(done, found)
    return found


def peer(cell: Cell, o: argparse.Namespace, what: str, *flags: str) -> None:
    """Call pictures_peers.py in the peers' environment."""
    script, images = HERE / "pictures_peers.py", o.cells / f"{o.data}.npy"
    settings = ["--lr", f"{cell.lr:g}", "--width", f"{cell.width}", "--seed", f"{cell.seed}"]
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    command = [o.peers, script, what, cell.method, images, "--out", o.cells / cell.name, *settings, *flags]
    subprocess.run([str(word) for word in command], check=True, env=env)


def train_ours(cell: Cell, home: Path, o: argparse.Namespace) -> dict[str, Any]:
    """`diffflow train FOLDER --cpu-minutes M`, in processes of at most --at-most minutes of CPU time."""
    run = home / "run"

    def command(again: bool) -> list[str]:
        words = ["--resume", "auto"] if again else [str(source(o))]
        seed = [] if again or not cell.seed else ["--seed", str(cell.seed)]
        return ["train", *words, "--cpu-minutes", f"{cell.minutes:g}", *seed]

    seconds, peak = finish(command, run, home / "cpu.json", o.at_most)
    loaded = df.load(run)
    last = loaded.metrics()[-1]
    parameters = sum(p.numel() for p in loaded.denoiser.parameters())
    return {
        "steps": loaded.step, "seconds": seconds, "images": last["images"], "parameters": parameters,
        "peak_gib": peak, "minutes": cell.minutes, "finished": True,
    }  # fmt: skip


def finish(words: Callable[[bool], list[str]], run: Path, spent: Path, at_most: float) -> tuple[float, float]:
    """Call a command of diffflow until its run is finished, in processes of at most so many minutes of CPU time.

    Args:
        words: of the command, from whether the run goes on.
        run: its directory.
        spent: file that keeps the CPU seconds of all processes.
        at_most: minutes of CPU time of one process.

    Returns:
        CPU seconds of all processes, and the most memory that one had, in GiB.
    """
    peak, finished = 0.0, False
    seconds = json.loads(spent.read_text())["seconds"] if spent.exists() else 0.0
    while not finished:
        command = [*words((run / "run.json").exists()), "--out", str(run)]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([sys.executable, "-m", "diffflow.cli", *command], env=env)
        asked, before = False, seconds
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            used = sum(psutil.Process(process.pid).cpu_times()[:2])
            if used > 60 * at_most and not asked:
                process.send_signal(signal.SIGINT)  # it saves, and the next process goes on
                asked = True
            time.sleep(0.5)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds, peak = before + usage.ru_utime + usage.ru_stime, max(peak, usage.ru_maxrss / 2**20)
        files.write_json(spent, {"seconds": seconds})
        about = json.loads((run / "run.json").read_text()) if (run / "run.json").exists() else {}
        finished = bool(about.get("finished"))
        if not finished and not asked:
            raise SystemExit(f"diffflow {' '.join(command)} ended with {process.returncode} before it was finished")
    return seconds, peak


def sample(cell: Cell, o: argparse.Namespace) -> dict[str, Path]:
    """Draw a cell's samples: files of bytes (n, 3, h, w) by the weights they are drawn from."""
    home = o.cells / cell.name
    found = {w: home / f"samples-{w}.npy" for w in (("own",) if cell.method == "ours" else ("raw", "averaged"))}
    if all(path.exists() for path in found.values()):
        return found
    train(cell, o)
    if cell.method != "ours":
        peer(cell, o, "sample", "--n", f"{cell.n}", "--evaluations", f"{o.evaluations}")
        return found
    run = df.load(home / "run")
    data, _ = training_data(run)
    begun, steps = time.process_time(), min(run.dials.steps, o.evaluations)
    while draw(run, data, 1, {"steps": steps})[1]["sampler"]["evaluations"] > o.evaluations and steps > 1:
        steps -= 1
    x, card = draw(run, data, cell.n, {"steps": steps}, seed=cell.seed)
    np.save(found["own"], (x * 255).round().clamp(0, 255).byte().numpy())
    files.write_json(home / "sampled.json", card | {"seconds": time.process_time() - begun})
    return found


def measure(cell: Cell, o: argparse.Namespace) -> dict[str, Any]:
    """A cell's record: trained, sampled and judged, what of it is not there yet."""
    path = o.cells / f"{cell.name}.json"
    if path.exists():
        return json.loads(path.read_text())
    drawn = sample(cell, o)
    x = pick(prepare(o), o.reference + cell.n, 0)
    other, reference = x[: cell.n], x[cell.n :]
    stream = 1 + int(hashlib.sha256(cell.name.encode()).hexdigest()[:6], 16)
    judged = {}
    for weights, where in drawn.items():
        samples = torch.from_numpy(np.load(where))
        judged[weights] = judge(
            samples, reference, other, weights=o.weights, resamples=o.resamples, stream=stream, cells=o.cells
        )
        grid = figures.grid(samples[:100].float().div(255).numpy(), columns=10)
        files.write(o.cells / f"{cell.name}-{weights}.png", figures.png(grid))
    best = min(judged, key=lambda w: judged[w]["score"])
    record = {"cell": asdict(cell), "trained": train(cell, o), "best": best, "judged": judged}
    files.write_json(path, record)
    return record


def records(o: argparse.Namespace) -> list[dict[str, Any]]:
    """All that were measured."""
    found = [json.loads(path.read_text()) for path in sorted(o.cells.glob("*-n*.json"))]
    return [r for r in found if "judged" in r]


def score(record: dict[str, Any]) -> float:
    """Geometric mean of the excesses, of the better weights."""
    return record["judged"][record["best"]]["score"]


def chosen(o: argparse.Namespace, method: str) -> tuple[float, int]:
    """Learning rate and width of the best screen of a peer."""
    found = [
        r
        for r in records(o)
        if (c := r["cell"])["method"] == method and c["data"] == o.data and c["minutes"] == o.screen_minutes
    ]
    if not found:
        raise SystemExit(f"{method} was not screened on {o.data}: run `pictures.py screen {method}` first")
    best = min(found, key=score)["cell"]
    return best["lr"], best["width"]


def cell_of(o: argparse.Namespace, method: str) -> Cell:
    """The cell that the flags ask for."""
    lr, width = (None, None) if method == "ours" else chosen(o, method)
    if o.lr is not None and method != "ours":
        lr = o.lr
    if o.width is not None and method != "ours":
        width = o.width
    return Cell(o.data, method, o.minutes, o.seed, o.n, lr, width)


def summary(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ours beside the best peer, by data and minutes: each of our seeds, and their mean."""
    lines = []
    trained = list(found)
    for data, minutes in sorted({(r["cell"]["data"], r["cell"]["minutes"]) for r in trained}):
        here = [r for r in trained if (r["cell"]["data"], r["cell"]["minutes"]) == (data, minutes)]
        peers = [r for r in here if r["cell"]["method"] in PEERS]
        for r in (r for r in here if r["cell"]["method"] == "ours"):
            same = [p for p in peers if p["cell"]["n"] == r["cell"]["n"]]
            if same:
                best = min(same, key=score)
                ours, theirs = (v["judged"][v["best"]] for v in (r, best))
                line = {"data": data, "minutes": minutes, "seed": r["cell"]["seed"], "peer": best["cell"]}
                lines.append(line | {"ratios": ratio(ours, theirs)})
    return lines


def shown(record: dict[str, Any]) -> str:
    """A record as a line of a table."""
    cell, found = record["cell"], record["judged"][record["best"]]
    name = Cell(**cell).name
    values = [f"{v['excess']:.3g} ± {v['stderr']:.1g}" for v in found["judges"].values()]
    recall = found["shares"]["recall"]["value"]
    return f"| {name} | {record['best']} | {record['trained']['steps']} | {' | '.join(values)} | {recall:.2f} |"


def table(o: argparse.Namespace) -> None:
    """Print and write what was measured."""
    found = records(o)
    print("| cell | weights | steps | " + " | ".join(f"{j} over its floor" for j in JUDGES) + " | recall |")
    print("|---" * (4 + len(JUDGES)) + "|")
    for record in found:
        print(shown(record))
    lines = summary(found)
    for line in lines:
        values = ", ".join(f"{k} {v['ratio']:.2f} ± {v['stderr']:.2f}" for k, v in line["ratios"].items())
        what = f"{line['data']}, {line['minutes']:g} minutes, seed {line['seed']}, ours / {line['peer']['method']}"
        print(f"{what}: {values}")
    write_table(o, found, lines)


def write_table(o: argparse.Namespace, found: list[dict[str, Any]], lines: list[dict[str, Any]]) -> None:
    """The records without their bootstrap samples, and the ratios, as a file."""
    about = {"command": sys.argv, "torch": torch.__version__, "diffflow": version("diffflow"), "quick": o.quick}
    for record in found:
        for judged in record["judged"].values():
            del judged["resampled"]
    files.write_json(o.out, {"about": about, "cells": found, "ratios": lines})


def common_flags(parser: argparse.ArgumentParser, minutes: float, name: str) -> None:
    """The flags that this script shares with players.py."""
    parser.add_argument("--data", choices=("emoji", "cifar10"), default="emoji")
    parser.add_argument("--source", type=Path, help="folder of the pictures")
    parser.add_argument("--weights", help="file of ResNet-20's weights")
    parser.add_argument("--minutes", type=float, default=minutes, help="of CPU time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--at-most", type=float, default=30.0, help="minutes of CPU time of one process")
    parser.add_argument("--cells", type=Path, default=Path("runs") / name)
    parser.add_argument("--out", type=Path, default=Path("results") / f"{name}.json")
    parser.add_argument("--quick", action="store_true", help="shows that it runs")


def main(args: list[str] | None = None) -> int:
    """Do what of the cells is not done yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("screen", "train", "sample", "judge", "table"))
    parser.add_argument("methods", nargs="*", help=f"ours, {', '.join(PEERS)}")
    common_flags(parser, 15.0, "pictures")
    parser.add_argument("--peers", default=sys.executable, help="an interpreter that has the peers")
    parser.add_argument("--lr", type=float, help="of a peer; default: that of its best screen")
    parser.add_argument("--width", type=int, help="of a peer; default: that of its best screen")
    o = parser.parse_args(args)
    if unknown := set(o.methods) - {"ours", *PEERS}:
        parser.error(f"no method called {', '.join(unknown)}; there are ours, {', '.join(PEERS)}")
    if o.data == "cifar10" and o.source is None and o.what != "table":
        parser.error("--data cifar10 wants --source, its folder: ours is trained on it as it is")
    o.cells, o.out = o.cells.absolute(), o.out.absolute()
    o.screen_minutes, o.screen_n, o.reference, o.resamples, o.evaluations = 3.0, 256, REFERENCE, RESAMPLES, EVALUATIONS
    settings = SETTINGS
    if o.quick:
        o.cells, settings = o.cells / "quick", [(1e-3, 8)]
        o.screen_minutes, o.screen_n, o.reference, o.resamples, o.evaluations = 0.001, 16, 40, 2, 2
        o.n, o.minutes = 16, min(o.minutes, 0.004)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if o.what == "table":
            table(o)
        for method in o.methods if o.what != "table" else ():
            if o.what == "screen":
                for lr, width in settings:
                    cell = Cell(o.data, method, o.screen_minutes, 0, o.screen_n, lr, width)
                    print(shown(measure(cell, o)), flush=True)
            elif o.what == "judge":
                print(shown(measure(cell_of(o, method), o)), flush=True)
            else:
                print({"train": train, "sample": sample}[o.what](cell_of(o, method), o), flush=True)
    finally:
        torch.set_num_threads(threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
