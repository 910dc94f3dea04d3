"""Models under conditions, trained for seconds: samples follow what they are told, as laws in closed form say.

x = 2 c + 0.5 eps with c standard normal: E[x | c] = 2 c, std 0.5. After a few hundred steps the conditional mean is
right within a fifth of that spread of means (a model that ignores c, or is told another row's c, is off by all of it).
"""

import math

import pytest
import torch
from torch import nn

import diffflow as df
from diffflow.models import presets

STEPS = 300
FAST = {
    "fit.batch": 128, "fit.tensorboard": False, "fit.holdout": 0.0, "denoiser.warmup": 20, "denoiser.lr": 3e-3,
    "model.net.width": 48, "model.net.depth": 2, "fit.sample_minutes": 1e6,
}  # fmt: skip


def drawn(n: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def slope(x: torch.Tensor, wanted: torch.Tensor) -> float:
    """How far samples go where they are told to: 1 for the law itself, 0 for a model that does not listen."""
    x, wanted = x.double() - x.double().mean(), wanted.double() - wanted.double().mean()
    return float((x * wanted).sum() / wanted.square().sum())


def learned(tmp_path, cond, x, **settings) -> df.Run:
    return df.train(df.data.of(x, split="all").with_cond(cond), tmp_path / "run", steps=STEPS, settings=FAST | settings)


def test_samples_follow_a_vector_in_its_own_units(tmp_path):
    c = drawn(4000, 1)
    run = learned(tmp_path, 100 + 40 * c, 2 * c + 0.5 * drawn(4000, 1, seed=1))
    asked = drawn(1000, 1, seed=2)
    x = run.sample(1000, cond=100 + 40 * asked, noise=1).last
    assert slope(x, 2 * asked) == pytest.approx(1.0, abs=0.2)
    assert (x - 2 * asked).std() < 1.0  # 0.5 for the law itself, 2.06 without the condition
    one = run.sample(1000, cond=[140.0], noise=1).last
    assert abs(float(one.mean()) - 2.0) < 0.4
    free = run.sample(1000, noise=1).last  # label dropout has taught the law of all
    assert float(free.std()) == pytest.approx(math.hypot(2, 0.5), rel=0.25)


def test_samples_follow_a_sequence_and_its_order(tmp_path):
    c = drawn(4000, 4, 2)
    target = c[:, :2].sum((1, 2)) - c[:, 2:].sum((1, 2))
    run = learned(tmp_path, c, (target[:, None] + 0.5 * drawn(4000, 1, seed=1)))
    asked = drawn(1000, 4, 2, seed=2)
    wanted = asked[:, :2].sum((1, 2)) - asked[:, 2:].sum((1, 2))
    x = run.sample(1000, cond=asked, noise=1).last[:, 0]
    back = run.sample(1000, cond=asked.flip(1), noise=1).last[:, 0]
    assert slope(x, wanted) > 0.5
    assert slope(back, wanted) < -0.5  # the same steps the other way round ask for the opposite


def test_two_conditions_are_steered_by_themselves(tmp_path):
    """x = a + b + 0.7 eps: a weight of w on a moves the mean beyond it in a's direction, and not in b's."""
    a, b = drawn(4000, 1), drawn(4000, 1, seed=1)
    run = learned(tmp_path, {"a": a, "b": b}, a + b + 0.7 * drawn(4000, 1, seed=2))
    ask = {"a": torch.full((1,), 1.0), "b": torch.full((1,), -1.0)}
    means = {
        w: float(run.sample(800, cond=ask, guidance={"a": w[0], "b": w[1]}, noise=1).last.mean())
        for w in ((1.0, 1.0), (2.0, 1.0), (1.0, 2.0), (0.0, 1.0), (1.0, 0.0))
    }
    assert abs(means[1.0, 1.0]) < 0.45
    assert means[2.0, 1.0] > means[1.0, 1.0] + 0.1
    assert means[1.0, 2.0] < means[1.0, 1.0] - 0.1
    assert means[0.0, 1.0] == pytest.approx(-1.0, abs=0.5)  # a is not known: E[x | b] = b
    assert means[1.0, 0.0] == pytest.approx(1.0, abs=0.5)


def test_a_picture_of_the_same_size_stands_beside_the_sample(tmp_path):
    """The condition is the picture itself: a network that sees it beside x learns to copy it at once."""
    data = df.data.load("digits")
    settings = FAST | {"model.net": df.UNetConfig((8, 16), 1, False), "fit.batch": 32, "denoiser.lr": 5e-3}
    settings = {k: v for k, v in settings.items() if not k.startswith("model.net.")}
    told = data.with_cond({"picture": data.x, "label": data.y})
    run = df.train(told, tmp_path / "run", steps=150, settings=settings)
    test = df.data.load("digits", "test")
    x = run.sample(64, cond={"picture": test.x[:64], "label": test.y[:64]}, noise=1).last
    real = test.x[:64].float() / 255
    assert (x - real).square().mean() < 0.3 * (real.roll(1, 0) - real).square().mean()


def test_networks_learn_digits_as_one_s_own(tmp_path):
    """A DiT handed over as `net=` with its arguments is a class-conditional model of digits."""
    settings = {k: v for k, v in FAST.items() if not k.startswith("model.net.")}
    arguments = {"shape": [1, 8, 8], "classes": 10, "width": 32, "depth": 1, "heads": 2}
    run = df.train("digits", tmp_path / "run", net=df.DiT, net_arguments=arguments, steps=10, settings=settings)
    again = df.load(tmp_path / "run")  # the library's own backbones are known in any process
    x = [r.sample(6, cond=[0, 1, 2, 3, 4, 5], guidance=2.0, steps=3, noise=1).last for r in (run, again)]
    assert torch.equal(*x)
    assert isinstance(run.denoiser.net, nn.Module)
    assert run.classes == [str(k) for k in range(10)]


class ConditionsOwn:
    """The exact denoiser of a normal law of a condition, around `mean` with deviation `std`."""

    conditional, cost, principal_std = False, 1, 1.0

    def __init__(self, mean: float, std: float):
        self.mean, self.std = mean, std

    def __call__(self, y, sigma):
        """D(y, sigma) of y (n, 1)."""
        return self.mean + self.std**2 / (self.std**2 + sigma**2) * (y - self.mean)


@pytest.mark.parametrize("sigma_max", [5.0, 20.0, 80.0])
def test_what_a_start_does_not_know_is_lost_in_proportion_to_sigma_max(sigma_max):
    """Samples start around 0, their condition's mean is m: of the flow x(end) - m = (x(start) - m) s(end)/s(start) with
    s^2 = std^2 + sigma^2, a bias of -m std/sigma_max is left, which the preset of conditioned rows keeps small."""
    m, std, n = 2.5, 0.5, 20_000
    schedule = df.EDM(0.01, sigma_max)
    sde = df.at(schedule, schedule.score(ConditionsOwn(m, std)), start=schedule.prior((1,), 0.0, 1.0))
    x = df.sample(sde, n, 200, noise=1).last.double()
    wanted = -m * math.sqrt((std**2 + 0.01**2) / (std**2 + sigma_max**2))
    assert float(x.mean()) - m == pytest.approx(wanted, abs=4 * std / math.sqrt(n) + 0.02 * abs(wanted))


def test_rows_with_a_condition_start_so_far_out_that_it_does_not_matter():
    """The bias stays below a twentieth of a deviation for means up to four deviations of all rows."""
    x = drawn(200, 1)
    assert presets.diffusion_preset(df.data.of(x)) == "table"
    assert presets.diffusion_preset(df.data.of(x).with_cond(drawn(200, 2))) == "conditioned"
    assert 4 / presets.preset("conditioned").config.sampling.sigma_max <= 0.05
