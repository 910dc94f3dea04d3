"""Evaluation of a run: its samples against the data that it was trained on, with what was held out as the floor.

`Run.evaluate` and `diffflow evaluate` are these functions; both leave evaluation.json in the run directory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import figures, files
from ..data import Data, DataError
from ..data.dataset import digest_of
from ..data.table_transform import TableTransform
from ..equation.conditions import Cond, leaves, rows
from ..equation.guidance import Guidance
from ..equation.noise import Noise
from ..metrics import Classifier, Evaluation, embedding, extractor
from ..metrics import evaluate as compare
from ..metrics.evaluate import counted
from ..metrics.tables import TableComparison, association_picture, column_picture
from ..sampling.solvers import Solver
from ..training.run_folder import Folder

HELD_OUT = {"train": "test", "test": "train"}


def evaluate(
    run: Any,
    data: Data | str | Path | None = None,
    n: int = 1000,
    *,
    heldout: Data | None = None,
    steps: int | None = None,
    churn: float | None = None,
    gan: float | None = None,
    guidance: Guidance | None = None,
    features: str | None = None,
    classifier: Classifier | None = None,
    seed: int = 0,
    batch: int = 256,
) -> Evaluation:
    """Measure the run: every metric with its standard error, and the floor that real data score.

    The evaluation is kept in the run directory (evaluation.json), for its report.

    Args:
        run: the run.
        data: the data that it was trained on, or where they are; None: where they were.
        n: samples to draw, conditions as often as in the data; values of different n are not comparable.
        heldout: real data that training did not see, the floor of every metric; default: what was held out of the
            data (`Data.heldout`, or the other split of their source), else half of the data.
        steps: of the solver; default: the run's own `dials`, as for the next three.
        churn: stochasticity.
        gan: weight of the log-ratio.
        guidance: of the condition; 1: none.
        features: whose features the Frechet distance and its like see, "own", "lenet", ... ("none" for none); default:
            "own" for images of bytes with classes.
        classifier: the judge of the classes; default: a small one, trained on the data.
        seed: of samples and metrics.
        batch: samples that move together.

    Raises:
        ValueError: other data than those of the training, or too few.
        TypeError: rows that are no Data.
        DataError: data that are not there; a run that was trained on data from Python needs `data`.
    """
    train, held = training_data(run, data)
    asked = {"steps": steps, "churn": churn, "gan": gan, "guidance": guidance}
    held = held if heldout is None else heldout
    counted(n, len(train), None if held is None else len(held))
    eyes = judge_of(features, train, seed)
    x, card = draw(run, train, n, asked, seed=seed, batch=batch)
    evaluation = measure(run, x, train, held, eyes, classifier, seed, card)
    files.write_json(run.path / "evaluation.json", evaluation.to_dict())
    if evaluation.table is not None:
        draw_table(run, x, train, held)
    return evaluation


def training_data(run: Any, data: Data | str | Path | None = None) -> tuple[Data, Data | None]:
    """The data that a run was trained on, and what of it was held out (None: nothing that is known).

    Args:
        run: the run.
        data: the data, or where they are now; None: where they were.

    Raises:
        ValueError: other data.
        TypeError: what is no data.
        DataError: data that are not there.
    """
    ask = replace(run.config.data, latent=None)  # samples are compared decoded
    split, wanted = run.data["split"], run.data["fingerprint"]
    if isinstance(data, Data):
        if data.fingerprint != wanted:
            raise ValueError(
                f"{data.name!r} is not the data that {run.path} was trained on (its content has another fingerprint). "
                "To compare samples with other data: df.metrics.evaluate(samples, data)"
            )
        refuse_conditions(run, data)
        at_hand = data.heldout is not None or not ask.source or split not in HELD_OUT
        return data, data.heldout if at_hand else ask.load(HELD_OUT[split])
    if data is not None and not isinstance(data, str | Path):
        raise TypeError(
            f"data is of type {type(data).__name__}: give the Data of the training, as df.data.of made it, or the path "
            "of a file of the same rows"
        )
    from_python = not ask.source
    if data is None:
        ask.refuse_moved(run.path, "--data SOURCE (in Python, run.evaluate(data))")
    ask = replace(ask, source=ask.source if data is None else str(data))
    # data from Python chose their columns there, and may have had test rows of their own
    how = {"like": run.transform} if from_python else {}
    train = ask.load(split, **how)
    if train.fingerprint != wanted and from_python and split != "all":
        train, split = ask.load("all", **how), "all"
    if train.fingerprint != wanted:
        raise ValueError(
            f"{ask.source} is not the data that {run.path} was trained on (its content has another fingerprint). "
            "Say where that data is with --data."
        )
    everything = train.taken is not None and bool(train.taken.all())  # one picture leaves none to be held out
    held = ask.load(HELD_OUT[split], **how) if split in HELD_OUT and not everything else None
    if held is not None and held.conditions is not None:
        held = replace(held, conditions=train.conditions)  # in the units of the training rows
    return train, held


def refuse_conditions(run: Any, data: Data) -> None:
    """Raise ValueError for data with conditions that are not those of the training."""
    known = run.data.get("cond", {}).get("sha256")
    if data.conditions is not None and digest_of(leaves(data.cond)) != known:
        raise ValueError(
            f"{data.name!r} has other conditions than {run.path} was trained with: give the same, "
            "data.with_cond(c), or the data alone"
        )


def conditions_for(run: Any, train: Data, n: int) -> Cond:
    """What n samples of a run are asked for, so that they have the law of its training data; None for nothing.

    Args:
        run: the run.
        train: the data that it was trained on.
        n: how many samples.
    """
    if run.conditions is None:
        return None
    known = train.conditions is not None or "cond" not in run.data
    return train.sample_conditions(n) if known else Folder(run.path).example_conditions(n)


def draw(
    run: Any,
    train: Data,
    n: int,
    asked: Mapping[str, Any],
    solver: Solver | None = None,
    solver_name: str = "default",
    *,
    seed: int = 0,
    batch: int = 256,
    on_step: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, dict[str, Any]]:
    """Samples with conditions as often as in the data, and what the protocol card says of how they were drawn.

    Args:
        run: whose samples.
        train: the data that it was trained on.
        n: how many.
        asked: steps, churn, gan and guidance; None where the run's own hold.
        solver: how the path is solved; None: as `Run.sample`.
        solver_name: what the card calls it.
        seed: of the noise.
        batch: samples that move together.
        on_step: called with (steps done, of how many).

    Returns:
        x: decoded samples (n, *shape).
        card: entries `sampler`, `classes` and `run` of the protocol card.
    """
    cond = conditions_for(run, train, n)
    parts: list[Tensor] = []
    nfe = 0
    for first in range(0, n, batch):
        size = min(batch, n - first)

        def step(done: Any, k: int = first // batch) -> None:
            if on_step is not None:
                on_step(k * done.total + done.index, math.ceil(n / batch) * done.total)

        part = rows(cond, slice(first, first + size))
        path = run.sample(size, part, **asked, noise=Noise(seed, first), solver=solver, batch=batch, on_step=step)
        parts.append(path.last.cpu())
        nfe = path.nfe
    dials = replace(run.dials, **{k: v for k, v in asked.items() if v is not None})
    generator = "generator" in run.players
    planned = solver is None and not generator and run.plan(dials) is not None
    settings = {"solver": "plan" if planned else solver_name} | asdict(dials)
    return torch.cat(parts), {
        # a generator has nothing to set
        "sampler": ({} if generator else settings) | {"evaluations": nfe},
        "classes": None if cond is None else "as often as in the data",
        "run": {"path": str(run.path), "step": run.step},
    }


def measure(
    run: Any,
    x: Tensor,
    train: Data,
    heldout: Data | None,
    eyes: Classifier | None,
    classifier: Classifier | None,
    seed: int,
    card: Mapping[str, Any],
) -> Evaluation:
    """The metrics of samples of a run.

    Args:
        run: the run.
        x: its samples (n, *shape), as `draw` gives them.
        train: the data that it was trained on.
        heldout: real data that it did not see, or None.
        eyes: whose features are compared (`judge_of`), or None.
        classifier: the judge of classes; None: a small one, trained on the data.
        seed: of the metrics.
        card: entries of the protocol card.
    """
    of_classes = "cond" not in run.data or (
        train.cond is not None and train.y is not None and torch.equal(train.cond, train.y)
    )  # other labels than the judge's are no classes
    labels = conditions_for(run, train, len(x)) if run.classes and of_classes else None
    table = compared(x, train, heldout, seed)
    return compare(x, train, heldout, labels, classifier, features=eyes, seed=seed, card=dict(card), table=table)


def compared(x: Tensor, train: Data, heldout: Data | None, seed: int = 0) -> TableComparison | None:
    """Samples of a table beside its rows, for the metrics of tables; None for other data.

    Args:
        x: samples (n, d), as `draw` gives them.
        train: the training rows.
        heldout: rows that training did not see, or None.
        seed: of the metrics.
    """
    if not isinstance(train.transform, TableTransform):
        return None
    held = None if heldout is None else heldout.x.numpy()
    return TableComparison(train.transform.schema, x.numpy(), train.x.numpy(), held, seed=seed)


def draw_table(run: Any, x: Tensor, train: Data, heldout: Data | None) -> None:
    """Draw the columns and the associations of samples of a table beside its rows into the run's directory."""
    real = torch.cat([train.x, *(() if heldout is None else (heldout.x,))]).numpy()
    schema = train.transform.schema if isinstance(train.transform, TableTransform) else ()
    for name, picture in (("columns.png", column_picture), ("correlations.png", association_picture)):
        if len(train.shape) == 1 and (train.shape[0] > 1 or picture is column_picture):
            files.write(run.path / name, figures.png(picture(schema, x.numpy(), real)))


def judge_of(features: str | None, train: Data, seed: int) -> Classifier | None:
    """The network whose features are compared; None for none.

    Args:
        features: its name (`metrics.extractor`), "none", or None for the default: "own" for images of bytes with
            classes.
        train: the data that the run was trained on.
        seed: of its training.

    Raises:
        DataError: data that no such network sees.
        ValueError: images of other channels than the network sees.
    """
    of_bytes = train.transform.of_bytes
    name = features or ("own" if of_bytes and train.classes else "none")
    if name != "none" and not of_bytes and train.kind != "vector":
        raise DataError(
            f"features = {name!r}: judges see images of bytes, and {train.kind}s of floats are compared as they are: "
            "leave it out, or say none"
        )
    if name == "none":
        return None
    judge = extractor(name, train, seed)
    embedding(judge)(train.x[:1])  # what it cannot see is refused here, before anything is drawn
    return judge
