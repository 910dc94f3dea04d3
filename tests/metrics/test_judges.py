"""Classifiers as judges, and the evaluation that calls everything."""

from __future__ import annotations

import json

import pytest
import torch

from diffflow.data import load
from diffflow.data.prepare import finish
from diffflow.data.raw import Raw
from diffflow.equation.noise import Noise
from diffflow.equation.toys import TOYS
from diffflow.metrics import Classifier, LeNet5, accuracy, c2st, evaluate, fit_classifier, load_lenet


@pytest.fixture(scope="module")
def digits():
    return load("digits"), load("digits", "test")


@pytest.fixture
def judge(digits_judge) -> Classifier:
    return digits_judge


def test_the_digits_judge_is_right_on_97_of_100_held_out(digits, judge):
    _, test = digits
    assert judge.accuracy(test.x, test.y) >= 0.975
    # floats in [0, 1] and bytes are the same picture
    assert torch.equal(judge.predict(test.x), judge.predict(test.x.float() / 255))
    measured = accuracy(test.x, (test.y + 1) % 10, judge, test.x, test.y)
    assert measured.value < 0.05
    assert measured.floor is not None
    assert measured.floor >= 0.975


def test_training_is_deterministic_in_the_seed(digits):
    train, _ = digits
    torch.manual_seed(1)
    state = torch.get_rng_state()
    cards = [fit_classifier(train.x, train.y, steps=20, seed=s).card()["sha256"] for s in (0, 0, 1)]
    assert cards[0] == cards[1] != cards[2]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shape", [(1, 3, 5), (3, 8, 8), (1, 28, 28), (3, 33, 20), (3, 64, 64)])
