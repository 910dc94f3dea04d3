"""How good are these samples? All metrics at once, and the card that says how they were taken.

Two scores are comparable only when they were taken the same way, so the result carries a protocol card: what was
compared (fingerprints), how many, which judge, which seed, which versions. Nothing here needs a download.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Data
from ..equation.laws import GaussianMixture
from .base import Metric, pick
from .classifier import Classifier, accuracy, c2st, fit_classifier
from .frechet import embedding, frechet
from .kernel import energy_distance, kid, mmd
from .modes import countable, modes
from .neighbours import nearest, prdc
from .transport import exact_w2, marginal_w2, sliced_w2

MODES = 64  # components of a mixture up to which each is a mode; curves and squares are made of more


@dataclass(frozen=True)
class Evaluation:
    """A list of metrics, also found by name (`e["w2"]`), and the protocol card they belong to."""

    metrics: tuple[Metric, ...]
    card: dict[str, Any]

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
        """JSON-able."""
        return {"metrics": [m.to_dict() for m in self.metrics], "card": self.card}


def evaluate(
    samples: Tensor,
    reference: Data | Tensor,
    heldout: Data | Tensor | None = None,
    labels: Tensor | None = None,
    classifier: Classifier | None = None,
    *,
    features: Classifier | None = None,
    limit: int = 2000,
    many: int = 10_000,
    seed: int = 0,
    card: dict[str, Any] | None = None,
) -> Evaluation:
    """Every metric of this package on `samples` (n, *shape), in decoded units (images in [0, 1] or uint8).

    reference: the training data. heldout: real data not trained on: the floor of every metric; without it half of the
    reference plays that part (so copies can then only be judged against the distances within the training set).
    labels: (n,) the classes asked for; they are judged by `classifier`, or by a small one trained on the reference.
    features: a judge (`extractor`) whose features the Frechet distance and KID see, and precision, recall, density and
    coverage, which are taken of the points themselves where there is none.
    limit: most points in any two-sample metric (exact W2: at most 1000); many: in the Frechet distance. card: further
    entries for the protocol card.
    A reference that was drawn from a mixture of up to 64 components (a toy) adds the modes covered and the share of
    samples within one, where there are samples enough to look for all.
    Float images are rounded to 8 bits first when the reference has 8, as saving them would. Vectors are compared in
    standardised units when the reference is a Data. Raises ValueError where shapes or ranges disagree.
    """
    data = reference if isinstance(reference, Data) else None
    x, y = samples.detach().cpu(), _tensor(reference)
    held = None if heldout is None else _tensor(heldout)
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"samples have events of shape {tuple(x.shape[1:])}, the reference {tuple(y.shape[1:])}")
    if y.dtype == torch.uint8 and x.dtype != torch.uint8:
        x = _quantised(x)
    own = features if features is not None and features.name == "own" else None
    judge = None if labels is None else classifier or own or _own_judge(data, seed)
    decoded = x
    if data is not None and data.kind == "vector":
        x, y, held = data.encode(x), data.encode(y), None if held is None else data.encode(held)
    if held is None:
        shuffled = pick(y, len(y), seed)
        real, other = shuffled[: len(y) // 2], shuffled[len(y) // 2 :]
    else:
        real, other = y, held
    seen = None if features is None else tuple(embedding(features)(v) for v in (x, real, other))
    metrics = [
        exact_w2(x, real, other, limit=min(limit, 1000), seed=seed),
        sliced_w2(x, real, other, limit=limit, seed=seed),
        mmd(x, real, other, limit=limit, seed=seed),
        energy_distance(x, real, other, limit=limit, seed=seed),
        *(prdc(*seen, limit=limit, seed=seed) if seen else prdc(x, real, other, limit=limit, seed=seed)),
        c2st(x, real, other, limit=limit, seed=seed),
        *nearest(x, y, held, limit=min(limit, 1000), seed=seed),
    ]
    if seen:
        metrics += [frechet(*seen, limit=many, seed=seed), kid(*seen, limit=limit, seed=seed)]
    if data is not None and data.kind == "vector":
        metrics.insert(2, marginal_w2(x, real, other, limit=limit, seed=seed))
    law = None if data is None else data.law
    if isinstance(law, GaussianMixture) and len(law.means) <= MODES and countable(law, len(decoded)):
        other = None if heldout is None else _tensor(heldout)
        metrics += modes(decoded, law, other if other is not None and countable(law, len(other)) else None)
    if labels is not None and judge is not None:
        truth = heldout.y if isinstance(heldout, Data) else None
        metrics.append(accuracy(decoded, labels.cpu(), judge, None if heldout is None else _tensor(heldout), truth))
    return Evaluation(
        tuple(metrics),
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
            **(card or {}),
        },
    )


COMPARED = ("reference", "heldout", "features", "classifier", "limit", "many", "seed")  # and the number of samples


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """In what two protocol cards disagree so that their numbers must not be ranked; empty when they may be."""

    def content(card: dict[str, Any], key: str) -> Any:
        """Without the name: the same data may lie elsewhere now."""
        found = card.get(key)
        return {k: v for k, v in found.items() if k != "name"} if isinstance(found, dict) else found

    found = [k for k in COMPARED if content(a, k) != content(b, k)]
    return [*found, *(["number of samples"] if a["samples"]["n"] != b["samples"]["n"] else [])]


def _own_judge(data: Data | None, seed: int) -> Classifier:
    if data is None or data.y is None or data.classes is None:
        raise ValueError("labels need a judge: pass `classifier`, or a reference with labels to train one on")
    return fit_classifier(data.x, data.y, len(data.classes), seed=seed)


def _quantised(x: Tensor) -> Tensor:
    if not (x.min() >= 0.0 and x.max() <= 1.0):  # also when a value is not a number
        raise ValueError(
            f"float images live in [0, 1], these samples in [{x.min():.4g}, {x.max():.4g}]; decode them first"
        )
    return (x * 255.0).round().to(torch.uint8)


def _tensor(source: Data | Tensor) -> Tensor:
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
