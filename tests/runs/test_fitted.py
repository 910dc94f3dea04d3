"""Pictures without a preset: settings by budget and machine, what the user says, and the sampler that was chosen."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import diffflow as df
from diffflow.cli import main
from diffflow.models.presets import budget, preset, sized
from diffflow.networks.backbones.fast_unet import FastUNetDiscriminator
from diffflow.runs import advice, sampler
from diffflow.runs import fitted as fitted_module
from diffflow.runs.fitted import fitted
from diffflow.training.run_folder import RunError
from diffflow.training.speed_probe import Speed

SMALL = {"fit.tensorboard": False, "model.net.widths": [8, 16], "model.net.layers": 1, "fit.batch": 8}


def drawn(n: int, side: int = 8, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Pictures with something to see: a bright disc on a dark ground."""
    g = torch.Generator().manual_seed(seed)
    axis = torch.arange(side) + 0.5
    centre = side * (0.3 + 0.4 * torch.rand(n, 2, 1, 1, generator=g))
    inside = ((axis[:, None] - centre[:, 0]) ** 2 + (axis[None, :] - centre[:, 1]) ** 2).sqrt() < side / 4
    colour = 80 + 170 * torch.rand(n, channels, 1, 1, generator=g)
    return (30 + inside[:, None] * (colour - 30)).round().to(torch.uint8)


@pytest.fixture(scope="module")
def data() -> df.Data:
    return df.data.of(drawn(300), split="all", name="discs")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> df.Run:
    return df.train(data, tmp_path_factory.mktemp("runs") / "run", steps=30, settings=SMALL)


def test_pictures_take_settings_of_the_budget_and_a_run_is_of_them(run):
    assert isinstance(run.config.model.net, df.presets.budget.FastUNetConfig)
    assert run.step == 30
    assert run.config.denoiser.optimizer == "muon"
    assert [line["lr"]["denoiser"] for line in run.metrics()][-1] < 1e-3  # it ended where its budget did
    assert not run.config.data.flip


def test_what_the_user_says_wins(data):
    start = preset("pictures").config
    choice = fitted(start, data, lambda c: df.replace(c, SMALL | {"fit.minutes": 0.01, "fit.precision": "fp32"}))
    assert choice.config.model.net.widths == (8, 16)
    assert (choice.config.fit.batch, choice.config.fit.precision, choice.config.fit.minutes) == (8, "fp32", 0.01)
    assert any("8 a step" in line for line in choice.reasons)


def test_a_budget_of_steps_takes_the_same_net_on_every_machine(data):
    start = preset("pictures").config
    choice = fitted(start, data, lambda c: df.replace(c, {"fit.minutes": None, "fit.steps": 10, "fit.batch": 1}))
    assert choice.config.model.net.widths == budget.RUNGS[budget.STEADY]


def test_a_longer_training_stays_what_it_was_until_it_is_better(data, tmp_path):
    """The rate rises again; while it is high, and if it ends worse, the run is still the model of the first end."""
    run = df.train(data, tmp_path / "run", steps=30, settings=SMALL)
    before = {k: v.clone() for k, v in run.denoiser.state_dict().items()}
    chosen = json.loads((run.path / "chosen.json").read_text())

    def crash(line):
        raise RuntimeError("the power is gone")

    with pytest.raises(RuntimeError, match="the power is gone"):
        df.train(data, run.path, steps=60, resume=True, settings={"fit.log_every": 5}, on_log=crash)
    again = df.load(run.path)
    assert again.step == 30
    assert all(torch.equal(v, before[k]) for k, v in again.denoiser.state_dict().items())
    longer = df.train(data, run.path, steps=60, resume=True)
    after = json.loads((run.path / "chosen.json").read_text())
    assert after["loss"] <= chosen["loss"] + 1e-6
    assert longer.step == (60 if after["last"] < chosen["loss"] else 30)


def test_the_sampler_that_rows_aside_chose_is_the_run_s(run, data):
    kept = json.loads((run.path / "sampler.json").read_text())
    best = min(kept["trials"], key=lambda t: t["score"])
    assert kept["chosen"] == best
    again = df.load(run.path)
    assert (again.config.sampling.sigma_min, again.dials.churn) == (best["sigma_min"], best["churn"])
    x = again.sample(4, noise=1).last
    assert torch.equal(x, run.sample(4, noise=1).last)
    other = again.sample(4, noise=1, churn=1.5).last
    assert not torch.equal(x, other)


def test_distances_of_scales_see_grain_layout_and_nothing_else():
    """Other real pictures are at about 0; grain and another place are farther; more grain is farther still."""
    real, other, third = (drawn(300, 16, seed=k).float() / 255 for k in (1, 2, 3))
    near = sampler.distance(other, real, third)
    grain = [sampler.distance(other + s * torch.randn(other.shape), real, third) for s in (0.02, 0.1)]
    assert abs(near) < 0.25
    assert near + 0.3 < grain[0] < grain[1]
    assert sampler.distance(other.roll(4, 3), real, third) > near + 0.3
    x = drawn(3, 32).float()
    parts = sampler.bands(x)
    assert [p.shape[-1] for p in parts] == [32, 16, 8]
    back = parts[-1]
    for band in reversed(parts[:-1]):  # a pyramid gives the picture back
        back = band + torch.nn.functional.interpolate(back, size=band.shape[2:], mode="nearest")
    assert torch.allclose(back, x, atol=1e-4)


