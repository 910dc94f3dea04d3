"""`df.train`: the command line's training in one call, and what cannot be meant is refused before the work."""

import dataclasses
import functools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import diffflow as df
from diffflow import cli
from diffflow.cli.evaluate import splits
from diffflow.data import DataError
from diffflow.models.settings.serialise import ConfigError
from diffflow.training import loop
from diffflow.training.run_folder import RunError

SMALL = {"fit.batch": 8, "fit.tensorboard": False, "model.net.width": 8, "model.net.depth": 1, "sampling.steps": 2}
FLAGS = [f"--{k}={v}" for k, v in SMALL.items() if k != "fit.tensorboard"] + ["--fit.no-tensorboard"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    yield tmp_path
    signal.signal(signal.SIGINT, before)


class Untold(torch.nn.Linear):
    """A network that is told no condition."""

    def __init__(self):
        super().__init__(2, 2)

    def forward(self, x, t):
        return super().forward(x)


class Told(Untold):
    """A network that is always told one: it declares no null."""

    def forward(self, x, t, cond):
        return super().forward(x, t)


def weights(run: df.Run) -> torch.Tensor:
    return torch.cat([p.flatten() for player in run.players.values() for p in player.parameters()])


def test_it_is_the_command_line_s_training(capsys):
    run = df.train("moons", steps=4, settings=SMALL)
    assert isinstance(run, df.Run)
    assert (run.path, run.step) == (Path("runs/moons"), 4)
    assert capsys.readouterr().out == ""  # progress goes to standard error
    assert cli.main(["train", "moons", "--steps", "4", "--out", "by-hand", *FLAGS]) == 0
    by_hand = df.load("by-hand")
    assert run.config == by_hand.config
    assert torch.equal(weights(run), weights(by_hand))


@pytest.fixture
def asked(monkeypatch):
    """What would be trained, and where, in place of training it."""
    asked = []
    monkeypatch.setattr("diffflow.runs.train.train_into", lambda config, folder, **_: asked.append((config, folder)))
    monkeypatch.setattr("diffflow.runs.train.load", lambda path, **_: SimpleNamespace(config=asked[-1][0]))
    return asked


def test_a_model_is_a_preset_of_the_size_that_fits_and_names_the_folder(asked):
    for data in ("moons", "digits", df.data.load("digits")):
        for model in ("gan", "toy", "diffusion-gan"):
            df.train(data, model=model)
    places = [str(folder) for _, folder in asked]
    assert places[:6] == [f"runs/{x}" for x in (
        "moons-gan", "moons", "moons-diffusion-gan", "digits-gan", "digits", "digits-diffusion-gan"
    )]  # fmt: skip
    assert places[6:] == places[3:6]
    assert asked[0][0] == df.presets.preset("gan", "moons").config
    assert asked[3][0] == df.presets.preset("gan", "digits").config
    assert df.replace(asked[6][0], {"data.source": "digits"}) == asked[3][0]


def test_a_budget_replaces_the_preset_s(asked):
    own = df.presets.preset("toy").config.fit
    for k, given in enumerate(({}, {"minutes": 2}, {"steps": 7}, {"minutes": 2, "steps": 7})):
        df.train("moons", f"out{k}", **given)
    df.train("moons", "out", steps=7, settings={"fit.minutes": 2.0})
    df.train("moons", "out", settings={"fit.steps": 7})
    assert [(config.fit.minutes, config.fit.steps) for config, _ in asked] == [
        (own.minutes, own.steps), (2.0, None), (None, 7), (2.0, 7), (2.0, 7), (own.minutes, 7)
    ]  # fmt: skip


def test_a_budget_too_short_for_anything_is_one_step():
    """It was none, and a run that could not be opened."""
    run = df.train("moons", "run", settings=SMALL | {"fit.minutes": 1e-9})
    assert run.step == 1
    assert run.sample(2).last.isfinite().all()


def test_settings_are_a_start_too():
    config = df.replace(df.ScoreConfig(model=df.ModelConfig(df.MLPConfig())), {"data.source": "moons", **SMALL})
    run = df.train(config, "run", steps=2)
    assert run.config == df.replace(config, {"fit.steps": 2})
    assert config.fit.steps is None  # settings are values


def test_data_from_python_train_a_run_that_says_so(capsys):
    x = df.Noise(0).normal(200, (2,))
    transform = df.data.Transform("vector", (2,), (0.0, 0.0), (1.0, 1.0))
    data = df.Data(x, None, None, "mine", "all", transform)
    run = df.train(data, steps=2, settings=SMALL)
    assert (run.path, run.data["name"], run.data["count"]) == (Path("runs/mine"), "mine", 200)
    assert (run.config.data.source, run.config.data.split) == ("", "all")
    again = df.train(data, steps=3, settings={"fit.log_every": 1}, resume=True)
    assert (again.step, again.config.fit.log_every) == (3, 1)
    with pytest.raises(TypeError, match="is of type Tensor: give the Data"):
        again.evaluate(x)
    # the command line says where such data come from, and takes --data (evaluate) or the source (train)
    assert cli.main(["evaluate", "runs/mine", "-n", "20"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "trained on data from Python. Give them again, run.evaluate(data)" in said
    assert cli.main(["distill", "runs/mine", "--steps", "1"]) == 2
    assert "trained on data from Python: say where they are with --data" in " ".join(capsys.readouterr().err.split())
    assert cli.main("train --resume auto --out runs/mine --steps 4".split()) == 2
    assert "trained on data from Python: go on there" in " ".join(capsys.readouterr().err.split())
    np.save("mine.npy", x.numpy())
    assert cli.main("train mine.npy --resume auto --out runs/mine --steps 4".split()) == 0
    assert df.load("runs/mine").step == 4
    assert splits(again, "mine.npy")[0].fingerprint == data.fingerprint  # evaluate --data
    other = dataclasses.replace(data, x=x + 1)
    with pytest.raises(RunError, match="data have changed"):
        df.train(other, "runs/mine", steps=5, resume=True)


@pytest.mark.parametrize("net", [Told, Untold])
@pytest.mark.parametrize("told", ["vector", "labels and vector", "labels"])
def test_the_sample_grid_of_conditioned_data_is_drawn(net, told, capsys):
    """Under conditions of the data where a network is told one, under none where it is not."""
    x, y = df.Noise(0).normal(30, (2,)), torch.arange(30) % 3
    data = df.data.of(x, y if "labels" in told else None, split="all")
    data = data.with_cond(df.Noise(1).normal(30, (4,))) if "vector" in told else data
    run = df.train(data, "run", net=net, steps=1, settings={"fit.batch": 8, "fit.tensorboard": False})
    assert list((run.path / "samples").glob("*.png"))
    assert "no sample grids" not in capsys.readouterr().err


def test_data_and_the_source_they_came_from_give_one_run():
    for model in (None, "discriminator-flow"):
        small = SMALL if model is None else {"fit.batch": 8, "fit.tensorboard": False, "path.steps": 2}
        a = df.train("moons", "a" + str(model), model=model, steps=2, settings=small)
        b = df.train(df.data.load("moons"), "b" + str(model), model=model, steps=2, settings=small)
        assert torch.equal(weights(a), weights(b))
        assert df.replace(b.config, {"data.source": "moons"}) == a.config


def test_a_preset_fits_data_in_memory():
    fitting = df.presets.fitting
    assert [fitting(df.data.load(name)) for name in ("moons", "digits")] == ["toy", "digits"]
    image = df.data.Transform("image", (1, 4, 4))
    grey = df.Data(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), None, None, "x", "all", image)
    colour = dataclasses.replace(grey, x=grey.x.expand(3, 3, 4, 4), transform=df.data.Transform("image", (3, 4, 4)))
    assert (fitting(grey), fitting(colour)) == ("mnist", "cifar10")
    plain = df.data.Transform("vector", (2,), (0.0, 0.0), (1.0, 1.0))
    table = df.Data(torch.zeros(3, 2), None, None, "moons", "all", plain)
    assert fitting(table) == "table"  # whatever it is called


def test_going_on_keeps_the_run_s_settings():
    first = df.train("moons", "run", steps=2, settings=SMALL)
    with pytest.raises(RunError, match=r"run exists already: go on with the run in it \(resume=True\), or choose"):
        df.train("moons", "run", steps=2, settings=SMALL)
    whole = df.train("moons", "whole", steps=5, settings=SMALL)
    second = df.train("moons", "run", steps=5, resume=True)
    assert second.step == 5
    assert second.config == df.replace(first.config, {"fit.steps": 5})
    assert torch.equal(weights(second), weights(whole))
    with pytest.raises(ConfigError, match=r"other settings: fit\.batch differ"):
        df.train("moons", "run", steps=6, settings={"fit.batch": 16}, resume=True)
    with pytest.raises(RunError, match="data have changed"):
        df.train("8gaussians", "run", steps=6, resume=True)
    assert df.train("moons", "new", steps=1, settings=SMALL, resume=True).step == 1  # nothing there yet: a start


def test_a_path_is_never_a_name(here):
    np.save(here / "rows.npy", np.random.default_rng(0).normal(size=(100, 2)))
    (here / "digits").mkdir()
    with pytest.raises(DataError, match=r"the folder './digits' is empty"):
        df.train(Path("digits"), steps=1)
    run = df.train(here / "rows.npy", steps=1, settings=SMALL)
    assert run.path == Path("runs/rows")
    assert json.loads((run.path / "run.json").read_text())["data"]["name"] == "rows.npy"


@pytest.fixture
def ctrl_c(monkeypatch):
    """A function that lets so many Ctrl-C arrive while the given step is computed."""

    def at(step: int, count: int) -> None:
        def take_step(training, *rest):
            if training.step == step - 1:
                for _ in range(count):
                    os.kill(os.getpid(), signal.SIGINT)
            return original(training, *rest)

        original = loop.take_step
        monkeypatch.setattr(loop, "take_step", take_step)

    return at


def test_ctrl_c_saves_and_returns_the_run(ctrl_c, capsys):
    whole = df.train("moons", "whole", steps=9, settings=SMALL)
    old = signal.getsignal(signal.SIGINT)
    ctrl_c(3, 1)
    run = df.train("moons", "run", steps=9, settings=SMALL)
    assert run.step == 4  # the step in which processes agree is finished first
    assert run.sample(2, steps=2).last.shape == (2, 2)
    assert not json.loads((run.path / "run.json").read_text())["finished"]
    assert "interrupted: a checkpoint is written. Go on with df.train(..., 'run', resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is old
    assert torch.equal(weights(df.train("moons", "run", steps=9, resume=True)), weights(whole))


def test_two_ctrl_c_stop_at_once(ctrl_c):
    ctrl_c(3, 2)
    with pytest.raises(KeyboardInterrupt):
        df.train("moons", "run", steps=9, settings=SMALL)


def test_ctrl_c_before_the_first_step_stays_one(monkeypatch):
    def load(*_):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError

    monkeypatch.setattr("diffflow.training.train.load_data", load)
    with pytest.raises(KeyboardInterrupt):
        df.train("moons", "run", steps=9, settings=SMALL)
    assert not Path("run").exists()


def test_sigterm_stays_an_error(monkeypatch):
    def stopped(*_, **__):
        raise loop.Interrupted("signal 15", 143)

    monkeypatch.setattr("diffflow.runs.train.train_into", stopped)
    with pytest.raises(loop.Interrupted):
        df.train("moons", "run", steps=9, settings=SMALL)


def test_what_is_handed_to_a_training():
    """Every argument reaches it, and the run of it opens."""
    lines, places = [], []
    run = df.train(
        "moons",
        steps=6,
        settings=SMALL | {"fit.log_every": 2},
        optimizer=functools.partial(torch.optim.SGD, momentum=0.9),
        learning_rate=lambda update: 0.1 / update,
        on_log=lambda line: lines.append(line) or line["step"] == 4,
        on_checkpoint=lambda path, step: places.append(step),
    )
    assert run.step == 4
    assert [line["lr"]["denoiser"] for line in lines] == [0.05, 0.025]
    assert places == [4]
    assert run.versions["optimizer"] == "torch.optim.sgd:SGD(momentum=0.9)"


DATA = df.data.load("moons")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data_or_config": torch.zeros(3, 2)}, TypeError, r"is of type Tensor: give the name of a toy, the path"),
        ({"data_or_config": "moon"}, DataError, r"no data called 'moon'.*did you mean 'moons'"),
        ({"model": "gna"}, ConfigError, r"unknown preset 'gna'; did you mean 'gan'"),
        ({"minutes": 0}, ConfigError, r"fit\.minutes = 0.0 must be positive"),
        ({"minutes": "soon"}, ConfigError, r"fit\.minutes = 'soon' must be of type float"),
        ({"steps": 1.5}, ConfigError, r"fit.steps = 1.5 must be of type int"),
        ({"steps": 5, "settings": {"fit.steps": 6}}, ConfigError, r"steps = 5 and settings fit.steps = 6 are one"),
        ({"settings": {"denoiser.lrr": 1}}, ConfigError, r"unknown setting 'denoiser.lrr'; did you mean 'lr'"),
        ({"settings": {"lr": 1}}, ConfigError, r"unknown setting 'lr'; did you mean 'denoiser.lr'"),
        ({"settings": {"data.source": "x"}}, ConfigError, r"data\.source = 'x': that is the first argument"),
        ({"settings": ["fit.steps=5"]}, ConfigError, r"must be a dict by dotted name"),
        ({"resume": "auto"}, TypeError, r"resume = 'auto' must be True"),
        ({"optimizer": "adam"}, ConfigError, r"optimizer is a str, not a function: give one of the parameters"),
        ({"trackers": ["wandbb"]}, ConfigError, r"'wandbb' is no tracker; did you mean 'wandb'"),
        ({"model": "score-gan"}, ConfigError, r"needs a trained denoiser.*--init-from RUN"),
        ({"data_or_config": DATA, "settings": {"data.flip": True}}, ConfigError, r"was decided where the Data"),
        ({"data_or_config": df.ScoreConfig(), "model": "gan"}, ConfigError, r"are a ScoreConfig already"),
        ({"data_or_config": df.ScoreConfig(), "steps": 1}, ConfigError, r"say no source of the data: df.replace"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_work(arguments, error, message, monkeypatch):
    monkeypatch.setattr("diffflow.runs.train.train_into", lambda *_, **__: pytest.fail("it began to train"))
    with pytest.raises(error, match=message):
        df.train(**{"data_or_config": "moons", **arguments})
    assert not Path("runs").exists()


# -- replace ----------------------------------------------------------------------------------------------------------
def test_replace_takes_parts_and_says_what_is_set_twice():
    config = df.ScoreConfig()
    assert df.replace(config, {"model.net": df.MLPConfig(width=8)}).model.net == df.MLPConfig(width=8)
    assert df.replace(config, {"model": {"net": {"type": "MLPConfig", "width": 8}}}).model.net.width == 8
    given = {"fit": {"batch": 16}, "fit.steps": 5}
    assert df.replace(config, given).fit == dataclasses.replace(config.fit, batch=16, steps=5)
    assert given == {"fit": {"batch": 16}, "fit.steps": 5}
    for wrong, message in (
        ({"model.net": df.PlayerConfig()}, r"model.net = PlayerConfig\(.*must be of type MLPConfig, UNetConfig"),
        ({"fit": df.FitConfig(), "fit.steps": 5}, r"fit.steps and fit, of which it is a part, are both set"),
        ({"fit.steps": 5, "fit": df.FitConfig()}, r"fit and a part of it are both set"),
        ({"fit.steps": df.FitConfig()}, r"fit.steps = FitConfig\(.*must be of type int \| None"),
    ):
        with pytest.raises(ConfigError, match=message):
            df.replace(config, wrong)
    with pytest.raises(TypeError, match=r"holds no settings: give a dataclass"):
        df.replace(None, {"fit.steps": 5})
