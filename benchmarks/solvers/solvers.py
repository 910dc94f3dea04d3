"""Deterministic samplers compared by their error at equal numbers of evaluations: ours beside other libraries'.

Target laws with an exact denoiser, EDM coordinates: start y = 80 eps, noise levels from 80 to 0.002, the last
evaluation gives the answer. Everybody gets the same denoiser (float64; peers that insist on float32 say so in their
name), the same starts and a budget of N calls, counted. The error of a start is its distance to a very fine solution
from the same start (1200 steps to 0.002, then a denoising), divided by sqrt(dimension); reported are the root mean
square over starts, which a few starts that end in another mode can dominate, and the median. Peers appear with every
combination of solver, order and grid in peers.py, and the best is picked with hindsight, per target and N, separately
for each of the two errors. Ours are two: the default of `df.sample(sde, x0, steps=N)`, one rule for all, and the plan
of `df.calibrate(sde, N)`, one rule again, fitted to other starts of the same model; more rows of ours show the family.

    ring8        8 components on a circle, 2-D                lowrank3072  10 components of rank 16 in 3072-D
    narrow256    256 narrow components in 64-D                extras       grid25, moons, full16, digits (8 x 8 images)
    unseen       40 components of five shapes in 24-D, looked at only when all was done
    --run        the denoiser of a trained run, in float32, classes in turn

lowrank3072 is solved in 171 coordinates, which loses nothing: means and factors span 170 dimensions, and in the 2902
orthogonal ones every component is the same isotropic Gaussian, so there each solver only scales the start; one
coordinate carries its norm.

    python benchmarks/solvers/solvers.py --out results/solvers.json            (all: 90 minutes on one core)
    python benchmarks/solvers/solvers.py --quick --targets ring8 --nfe 10      (seconds)
    python benchmarks/solvers/solvers.py --targets --run runs/mnist --starts 128 --out results/solvers-mnist.json

Cells (target, N) that the file of --out has are kept, so the command goes on where it stopped. With --ours our rows of
these cells are measured anew, from the same starts, beside the best peers' that stand there: errors are no times, a
peer's stay what they are.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import peers
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

import diffflow as df
from diffflow import files
from diffflow.sampling.solvers import Solver
from diffflow.sampling.teacher import Teacher, default_starts, teach

F64 = torch.float64
OURS = ("calibrated", "default")
NFE = (5, 8, 10, 15, 20, 30, 50)
SCREENED = 25  # peers that go on, by either error, where there is a screening
CALIBRATED = 11  # the seed of the starts that plans are fitted to
STARTS = 2026  # a seed that no target uses: the same numbers as means and as starts would be no random start


# -- targets -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Target:
    """A denoiser that knows the standard deviation of its data, unit-normal starts eps (n, *shape), the dimension that
    errors are divided by (the root of), and how many starts a plan is fitted to."""

    denoise: peers.Denoise
    principal_std: float
    start: Callable[[int, torch.Generator], Tensor]
    dimension: int
    fitted: int


def mixture(means: Tensor, **shape) -> Target:
    d, law = means.shape[1], df.GaussianMixture(means, **shape)
    start = lambda n, g: torch.randn(n, d, generator=g, dtype=F64)  # noqa: E731
    return Target(law.denoise, law.principal_std, start, d, default_starts((d,)))


def ring8() -> Target:
    a = torch.arange(8, dtype=F64) * math.pi / 4
    return mixture(math.sqrt(2 * (0.25 - 0.03**2)) * torch.stack([a.cos(), a.sin()], 1), stds=0.03)


def narrow256() -> Target:
    g = torch.Generator().manual_seed(3)
    return mixture(0.5 * torch.randn(256, 64, generator=g, dtype=F64), stds=0.02)


def lowrank3072() -> Target:
    """Covariance F F^T + 0.02^2 I, eigenvalues of F F^T falling as 1/j; variance 0.25 per dimension, 0.1 from means."""
    g = torch.Generator().manual_seed(0)
    k, r, d = 10, 16, 3072
    mu = torch.randn(k, d, generator=g, dtype=F64)
    mu = mu / mu.norm(dim=1, keepdim=True) * math.sqrt(0.4 * 0.25 * d)
    ev = 1 / torch.arange(1, r + 1, dtype=F64)
    ev = ev / ev.sum() * 0.6 * 0.25 * d
    u = torch.stack([torch.linalg.qr(torch.randn(d, r, generator=g, dtype=F64))[0] for _ in range(k)]) * ev.sqrt()
    frame = torch.linalg.qr(torch.cat([mu, u.transpose(1, 2).reshape(k * r, d)]).T)[0]  # (3072, 170)
    q = frame.shape[1]
    pad = torch.nn.functional.pad
    law = df.GaussianMixture(pad(mu @ frame, (0, 1)), factors=pad(frame.T @ u, (0, 0, 0, 1)), stds=0.02)

    def start(n: int, g: torch.Generator) -> Tensor:
        eps = torch.randn(n, d, generator=g, dtype=F64)
        inside = eps @ frame
        return torch.cat([inside, (eps.square().sum(1) - inside.square().sum(1)).sqrt()[:, None]], 1)

    assert q == k * (r + 1)
    return Target(law.denoise, law.principal_std, start, d, default_starts((q + 1,)))


def grid25() -> Target:
    g = torch.arange(-2, 3, dtype=F64) * 2
    return mixture(torch.cartesian_prod(g, g) / 2.828, stds=0.05 / 2.828)


def moons() -> Target:
    a = torch.linspace(0, math.pi, 64, dtype=F64)
    upper, lower = torch.stack([a.cos(), a.sin()], 1), torch.stack([1 - a.cos(), 0.5 - a.sin()], 1)
    means = torch.cat([upper, lower])
    return mixture(means - means.mean(0), stds=0.05)


def full16() -> Target:
    """Twelve full covariances with eigenvalues log-uniform over three decades."""
    g = torch.Generator().manual_seed(7)
    means = torch.randn(12, 16, generator=g, dtype=F64)
    q = torch.linalg.qr(torch.randn(12, 16, 16, generator=g, dtype=F64))[0]
    ev = 0.5 * 10 ** (-3 * torch.rand(12, 16, generator=g, dtype=F64))
    return mixture(means, covariances=q @ torch.diag_embed(ev) @ q.transpose(1, 2))


def digits() -> Target:
    """The 1797 handwritten digits of 8 x 8 pixels in [-1, 1], each blurred by 0.1."""
    from sklearn.datasets import load_digits

    return mixture(torch.from_numpy(load_digits(return_X_y=True)[0]) / 8 - 1, stds=0.1)


def unseen() -> Target:
    """Forty components of unequal weight, their covariances of five random shapes with widths from 0.02 to 0.4."""
    g = torch.Generator().manual_seed(20261122)
    d, k = 24, 40
    turn = torch.linalg.qr(torch.randn(5, d, d, generator=g, dtype=F64))[0]
    widths = 0.02 * 20 ** torch.rand(5, d, generator=g, dtype=F64)
    shapes = turn @ torch.diag_embed(widths**2) @ turn.transpose(1, 2)
    weights = torch.rand(k, generator=g, dtype=F64) + 0.1
    means = 0.6 * torch.randn(k, d, generator=g, dtype=F64)
    return mixture(means, covariances=shapes[torch.arange(k) % 5], weights=weights / weights.sum())


def trained(path: str) -> Target:
    """A run's denoiser; its classes in turn, so the number of starts must be the same everywhere: the batch's."""
    run = df.load(path, device="cpu")
    kinds = len(run.classes or ())

    def denoise(y: Tensor, sigma: Tensor) -> Tensor:
        cond = torch.arange(len(y)) % kinds if kinds else None
        level = torch.as_tensor(sigma, dtype=torch.float32)
        return run.denoiser.given(cond)(y.float(), level).to(y.dtype)

    start = lambda n, g: torch.randn(n, *run.shape, generator=g, dtype=F64)  # noqa: E731
    return Target(denoise, run.denoiser.principal_std, start, math.prod(run.shape), default_starts(run.shape))


TARGETS = {"ring8": ring8, "lowrank3072": lowrank3072, "narrow256": narrow256}
EXTRAS = {"grid25": grid25, "moons": moons, "full16": full16, "digits": digits, "unseen": unseen}


class Counted:
    """A target's denoiser that counts its calls and, like a trained one, knows the standard deviation of its data."""

    def __init__(self, target: Target) -> None:
        self.denoise, self.calls = target.denoise, 0
        self.principal_std, self.cost = target.principal_std, 1

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        return self.denoise(y, sigma)


