"""Generators: sample i comes from stream i alone, a wrong shape or a missing class is named, and a denoiser is a
generator."""

import math

import pytest
import torch
from torch import nn

import diffflow as df
from diffflow.networks.backbones.generator import ConvGenerator, MLPGenerator
from diffflow.networks.backbones.mlp import MLP
from diffflow.networks.denoiser import Denoiser
from diffflow.networks.generator import FewSteps, Generator

NETS = [
    (lambda **k: MLPGenerator(3, 5, width=16, depth=2, **k), (5,)),
    (lambda **k: MLPGenerator(3, 2, width=16, depth=1, waves=4, **k), (2,)),
    (lambda **k: ConvGenerator(3, (1, 8, 8), widths=(8, 4), **k), (1, 8, 8)),
    (lambda **k: ConvGenerator(3, (3, 7, 10), widths=(6, 4, 4), **k), (3, 7, 10)),
    (lambda **k: ConvGenerator(3, (1, 1, 1), widths=(4,), **k), (1, 1, 1)),
    (lambda **k: ConvGenerator(3, (3, 9, 14), widths=(6, 4), stem=2, **k), (3, 9, 14)),
    (lambda **k: ConvGenerator(3, (1, 1, 5), widths=(4,), stem=4, **k), (1, 1, 5)),
]


def awake(net):
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return net


