"""Equations as values: what they print, when they are equal, and that they travel to other processes. Every test here
failed before the mending."""

import copy
import multiprocessing
import pickle

import pytest
import torch

import diffflow as df
from diffflow.models.settings.games import along
from diffflow.networks.discriminator import Discriminator
from diffflow.networks.games import GAMES

S = df.EDM(0.002, 80)


def law() -> df.GaussianMixture:
    return df.GaussianMixture([[-1.0, 0.0], [1.0, 0.5]], [0.3, 0.2], [0.4, 0.6])


def rising(t):
    return 0.2 + 0.1 * float(t) / 80


def pull(x, t):
    return -x


class Net(torch.nn.Module):
    def forward(self, x, time, cond=None):
        return 0.5 * x


class Judge(torch.nn.Module):
    classes, timed, dials = 0, False, 0

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(2))

    def forward(self, x, time, cond=None, dials=None):
        return x @ self.w


MAKERS = {
    "at": lambda: df.at(df.EDM(0.002, 80), df.EDM(0.002, 80).score(law()), churn=0.5),
    "named dial": lambda: df.at(df.VP(), df.VP().score(law()), churn=rising),
    "edm_churn": lambda: df.edm_churn(S, S.score(law()), rate=0.3),
    "slcd": lambda: df.slcd(S, S.score(law()), g2=S.lam2),
    "langevin": lambda: df.langevin(law(), horizon=0.05, start=df.Gaussian([0.0, 0.0], 1.0)),
    "energy": lambda: df.langevin(df.EnergyField(law().log_prob), horizon=0.5, start=df.Gaussian([0.0, 0.0])),
    "callable": lambda: df.langevin(pull, horizon=0.5, start=df.Gaussian([0.0, 0.0])),
    "annealed": lambda: df.annealed_langevin(df.Levels((2.0, 0.5), 2), df.Levels((2.0, 0.5), 2).score(law())),
    "sum": lambda: df.at(S, 0.5 * S.score(law()) + 0.5 * S.score(df.Gaussian([0.0, 0.0])), start=S.prior((2,))),
    "timed sum": lambda: df.at(S, rising * S.score(law()), start=df.Gaussian([0.0, 0.0])),
    "discriminator_flow": lambda: df.discriminator_flow(
        Discriminator(Judge()).ratio(), df.Speed(torch.sigmoid), 0.7, df.Gaussian([0.0, 0.0])
    ),
    "diffusion_gan": lambda: df.diffusion_gan(S, S.score(law()), along(Judge(), S, 0.7).ratio(), gan=0.5),
    "kernels": lambda: df.gan_flow(df.KernelRatio(law(), 0.5), start=df.Gaussian([0.0, 0.0])),
    "denoiser": lambda: df.at(S, S.score(df.Denoiser(Net(), 1.0)), start=S.prior((2,))),
}
ALIKE = ["at", "named dial", "edm_churn", "slcd", "langevin", "callable", "annealed", "sum", "timed sum", "kernels"]


@pytest.mark.parametrize("name", ALIKE)
def test_equations_built_alike_are_equal_and_hash_alike(name):
    a, b = MAKERS[name](), MAKERS[name]()
    assert a == b
    assert hash(a) == hash(b)
    assert len({a, b}) == 1
    assert copy.deepcopy(a) == a


def test_equations_built_otherwise_differ():
    a = MAKERS["at"]()
    other = df.GaussianMixture([[-1.0, 0.0], [1.0, 0.5]], [0.3, 0.25], [0.4, 0.6])
    for b in (
        df.at(S, S.score(law()), churn=0.25),
        df.at(df.EDM(0.01, 80), df.EDM(0.01, 80).score(law()), churn=0.5),
        df.at(S, S.score(other), churn=0.5),
        a.gauge(0.1),
        df.continued(a, -1.0),
        df.at(S, S.score(law()), churn=rising),
        3,
    ):
        assert a != b
    assert law() != law().to(torch.float64)
    assert law() == law()


def test_equations_print_what_they_are():
    score, ratio = S.score(law()), df.LawRatio(lambda t: law(), lambda t: law())
    for sde, text in (
        (df.at(S, score, churn=0.5), "at(EDM(0.002, 80), churn=0.5)"),
        (df.probability_flow(S, score), "at(EDM(0.002, 80))"),
        (df.at(S, score, ratio, gan=2, churn=rising), "at(EDM(0.002, 80), gan=2, churn=rising)"),
        (df.edm_churn(S, score, rate=0.3), "at(EDM(0.002, 80), churn=Churn(rate=0.3))"),
        (df.reverse_sde(df.RectifiedFlow(), df.RectifiedFlow().score(law())), "at(RectifiedFlow(0.002, 500), churn=1)"),
        (df.at(S, score, churn=torch.tensor(0.5)), "at(EDM(0.002, 80), churn=tensor(0.5))"),
    ):
        assert repr(sde) == text
    shown = repr(df.langevin(law(), beta=0.5))
    assert shown == "DiffFlow(score=LawScore, beta=0.5, g2=1, horizon=20)"
    assert repr(df.at(S, score, churn=0.5).gauge(0.1)).startswith("DiffFlow(score=")
    assert repr(law()) == "GaussianMixture(2 components of shape (2,))"


def drawn(sde: df.DiffFlow) -> torch.Tensor:
    return df.sample(sde, 7, 4, noise=df.Noise(3)).last


@pytest.mark.parametrize("name", MAKERS)
def test_equations_pickle(name):
    sde = MAKERS[name]()
    again = pickle.loads(pickle.dumps(sde))
    assert repr(again) == repr(sde)
    assert again.on_schedule == sde.on_schedule
    assert torch.equal(drawn(again), drawn(sde))
    if name in ALIKE:
        assert again == sde


def test_a_pickle_holds_no_remembered_values():
    s = df.VP()
    size = len(pickle.dumps(s))
    for k in range(500):
        s.sigma(k / 1000)
    assert len(pickle.dumps(s)) == size
    assert pickle.loads(pickle.dumps(s)) == s


def test_spawned_processes_take_equations_laws_scores_and_schedules():
    sde = MAKERS["named dial"]()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        got = pool.map(drawn, [sde])
        laws, schedule, score = pool.apply(_same_things, ([law()], df.VP(), df.VP().score(law())))
    assert torch.equal(got[0], drawn(sde))
    assert (laws, schedule, score) == ([law()], df.VP(), df.VP().score(law()))


def _same_things(*values):
    return values


@pytest.mark.parametrize("game", GAMES)
def test_the_speeds_of_all_games_pickle(game):
    sde = df.gan_flow(Discriminator(Judge()).ratio(), GAMES[game].speed, start=S.prior((2,)))
    assert torch.equal(drawn(pickle.loads(pickle.dumps(sde))), drawn(sde))
