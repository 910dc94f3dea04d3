"""The judge of the digits, trained once a session: it takes longer than the rest of most evaluations. Previews of
trainings, drawn once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import wraps
from importlib import import_module

import pytest
import torch
from PIL import Image
from torch import Tensor

from diffflow.data import load
from diffflow.metrics import Classifier, extractor, fit_classifier
from diffflow.training import recorder
from diffflow.training.recorder import beside


@pytest.fixture(scope="session", autouse=True)
def trained_once() -> Iterator[None]:
    """Judges that evaluations train, each kept for the next evaluation with the same data and seed.

    A judge is a function of data and seed: tests/metrics/test_judges.py trains it anew and finds it so.
    """
    kept: dict[tuple[str, int, int], Classifier] = {}

    @wraps(fit_classifier)
    def once(x: Tensor, y: Tensor, classes: int, *, seed: int = 0, name: str = "small") -> Classifier:
        key = hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest(), classes, seed
        if key not in kept:
            kept[key] = fit_classifier(x, y, classes, seed=seed)
        return replace(kept[key], name=name)

    with pytest.MonkeyPatch.context() as patch:
        for module in ("metrics", "metrics.evaluate", "metrics.extractors"):  # the demo asks the first
            patch.setattr(import_module(f"diffflow.{module}"), "fit_classifier", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def drawn_once() -> Iterator[None]:
    """Scatter plots that trainings leave, each shape drawn once: of hundreds of trainings nobody looks at the dots."""
    kept: dict[tuple[torch.Size, torch.Size], Image.Image] = {}

    def once(raw: Tensor, averaged: Tensor) -> Image.Image:
        if raw.dim() > 2:
            return beside(raw, averaged)
        key = raw.shape, averaged.shape
        if key not in kept:
            kept[key] = beside(raw, averaged)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "beside", once)
        yield


@pytest.fixture(scope="session")
def digits_judge(trained_once: None) -> Classifier:
    """The judge that evaluations of the digits train."""
    return extractor("own", load("digits"))
