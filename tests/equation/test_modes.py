"""Everything works in inference mode, with gradients switched off, and with float64 as the default type, and says the
same there. Before, whatever differentiates inside (discriminators, energies, likelihoods, KSD, trainings) failed in
inference mode, the trainings with gradients off."""

import io
from contextlib import contextmanager

import pytest
import torch
from rich.console import Console

import diffflow as df
from diffflow.data import load as load_data
from diffflow.likelihood.dequantiser import Dequantiser, fit_dequantiser
from diffflow.metrics import evaluate
from diffflow.metrics.classifier import fit_classifier
from diffflow.models.diffusion import ModelConfig, ScoreConfig
from diffflow.models.settings.common import DataConfig, FitConfig
from diffflow.models.settings.networks import MLPConfig
from diffflow.networks.discriminator import Discriminator
from diffflow.sampling.sample import NotFinite
from diffflow.training.train import train

START = df.Gaussian(torch.zeros(2), 1.5)
N = df.Noise(0)
CONFIG = ScoreConfig(
    DataConfig("moons"), ModelConfig(MLPConfig(width=16, depth=1)), fit=FitConfig(batch=16, steps=4, tensorboard=False)
)


@contextmanager
def default(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def switched_off():
    torch.set_grad_enabled(False)
    try:
        yield
    finally:
        torch.set_grad_enabled(True)


MODES = {"inference": torch.inference_mode, "no gradients": switched_off, "float64": lambda: default(torch.float64)}


class Judge(torch.nn.Module):
    classes, timed, dials = 0, True, 0

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([0.3, -0.2]))

    def forward(self, x, time, cond=None, dials=None):
        return (x @ self.w.to(x)).tanh() * (1 + time)


class Half(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([[0.5, 0.1], [0.0, 0.4]]))

    def forward(self, x, time, cond=None):
        return x @ self.w.to(x)


def law() -> df.GaussianMixture:
    return df.GaussianMixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), [0.5, 0.4])


def diffusion(source) -> torch.Tensor:
    s = df.VP()
    start = s.prior((2,))
    return df.sample(df.at(s, s.score(source), churn=0.4, start=start), 8, 6, noise=N).last


CALLS = {
    "law": lambda: law().score(START.sample(4, N)),
    "energy": lambda: df.EnergyField(law().log_prob)(START.sample(4, N), 0.0),
    "law diffusion": lambda: diffusion(law()),
    "denoiser": lambda: diffusion(df.Denoiser(Half(), 0.7)),
    "discriminator": lambda: Discriminator(Judge()).ratio().value_and_grad(START.sample(4, N), 0.5)[1],
    "gan": lambda: (
        df.sample(
            df.at(df.VP(), df.VP().score(law()), Discriminator(Judge()).ratio(), gan=0.5, churn=0.2), 8, 6, noise=N
        ).last
    ),
    "likelihood": lambda: df.log_prob(df.at(df.VP(), df.VP().score(law())), START.sample(4, N), steps=8).value,
    "likelihood of a net": lambda: (
        df.log_prob(
            df.at(df.VP(), df.VP().score(df.Denoiser(Half(), 0.7)), start=df.VP().prior((2,))),
            START.sample(4, N),
            trace=df.Hutchinson(2),
            steps=8,
        ).value
    ),
    "elbo": lambda: (
        df.elbo(df.at(df.VP(), df.VP().score(law()), churn=1.0), START.sample(4, N), rule=df.Stratified(4)).value
    ),
    "calibrate": lambda: (
        df.sample(
            df.at(df.VP(), df.VP().score(law())),
            8,
            plan=df.calibrate(df.at(df.VP(), df.VP().score(law())), 3, starts=16, rounds=1),
            noise=N,
        ).last
    ),
    "langevin": lambda: df.sample(df.langevin(law(), horizon=0.3, start=START), 8, 20, noise=N).last,
    **{
        name: lambda make=make: df.sample(df.gan_flow(make(), start=START), 8, 3, noise=N).last
        for name, make in {
            "KSD": lambda: df.KSD(df.LawScore(law())),
            "KSD of a net": lambda: df.KSD(df.VP().score(df.Denoiser(Half(), 0.7))),
            "KSD of an energy": lambda: df.KSD(df.EnergyField(law().log_prob)),
            "SVGD": lambda: df.SVGD(df.LawScore(law())),
            "MMD": lambda: df.MMD(law().sample(20, N)),
            "drifting": lambda: df.Drifting(law().sample(20, N)),
            "sliced": lambda: df.SlicedWasserstein(law().sample(20, N)),
            "kernel ratio": lambda: df.KernelRatio(law(), 0.4),
        }.items()
    },
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS)
def test_calls_say_the_same_in_every_mode(mode, name):
    want = CALLS[name]()
    with MODES[mode]():
        got = CALLS[name]()
        assert not got.requires_grad or mode == "float64"
        assert torch.allclose(got.double(), want.detach().double(), rtol=2e-3, atol=2e-3)  # float32 against float64


@pytest.mark.parametrize("mode", MODES)
def test_trainings_learn_in_every_mode(mode):
    with MODES[mode]():
        x = torch.cat([law().sample(60, N), law().sample(60, df.Noise(1)) + 3.0])
        y = torch.arange(2).repeat_interleave(60)
        classifier = fit_classifier(x, y, steps=60)
        assert (classifier.logits(x).argmax(1) == y).float().mean() > 0.9
        with torch.inference_mode(False):  # as df.load and Run.dequantiser build
            q = Dequantiser((2,), None)
        first = [v.clone() for v in q.parameters()]
        fit_dequantiser(q, lambda y: -y, lambda x, u: x.float() + (0.0 if u is None else u), torch.zeros(8, 2), 3)
        assert not all(torch.equal(v, w) for v, w in zip(first, q.parameters(), strict=True))
        report = evaluate(x, x.flip(0), seed=0) if mode != "float64" else None
        assert report is None or len(report)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_is_trained_loaded_and_used_in_every_mode(mode, tmp_path):
    with MODES[mode]():
        data = load_data("moons")
        path = train(CONFIG, tmp_path / "run", device="cpu", data=data, console=Console(file=io.StringIO()))
        torch.manual_seed(5)
        state = torch.get_rng_state()
        run = df.load(path, device="cpu")
        assert torch.equal(torch.get_rng_state(), state)  # before: the first weights were drawn from it
        assert run.sample(5, steps=3).last.shape == (5, 2)
        assert run.log_prob(data.x[:2].float()).value.shape == (2,)


def test_a_training_goes_on_where_its_model_cannot_draw_yet(tmp_path, monkeypatch):
    """The sample grid is left out with a word, and the run is whole."""

    def fails(self, *args, **settings):
        raise NotFinite("particles are not finite after step 2 of 3 (t = 1)")

    words = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(ScoreConfig, "draw", fails)
        path = train(CONFIG, tmp_path / "run", device="cpu", console=Console(file=words, width=400))
    assert "no sample grid at step 4" in words.getvalue()
    assert df.load(path, device="cpu").sample(3, steps=2).last.shape == (3, 2)
