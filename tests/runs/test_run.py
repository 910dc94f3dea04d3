"""A run in a user's hands: samples do not depend on the batch, images are images, and wrong arguments are named."""

import dataclasses
import io
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console

import diffflow as df
from diffflow.models.diffusion import ModelConfig, ScoreConfig
from diffflow.models.settings.common import DataConfig, FitConfig, PlayerConfig
from diffflow.models.settings.networks import MLPConfig, UNetConfig
from diffflow.models.settings.serialise import ConfigError
from diffflow.training import checkpoint
from diffflow.training.run_folder import Folder, RunError
from diffflow.training.train import train

FIT = FitConfig(batch=64, steps=30, log_every=10, checkpoint_minutes=1e4, sample_minutes=1e4, tensorboard=False)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Digits, by class."""
    net = UNetConfig(widths=(8, 8), attention=False, groups=4)
    config = ScoreConfig(DataConfig("digits"), ModelConfig(net), denoiser=PlayerConfig(lr=3e-3, warmup=5), fit=FIT)
    return train(config, tmp_path_factory.mktemp("runs") / "digits", device="cpu", console=Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def run(path):
    return df.load(path, device="cpu")


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """A table without classes, in units far from the model's."""
    z = df.Noise(0).normal(2000, (2,)) * torch.tensor([3.0, 0.2]) + torch.tensor([100.0, -5.0])
    folder = tmp_path_factory.mktemp("points")
    np.save(folder / "points.npy", z.numpy())
    config = ScoreConfig(
        DataConfig(str(folder / "points.npy")),
        ModelConfig(MLPConfig(width=64, depth=2)),
        denoiser=PlayerConfig(lr=3e-3, warmup=20),
        fit=dataclasses.replace(FIT, steps=400, batch=256),
    )
    return df.load(train(config, folder / "run", device="cpu", console=Console(file=io.StringIO())), device="cpu")


def test_samples_are_images_and_the_same_in_any_batch(run):
    labels = torch.arange(16) % 10
    tr = run.sample(16, labels, steps=5, keep=2, noise=0)
    assert tr.last.shape == (16, 1, 8, 8)
    assert tr.nfe == 5
    assert 0 <= tr.last.min() < tr.last.max() <= 1
    assert [x.shape for _, x in tr.kept] == [tr.last.shape] * len(tr.kept)
    assert torch.equal(tr.kept[-1][1], tr.last)
    for churn in (0.0, 1.0):
        whole = run.sample(16, labels, steps=5, churn=churn, noise=0).last
        for batch in (1, 7):
            torch.testing.assert_close(
                run.sample(16, labels, steps=5, churn=churn, batch=batch, noise=0).last, whole, rtol=0, atol=1e-5
            )
        part = run.sample(5, labels[8:13], steps=5, churn=churn, noise=df.Noise(0, first=8)).last
        torch.testing.assert_close(part, whole[8:13], rtol=0, atol=1e-5)