@pytest.mark.parametrize(("make", "shape"), NETS)
def test_a_sample_depends_on_its_own_stream_and_class(make, shape):
    torch.manual_seed(0)
    g = Generator(awake(make(classes=3)), shape)
    labels = torch.arange(6) % 3
    x = g.draw(6, df.Noise(1), labels)
    assert x.shape == (6, *shape)
    torch.testing.assert_close(g.draw(2, df.Noise(1).shift(3), labels[3:5]), x[3:5], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(g.draw(6, df.Noise(1), 1)[1::3], x[1::3], rtol=1e-4, atol=1e-5)
    for other in (g.draw(6, df.Noise(2), labels), g.draw(6, df.Noise(1), (labels + 1) % 3)):
        assert (other != x).flatten(1).any(1).all()


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(
    "make", [lambda c: (MLPGenerator(16, 5, c), (5,)), lambda c: (ConvGenerator(16, (1, 8, 8), c), (1, 8, 8))]
)
def test_a_new_generator_listens_to_z(make, classes):
    """Within a class its samples differ about as much as data of unit variance do: E silu^2 = .355, times what a
    random net of this width adds or takes."""
    torch.manual_seed(0)
    g = Generator(*make(classes))
    with torch.no_grad():
        x = g.draw(500, df.Noise(0), 1 if classes else None)
    assert 0.2 < float(x.var(0).mean().sqrt()) < 1.2


def test_pixels_of_a_place_begin_alike():
    """Else a generator begins as a checkerboard: in the middle of a place its last convolution, of 3 x 3 pixels, sees
    one value; the places themselves differ."""
    torch.manual_seed(0)
    x = ConvGenerator(8, (3, 20, 11), widths=(8, 6), stem=4)(df.Noise(0).normal(4, (8,)))
    for i, j in ((1, 2), (2, 1), (2, 2)):
        torch.testing.assert_close(x[..., i::4, j::4], x[..., 1::4, 1::4])
    assert x.flatten(2).std(2).min() > 0.01


def test_z_is_standard_normal():
    class Echo(nn.Linear):
        latent_shape, classes = (4,), 0

        def forward(self, z, cond):  # type: ignore[override]
            return z

    z = Generator(Echo(1, 1), (4,)).draw(7, df.Noise(3))
    assert torch.equal(z, df.Noise(3).normal(7, (4,)))


def test_a_denoiser_is_a_generator():
    torch.manual_seed(0)
    denoiser = Denoiser(awake(MLP(2, classes=3, width=16, depth=1)), 0.5)
    g, z = Generator(FewSteps(denoiser, df.Plan.multistep([4.0]), (2,)), (2,)), df.Noise(0).normal(5, (2,))
    labels = torch.tensor([0, 1, 2, 0, 1])
    assert g.classes == 3
    wide = math.hypot(4.0, 0.5) * z
    torch.testing.assert_close(g.draw(5, df.Noise(0), labels), denoiser(wide, torch.tensor(4.0), labels))
    assert {id(p) for p in g.parameters()} == {id(p) for p in denoiser.parameters()}
    # data noised by sigma have the data's mean
    beside = Generator(FewSteps(denoiser, df.Plan.multistep([4.0]), (2,), mean=-0.7), (2,))
    torch.testing.assert_close(beside(z, labels), denoiser(wide - 0.7, torch.tensor(4.0), labels))


@pytest.mark.parametrize("order", [1, 2, 4])
def test_few_steps_are_those_of_the_solver(order):
    """The same particles by the table of a generator, by the plan as a solver, and by the multistep method itself."""
    torch.manual_seed(0)
    denoiser = Denoiser(awake(MLP(2, width=16, depth=1)), 0.5).double()
    s = df.EDM(sigma_min=0.02, sigma_max=4.0)
    grid = torch.cat(
        [s.time(torch.tensor([4.0, 1.7, 0.8, 0.3, 0.02], dtype=torch.float64)), torch.tensor([s.clean_time])]
    )
    plan = df.Plan.multistep(s.sigma(grid[:-1]).tolist(), order, s.score(denoiser).principal_std or 1.0)
    g, z = Generator(FewSteps(denoiser, plan, (2,), mean=0.3), (2,)), df.Noise(0).normal(50, (2,), dtype=torch.float64)
    x0 = 0.3 + math.hypot(4.0, 0.5) * z
    sde = df.probability_flow(s, s.score(denoiser))
    with torch.no_grad():
        mine = g(z)
        by_plan = df.sample(sde, x0, 5, plan=plan, keep=1)
        torch.testing.assert_close(by_plan.last, mine, rtol=1e-9, atol=1e-9)
        by_solver = df.sample(sde, x0, 5, solver=df.Exponential(order, correct=False), grid=grid, keep=1)
    for (_, a), (_, b) in zip(by_plan.kept[:5], by_solver.kept[:5], strict=True):  # all but the last denoising
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    (grad,) = torch.autograd.grad(g(z).sum(), denoiser.net.parameters().__next__())
    assert grad.abs().sum() > 0


def test_rows_may_look_further_back_than_those_before_them():
    """By hand: y_1 = r_0 y_0 + (1-r_0) D_0, y_2 = r_1 y_1 + (1-r_1) D_1, x = a D_2 + b D_1 + c D_0."""
    torch.manual_seed(0)
    denoiser = Denoiser(awake(MLP(2, width=16, depth=1)), 0.5).double()
    s = df.EDM(sigma_min=0.02, sigma_max=4.0)
    plan = df.Plan((4.0, 1.0, 0.2), ((0.75,), (0.8,), (1.2, -0.3, 0.1)))
    z = df.Noise(0).normal(50, (2,), dtype=torch.float64)
    y0 = math.hypot(4.0, 0.5) * z
    with torch.no_grad():
        d0 = denoiser(y0, torch.tensor(4.0))
        y1 = 0.25 * y0 + 0.75 * d0
        d1 = denoiser(y1, torch.tensor(1.0))
        d2 = denoiser(0.2 * y1 + 0.8 * d1, torch.tensor(0.2))
        x = 1.2 * d2 - 0.3 * d1 + 0.1 * d0
        torch.testing.assert_close(Generator(FewSteps(denoiser, plan, (2,)), (2,))(z), x)
        sde = df.probability_flow(s, s.score(denoiser))
        torch.testing.assert_close(df.sample(sde, y0, plan=plan).last, x, rtol=1e-6, atol=1e-6)


def test_a_generator_raises_no_noise():
    denoiser = Denoiser(MLP(2, width=16, depth=1), 0.5)
    with pytest.raises(ValueError, match="raises the noise"):
        FewSteps(denoiser, df.Plan((2.0, 1.0), ((0.5,), (1.0,)), raised=(2.0, 1.0)), (2,))
    with pytest.raises(ValueError, match="positive and finite"):
        df.Plan.multistep([1.0, 0.0])


def test_wrong_use_is_named():
    plain, labelled = MLPGenerator(3, 5, width=8), MLPGenerator(3, 5, classes=4, width=8)
    with pytest.raises(ValueError, match=r"samples of shape \(5,\), but the data have shape \(1, 8, 8\)"):
        Generator(plain, (1, 8, 8)).draw(2, df.Noise(0))
    with pytest.raises(ValueError, match="knows no classes"):
        Generator(plain, (5,)).draw(2, df.Noise(0), 1)
    with pytest.raises(ValueError, match="of 4 classes: give cond"):
        Generator(labelled, (5,)).draw(2, df.Noise(0))
    for wrong, message in (
        (4, "from 4 to 4, but there are only 0..3$"),
        (-1, "from -1 to -1"),
        (1.5, "classes are integers"),
    ):
        with pytest.raises(ValueError, match=message):
            Generator(labelled, (5,)).draw(2, df.Noise(0), wrong)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        Generator(MLPGenerator(3, 5, classes=1), (5,))
    with pytest.raises(ValueError, match=r"takes \(n, 3\)"):
        plain(torch.zeros(2, 4))
    for wrong in (lambda: MLPGenerator(0, 5), lambda: ConvGenerator(3, (1, 8, 8), widths=())):
        with pytest.raises(ValueError, match="positive"):
            wrong()
