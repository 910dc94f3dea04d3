"""A plan is a table: it does what the table says, for any particle alone, on any schedule, and nothing else fits it."""

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffflow as df
from diffflow.sampling.multistep import multistep_row

F64 = torch.float64
LEVELS = (80.0, 6.0, 1.5, 0.4, 0.1, 0.02)


def frozen(levels=LEVELS) -> df.Plan:
    """The plan of order 1: D frozen over each step."""
    ratios = [b / a for a, b in itertools.pairwise(levels)] + [0.0]
    return df.Plan(tuple(levels), tuple((1 - r,) for r in ratios))


def mixture() -> df.GaussianMixture:
    return df.GaussianMixture(torch.tensor([[-1.0, 0.3], [0.8, -0.5], [0.2, 0.9]], dtype=F64), [0.4, 0.5, 0.3])


def flow(s: df.Schedule, q: df.GaussianMixture) -> df.DiffFlow:
    return df.probability_flow(s, s.score(q))


def test_a_plan_of_frozen_steps_is_the_exponential_solver_of_order_one():
    s, q = df.EDM(), mixture()
    x0, plan = 80 * df.Noise(0).normal(50, (2,), dtype=F64), frozen()
    classical = df.sample(flow(s, q), x0, solver=df.Exponential(1, correct=False), grid=plan.grid(s)).last
    mine = df.sample(flow(s, q), x0, plan=plan)
    assert (mine.last - classical).abs().max() < 1e-12
    assert mine.nfe == len(LEVELS) == plan.steps


@pytest.mark.parametrize("correct", [False, True], ids=["plain", "corrected"])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_a_plan_of_polynomial_rows_is_the_exponential_solver(order, correct):
    """The first steps, which have no past, and the redoing of steps included. Without it not the last step, in which
    the solver continues the trend of D*."""
    s, q = df.EDM(), mixture()
    nodes = [-math.log(v) for v in LEVELS]
    past = [tuple(nodes[i::-1]) for i in range(len(nodes))]
    finest = -math.log(s.sigma_min)
    ends = zip(past, [*nodes[1:], math.inf], strict=True)
    plan = df.Plan(LEVELS, tuple(multistep_row(p, end, order, q.principal_std, correct, finest) for p, end in ends))
    assert df.Plan.multistep(LEVELS, order, q.principal_std, correct=correct).weights[:-1] == plan.weights[:-1]
    x0 = 80 * df.Noise(1).normal(50, (2,), dtype=F64)
    grid = plan.grid(s)[: None if correct else -1]
    ours = df.sample(flow(s, q), x0, solver=plan, grid=grid).last
    theirs = df.sample(flow(s, q), x0, solver=df.Exponential(order, correct=correct), grid=grid).last
    assert (ours - theirs).abs().max() < 1e-11


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 7),
    shift=st.floats(-50, 50),
    z=st.floats(0.0, 1.0),
)
def test_moved_data_are_sampled_moved(seed, n, shift, z):
    """Rows of sum 1 - r: x(y0 + c; data + c) = x(y0; data) + c for any table whatever."""
    g = torch.Generator().manual_seed(seed)
    levels = [80.0]
    for u in torch.rand(n - 1, generator=g).tolist():
        levels.append(levels[-1] * (0.2 + 0.6 * u))
    lifts = torch.rand(n, generator=g)
    lifts[0] = lifts[-1] = 0.0
    high = [v * (1 + z * u) for v, u in zip(levels, lifts.tolist(), strict=True)]
    rows = []
    for i in range(n):
        r = levels[i + 1] / high[i] if i + 1 < n else 0.0
        w = torch.randn(min(i + 1, 3), generator=g, dtype=F64)
        rows.append(tuple((w + (1 - r - w.sum()) / len(w)).tolist()))
    plan = df.Plan(tuple(levels), tuple(rows), tuple(high))
    s, q, x0 = df.EDM(), mixture(), 80 * df.Noise(seed).normal(4, (2,), dtype=F64)
    there = df.GaussianMixture(q.means + shift, [0.4, 0.5, 0.3])

    def ends(q, x):
        sde = df.reverse_sde(s, s.score(q)) if plan.noisy else flow(s, q)
        return df.sample(sde, x, plan=plan, noise=df.Noise(3)).last

    a, b = ends(q, x0) + shift, ends(there, x0 + shift)
    assert (a - b).abs().max() < 1e-7 * (1 + a.abs().max()) * max(1.0, *(abs(w) for row in rows for w in row)) ** n


def test_the_schedule_only_names_the_times():
    """The same plan, the same y on EDM and on VP: only the scale differs, and at the end it is 1."""
    vp = df.VP()
    top = vp.sigma(0.0).item()
    edm, plan, q = df.EDM(sigma_max=top), frozen((top, *LEVELS[1:])), mixture()
    y0 = top * df.Noise(0).normal(20, (2,), dtype=F64)
    a = df.sample(flow(edm, q), y0, plan=plan).last
    b = df.sample(flow(vp, q), y0 * vp.scale(0.0).item(), plan=plan).last
    assert (a - b).abs().max() < 1e-9


