"""A score run is sampled on any noise schedule, and a schedule is a clock: the samples of one noise are the same."""

from __future__ import annotations

import pytest
import torch

import diffflow as df
from diffflow.models.settings.serialise import ConfigError, replace

SMALL = {
    "model.net": {"type": "MLPConfig", "width": 16, "depth": 1, "embed": 8},
    "data.source": "moons",
    "fit.steps": 6,
    "fit.batch": 64,
    "fit.tensorboard": False,
    "denoiser.warmup": 2,
    "sampling.steps": 8,
}


@pytest.fixture(scope="module")
def on_edm(tmp_path_factory: pytest.TempPathFactory) -> df.Run:
    return df.train(replace(df.ScoreConfig(), SMALL), tmp_path_factory.mktemp("runs") / "edm")


@pytest.mark.parametrize("name", df.SCHEDULES)
@pytest.mark.parametrize("churn", [0.0, 1.0])
def test_a_run_trained_for_any_schedule_draws_the_same_samples(
    tmp_path_factory: pytest.TempPathFactory, on_edm: df.Run, name: str, churn: float
) -> None:
    """In y = x / scale the equation knows the time by sigma alone, so that from the same levels, start and noise a
    solver takes the same steps, whatever the clock and the scale are; float32 rounds them apart."""
    home = tmp_path_factory.getbasetemp() / f"run-{name}"
    config = replace(df.ScoreConfig(), SMALL | {"sampling.schedule": name})
    run = df.load(home) if home.exists() else df.train(config, home)
    sde = run.sde(churn=churn)
    assert type(sde.schedule) is df.SCHEDULES[name]
    assert sde.on_schedule
    x, same = (r.sample(64, churn=churn, noise=3).last for r in (run, on_edm))
    assert torch.isfinite(x).all()
    # noise streams belong to steps of the same levels: the paths differ by float32 rounding, amplified 80-fold at most
    assert (x - same).abs().max() < 80 * 80 * torch.finfo(torch.float32).eps * same.abs().max()


def test_a_schedule_that_is_not_there_is_refused_with_the_list() -> None:
    with pytest.raises(ConfigError, match=r"sampling.schedule = 'karas' is no noise schedule; known are cosine, edm"):
        replace(df.ScoreConfig(), {"sampling.schedule": "karas"})
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        replace(df.LikelihoodConfig(), {"sampling.schedule": "cosin"})