# -- ours --------------------------------------------------------------------------------------------------------------
def solve(solver: Solver | None, grid, denoise: peers.Denoise, y: Tensor, n: int) -> Tensor:
    steps = (n + 1) // 2 if isinstance(solver, df.Heun) else n  # the last of Heun's steps costs one evaluation
    return df.sample(flow(denoise), y, steps=steps, solver=solver, grid=grid, noise=0).last


DEFAULT = peers.Peer("diffflow", "default", "default", partial(solve, None, None))


def flow(denoise: peers.Denoise) -> df.DiffFlow:
    s = df.EDM(sigma_min=peers.LOW, sigma_max=peers.TOP)
    return df.probability_flow(s, s.score(denoise))


def calibrated(target: Target, teacher: Teacher, n: int) -> peers.Peer:
    """The plan of n evaluations, fitted to the teacher's starts, as a sampler."""
    plan = df.calibrate(flow(Counted(target)), n, teacher=teacher)

    def run(denoise: peers.Denoise, y: Tensor, n: int) -> Tensor:
        return df.sample(flow(denoise), y, plan=plan, noise=0).last

    return peers.Peer("diffflow", "calibrated", str(plan.about["grid"]), run)


def ours() -> Iterator[peers.Peer]:
    yield DEFAULT
    grids = {"default": None, "karras 7": df.karras, "log-uniform": df.log_uniform}
    for name, grid in grids.items():
        for order in (1, 2, 3, 4):
            yield peers.Peer("diffflow", f"Exponential {order}", name, partial(solve, df.Exponential(order), grid))
    yield peers.Peer("diffflow", "Euler", "karras 7", partial(solve, df.Euler(), df.karras))
    yield peers.Peer("diffflow", "Heun", "karras 7", partial(solve, df.Heun(), df.karras), least=3)


