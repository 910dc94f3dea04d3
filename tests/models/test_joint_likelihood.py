"""Score and discriminator trained on one likelihood bound, through the package's own loop, on every schedule."""

import io

import pytest
import torch
from rich.console import Console

import diffflow as df
from diffflow.models.joint_likelihood import JointSampling, LikelihoodConfig
from diffflow.models.settings.serialise import ConfigError, changed, from_yaml, replace, to_yaml
from diffflow.training.run_folder import Folder
from diffflow.training.train import train

TINY = {
    "data.source": "8gaussians",
    "model.net": {"type": "MLPConfig", "width": 32, "depth": 2},
    "discriminator_net.width": 16,
    "discriminator_net.depth": 1,
    "sampling.sigma_min": 0.05,
    "sampling.sigma_max": 50.0,
    "denoiser.lr": 3e-3,
    "discriminator.lr": 3e-3,
    "fit.batch": 128,
    "fit.tensorboard": False,
}


def tiny(schedule: str, steps: int) -> LikelihoodConfig:
    return replace(LikelihoodConfig(), TINY | {"sampling.schedule": schedule, "fit.steps": steps})


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_every_schedule_of_the_table_is_a_setting():
    with pytest.raises(ConfigError, match="'edn' is no noise schedule; did you mean 'edm'"):
        JointSampling(schedule="edn")
    for name, kind in df.SCHEDULES.items():
        path = JointSampling(schedule=name, sigma_min=0.01, sigma_max=30.0).path
        assert path == kind(sigma_min=0.01, sigma_max=30.0)


@pytest.mark.parametrize("schedule", df.SCHEDULES)
def test_the_bound_rises_on_every_schedule(tmp_path, schedule):
    """By nats, on points that were not trained on, and never above the true density's mean."""
    x, found = df.data.load("8gaussians", "test").x[:200], []
    for steps in (1, 120):
        run = df.load(train(tiny(schedule, steps), tmp_path / str(steps), console=quiet()), raw=True)
        found.append(run.log_likelihood(x, churn=1.0, times=32).value)
    truth = df.TOYS["8gaussians"]().log_prob(x).mean()
    assert found[1].mean() > found[0].mean() + 0.3
    assert found[1].mean() < truth + 4 * found[1].std() / 200**0.5
    assert run.sample(20).last.isfinite().all()


def test_it_survives_yaml_and_goes_on_bit_for_bit(tmp_path):
    config = tiny("vp", 8)
    assert from_yaml(to_yaml(config)) == config
    whole = train(config, tmp_path / "whole", console=quiet())
    half = train(replace(config, {"fit.steps": 4}), tmp_path / "half", console=quiet())
    train(config, half, resume="auto", console=quiet())
    a, b = (Folder(p).newest().tensors for p in (whole, half))
    assert all(torch.equal(a[g][k], b[g][k]) for g in a for k in a[g])


def test_its_dials_are_those_of_the_training(tmp_path):
    run = df.load(train(tiny("edm", 2), tmp_path / "run", console=quiet()))
    assert run.sde().noise(0.5) > 0
    for wrong in ({"churn": 0.0}, {"gan": 2.0}, {"guidance": 3.0}):
        with pytest.raises(ValueError, match="trained as one for gan = 1 and churn = 1"):
            run.sde(**wrong)
    assert changed(run.config, replace(run.config, {"sampling.churn": 2.0})) == ["sampling.churn"]
    assert changed(run.config, replace(run.config, {"sampling.steps": 7})) == []
    with pytest.raises(ConfigError, match="must be positive"):
        replace(run.config, {"sampling.churn": 0.0})
