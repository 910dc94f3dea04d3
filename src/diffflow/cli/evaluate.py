"""`diffflow evaluate`: metrics of a run, with errors, against data it has not seen.

Samples are compared with the training data; the held-out split of the same source is the floor of every number (half
of the training data, where the run was trained on all of it).
Nothing is downloaded. The numbers and the protocol card that they belong to go to `evaluation.json` in the run
directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

import diffflow as df
from diffflow import figures, files
from diffflow.cli import parse
from diffflow.cli.conditions import GuidanceWords, guidance_of
from diffflow.cli.sample import Sample
from diffflow.cli.shared import SOLVERS, SolverName, check, check_n, print_metrics, splits
from diffflow.console import progress, say, to_stderr, waiting


@dataclass(frozen=True)
class Evaluate:
    """Measure a run: every metric with its standard error, and the floor that real data scores.

    Examples:
        diffflow evaluate runs/demo
        diffflow evaluate runs/mnist -n 2000 --churn 1 --classifier path/to/lenet.pth
        diffflow evaluate runs/mnist -n 10000 --features lenet=path/to/lenet.pth
        diffflow evaluate runs/pictures -n 2000 --features imagenet
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run directory."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 1000
    """Samples to draw, classes as often as in the data; values of different n are not comparable."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Steps of the solver; default: the run's own."""
    churn: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """The dial; default: the run's own."""
    gan: Annotated[float | None, tyro.conf.arg(metavar="X")] = None
    """The other dial, of runs with a discriminator: weight of the log-ratio; default: the run's own."""
    guidance: GuidanceWords = ()
    """Classifier-free guidance; default: the run's own."""
    solver: SolverName = "default"
    """How the path is solved."""
    seed: int = 0
    """Random seed of the samples and of the metrics."""
    batch: int = 256
    """Samples moved together."""
    classifier: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """LeNet-5 weights (a torch state dict) that judge whether a sample shows the digit asked for, instead of a small
    classifier trained here on the training data."""
    features: Annotated[str | None, tyro.conf.arg(metavar="NAME[=FILE]")] = None
    """Whose features the Frechet distance, KID, precision, recall, density and coverage see: own (a classifier trained
    here), lenet, resnet20, inception or imagenet (see `diffflow weights`), with weights from a file of your own after a
    =; none. For colour pictures without classes: imagenet (pip install 'diffflow[judge]'). Default: own for images of
    bytes with classes, else none."""
    data: Annotated[str | None, tyro.conf.arg(metavar="SOURCE")] = None
    """Where the data is now, if it has moved since training."""
    latent: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """Where the autoencoder of the run's latents is now, if it has moved since training."""
    device: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """cpu, cuda, cuda:1, ...; default: the accelerator there is, else cpu."""

    def main(self) -> int:
        """Run the command and return its exit status."""
        import torch

        from diffflow.data import tiles
        from diffflow.metrics.classifier import unit
        from diffflow.metrics.evaluate import counted
        from diffflow.metrics.tables import lines
        from diffflow.runs import report
        from diffflow.runs.evaluate import draw, draw_table, judge_of, measure

        how: dict[str, Any] = {"steps": self.steps, "churn": self.churn, "gan": self.gan}
        check(Sample(self.run, self.n, solver=self.solver, batch=self.batch, guidance=self.guidance, **how))
        how["guidance"] = guidance_of(self.guidance)
        check_n(self.n)
        judge = df.metrics.load_lenet(self.classifier) if self.classifier else None
        run = df.load(self.run, device=self.device, coder=self.latent)
        files.check_folder(run.path)
        train, test = splits(run, self.data)
        note = counted(self.n, len(train), None if test is None else len(test))
        eyes = judge_of(self.features, train, self.seed)
        console = to_stderr()
        if test is None:
            say(
                console,
                f"note: trained on the split {train.split!r}, so nothing is held out: floors are taken between two "
                "halves of the training data, and copies are judged by the distances within it",
            )
        if note:
            say(console, f"note: {note}")
        solver = SOLVERS[self.solver]()
        with progress("sampling", console) as bar:
            samples, card = draw(
                run, train, self.n, how, solver, self.solver, seed=self.seed, batch=self.batch, on_step=bar
            )
        with waiting(console, "measuring"):
            evaluation = measure(run, samples, train, test, eyes, judge, self.seed, card)
        print_metrics(evaluation.to_dict()["metrics"])
        say(console, f"protocol {files.write_json(run.path / 'evaluation.json', evaluation.to_dict())}")
        if evaluation.table is not None:
            print("\n".join(["", *lines(evaluation.table)]))
            draw_table(run, samples, train, test)
        elif train.kind == "vector" and train.law is None:
            t, truth = train.transform, torch.cat([train.x, *(() if test is None else (test.x,))]).numpy()
            x, names = samples.numpy(), t.columns
            columns = figures.marginals(x, truth, names, t.levels, t.names)
            files.write(run.path / "marginals.png", figures.png(columns))
            if x.shape[1] > 1:
                files.write(run.path / "pairs.png", figures.png(figures.pairs(x, truth, names)))
        if train.transform.of_bytes:
            nearest, originals = df.metrics.copies(samples, train.x)
            pairs = torch.cat([samples[nearest], unit(train.x[originals])])
            files.write(run.path / "copies.png", figures.png(tiles.picture(pairs.numpy(), len(nearest))))
        say(console, f"report   {report.write(run.path)}")
        return 0


def main(args: Sequence[str]) -> int:
    """Read the flags and run the command."""
    return parse(Evaluate, args).main()
