"""Evaluation: every metric of the table on one set of samples, and the card that says how they were taken.

Two scores are comparable only when they were taken the same way, so the result carries a protocol card: what was
compared (fingerprints), how many, which judge, which seed, which versions. Nothing here needs a download.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Data
from ..data.table_transform import TableTransform
from ..equation.laws import GaussianMixture
from .base import Metric, admitted, pick
from .classifier import Classifier, class_labels, fit_classifier, unit
from .frechet import embedding
from .modes import countable
from .table import METRICS, Comparison
from .tables import TableComparison, content

LEAST = 12  # points in each set; precision and recall by 5 neighbours are not defined below
FEW = 100  # held-out points below which the floor is taken between halves of all real points
# arguments of metrics that compare no two of `sets`
OF_ONE_SET = (Comparison.training_set, Comparison.mixture, Comparison.classes, Comparison.rows)
MODES = 64  # components of a mixture up to which each is a mode; curves and squares are made of more


@dataclass(frozen=True)
class Evaluation:
    """A list of metrics, also found by name (`e["w2"]`), and the protocol card they belong to.

    Args:
        metrics: in the order of the table METRICS.
        card: how they were taken: fingerprints of what was compared, how many, whose features, seed, versions.
        table: of a table what is said of its columns, pairs, rare values and privacy (`metrics.tables.content`).
    """

    metrics: tuple[Metric, ...]
    card: dict[str, Any]
    table: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Metric]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def __getitem__(self, key: int | str) -> Metric:
        if isinstance(key, int):
            return self.metrics[key]
        found = {m.name: m for m in self.metrics}
        if key not in found:
            raise KeyError(f"no metric {key!r}; there are {', '.join(found)}")
        return found[key]

    def __str__(self) -> str:
        return "\n".join(map(str, self.metrics))

    def to_dict(self) -> dict[str, Any]:
        """Metrics and card as evaluation.json has them."""
        found = {"metrics": [m.to_dict() for m in self.metrics], "card": self.card}
        return found if self.table is None else found | {"table": self.table}


def counted(samples: int, reference: int, heldout: int | None) -> str:
    """What these numbers of points allow of an evaluation; to be asked before the samples are drawn.

    Args:
        samples: how many samples.
        reference: how many training points.
        heldout: how many held-out points; None: none.

    Returns:
        A sentence on what is done otherwise than with many points; "" for nothing.

    Raises:
        ValueError: for too few of them.
    """
    if samples < LEAST or reference < 2:
        raise ValueError(
            f"an evaluation needs at least {LEAST} samples and 2 training points, got {samples} and {reference}: give "
            "more"
        )
    real = reference + (heldout or 0)
    held = "nothing is held out" if not heldout else f"only {heldout} held out"
    if _small(reference, heldout) and real // 2 < LEAST:
        return (
            f"{real} real points, {held}: too few for two sets of {LEAST}, so samples are only compared with the "
            "training points, one by one"
        )
    if heldout and _small(reference, heldout):
        return (
            f"{real} real points, {held}: samples are compared with either half of them all, the floor is one half "
            f"against the other, n = {min(samples, real // 2)}"
        )
    return ""


def _small(reference: int, heldout: int | None) -> bool:
    """Whether held-out points are too few to be a set of their own."""
    return heldout is None or (heldout < FEW and heldout < reference)


def evaluate(
    samples: Tensor,
    reference: Data | Tensor,
    heldout: Data | Tensor | None = None,
    labels: Tensor | None = None,
    classifier: Classifier | None = None,
    *,
    features: Classifier | None = None,
    table: TableComparison | None = None,
    limit: int = 2000,
    many: int = 10_000,
    seed: int = 0,
    card: dict[str, Any] | None = None,
) -> Evaluation:
    """Measure samples by every metric of the table METRICS that has what it needs.

    Float images are rounded to 8 bits first when the reference has 8, as saving them would. Vectors, signals, volumes
    and images of floats are compared as points in standardised units when the reference is a Data.

    Args:
        samples: (n, *shape), in decoded units: images in [0, 1] or uint8.
        reference: the training data. Where it was drawn from a mixture of up to 64 components (a toy), the modes
            covered are counted, if there are samples enough to look for all.
        heldout: real data not trained on, the floor of every metric; without it half of the reference plays that part
            (so copies can then only be judged against the distances within the training set). Where they are fewer
            than 100, and than the reference, samples are compared with either half of all real points in turn, and one
            half with the other is the floor; below 24 real points only `nearest` and its kin are measured.
        labels: the classes asked for, int64 (n,); they are judged by `classifier`, or by a small one trained on the
            reference.
        classifier: the judge of labels.
        features: a judge (`extractor`) whose features the Frechet distance and KID see, and precision, recall, density
            and coverage, which are taken of the points themselves where there is none.
        table: the same rows with their schema, for the metrics of tables.
        limit: most points in any two-sample metric (exact W2: at most 1000).
        many: most points in the Frechet distance.
        seed: of every draw.
        card: further entries for the protocol card.

    Returns:
        The metrics and their protocol card.

    Raises:
        ValueError: for fewer than 12 samples or 2 real points, labels that no judge knows, and sets that cannot be
            compared: of different shapes or units, or with values that are not finite.
    """
    data = reference if isinstance(reference, Data) else None
    truth = heldout.y if isinstance(heldout, Data) else None
    sets = (samples, _points_of(reference), None if heldout is None else _points_of(heldout))
    as_points = data is not None and data.kind != "vector" and not data.transform.of_bytes
    if data is not None and as_points:  # signals, volumes and images of floats are compared as the points that they are
        if classifier is not None or features is not None:
            raise ValueError(
                f"judges see images of bytes, and {data.name!r} holds {data.kind}s of floats: leave them out"
            )
        if wrong := [tuple(s.shape[1:]) for s in sets if s is not None and tuple(s.shape[1:]) != data.shape]:
            raise ValueError(f"events of different shapes cannot be compared: {wrong[0]} and {data.shape}")
        sets = tuple(None if s is None else s.flatten(1) for s in sets)
    mixed = data is not None and isinstance(data.transform, TableTransform)
    if data is not None and mixed:  # words and gaps have no distance but in model units
        sets = tuple(None if s is None else data.transform.encode(s) for s in sets)
    x, y, *more = admitted(*sets)
    held = more[0] if more else None
    note = counted(len(x), len(y), None if held is None else len(held))
    if y.dtype == torch.uint8 and x.dtype != torch.uint8:
        x = (x * 255.0).round().to(torch.uint8)
    elif x.dtype == torch.uint8 and y.dtype != torch.uint8:
        x = unit(x)
    own = features if features is not None and features.name == "own" else None
    judge = None if labels is None else classifier or own or _own_judge(data, seed)
    if labels is not None and judge is not None:
        labels = class_labels(labels, len(x), judge.classes)
    decoded = (x, held, truth)
    columns = data is not None and data.kind == "vector"
    if data is not None and (columns or as_points) and not mixed:
        units, shape = data.transform, data.shape
        encoded = [units.encode(s.unflatten(1, shape)).flatten(1) for s in (x, y, *more)]
        x, y, held = encoded[0], encoded[1], encoded[2] if more else None
    if held is None or _small(len(y), len(held)):
        shuffled = y if held is None else torch.cat([y, held])
        shuffled = pick(shuffled, len(shuffled), seed)
        real, other = shuffled[: len(shuffled) // 2], shuffled[len(shuffled) // 2 :]
    else:
        real, other = y, held
    see = None if features is None else embedding(features)
    given = Comparison(
        sets=(x, real, other),
        train=y,
        heldout=held,
        features=None if see is None else (see(x), see(real), see(other)),
        columns=columns,
        density=_countable(data, len(x)),
        labels=labels,
        judge=judge,
        decoded=decoded,
        limit=limit,
        many=many,
        seed=seed,
        enough=min(len(real), len(other)) >= LEAST,
        table=table,
    )
    metrics = measure(given)
    if held is not None and real is not y and given.enough:
        metrics = tuple(map(_mean, metrics, measure(_swapped(given))))
    return Evaluation(
        metrics,
        {
            "samples": {"n": len(samples), "sha256": _digest(samples)},
            "reference": _describe(reference),
            "heldout": "half of the reference" if heldout is None else _describe(heldout),
            "classifier": None if judge is None else judge.card(),
            "features": None if features is None else features.card(),
            "limit": limit,
            "many": many,
            "seed": seed,
            "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "pot": version("POT")},
            **({"note": note} if note else {}),
            **(card or {}),
        },
        None if table is None else content(table, metrics),
    )


def _swapped(given: Comparison) -> Comparison:
    """The same with the two sets of real points in each other's place."""
    x, real, other = given.sets
    features = None if given.features is None else (given.features[0], given.features[2], given.features[1])
    return replace(given, sets=(x, other, real), features=features)