# -- measuring ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Row:
    target: str
    nfe: int
    library: str
    solver: str
    grid: str
    calls: int
    rms: float
    median: float
    worst: float

    @property
    def name(self) -> str:
        return f"{self.library} {self.solver}, {self.grid}"


def error(x: Tensor, reference: Tensor, dimension: int) -> tuple[float, float, float]:
    e = (x - reference).flatten(1).square().sum(1).div(dimension)
    return e.mean().sqrt().item(), e.sqrt().median().item(), e.sqrt().max().item()


def reference(target: Target, y: Tensor, levels: int) -> tuple[Tensor, float]:
    """azula's zEAB of order 4 on `levels` noise levels, and its RMS distance to our order 4 on the same levels."""
    fine = peers.azula_run(partial(peers.az.zEABSampler, order=4), 1, peers.log_uniform, target.denoise, y, levels)
    check = solve(df.Exponential(4), df.log_uniform, Counted(target), y, levels)
    return fine, error(fine, check, target.dimension)[0]


@torch.no_grad()
def measure(
    name: str,
    target: Target,
    nfe: list[int],
    starts: int,
    levels: int,
    step: Callable,
    screen: int = 0,
    against: Callable[[], list[peers.Peer]] = peers.peers,
) -> Iterator[list[Row]]:
    """The rows of every N in turn. screen: peers that are not among the best SCREENED, by either error, on so many of
    the starts go no further; 0: all do. against: the peers."""
    y = peers.TOP * target.start(starts, torch.Generator().manual_seed(STARTS))
    fine, doubt = reference(target, y, levels)
    step(name, f"{name}: two fine solutions differ by {doubt:.1e} (RMS)")
    others = peers.TOP * target.start(target.fitted, torch.Generator().manual_seed(CALIBRATED))
    teacher = teach(flow(Counted(target)), others)

    def tried(peer: peers.Peer, n: int, starts: int) -> Row:
        denoise = Counted(target)
        found = error(peer.run(denoise, y[:starts], n), fine[:starts], target.dimension)
        if denoise.calls > n:
            raise RuntimeError(f"{peer.name} used {denoise.calls} evaluations of {n}")
        return Row(name, n, peer.library, peer.solver, peer.grid, denoise.calls, *found)

    for n in nfe:
        theirs = [p for p in against() if n >= p.least]
        if screen:
            early = [(p, row) for p in theirs if math.isfinite((row := tried(p, n, screen)).rms)]
            top = [sorted(early, key=lambda e: getattr(e[1], key))[:SCREENED] for key in ("rms", "median")]
            theirs = list({id(p): p for best in top for p, _ in best}.values())
        mine = [calibrated(target, teacher, n), *(p for p in ours() if n >= p.least)]
        rows = [tried(peer, n, starts) for peer in (*mine, *theirs)]
        for row in rows:
            if row.library == "diffflow" and not math.isfinite(row.rms):
                raise RuntimeError(f"{row.name} gave {row.rms} on {name} at N = {n}")
        step(f"{name}, N = {n}")
        yield [row for row in rows if math.isfinite(row.rms)]  # a peer may overflow on a grid that was not made for it


