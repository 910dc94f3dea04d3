"""Few real points: counts are checked before the work, all of them are used, and value and floor have one n."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffflow.data import of
from diffflow.metrics import c2st, evaluate
from diffflow.metrics.evaluate import counted
from diffflow.metrics.frechet import frechet, gaussian_frechet
from diffflow.metrics.wasserstein import sliced_w2


def pictures(n: int, seed: int) -> Tensor:
    """Pictures of 16 pixels, laid out in rows: judges of rows are trained in a moment."""
    return torch.randint(0, 256, (n, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.fixture(autouse=True)
def short_two_sample_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(c2st.__kwdefaults__ or {}, "steps", 10)


def test_many_held_out_points_are_the_floor_as_ever() -> None:
    for held in (None, 100, 250):
        assert counted(1000, 1000, held) == ""
    assert counted(40, 60, 60) == ""  # as many as there are to learn from


@pytest.mark.parametrize(("train", "held", "n"), [(54, 6, 30), (117, 13, 40), (45, 5, 25), (90, 99, 40)])
def test_few_held_out_points_join_the_others(train: int, held: int, n: int) -> None:
    """Failed before: 60 pictures and 50 rows were refused after all sampling, and of 130 n was 13 whatever -n said."""
    x, y, z = pictures(40, 0), pictures(train, 1), pictures(held, 2)
    evaluation = evaluate(x, y, z)
    assert {m.n for m in evaluation if m.name not in ("nearest", "nearest_ratio", "memorised", "c2st")} == {n}
    assert evaluation["nearest"].n == 40
    assert (f"only {held} held out" in counted(40, train, held)) == (held < train)
    assert ("note" in evaluation.card) == (held < train)


def test_samples_meet_either_half_of_all_real_points() -> None:
    x, y, z = (v.float() / 255 for v in (pictures(65, 0), pictures(117, 1), pictures(13, 2)))
    found = evaluate(x, y, z)["sliced_w2"]
    mixed = torch.cat([y, z])[torch.randperm(130, generator=torch.Generator().manual_seed(0))]
    a, b = mixed[:65], mixed[65:]
    one, other = sliced_w2(x, a, b), sliced_w2(x, b, a)
    assert found.value == (one.value + other.value) / 2
    assert found.floor == (one.floor + other.floor) / 2  # type: ignore[operator]
    assert found.n == 65


def test_copies_are_looked_for_among_all_training_points_and_never_among_held_out_ones() -> None:
    y, z = pictures(117, 1), pictures(13, 2)
    for real, share in ((y, 1.0), (z, 0.0)):
        assert evaluate(real[:13].repeat(2, 1), y, z)["memorised"].value == share


def test_too_few_real_points_are_compared_one_by_one() -> None:
    for train, held in ((18, 2), (7, 1), (20, None)):
        assert "one by one" in counted(12, train, held)
        found = evaluate(pictures(12, 0), pictures(train, 1), None if held is None else pictures(held, 2))
        assert [m.name for m in found] == ["nearest", "nearest_ratio", "memorised"]
    assert evaluate(pictures(12, 0), pictures(2, 1), pictures(2, 2)).metrics[0].name == "nearest"


@pytest.mark.parametrize(("n", "train", "held"), [(11, 100, 100), (100, 1, None), (100, 1, 1)])
def test_numbers_that_say_nothing_are_refused(n: int, train: int, held: int | None) -> None:
    with pytest.raises(ValueError, match=f"12 samples and 2 training points, got {n} and {train}"):
        counted(n, train, held)


def test_conditional_samples_of_a_small_set_keep_their_judge() -> None:
    x = pictures(130, 1) / 255.0
    data = of(x.numpy(), (torch.arange(130) % 2).numpy(), name="two kinds")
    assert data.heldout is not None
    found = evaluate(pictures(20, 3) / 255.0, data, data.heldout, torch.arange(20) % 2)
    assert found["accuracy"].n == 20
    assert found["sliced_w2"].n == 20


def test_a_frechet_distance_of_few_points_is_that_of_all_their_features():
    """Points are turned into the space that they span, which changes no distance: beside the plain covariances."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 40, generator=g).double(), 1.5 * torch.randn(9, 40, generator=g).double() + 0.3
    short = frechet(x, y)
    plain = gaussian_frechet(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T))
    assert short.value == pytest.approx(plain, rel=1e-6)
    turn = torch.linalg.qr(torch.randn(40, 40, generator=g).double()).Q
    assert frechet(x @ turn, y @ turn).value == pytest.approx(plain, rel=1e-6)
    assert frechet(x @ turn, y @ turn).stderr == pytest.approx(short.stderr, rel=1e-6)