def _mean(a: Metric, b: Metric) -> Metric:
    """The mean of a metric against two halves of the data; the samples are the same, and so is the error."""
    if a == b:
        return a
    floor = None if a.floor is None or b.floor is None else (a.floor + b.floor) / 2
    return replace(a, value=(a.value + b.value) / 2, stderr=(a.stderr + b.stderr) / 2, floor=floor)


def measure(given: Comparison) -> tuple[Metric, ...]:
    """Measure what there is to compare by every row of METRICS that has what it needs, in their order.

    Raises:
        ValueError: for a function whose metrics are not those of its row.
    """
    calls: dict[Any, dict[str, Metric]] = {}  # a function with the same arguments is called once for all its rows
    metrics = []
    for row in METRICS.values():
        if not all(given.has(need) for need in row.needs) or not (given.enough or row.arguments in OF_ONE_SET):
            continue
        call = (row.function, row.arguments)
        if call not in calls:
            found = row.function(**row.arguments(given))
            calls[call] = {m.name: m for m in ([found] if isinstance(found, Metric) else found)}
            rows = {r.name: r.better for r in METRICS.values() if (r.function, r.arguments) == call}
            for m in calls[call].values():
                if rows.get(m.name) != m.better:
                    raise ValueError(
                        f"the function of {row.name!r} gave {m.name!r}, where {m.better} is better, and METRICS has no "
                        "such row of this function: make the two agree"
                    )
        if row.name in calls[call]:  # a ratio to nothing has no value
            metrics.append(calls[call][row.name])
    return tuple(metrics)


