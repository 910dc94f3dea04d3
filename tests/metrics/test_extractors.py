"""Named eyes, the files behind them, and what their protocol allows to compare."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import diffflow as df
from diffflow.metrics import Classifier, copies, evaluate, extractor, kid, pretrained
from diffflow.metrics.evaluate import differences
from diffflow.metrics.pretrained import KNOWN, ResNet20, WeightsError, fetch, load_resnet20, verify


def test_kid_is_the_distance_of_the_first_three_moments() -> None:
    """k = (x.y/d + 1)^3 in one dimension: MMD^2 = 3 a^2 + 3 b^2 + c^2, with a, b, c the differences of the moments."""
    shift, n = 0.4, 1500
    x, y = (df.Noise(k).normal(n, (1,), dtype=torch.float64) for k in (0, 1))
    found = kid(x + shift, y, limit=n)
    raw = (shift, shift**2, shift**3 + 3 * shift)  # E (Z + s)^k - E Z^k
    expected = 3 * raw[0] ** 2 + 3 * raw[1] ** 2 + raw[2] ** 2
    assert abs(found.value - expected) < 4.5 * found.stderr
    same = kid(x, y, limit=n)
    assert abs(same.value) < 4.5 * same.stderr
    assert kid(x * math.pi, y, limit=n).value > 0


def test_kid_of_a_few_points_is_the_mean_over_pairs() -> None:
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(5, 3, generator=g, dtype=torch.float64) for _ in range(2))

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    total = 0.0
    for i in range(5):
        for j in range(5):
            if i != j:
                total += k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i])
    # `pick` reorders both sets: the pairs excluded are those of equal rank after it
    order = [torch.randperm(5, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    x, y = x[order[0].argsort()], y[order[1].argsort()]
    assert kid(x, y).value == pytest.approx(total / 20, rel=1e-12)


def test_resnet_has_64_features_and_loads_strictly(tmp_path: Path) -> None:
    net = ResNet20().eval()
    saved = {"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}
    torch.save(saved, tmp_path / "r.th")
    judge, x = load_resnet20(tmp_path / "r.th"), torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(judge.logits(x), net(x).detach())
    assert df.metrics.embedding(judge)(x).shape == (3, 64)
    assert sum(p.numel() for p in net.parameters()) == 269_722  # 0.27 M, as published
    with pytest.raises(ValueError, match="colour images"):
        judge.logits(torch.rand(3, 1, 32, 32))
    del saved["state_dict"]["module.linear.bias"]
    torch.save(saved, tmp_path / "short.th")
    for name in ("short.th", "nowhere.th"):
        with pytest.raises(WeightsError, match="holds no ResNet-20"):
            load_resnet20(tmp_path / name)
    (tmp_path / "noise.th").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="holds no ResNet-20"):
        load_resnet20(tmp_path / "noise.th")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as if it were the published LeNet, somewhere on this machine, and an empty folder of weights."""
    torch.save(df.metrics.LeNet5().state_dict(), tmp_path / "source.pth")
    known = pretrained.Weights(
        "lenet", "lenet.pth", (tmp_path / "source.pth").as_uri(), pretrained.digest(tmp_path / "source.pth"), "", ""
    )
    monkeypatch.setitem(KNOWN, "lenet", known)
    monkeypatch.setenv("DIFFFLOW_WEIGHTS", str(tmp_path / "home"))
    return tmp_path / "source.pth"


def test_weights_are_fetched_verified_and_found(published: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="diffflow weights fetch lenet"):
        extractor("lenet")
    seen: list[tuple[int, int]] = []
    where = fetch("lenet", on_bytes=lambda done, total: seen.append((done, total)))
    assert where == tmp_path / "home" / "lenet.pth"
    assert seen[-1] == (published.stat().st_size,) * 2
    assert verify("lenet") == where
    assert extractor("lenet").name == "lenet5"
    published.unlink()
    assert fetch("lenet") == where  # it is there already
    assert extractor(f"lenet={where}").card() == extractor("lenet").card()


def test_a_wrong_file_is_never_put_in_place(published: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(WeightsError, match="not the lenet file"):
        fetch("lenet", (tmp_path / "other").as_uri())
    with pytest.raises(WeightsError, match="could not be fetched"):
        fetch("lenet", (tmp_path / "nowhere").as_uri())
    assert list((tmp_path / "home").iterdir()) == []
    with pytest.raises(WeightsError, match="not the lenet file"):
        extractor(f"lenet={tmp_path / 'other'}")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(WeightsError, match="there are own, lenet, resnet20, inception"):
        extractor("vgg")
    with pytest.raises(WeightsError, match="there are lenet"):
        verify("vgg")
    with pytest.raises(WeightsError, match="no classes"):
        extractor("own", df.data.load("moons"))


def test_features_change_the_numbers_and_the_protocol() -> None:
    train, test = (df.data.load("digits", split).x[..., ::2, ::2] for split in ("train", "test"))
    # the digits' own judge has 1024 features, of which every Frechet distance takes seconds: eyes of 8 will do
    judge = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 10)), None, 10, "eyes")
    half, held = test[:60], test[200:]
    plain, seen = (evaluate(half, train, held, features=f, limit=50) for f in (None, judge))
    assert {m.name for m in seen} - {m.name for m in plain} == {"frechet", "kid"}
    assert plain["recall"].value != seen["recall"].value
    assert plain["w2"].value == seen["w2"].value
    assert differences(plain.card, seen.card) == ["features"]
    assert differences(seen.card, copy.deepcopy(seen.card)) == []
    fewer = evaluate(half[:50], train, held, features=judge, limit=50)
    assert differences(fewer.card, seen.card) == ["number of samples"]


def test_copies_are_found() -> None:
    train = df.data.load("digits").x
    x = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[7], x[31] = train[900] / 255.0, train[12] / 255.0
    mine, theirs = copies(x, train, 2)
    assert {(int(a), int(b)) for a, b in zip(mine, theirs, strict=True)} == {(7, 900), (31, 12)}