def test_the_command_says_what_it_chose_and_why(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, picture in enumerate(drawn(40).numpy()):
        (tmp_path / "discs").mkdir(exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(tmp_path / "discs" / f"{i}.png")
    short = ["--model.net.widths", "8", "16", "--fit.batch", "8", "--fit.no-tensorboard"]
    assert main(["train", "discs", "--explain", "--minutes", "1", *short]) == 0
    told = capsys.readouterr()
    assert "8 a step" in told.out
    assert "no mirror images" in told.out
    assert not (tmp_path / "runs").exists()
    assert main(["train", "discs", "--steps", "6", *short]) == 0
    assert "--explain says why" in capsys.readouterr().err
    assert df.load("runs/discs").step == 6


@pytest.mark.parametrize("minutes", [0.5, 3, 30, 300])
def test_a_game_gets_its_steps_from_narrower_nets_and_then_from_smaller_batches(data, monkeypatch, minutes):
    """A step costs what its batch and its widths say: the nets are the widest that get enough steps, else the batch
    shrinks as far as it may, and what is left is said to be unfit."""

    def cost(config, *_):
        wide = config.model.discriminator.widths[0] * config.fit.batch * 2e-4
        return Speed(wide, wide, {"generator": 1, "discriminator": 1})

    monkeypatch.setattr(fitted_module, "probe", cost)
    choice = fitted(preset("gan", data).config, data, lambda c: df.replace(c, {"fit.minutes": minutes}), preset="gan")
    config, enough = choice.config, choice.config.least_steps
    steps = 60 * minutes / cost(config).wall
    rung = next(k for k, v in budget.RUNGS.items() if v == config.model.discriminator.widths)
    if steps < enough:
        assert (rung, config.fit.batch) == ("S", sized.LEAST_BATCH)
    elif rung != budget.ON_PROCESSOR[-1]:
        wider = budget.ON_PROCESSOR[budget.ON_PROCESSOR.index(rung) + 1]
        assert config.fit.batch < 32 or steps * budget.RUNGS[rung][0] / budget.RUNGS[wider][0] < enough
    assert bool(choice.unfit) == (steps < enough)
    assert config.model.generator.widths == config.model.discriminator.widths[::-1]
    assert config.fit.minutes == minutes


def test_a_directory_in_the_way_is_met_before_nets_are_tried(data, tmp_path, capsys, monkeypatch):
    """It was met after the trials, which take up to a twentieth of the budget."""
    monkeypatch.chdir(tmp_path)
    np.save("discs.npy", drawn(40).numpy())
    (tmp_path / "runs/discs").mkdir(parents=True)
    (tmp_path / "runs/discs/thesis.txt").touch()
    monkeypatch.setattr("diffflow.cli.train.fitted", lambda *_: pytest.fail("nets were tried"))
    monkeypatch.setattr("diffflow.runs.train.fitted", lambda *_, **__: pytest.fail("nets were tried"))
    assert main(["train", "discs.npy", "--minutes", "1"]) == 2
    assert "runs/discs exists already: go on with the run in it (--resume auto)" in capsys.readouterr().err
    assert main(["train", "discs.npy", "--minutes", "1", "--resume", "auto", "--out", "runs/discs"]) == 2
    assert "is not empty and holds no run to resume" in capsys.readouterr().err
    with pytest.raises(RunError, match="exists already"):
        df.train(data, "runs/discs", minutes=1)


def test_copies_are_looked_for_among_bytes_as_they_are(monkeypatch):
    """As floats a set of 5 GiB took 20 GiB, twice, at the end of the training."""
    pictures = df.data.of(drawn(40), split="all")
    seen = {}
    monkeypatch.setattr(advice, "nearest", lambda x, train: seen.update(train=train) or [])
    run = SimpleNamespace(sample=lambda n, **_: SimpleNamespace(last=torch.rand(n, 3, 8, 8)), classes=None)
    advice.copied(run, pictures)
    assert seen["train"].data_ptr() == pictures.x.data_ptr()


def test_a_model_of_colour_pictures_is_one_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("discs.npy", drawn(40).numpy())
    short = ["--fit.batch", "4", "--fit.no-tensorboard", "--steps", "2"]
    nets = ["--model.generator.widths", "8", "8", "--model.discriminator.widths", "8", "8"]
    assert main(["train", "discs.npy", "--preset", "relativistic", *short, *nets]) == 0
    said = capsys.readouterr().err
    assert "needs about 5,000" in said
    assert said.index("needs about 5,000") < said.index("data ")  # before the work
    run = df.load("runs/discs-relativistic")
    assert (run.step, run.config.model.generator.widths, run.config.fit.batch) == (2, (8, 8), 4)
    assert run.sample(3).last.shape == (3, 3, 8, 8)


def test_a_run_of_pictures_becomes_a_generator_whose_discriminator_begins_as_its_net(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("discs.npz", x=drawn(40).numpy(), y=np.arange(40) % 2)
    settings = SMALL | {"model.net.attention": True, "model.net.head": 8, "data.augment": 0.1}
    run = df.train("discs.npz", "run", steps=4, settings=settings)  # of pictures that were changed, too
    (tmp_path / "small.yaml").write_text("fit: {batch: 4, tensorboard: false}\ndiscriminator: {lr: 1.0e-9}\n")
    assert main("distill run --updates 2 --config small.yaml --out one".split()) == 0
    one = df.load("one")
    judge = one.players["discriminator"].net
    assert isinstance(judge, FastUNetDiscriminator)
    torch.testing.assert_close(judge.enter.weight, run.denoiser.net.enter.weight, rtol=1e-4, atol=1e-6)
    drawn_ = one.sample(3, [0, 1, 0], noise=1)
    assert drawn_.nfe == 1
    assert drawn_.last.isfinite().all()