def test_without_noise_samples_are_fresh_and_follow_manual_seed(run):
    torch.manual_seed(5)
    first, second = (run.sample(3, 1, steps=2).last for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(run.sample(3, 1, steps=2, batch=3).last, first)
    torch.manual_seed(5)
    torch.testing.assert_close(run.sample(3, 1, steps=2, batch=2).last, first, rtol=0, atol=1e-5)  # one seed a call
    assert torch.equal(run.sample(3, 1, steps=2, noise=7).last, run.sample(3, 1, steps=2, noise=df.Noise(7)).last)
    with pytest.raises(TypeError, match=r"noise='7' is no noise"):
        run.sample(3, 1, noise="7")


def test_likelihood_and_calibration_keep_their_seed(points):
    x = points.sample(8, noise=0)
    dials = dataclasses.replace(points.dials, steps=2)
    asks = (
        lambda noise: points.log_likelihood(x.last, **noise).value,
        lambda noise: points.log_likelihood(x.last, churn=1.0, times=4, **noise).value,
        lambda noise: points.teach(dials, n=8, **noise).y,
    )
    for ask in asks:
        before = torch.get_rng_state()
        assert torch.equal(ask({}), ask({}))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(ask({"noise": 5}), ask({"noise": df.Noise(5)}))
        assert not torch.equal(ask({"noise": 5}), ask({}))


def test_classes_can_be_said_in_any_usual_way(run):
    three = run.sample(4, 3, steps=3, noise=0).last
    for cond in ([3, 3, 3, 3], torch.full((4,), 3), torch.tensor(3)):
        torch.testing.assert_close(run.sample(4, cond, steps=3, noise=0).last, three, rtol=0, atol=1e-6)
    assert not torch.allclose(run.sample(4, 4, steps=3, noise=0).last, three)
    none, minus = (run.sample(4, cond, steps=3, noise=0).last for cond in (None, -1))
    torch.testing.assert_close(none, minus, rtol=0, atol=1e-6)
    assert run.classes == [str(k) for k in range(10)]


def test_guidance_costs_two_and_steers(run):
    plain, guided = run.sample(4, 3, steps=3, noise=0), run.sample(4, 3, steps=3, guidance=3.0, noise=0)
    assert (plain.nfe, guided.nfe) == (3, 6)
    assert not torch.allclose(plain.last, guided.last)


def test_the_equation_in_model_units_is_what_sample_solves(run):
    noise, labels = df.Noise(4), torch.tensor([1, 2, 3])
    for churn in (0.0, 0.5):
        sde = run.sde(churn=churn)
        z = df.sample(sde, 3, steps=6, noise=noise, cond=labels).last
        torch.testing.assert_close(
            run.decode(z), run.sample(3, labels, steps=6, churn=churn, noise=noise).last, rtol=0, atol=1e-5
        )
    fixed = df.sample(run.sde(cond=labels), 3, steps=6, noise=noise).last
    torch.testing.assert_close(run.decode(fixed), run.sample(3, labels, steps=6, noise=noise).last, rtol=0, atol=1e-5)
    assert not run.sde().needs(0.5).ratio


def test_vectors_come_back_in_their_own_units(points):
    x = points.sample(1000, noise=0).last
    assert x.shape == (1000, 2)
    # after so short a training the law is rough, but its units are not: within a third of a standard deviation and a
    # factor 1.5
    assert (x.mean(0) - torch.tensor([100.0, -5.0])).abs().div(torch.tensor([3.0, 0.2])).max() < 1 / 3
    assert (x.std(0) / torch.tensor([3.0, 0.2])).log().abs().max() < 0.4
    torch.testing.assert_close(points.decode(points.encode(x)), x, rtol=1e-4, atol=1e-4)


def test_likelihood_is_of_the_data_in_model_units(points):
    x = points.sample(64, noise=0).last
    value = points.log_prob(x).value
    gauss = -0.5 * points.encode(x).square().sum(1) - torch.log(torch.tensor(2 * torch.pi))
    assert (value - gauss).mean().abs() < 0.5  # standardised data of independent normal columns
    far = points.log_prob(x + torch.tensor([15.0, 1.0])).value
    assert (far < value).all()


def test_raw_tracked_and_rebuilt_weights_are_all_there(run, path):
    kinds = {
        name: df.load(path, device="cpu", **how)
        for name, how in {
            "raw": {"raw": True},
            "0.05": {"sigma_rel": 0.05},
            "0.1": {"sigma_rel": 0.10},
            "0.07": {"sigma_rel": 0.07},
        }.items()
    }
    flat = {k: torch.cat([p.flatten() for p in r.denoiser.parameters()]) for k, r in kinds.items()}
    assert torch.equal(flat["0.05"], torch.cat([p.flatten() for p in run.denoiser.parameters()]))
    assert not torch.equal(flat["raw"], flat["0.05"])
    # along a training the average of width .07 lies between those of .05 and .10, at a distance its weights dictate
    gap = (flat["0.1"] - flat["0.05"]).norm()
    assert 0 < (flat["0.07"] - flat["0.05"]).norm() < gap
    assert 0 < (flat["0.07"] - flat["0.1"]).norm() < gap
    with pytest.raises(ValueError, match="not both"):
        df.load(path, raw=True, sigma_rel=0.1)
    with pytest.raises(ValueError, match=r"sigma_rel = 0.9"):
        df.load(path, sigma_rel=0.9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n = 0"),
        ({"n": 4, "batch": 0}, "batch = 0"),
        ({"n": 4, "steps": 0}, "steps"),
        ({"n": 4, "churn": -1.0}, "churn=-1.0"),
        ({"n": 4, "guidance": float("nan")}, "guidance = nan"),
        ({"n": 4, "gan": 0.5}, "gan = 0.5.*no discriminator"),
        ({"n": 4, "cond": 10}, r"cond holds 10 to 10: classes are integers from 0 to 9"),
        ({"n": 4, "cond": [0, 1]}, "2 classes for 4 samples"),
        ({"n": 4, "cond": 1.5}, "cond holds torch.float64"),
        ({"n": 4, "cond": [[0, 1]]}, r"cond has shape \(1, 2\)"),
    ],
)
def test_arguments_that_cannot_be_meant_are_named(run, arguments, message):
    with pytest.raises(ValueError, match=message):
        run.sample(**arguments)