def summary(rows: list[Row]) -> list[dict]:
    """Per target and N: our default and our plan, the best peer by RMS and by median, and the ratios."""
    out = []
    for target, n, who in dict.fromkeys((r.target, r.nfe, r.solver) for r in rows if r.solver in OURS):
        here = [r for r in rows if (r.target, r.nfe) == (target, n)]
        mine = next(r for r in here if (r.library, r.solver) == ("diffflow", who))
        theirs = [r for r in here if r.library != "diffflow"]
        line = {"target": target, "nfe": n, "solver": who, "worst": mine.worst}
        for key in ("rms", "median"):
            best = min(theirs, key=lambda r: getattr(r, key))
            value, level = getattr(mine, key), getattr(best, key)
            line |= {key: value, f"peer_{key}": level, f"peer_{key}_name": best.name, f"{key}_ratio": value / level}
        out.append(line)
    return out


def kept(rows: list[Row], best: int = 5) -> list[dict]:
    """What is worth keeping: all of ours, and the best peers by either error in every cell."""
    out = []
    for cell in dict.fromkeys((r.target, r.nfe) for r in rows):
        here = [r for r in rows if (r.target, r.nfe) == cell]
        theirs = [r for r in here if r.library != "diffflow"]
        top = {id(r) for key in ("rms", "median") for r in sorted(theirs, key=lambda r: getattr(r, key))[:best]}
        out += [asdict(r) for r in here if r.library == "diffflow" or id(r) in top]
    return out


def mean_ratio(lines: list[dict], who: str, key: str) -> float:
    """Geometric mean of the ratios over all targets and N."""
    logs = [math.log(r[f"{key}_ratio"]) for r in lines if r["solver"] == who]
    return math.exp(sum(logs) / len(logs))


