"""`diffflow diagnose`: check the learned fields of a run.

A denoiser is held against its target at every noise level, on data that it was trained on and on data that it was not,
beside the best linear denoiser; a discriminator against its own odds along the path of its particles.
Beside the run: diagnose.json with the numbers and diagnose.png, the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import diffflow as df
from diffflow import figures, files
from diffflow.cli import UsageError, parse
from diffflow.cli.shared import splits
from diffflow.console import say, table, to_stderr, to_stdout, waiting

if TYPE_CHECKING:
    from torch import Tensor

    from diffflow.data import Data


@dataclass(frozen=True)
class Diagnose:
    """Check the learned fields of a run: the denoiser per noise level, the discriminator's odds along its path.

    Examples:
        diffflow diagnose runs/demo
        diffflow diagnose runs/mnist -n 500 --levels 12
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 500
    """At most so many examples of each split."""
    levels: Annotated[int, tyro.conf.arg(metavar="K")] = 16
    """Noise levels, evenly in their logarithm."""
    data: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """Where the data is now, if it has moved since training."""
    seed: int = 0
    """Random seed: which examples, and their noise."""
    latent: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Where the autoencoder of the run's latents is now, if it has moved since training."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        from diffflow.training.early_stopping import holdout_split

        if self.n < 10 or self.levels < 2:
            raise UsageError(f"-n {self.n} must be at least 10, and --levels {self.levels} 2.")
        run = df.load(self.run, device=self.device, coder=self.latent)
        if not {"denoiser", "discriminator"} & run.players.keys():
            raise UsageError(f"{self.run} has {', '.join(run.players)}: no field with a target of its own to check.")
        files.check_folder(run.path)
        console = to_stderr()
        train, held = splits(run, self.data)
        sets = {train.split: holdout_split(train, run.config.fit.holdout)[0]}
        if held is not None:
            sets[held.split] = held
        record: dict[str, Any] = {"run": str(run.path), "step": run.step, "examples": self.n, "seed": self.seed}
        with waiting(console, "comparing the fields with what they should be"):
            if "denoiser" in run.players and "generator" not in run.players:
                record["denoiser"] = self.denoiser(run, sets)
            if "discriminator" in run.players and hasattr(run.config, "game"):  # else it plays none, and has no odds
                record["discriminator"] = self.discriminator(run, next(reversed(sets.values())))
        print_diagnosis(record)
        say(console, f"numbers  {files.write_json(run.path / 'diagnose.json', record)}")
        say(console, f"picture  {files.write(run.path / 'diagnose.png', figures.png(diagnosis_figure(record)))}")
        return 0

    def rows(self, run: df.Run, data: Data, n: int) -> tuple[Tensor, Tensor | None]:
        """Examples (n, *shape) in model units, spread over their cells, and their classes (n,) or None."""
        import torch

        from diffflow.metrics.base import pick

        rows = pick(torch.arange(len(data)), n, self.seed)
        dequantise = run.config.data.dequantise or bool(run.transform.levels)
        u = df.Noise(self.seed).fork("cells").uniform(len(rows), run.shape) if dequantise else None
        x, y = data.batch(rows, u=u)
        x = x if run.space is None else run.space.encode(x)  # the data of `splits` are not encoded
        return x.to(run.device), None if y is None or not run.classes else y.to(run.device)

    def denoiser(self, run: df.Run, sets: Mapping[str, Data]) -> dict[str, Any]:
        """Errors of the denoiser per noise level, on data by the name of their split."""
        import torch

        from diffflow.runs.diagnose import denoising_errors

        sampling: Any = run.config.sampling
        low, high = math.log(sampling.sigma_min), math.log(sampling.sigma_max)
        levels = torch.linspace(low, high, self.levels, dtype=torch.float64).exp()
        record: dict[str, Any] = {"levels": levels.tolist()}
        reference, _ = self.rows(run, next(iter(sets.values())), 5000)
        for name, data in sets.items():
            x, y = self.rows(run, data, self.n)
            errors = denoising_errors(denoiser(run), x, levels, y, df.Noise(self.seed), reference)
            record |= {"linear": errors.linear.tolist(), name: errors.error.tolist()}
            record[f"{name}_stderr"] = errors.stderr.tolist()
        return record

    def discriminator(self, run: df.Run, data: Data) -> list[dict[str, Any]]:
        """Accuracy and odds of the discriminator at some times of the particles' path."""
        from diffflow.networks.games import GAMES, reliability
        from diffflow.runs.diagnose import logits_along

        config: Any = run.config  # a family with a game
        game = GAMES[config.game.loss]
        x, y = self.rows(run, data, self.n)
        entries = []
        for t, real, fake in logits_along(run, x, y, df.Noise(self.seed)):
            entry: dict[str, Any] = {"t": t}
            if game.balanced:
                entry["accuracy"] = ((real > 0).float().mean() + (fake < 0).float().mean()).item() / 2
            if game.log_ratio:
                odds = reliability(real, fake)
                entry |= {"gap": odds.gap.item()}
                entry |= {k: getattr(odds, k).tolist() for k in ("predicted", "real", "count")}
            entries.append(entry)
        return entries