def test_images_of_any_size_can_be_judged(shape):
    x = torch.rand(40, *shape, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 2
    x[y == 1] = 1 - 0.5 * x[y == 1]
    assert fit_classifier(x, y, steps=40, batch=20).accuracy(x, y) > 0.9


def test_vectors_are_judged_whatever_their_units():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(600) % 3
    x = torch.randn(600, 2, generator=generator) + 6.0 * torch.stack([y == 1, y == 2], 1)
    x = x * torch.tensor([1e4, 1e-4]) + torch.tensor([1e5, 0.0])
    # three clusters 6 sigma apart: the best error is 2 * Phi(-3) = 0.3 %
    assert fit_classifier(x[:400], y[:400], steps=200).accuracy(x[400:], y[400:]) > 0.97


def test_lenet_weights_load_strictly_and_only_as_tensors(tmp_path):
    net = LeNet5()
    torch.save(net.state_dict(), tmp_path / "lenet.pth")
    judge = load_lenet(tmp_path / "lenet.pth")
    x = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(judge.logits(x), net(x).detach())
    assert net.features(x).shape == (3, 84)
    with pytest.raises(ValueError, match=r"grey images \(n, 1, h, w\)"):
        judge.logits(torch.rand(3, 3, 28, 28))
    with pytest.raises(FileNotFoundError, match=r"lenet\.pth of github.*sha256 e4bed38"):
        load_lenet(tmp_path / "nowhere.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="holds no LeNet-5 weights"):
        load_lenet(tmp_path / "other.pth")
    torch.save(net, tmp_path / "pickled.pth")  # a whole module runs code when unpickled: refused
    with pytest.raises(ValueError, match="holds no LeNet-5 weights"):
        load_lenet(tmp_path / "pickled.pth")
    (tmp_path / "noise.pth").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="holds no LeNet-5 weights"):
        load_lenet(tmp_path / "noise.pth")


def test_a_judge_names_what_it_cannot_judge(digits, judge):
    train, _ = digits
    with pytest.raises(ValueError, match=r"\(1, 8, 8\), not \(1, 28, 28\)"):
        judge.predict(torch.rand(2, 1, 28, 28))
    with pytest.raises(ValueError, match="one label for each example, got 1297 examples and 5 labels"):
        fit_classifier(train.x, train.y[:5])
    with pytest.raises(ValueError, match="2 samples need as many labels, got 3"):
        accuracy(train.x[:2], torch.zeros(3), judge)


def test_c2st_judges_images(digits):
    train, _ = digits
    noise = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert c2st(noise, train.x, limit=300, steps=60).value > 0.95


def test_evaluate_finds_real_digits_real(digits):
    def small(name: str, x: torch.Tensor, y: torch.Tensor):  # every other pixel: judges learn them in half a second
        return finish(Raw(x[..., ::2, ::2].numpy(), y.numpy(), digits[0].classes), name, "all", False)

    x, y = digits[1].x, digits[1].y
    train, test, held = small("t", digits[0].x, digits[0].y), small("s", x[:250], y[:250]), small("h", x[250:], y[250:])
    judge = fit_classifier(train.x, train.y, steps=150)
    report = evaluate(test.x.float() / 255, train, held, test.y, judge, card={"nfe": 20})
    for m in report:
        assert m.stderr > 0
        assert m.floor is not None
        # real against real: value and floor are draws of one statistic (times two: the largest of a dozen of them)
        assert abs(m.value - m.floor) < 2 * 4 * m.stderr, m
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.card["reference"]["sha256"] == train.fingerprint
    assert report.card["classifier"]["sha256"] == judge.card()["sha256"]
    assert report.card["nfe"] == 20
    with pytest.raises(KeyError, match="no metric 'fid'; there are w2, sliced_w2"):
        report["fid"]


def test_evaluate_on_vectors_does_not_depend_on_units():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(900, 3, generator=generator, dtype=torch.float64).numpy()
    scale = [1e3, 1.0, 1e-3]
    reports = []
    for factor in ([1.0, 1.0, 1.0], scale):
        data = finish(Raw(x[:600] * factor), "t", "all", False)
        reports.append(evaluate(torch.from_numpy(x[600:] * factor).float(), data, limit=200))
    for a, b in zip(*reports, strict=True):
        tolerance = 0.05 if a.name == "c2st" else 1e-4  # training amplifies the last bits
        assert a.value == pytest.approx(b.value, rel=tolerance, abs=1e-6), a.name
    assert reports[0].card["heldout"] == "half of the reference"


def test_evaluate_counts_the_modes_of_a_toy():
    train, test = (load("25gaussians", split=split) for split in ("train", "test"))
    law = TOYS["25gaussians"]()
    x = law.sample(500, Noise(3))
    half = torch.where(x[:, :1] > 0.3, x, law.means[0])  # 10 of 25, and a heap in the corner
    for points, reached in ((x, 25), (half, 11)):
        report = evaluate(points, train, test, limit=200)
        assert report["modes"].value == reached
        assert report["modes"].floor == 25
        # 1 - e^-4.5 of exact points lie within, of the heap all; binomial error of 500, four times
        assert report["within"].value == pytest.approx(0.989, abs=0.011 + 4 * (0.011 * 0.989 / 500) ** 0.5)
    few = {m.name for m in evaluate(x[:100], train, test, limit=50)}
    assert "modes" not in few  # a fifth of a mode's fair share of 100 is less than one sample
    moons = load("moons")
    assert "modes" not in {m.name for m in evaluate(moons.x[:500], moons, limit=50)}


def test_evaluate_refuses_what_makes_no_sense(digits):
    train, test = digits
    with pytest.raises(ValueError, match=r"samples \(1, 9, 8\), real points \(1, 8, 8\)"):
        evaluate(torch.rand(50, 1, 9, 8), train)
    with pytest.raises(ValueError, match=r"live in \[0, 1\].*decode them first"):
        evaluate(torch.randn(50, 1, 8, 8), train)
    with pytest.raises(ValueError, match="labels need a judge"):
        evaluate(torch.rand(50, 1, 8, 8), train.x, test.x, torch.zeros(50), limit=50)