def show(lines: list[dict], starts: int) -> None:
    table = Table(title=f"ours against the best of all peers, {starts} fresh starts, error / sqrt(dimension)")
    for head in (
        "target",
        "N",
        "ours",
        "RMS",
        "best peer",
        "ratio",
        "by",
        "median",
        "best peer",
        "ratio",
        "by",
        "worst",
    ):
        table.add_column(head, justify="left" if head in ("target", "ours", "by") else "right", overflow="fold")
    for r in lines:
        cells = [r["target"], str(r["nfe"]), r["solver"]]
        for key in ("rms", "median"):
            ratio = r[f"{key}_ratio"]
            colour = "green" if ratio <= 1 else "red"
            cells += [f"{r[key]:.2g}", f"{r[f'peer_{key}']:.2g}", f"[{colour}]{ratio:.2f}", r[f"peer_{key}_name"]]
        table.add_row(*cells, f"{r['worst']:.2g}")
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for who in OURS:
        means = ", ".join(f"{key} {mean_ratio(lines, who, key):.2f}" for key in ("rms", "median"))
        print(f"{who}: geometric mean of the ratios over {sum(r['solver'] == who for r in lines)} cells: {means}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = TARGETS | EXTRAS
    parser.add_argument("--targets", nargs="*", choices=list(known), default=list(TARGETS))
    parser.add_argument("--run", nargs="*", default=[], help="runs whose denoisers are targets, too")
    parser.add_argument("--nfe", nargs="+", type=int, default=list(NFE), help="numbers of evaluations, at least 3")
    parser.add_argument("--starts", type=int, default=2048)
    parser.add_argument(
        "--screen", type=int, default=0, help="starts on which peers show whether they go on; 0: all do"
    )
    parser.add_argument("--ours", action="store_true", help="measure our rows anew in the cells that --out has")
    parser.add_argument("--quick", action="store_true", help="256 starts, N = 5 10 20, a coarser reference")
    parser.add_argument("--out", type=Path, default=None, help="where to write the best rows as JSON")
    args = parser.parse_args()
    if args.quick:
        args.starts = min(args.starts, 256)
        args.nfe = [n for n in args.nfe if n in (5, 10, 20)] or args.nfe
    if min(args.nfe) < 3:
        parser.error(f"--nfe {min(args.nfe)}: peers' multistep methods need at least 3 evaluations")

    rows: list[Row] = []
    compared = 0
    if args.out is not None and args.out.exists():
        found = json.loads(args.out.read_text())
        if (was := (found["starts"], found.get("screen", 0))) != (args.starts, args.screen):
            parser.error(f"{args.out} was measured with --starts {was[0]} --screen {was[1]}: choose another --out")
        rows, compared = [Row(**r) for r in found["rows"]], found["compared"]
    done = set() if args.ours else {(r.target, r.nfe) for r in rows}
    has = {(r.target, r.nfe) for r in rows} if args.ours else None
    makers = {name: known[name] for name in args.targets} | {path: partial(trained, path) for path in args.run}
    todo = {
        name: [n for n in args.nfe if (name, n) not in done and (has is None or (name, n) in has)] for name in makers
    }
    todo = {name: nfe for name, nfe in todo.items() if nfe}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=sum(1 + len(nfe) for nfe in todo.values()))

        def step(text: str, note: str = "") -> None:
            progress.update(task, advance=1, description=text)
            if note:
                progress.console.print(note)

        for name, nfe in todo.items():
            levels, against = 401 if args.quick else 1201, list if args.ours else peers.peers
            for cell in measure(name, makers[name](), nfe, args.starts, levels, step, args.screen, against):
                if args.ours:
                    at = (name, cell[0].nfe)
                    rows = [r for r in rows if (r.target, r.nfe) != at or r.library != "diffflow"]
                rows += cell
                compared += 0 if args.ours else len(cell)
                if args.out is not None:
                    save(args.out, rows, compared, args)
    show(summary(rows), args.starts)


def save(out: Path, rows: list[Row], compared: int, args: argparse.Namespace) -> None:
    lines = summary(rows)
    made = {
        "command": ["python", *sys.argv],
        "python": platform.python_version(),
        "versions": {k: version(k) for k in ("torch", "diffusers", "azula", "torchdiffeq")}
        | {"diffflow": df.__version__},
    }
    if args.ours:  # what made the peers' rows stays on record
        found = json.loads(out.read_text())
        made = {key: found[key] for key in made} | {"ours": made}
    head = made | {
        "starts": args.starts,
        "screen": args.screen,
        "mean_ratios": {w: {k: mean_ratio(lines, w, k) for k in ("rms", "median")} for w in OURS},
        "summary": lines,
        "compared": compared,
        "rows": kept(rows),
    }
    files.write_json(out, head)


if __name__ == "__main__":
    main()
