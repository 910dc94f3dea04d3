"""Rows given columns from a run: the same in any batch, by every method, and constraints by rejection that says how
often it was fulfilled, or refuses."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

import diffflow as df
from diffflow.runs.impute import TooFewAccepted, impute, method_of, sample_given
from diffflow.sampling.observations.observation import Observation

KNOWN = torch.tensor([True, False])
RHO = 0.8


class Correlated(nn.Module):
    """The net, of form x0, of two standard normal columns with correlation RHO."""

    takes_known = True

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))  # a run asks its players where they are

    def forward(self, x, time, cond=None, known=None):
        """E[Y | y] from what the net is shown."""
        sigma = torch.exp(4 * time)[:, None].to(x)
        known = torch.zeros_like(x, dtype=torch.bool) if known is None else known
        y = torch.where(known, x, x * (1 + sigma**2).sqrt())
        cov = torch.tensor([[1.0, RHO], [RHO, 1.0]]).to(x)
        noise = torch.diag_embed(torch.where(known, 1e-6, sigma**2))
        return torch.linalg.solve(cov + noise, y[..., None])[..., 0] @ cov * self.gain


def make(masks: float) -> df.Run:
    meta = {"name": "pair", "shape": [2], "kind": "vector", "mean": 0.0, "std": 1.0, "principal_std": 1.3}
    meta |= {"classes": None, "transform": {"kind": "vector", "shape": [2], "mean": [5.0, 0.0], "std": [2.0, 1.0]}}
    sampling = df.SamplingConfig(sigma_min=0.02)
    config = df.ScoreConfig(model=df.ModelConfig(df.MLPConfig(), "x0", masks=masks), sampling=sampling)
    denoiser = df.Denoiser(Correlated(), 1.0, 1.3, form=df.FORMS["x0"])
    return df.Run(Path("runs/pair"), config, meta, {"denoiser": denoiser.requires_grad_(False)}, 0, {})


@pytest.mark.parametrize(("masks", "method"), [(0.5, "masks"), (0.0, "langevin"), (0.0, "repaint")])
def test_draws_have_the_conditional_law_and_do_not_depend_on_the_batch(masks, method):
    run, n = make(masks), 400
    seen = Observation(torch.tensor([1.5, math.nan]), KNOWN)
    settings = {"steps": 20, "inner": 8, "noise": 3, "method": None if method != "repaint" else method}
    out = sample_given(run, seen, n, **settings)
    assert (out.method, out.nfe) == (method, 20 if method == "masks" else 19 * 8 + 1)
    assert torch.equal(out.x[:, 0], torch.full((n,), 1.5))
    std = math.sqrt(1 - RHO**2)
    assert abs(float(out.x[:, 1].mean()) - 1.5 * RHO) < 4.5 * std / math.sqrt(n) + 0.03
    assert abs(float(out.x[:, 1].std()) / std - 1) < 4.5 / math.sqrt(2 * n) + 0.08
    again = sample_given(run, seen, 7, batch=3, **settings)
    torch.testing.assert_close(again.x, out.x[:7], rtol=0, atol=1e-4)


def test_rows_are_imputed_each_by_its_own_values():
    run = make(0.5)
    values = torch.tensor([[-2.0, math.nan], [math.nan, 1.0], [0.3, 0.4]])
    rows = Observation(values, ~values.isnan())
    drawn = impute(run, rows, draws=60, steps=20, noise=1, batch=50)
    assert drawn.shape == (3, 60, 2)
    assert torch.equal(drawn[2], torch.tensor([0.3, 0.4]).expand(60, 2))
    assert torch.equal(drawn[1, :, 1], torch.ones(60))
    error = 4.5 * math.sqrt((1 - RHO**2) / 60) + 0.03
    assert abs(float(drawn[0, :, 1].mean()) + 2 * RHO) < error
    assert abs(float(drawn[1, :, 0].mean()) - RHO) < error
    (one,) = impute(run, rows.rows(slice(0, 1)), draws=60, steps=20, noise=1)
    torch.testing.assert_close(one, drawn[0], rtol=0, atol=1e-4)


def test_nothing_known_is_the_ordinary_sampler():
    run = make(0.0)
    nothing = Observation(torch.zeros(2), torch.zeros(2, dtype=torch.bool))
    out = sample_given(run, nothing, 50, steps=12, noise=4)
    assert out.nfe == 12
    assert torch.equal(run.decode(out.x), run.sample(50, steps=12, churn=1.0, noise=4).last)


def test_a_constraint_is_fulfilled_by_rejection_which_is_counted():
    """P(y2 > RHO | y1 = 1) is 1/2; the first accepted of one sequence, in any batch."""
    run, n = make(0.5), 200
    seen = Observation(torch.tensor([1.0, 0.0]), KNOWN)
    out = sample_given(run, seen, n, accept=lambda z: z[:, 1] > RHO, steps=15, noise=5)
    assert (out.x[:, 1] > RHO).all()
    assert len(out.x) == n
    assert abs(out.acceptance - 0.5) < 4.5 * 0.5 / math.sqrt(out.proposals) + 0.03
    assert f"{out.accepted} of {out.proposals} proposals" in str(out)
    assert out.proposals >= out.accepted >= n
    few = sample_given(run, seen, 20, accept=lambda z: z[:, 1] > RHO, steps=15, noise=5, batch=7)
    torch.testing.assert_close(few.x, out.x[:20], rtol=0, atol=1e-4)


def test_what_next_to_no_row_fulfils_is_refused_with_the_count():
    seen = Observation(torch.tensor([1.0, 0.0]), KNOWN)
    with pytest.raises(TooFewAccepted, match=r"^0 of \d+ rows fulfil what was asked, less than 1 in 100"):
        sample_given(make(0.5), seen, 2, accept=lambda z: z[:, 1] > 99, least=0.01, steps=5, noise=0)


def test_what_cannot_be_drawn_is_refused_before_the_work():
    run, seen = make(0.0), Observation(torch.zeros(2), KNOWN)
    wide = Observation(torch.zeros(3), torch.ones(3, dtype=torch.bool))
    for message, call in [
        (r"'repain' is no method of conditional sampling; did you mean 'repaint'", lambda: method_of(run, "repain")),
        (r"is for runs trained with model.masks > 0", lambda: method_of(run, "masks")),
        (r"3 observations for 2 rows", lambda: sample_given(run, seen.expanded(3), 2)),
        (r"shape \(3,\), this run's have \(2,\)", lambda: sample_given(run, wide, 2)),
        (r"for one observation", lambda: sample_given(run, seen.expanded(2), 2, accept=lambda z: z[:, 0] > 0)),
        (r"n = 0", lambda: sample_given(run, seen, 0)),
        (r"draws = 0", lambda: impute(run, seen, 0)),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
