"""What every metric refuses: other shapes, other units, values that are not finite. Most of it gave a number before."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import diffflow as df
from diffflow.metrics import (
    Classifier,
    accuracy,
    c2st,
    confidence,
    copies,
    embedding,
    energy_distance,
    evaluate,
    exact_w2,
    fit_classifier,
    frechet,
    kid,
    marginal_w2,
    mmd,
    modes,
    nearest,
    prdc,
    sliced_w2,
)

LINE = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 10)), None, 10, "line")
quick_c2st = lambda x, y: c2st(x, y, steps=20)
TWO: dict[str, Callable[[Tensor, Tensor], object]] = {
    "w2": exact_w2,
    "sliced_w2": sliced_w2,
    "marginal_w2": marginal_w2,
    "mmd": mmd,
    "energy": energy_distance,
    "kid": kid,
    "prdc": prdc,
    "c2st": quick_c2st,
    "nearest": nearest,
    "copies": copies,
    "frechet": frechet,
    "frechet of features": lambda x, y: frechet(x, y, features=LINE),
    "accuracy": lambda x, y: accuracy(x, torch.zeros(len(x)), LINE, y, torch.zeros(len(y))),
    "confidence": lambda x, y: confidence(x, LINE, y),
    "evaluate": evaluate,
}
every = pytest.mark.parametrize("metric", TWO.values(), ids=list(TWO))
whole = pytest.mark.parametrize(  # those that compare images in whatever units both share
    "metric", [f for name, f in TWO.items() if name not in ("accuracy", "confidence", "frechet of features")]
)


def images(n: int, seed: int) -> Tensor:
    """Bytes (n, 1, 4, 4) that reach 0 and 255."""
    x = torch.randint(0, 256, (n, 1, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 0, 255
    return x


@every
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_a_value_that_is_not_finite_is_refused_with_its_row(metric: Callable, value: float, which: int) -> None:
    """C2ST of NaN was 0.5, which is perfect; elsewhere the number was that of a shuffled row."""
    sets = [images(40, 0).float() / 255, images(40, 1).float() / 255]
    sets[which][17, 0, 2, 3] = value
    with pytest.raises(ValueError, match=r"1 of 40 .* are not finite, the first is number 17\. Leave them out"):
        metric(*sets)


@every
def test_other_shapes_and_empty_sets_are_refused(metric: Callable) -> None:
    with pytest.raises(ValueError, match=r"different shapes cannot be compared: samples \(1, 4, 4\), \w+ points \(1"):
        metric(images(40, 0), images(40, 1)[..., :3])
    with pytest.raises(ValueError, match=r"the samples are empty: shape \(0, 1, 4, 4\)"):
        metric(images(40, 0)[:0], images(40, 1))


@every
@pytest.mark.parametrize("units", [(0.0, 255.0), (-1.0, 2.0)], ids=["0 to 255", "-1 to 1"])
def test_bytes_beside_floats_that_are_not_in_0_1_are_refused(metric: Callable, units: tuple[float, float]) -> None:
    x, y = images(40, 0), units[0] + units[1] * images(40, 1).float() / 255 if units[0] else images(40, 1).float()
    for sets in ((x, y), (y, x)):
        with pytest.raises(ValueError, match=r"float images live in \[0, 1\], these .* decode them first"):
            metric(*sets)
    with pytest.raises(ValueError, match=r"float images live in \[0, 1\]"):  # rows of bytes are bytes
        metric(y.flatten(1), x.flatten(1))


@pytest.mark.parametrize("metric", [f for name, f in TWO.items() if name != "evaluate"])
def test_bytes_and_floats_in_0_1_are_the_same_pictures(metric: Callable) -> None:
    x, y = images(40, 0), images(40, 1)
    first, second = metric(x, y), metric(x.float() / 255, y)
    if isinstance(first, tuple):
        assert all(map(torch.equal, first, second))
    else:
        for a, b in zip(*(m if isinstance(m, list) else [m] for m in (first, second)), strict=True):
            assert a.value == pytest.approx(b.value, rel=1e-6, abs=1e-9)


@whole
def test_images_in_different_units_are_refused(metric: Callable) -> None:
    """[0, 1] beside [-1, 1], and both beside floats up to 255, in either order."""
    x, y = images(40, 0).float(), images(40, 1).float()
    units = [lambda v: v / 255, lambda v: v / 127.5 - 1, lambda v: v]
    for i, a in enumerate(units):
        for j, b in enumerate(units):
            if i != j:
                with pytest.raises(ValueError, match=r"images in different units: samples in .* Decode both alike"):
                    metric(a(x), b(y))


@pytest.mark.parametrize("metric", [TWO[k] for k in ("accuracy", "confidence", "frechet of features")])
def test_a_judge_takes_images_in_0_1_only(metric: Callable) -> None:
    x = images(40, 0).float() / 127.5 - 1
    with pytest.raises(ValueError, match=r"float images live in \[0, 1\], these samples in \[-1, 1\]"):
        metric(x, x)
    with pytest.raises(ValueError, match=r"float images live in \[0, 1\]"):
        embedding(LINE)(x)


@pytest.mark.parametrize("metric", [mmd, quick_c2st, frechet])
def test_a_bad_model_is_measured_not_refused(metric: Callable) -> None:
    """Rows of any width, images that are all black, all white, grey or out of bounds by a little."""
    y = images(40, 1).float() / 127.5 - 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (0 * y - 1, 0 * y + 1, 0.2 * y, y * 1.3, y.abs().clamp(max=0.5)):
            metric(x, y)
        rows = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        metric(100 * rows + 5, rows)
        metric(rows.sigmoid(), rows)
    with pytest.warns(UserWarning, match=r"the same units\? samples in \[0, 1\], real points in \[-1, 1\]"):
        metric(images(40, 0).flatten(1).float() / 255, y.flatten(1))


def test_a_mask_of_bytes_is_no_picture_of_bytes() -> None:
    mask = images(40, 0) // 128
    with pytest.raises(ValueError, match=r"bytes count from 0 to 255: .* a mask of 0 and 1 is \.float\(\)"):
        exact_w2(mask.float(), mask)


def test_examples_and_exact_samples_are_checked_too() -> None:
    x = images(40, 0).float() / 255
    x[3] = math.nan
    with pytest.raises(ValueError, match="1 of 40 examples are not finite, the first is number 3"):
        fit_classifier(x, torch.zeros(40))
    law = df.TOYS["8gaussians"]()
    x = law.sample(200, df.Noise(0))
    x[3, 1] = math.nan
    for sets in ((x, None), (law.sample(200), x)):
        with pytest.raises(ValueError, match=r"1 of 200 (exact )?samples are not finite, the first is number 3"):
            modes(sets[0], law, sets[1])
    with pytest.raises(ValueError, match="40 of 40 features are not finite"):
        frechet(images(40, 0), images(40, 1), features=lambda v: v.flatten(1) * math.nan)


def test_fewer_points_than_features_are_said_beside_the_value() -> None:
    """The covariance of 30 points has at most 29 directions: against 60 features the distance is far too large."""
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(300, 60, generator=g) for _ in range(2))
    few, enough = frechet(x[:30], y), frechet(x, y)
    assert few.note == "30 points are fewer than 60 features, so the distance is far too large: take more"
    assert few.note in str(few)
    assert few.to_dict()["note"] == few.note
    assert few.value > 3 * enough.value
    assert enough.note == ""
    assert "note" not in enough.to_dict()  # evaluation.json as it was
    assert frechet(x, y[:59]).note.startswith("59 points")
    judge = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 60), nn.Linear(60, 2)), None, 2, "wide")
    found = evaluate(images(50, 0), images(200, 1), images(200, 2), features=judge)
    assert "50 points are fewer than 60 features" in json.dumps(found.to_dict())
    assert [m.name for m in found if m.note] == ["frechet"]