def test_a_sample_does_not_depend_on_its_batch():
    s, q = df.EDM(), mixture()
    high = tuple(1.2 * v if 0 < i < 5 else v for i, v in enumerate(LEVELS))
    rows = tuple((1 - (LEVELS[i + 1] / high[i] if i < 5 else 0.0),) for i in range(6))
    plan, sde = df.Plan(LEVELS, rows, high), df.reverse_sde(s, s.score(q))
    x0 = 80 * df.Noise(0).normal(6, (2,), dtype=F64)
    whole = df.sample(sde, x0, plan=plan, noise=df.Noise(5)).last
    part = df.sample(sde, x0[4:], plan=plan, noise=df.Noise(5, first=4)).last
    assert (whole[4:] - part).abs().max() < 1e-12


def test_raising_the_noise_keeps_the_law():
    """Data of one Gaussian, D exact: after a raise and the exact step down again the variance is the schedule's."""
    tau, s = 0.7, df.EDM()
    q = df.Gaussian(torch.zeros(1, dtype=F64), tau)
    a, h, b = 2.0, 3.0, 1.0  # from noise a, raised to h, down to b by the exact factor; a level before, one after
    down = math.sqrt((tau**2 + b**2) / (tau**2 + h**2))
    kept = b / h  # y1 = kept y + w D,  D = tau^2 / (tau^2 + h^2) y
    w = (down - kept) * (tau**2 + h**2) / tau**2
    sde = df.reverse_sde(s, s.score(q))
    plan = df.Plan((80.0, a, b), ((1 - a / 80,), (1 - kept,), (1.0,)), (80.0, h, b))
    # rows must sum to 1 - r; here the data lie about 0, so the constant plays no part
    object.__setattr__(plan, "weights", (plan.weights[0], (w,), (1.0,)))
    n = 200_000
    y = q.noised(1.0, a).sample(n, df.Noise(0))
    t = s.time(torch.tensor([a, b], dtype=F64)).tolist()
    dw = math.sqrt(t[1] - t[0]) * df.Noise(1).normal(n, (1,), dtype=F64)
    x, _ = plan.step(sde, y, t[0], t[1], dw, (1, []))
    assert abs(x.var().item() / (tau**2 + b**2) - 1) < 4.5 * math.sqrt(2 / n)


def test_a_plan_survives_json():
    plan = dataclasses.replace(frozen(), about={"error": 0.1})
    back = df.Plan.from_dict(plan.to_dict())
    assert back == plan
    assert back.about == plan.about
    with pytest.raises(ValueError, match="no sampling plan"):
        df.Plan.from_dict({"levels": [1.0]})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"levels": (80.0, 90.0, 1.5, 0.4, 0.1, 0.02)}, "fall"),
        ({"levels": (80.0, 6.0, 1.5, 0.4, 0.1, 0.0)}, "positive"),
        ({"levels": LEVELS[:5]}, "a row"),
        ({"raised": tuple(0.9 * v for v in LEVELS)}, "not lowered"),
        ({"raised": tuple(1.1 * v for v in LEVELS)}, "not at the first"),
        ({"weights": ((0.5,),) * 6}, "of sum"),
        ({"weights": ((0.5, 0.425), *frozen().weights[1:])}, "1 to 1 weights"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(frozen(), **change)


def test_a_plan_for_another_equation_is_refused():
    s, q, x = df.EDM(), mixture(), torch.zeros(2, 2, dtype=F64)
    with pytest.raises(ValueError, match="starts at the noise level 80"):
        df.sample(flow(df.EDM(sigma_max=50.0), q), x, plan=frozen())
    with pytest.raises(ValueError, match="calibrate it for this churn"):
        df.sample(df.reverse_sde(s, s.score(q)), x, plan=frozen())
    noisy = df.Plan((80.0, 1.0, 0.1), ((1 - 1 / 80,), (1 - 0.1 / 1.2,), (1.0,)), (80.0, 1.2, 0.1))
    with pytest.raises(ValueError, match="the equation has none"):
        df.sample(flow(s, q), x, plan=noisy)
    with pytest.raises(ValueError, match="noise schedule"):
        df.sample(df.langevin(q), x, solver=frozen(), grid=[0.0, 1.0])
    with pytest.raises(ValueError, match="give the plan alone"):
        df.sample(flow(s, q), x, plan=frozen(), solver=df.Euler())
    with pytest.raises(ValueError, match="cannot take another"):
        df.sample(flow(s, q), x, solver=frozen((80.0, 1.0)), grid=frozen().grid(s))