def test_runs_without_classes_say_so(points):
    with pytest.raises(ValueError, match="without classes"):
        points.sample(4, 1)
    with pytest.raises(ValueError, match="guidance = 2"):
        points.sample(4, guidance=2.0)
    with pytest.raises(ValueError, match=r"give \(n, 2\)"):
        points.log_prob(torch.zeros(4, 3))


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", "meta", "cpu:1", ""])
def test_a_device_that_cannot_be_used_is_named_with_those_that_can(path, name):
    with pytest.raises(ConfigError, match=rf"--device {name} cannot be used: .* have cpu"):
        df.load(path, device=name)


def test_the_start_lives_where_the_network_does(path):
    """Tensors without numbers stand in for an accelerator: like one, they do not mix with the CPU's."""
    run = df.load(path, device="cpu")
    run.denoiser.to("meta")
    assert run.device.type == "meta"
    assert run.sde().start.sample(2).device == run.device
    assert df.sample(run.sde(churn=0.5), 2, steps=3).last.device == run.device


def test_directories_that_are_no_runs_are_named(tmp_path, path):
    with pytest.raises(RunError, match=r"nothing.*not a readable run"):
        df.load(tmp_path / "nothing")
    with pytest.raises(RunError, match=r"digist is not .* did you mean 'digits'\?"):
        df.load(path.with_name("digist"))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match="holds no checkpoint"):
        df.load(tmp_path)
    saved = Folder(path).newest().path
    content = bytearray((saved / "players.safetensors").read_bytes())
    content[-1] ^= 1
    (saved / "players.safetensors").write_bytes(content)
    try:
        with pytest.raises(checkpoint.CheckpointError, match="no usable checkpoint"):
            df.load(path)
    finally:
        content[-1] ^= 1
        (saved / "players.safetensors").write_bytes(content)
    assert df.load(path, device="cpu").step == 30


def test_weights_of_another_network_are_named(tmp_path, path):
    other = shutil.copytree(path, tmp_path / "other")
    config = (other / "config.yaml").read_text()
    assert "    - 8\n    - 8\n" in config
    (other / "config.yaml").write_text(config.replace("    - 8\n    - 8\n", "    - 8\n    - 16\n"))
    with pytest.raises(
        ConfigError, match=r"weights of denoiser in .*other do not fit this network: .*version of diffflow"
    ):
        df.load(other)


def test_a_run_knows_itself(run, path):
    assert "digits" in repr(run)
    assert run.step == 30
    assert run.shape == (1, 8, 8)
    assert run.players.keys() == {"denoiser"}
    assert run.data["count"] == 1297
    assert "torch" in run.versions
    assert [line["step"] for line in run.metrics()] == [10, 20, 30]
