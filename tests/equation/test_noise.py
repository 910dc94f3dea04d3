"""One stream per particle: the same bits in any batch, shard and order; and the right law."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import diffflow as df
from diffflow.equation.kernels import Injected
from diffflow.likelihood.importance import importance
from diffflow.likelihood.ode import decoded
from diffflow.models.flows import build
from diffflow.sampling.convergence import particle_decay


@given(
    seed=st.integers(0, 2**63),
    first=st.integers(0, 2**40),
    n=st.integers(1, 70),
    batch=st.sampled_from([1, 7, 64]),
    m=st.integers(1, 9),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60)
def test_bits_do_not_depend_on_the_batch(seed, first, n, batch, m, dtype):
    noise = df.Noise(seed, first)
    for draw in (
        lambda v, k: v.normal(k, (m,), dtype=dtype),
        lambda v, k: v.uniform(k, (m,), dtype=dtype),
        lambda v, k: v.randint(k, 10, (m,)),
    ):
        whole = draw(noise, n)
        parts = torch.cat([draw(noise.shift(i), min(batch, n - i)) for i in range(0, n, batch)])
        assert torch.equal(whole, parts)


def test_bits_do_not_depend_on_blocks_or_threads():
    """Large draws are made in blocks; one particle alone gives the same bits."""
    big = df.Noise(3).normal(5000, (3, 4, 5))
    for i in (0, 1, 272, 273, 274, 4999):
        assert torch.equal(big[i], df.Noise(3, first=i).normal(1, (3, 4, 5))[0])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        assert torch.equal(big, df.Noise(3).normal(5000, (3, 4, 5)))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_samples_do_not_depend_on_the_batch_or_the_shard(batch, churn):
    """Bit-identical noise; the particles agree to 1e-5 (sums inside a field may round differently with the batch)."""
    q, s = df.TOYS["8gaussians"](), df.EDM()
    sde = df.reverse_sde(s, s.score(q), churn=churn)
    whole = df.sample(sde, 64, 12, noise=df.Noise(5)).last
    parts = torch.cat(
        [df.sample(sde, min(batch, 64 - i), 12, noise=df.Noise(5, first=i)).last for i in range(0, 64, batch)]
    )
    assert (whole - parts).abs().max() < 1e-5


def test_normal_law():
    z = df.Noise(17).normal(200_000, (2,), dtype=torch.float64)
    for j in range(2):
        assert stats.kstest(z[:, j].numpy(), "norm").pvalue > 1e-5
    n = z.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean().item() - moment) < 4.5 * math.sqrt(variance / n)
    radius = z.square().sum(1)  # the two halves of one word are independent: an exponential radius
    assert stats.kstest(radius.numpy(), "expon", (0, 2)).pvalue > 1e-5
    assert abs((z[:, 0] * z[:, 1]).mean().item()) < 4.5 / math.sqrt(200_000)
    for lag in (1, 2, 7):
        assert abs((z[lag:] * z[:-lag]).mean().item()) < 4.5 / math.sqrt(n - 2 * lag)


def test_forks_are_independent_and_repeatable():
    a, b, c = (df.Noise(0).fork(*k).normal(50_000) for k in (("step", 0), ("step", 1), ("start",)))
    assert torch.equal(a, df.Noise(0).fork("step").fork(0).normal(50_000))
    for x, y in ((a, b), (a, c), (b, c)):
        assert abs((x * y).mean().item()) < 4.5 / math.sqrt(50_000)
    assert not torch.equal(df.Noise(0).fork(1).normal(5), df.Noise(0).fork("1").normal(5))


def test_uniform_is_open_and_uniform():
    for dtype in (torch.float32, torch.float64):
        u = df.Noise(1).uniform(300_000, dtype=dtype)
        assert u.min() > 0
        assert u.max() < 1
        assert stats.kstest(u.double().numpy(), "uniform").pvalue > 1e-5
    k = torch.bincount(df.Noise(1).randint(100_000, 7), minlength=7)
    assert stats.chisquare(k.numpy()).pvalue > 1e-5


def test_negative_first_is_refused():
    with pytest.raises(ValueError, match="first=-1"):
        df.Noise(0, first=-1)


# -- what `noise=` may be ---------------------------------------------------------------------------------------------
Q, S = df.TOYS["8gaussians"](), df.EDM(0.5, 4.0)
SDE = df.at(S, S.score(Q), churn=0.5, start=Q.noised(1.0, S.sigma(0.0).item()))
X = Q.sample(8, noise=3)
ASKED = {  # everything that takes noise= at the equation's level
    "law": lambda noise: Q.sample(9, noise=noise),
    "sample": lambda noise: df.sample(SDE, 9, 4, noise=noise).last,
    "calibrate": lambda noise: torch.tensor(df.calibrate(SDE, 2, noise=noise, starts=8, rounds=1).about["error"]),
    "hutchinson": lambda noise: df.log_prob(SDE, X, trace=df.Hutchinson(2, noise), steps=3).value,
    "stratified": lambda noise: df.elbo(SDE, X, rule=df.Stratified(4, noise)).value,
    "importance": lambda noise: importance(SDE, X, draws=2, steps=3, noise=noise).weights,
    "decoded": lambda noise: decoded(SDE, X, noise)[0],
    "path": lambda noise: df.BrownianPath(noise, 1.0)(0.3, X),
    "flow": lambda noise: build("svgd", Q, particles=9, noise=noise).x0,
    "directions": lambda noise: df.SlicedWasserstein(X, 4, noise=noise).axes(X, 0.0),
    "moved directions": lambda noise: df.SlicedWasserstein(X, 4).on(X, noise).axes(X, 0.0),
    "injected": lambda noise: Injected(df.LawScore(Q), 0.1, noise)(X, 0.0),
    "decay": lambda noise: particle_decay(SDE, 20, 4, noise=noise, keep=1).kl,
}


@pytest.mark.parametrize("name", ASKED)
def test_an_integer_is_the_noise_of_that_seed(name):
    ask = ASKED[name]
    of_seven = ask(df.Noise(7))
    assert torch.equal(ask(7), of_seven)
    assert torch.equal(ask(np.int64(7)), of_seven)
    assert not torch.equal(ask(8), of_seven)


@pytest.mark.parametrize("wrong", [True, 1.0, "7", torch.Generator()])
def test_what_is_no_noise_is_refused(wrong):
    for name in ("law", "sample", "hutchinson", "stratified", "calibrate"):
        with pytest.raises(TypeError, match=r"is no noise: give a df\.Noise, an integer seed, or None"):
            ASKED[name](wrong)


@pytest.mark.parametrize(
    "ask", [lambda: Q.sample(9), lambda: df.sample(SDE, 9, 4).last, lambda: df.sample(SDE, X, 4).last]
)
def test_without_noise_samples_are_fresh_and_follow_manual_seed(ask):
    torch.manual_seed(5)
    first, second = ask(), ask()
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    again = ask()
    with torch.inference_mode():
        assert torch.equal(ask(), second)
    assert torch.equal(again, first)


def test_a_fresh_seed_comes_from_the_cpu_generator_on_any_default_device():
    torch.manual_seed(5)
    on_cpu, after = Q.sample(9), torch.get_rng_state()
    torch.manual_seed(5)
    with torch.device("meta"):  # like an accelerator, it has no numbers of the CPU's
        assert torch.equal(Q.sample(9), on_cpu)
    assert torch.equal(torch.get_rng_state(), after)


def test_what_is_measured_keeps_its_seed_and_leaves_the_generator_alone():
    asks = (
        lambda: df.log_prob(SDE, X, trace=df.Hutchinson(2), steps=3).value,
        lambda: df.elbo(SDE, X, rule=df.Stratified(4)).value,
        lambda: torch.tensor(df.calibrate(SDE, 2, starts=8, rounds=1).levels),
        lambda: df.metrics.sliced_w2(X, X + 1, X).value,
        lambda: df.sample(SDE, 9, 4, noise=0).last,
    )
    for ask in asks:
        before = torch.get_rng_state()
        first = torch.as_tensor(ask())
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(5)
        assert torch.equal(torch.as_tensor(ask()), first)


def test_the_library_itself_never_draws_a_fresh_seed():
    """Trainings, previews, the command line and the explorer are repeatable: every call of sample names its noise."""
    silent = []
    for file in Path(df.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[2] == "sample":
                of_a_law = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) != "df"
                named = any(keyword.arg in ("noise", None) for keyword in call.keywords)
                if not (named or (of_a_law and len(call.args) > 1)):
                    silent.append(f"{file.name}:{call.lineno}")
    assert silent == []