def denoiser(run: df.Run) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """What plays the denoiser of a run: D, or the composite D* where a discriminator was trained as one with it."""
    from diffflow.models.joint_likelihood import LikelihoodConfig

    if not isinstance(run.config, LikelihoodConfig):
        return run.denoiser
    s = run.config.sampling.path

    def composite(y: Tensor, sigma: Tensor, cond: Tensor | None) -> Tensor:
        t = s.time(sigma)
        return run.sde(cond=cond).denoised(s.scale(t).to(y) * y, t)

    return composite


def diagnosis_figure(record: Mapping[str, Any]):
    """A figure of errors over those of the best linear denoiser, and of shares of real samples over their odds."""
    import torch

    parts = [name for name in ("denoiser", "discriminator") if record.get(name)]
    fig = figures.figure(4.6 * max(1, len(parts)), 3.6)
    fig.set_layout_engine("constrained")
    axes = dict(zip(parts, fig.subplots(1, max(1, len(parts)), squeeze=False)[0], strict=False))
    for ax in axes.values():
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#e4e7ec", linewidth=0.6)
    if "denoiser" in axes:
        ax, errors = axes["denoiser"], record["denoiser"]
        linear = torch.tensor(errors["linear"])
        splits = [k for k in errors if f"{k}_stderr" in errors]
        for colour, name in zip(figures.COLOURS, splits, strict=False):
            share, err = torch.tensor(errors[name]) / linear, 2 * torch.tensor(errors[f"{name}_stderr"]) / linear
            ax.plot(errors["levels"], share, color=colour, label=figures.plain(name))
            ax.fill_between(errors["levels"], share - err, share + err, color=colour, alpha=0.2, linewidth=0)
        ax.axhline(1, color=figures.SOFT, linestyle="--", linewidth=1, label="best linear denoiser")
        ax.set(xscale="log", xlabel="noise level σ", title="denoising error, linear = 1")
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False, fontsize=8)
    if "discriminator" in axes:
        ax, entries = axes["discriminator"], record["discriminator"]
        ax.plot([0, 1], [0, 1], color=figures.SOFT, linestyle="--", linewidth=1)
        for colour, entry in zip(figures.COLOURS, entries, strict=False):
            if "gap" in entry:
                full = [k for k, c in enumerate(entry["count"]) if c >= 10]
                xs, ys = ([entry[name][k] for k in full] for name in ("predicted", "real"))
                label = "" if entry["t"] is None else f"t = {entry['t']:.4g}, "
                ax.plot(xs, ys, color=colour, marker="o", markersize=3, label=f"{label}gap {entry['gap']:.3f}")
        ax.set(xlabel="predicted chance of being real", ylabel="share that is real", title="odds against facts")
        if any("gap" in entry for entry in entries):
            ax.legend(frameon=False, fontsize=8)
        else:
            ax.text(0.5, 0.3, "the logit of this game\nis no log-odds", ha="center", color=figures.SOFT)
    return fig


def print_diagnosis(record: Mapping[str, Any]) -> None:
    """Print the tables of errors and of odds."""
    console = to_stdout()
    if errors := record.get("denoiser"):
        splits = [k for k in errors if f"{k}_stderr" in errors]
        heads = ("noise level", "best linear", *(f"error, {k}" for k in splits))
        rows = table(*heads)
        for k, sigma in enumerate(errors["levels"]):
            rows.add_row(f"{sigma:.3g}", f"{errors['linear'][k]:.3g}", *(f"{errors[name][k]:.3g}" for name in splits))
        console.print(rows)
    if entries := record.get("discriminator"):
        rows = table("t", "told apart", "calibration gap")
        for entry in entries:
            t, gap = entry["t"], entry.get("gap")
            rows.add_row(
                "-" if t is None else f"{t:.2f}",
                f"{entry['accuracy']:.1%}" if "accuracy" in entry else "-",
                "-" if gap is None else f"{gap:.3f}",
            )
        console.print(rows)


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Diagnose, args).main()