COMPARED = ("reference", "heldout", "features", "classifier", "limit", "many", "seed")  # and the number of samples


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """List in what two protocol cards disagree so that their numbers must not be ranked; empty when they may be.

    Args:
        a: the `card` of an Evaluation.
        b: another.
    """

    def content(card: dict[str, Any], key: str) -> Any:
        """Without the name: the same data may lie elsewhere now."""
        found = card.get(key)
        return {k: v for k, v in found.items() if k != "name"} if isinstance(found, dict) else found

    found = [k for k in COMPARED if content(a, k) != content(b, k)]
    return [*found, *(["number of samples"] if a["samples"]["n"] != b["samples"]["n"] else [])]


def _own_judge(data: Data | None, seed: int) -> Classifier:
    if data is None or data.y is None or data.classes is None:
        raise ValueError("labels need a judge: pass `classifier`, or a reference with labels to train one on")
    x = data.x if data.transform.of_bytes else data.x.flatten(1)
    return fit_classifier(x, data.y, len(data.classes), seed=seed)


def _countable(data: Data | None, n: int) -> GaussianMixture | None:
    """The mixture that the data were drawn from, if n samples are enough to look for all of its modes."""
    law = None if data is None else data.law
    return law if isinstance(law, GaussianMixture) and len(law.means) <= MODES and countable(law, n) else None


def _points_of(source: Data | Tensor) -> Tensor:
    return source.x if isinstance(source, Data) else source.detach().cpu()


def _describe(source: Data | Tensor) -> dict[str, Any]:
    if isinstance(source, Data):
        return {"name": source.name, "split": source.split, "n": len(source), "sha256": source.fingerprint}
    return {"n": len(source), "sha256": _digest(source)}


def _digest(x: Tensor) -> str:
    x = x.detach().cpu().contiguous()
    return hashlib.sha256(
        f"{tuple(x.shape)} {x.dtype};".encode() + np.ascontiguousarray(x.numpy()).tobytes()
    ).hexdigest()
