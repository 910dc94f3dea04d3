"""Code of the caller's that takes part in a training: optimizers, learning rates, callbacks, early stop."""

import dataclasses
import io
import json
import math
import traceback
from functools import partial

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

import diffflow as df
from diffflow.models.diffusion import ModelConfig, ScoreConfig
from diffflow.models.settings.common import DataConfig, FitConfig, PlayerConfig
from diffflow.models.settings.networks import MLPConfig
from diffflow.models.settings.serialise import ConfigError, replace
from diffflow.objectives.base import Batch, Turn
from diffflow.training import checkpoint, recorder
from diffflow.training.distributed import Process
from diffflow.training.hooks import Hooks
from diffflow.training.loop import fit
from diffflow.training.optimisers import called, own, pack, unpack
from diffflow.training.run_folder import Folder
from diffflow.training.state import TrainingState
from diffflow.training.train import train

CPU = Process(torch.device("cpu"))
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
TINY = ScoreConfig(
    DataConfig("8gaussians"),
    ModelConfig(MLPConfig(width=8, depth=1, embed=8)),
    denoiser=PlayerConfig(lr=3e-3, warmup=5, decay=20),
    fit=FitConfig(batch=16, steps=8, log_every=2, checkpoint_minutes=1e4, sample_minutes=1e4, tensorboard=False),
)


@pytest.fixture(scope="module")
def data():
    return df.data.load("8gaussians")


@pytest.fixture(autouse=True)
def small_grids(monkeypatch):
    """Most of the time of so short a training is that of drawing its samples."""
    monkeypatch.setattr(recorder, "beside", lambda raw, averaged: Image.new("RGB", (2, 2)))


def trained(path, data, steps=6, resume=None, config=TINY, console=None, **hooks):
    console = console or Console(file=io.StringIO(), width=1000)
    config = replace(config, {"fit.steps": steps})
    return train(config, path, data=data, console=console, resume=resume, hooks=Hooks(**hooks))


def same(a, b) -> bool:
    x, y = Folder(a).newest().tensors, Folder(b).newest().tensors
    return x.keys() == y.keys() and all(torch.equal(x[g][k], y[g][k]) for g in x for k in x[g] | y[g])


class Decay:
    """One number w with the loss w^2 / 2, whose gradient is w: SGD multiplies it by 1 - learning rate."""

    def __init__(self, start: float):
        net = nn.Module()
        net.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.players = {"a": net}

    def turns(self, batch, noise):
        w = self.players["a"].w
        yield Turn("a", (w.square() / 2).expand(len(batch.x)))

    def state(self):
        return {}

    def load_state(self, state):
        pass


class Lines(Decay):
    """A linear map that learns to be -1, from inputs that are functions of the sample's number."""

    def __init__(self):
        self.players = {"a": nn.Linear(3, 2)}
        for p in self.players["a"].parameters():
            nn.init.constant_(p, 0.3)

    def turns(self, batch, noise):
        x = (batch.rows[:, None] * torch.tensor([0.7, 1.1, 1.9])).cos()
        yield Turn("a", (self.players["a"](x) + x[:, :2]).square().sum(1))


def feed(first: int, n: int) -> Batch:
    return Batch(torch.zeros(n), None, torch.arange(first, first + n))


def decayed(optimizer, learning_rate=None, steps=7, clip=None, observer=None, process=CPU) -> TrainingState:
    training = TrainingState(Decay(2.0), {"a": PlayerConfig(clip=clip)}, optimizer, learning_rate)
    fit(training, feed, FitConfig(batch=4, steps=steps), process, observer)
    return training


# -- optimizers and learning rates ------------------------------------------------------------------------------------


def test_gradient_descent_is_gradient_descent():
    """w_n = w_0 prod (1 - lr_k): with its own rate, and with a function of the update, which counts from 1."""
    w = decayed(partial(torch.optim.SGD, lr=0.25)).players["a"].module.w.item()
    assert w == pytest.approx(2.0 * 0.75**7, rel=1e-6)  # the loss is averaged in single precision

    def rate(update):
        return 0.5 / update

    w = decayed(partial(torch.optim.SGD, lr=0.25), rate).players["a"].module.w.item()
    assert w == pytest.approx(2.0 * math.prod(1 - rate(k) for k in range(1, 8)), rel=1e-6)


def test_a_learning_rate_moves_adam_of_the_settings_too():
    """Adam's first step is the rate, whatever the gradient."""
    for learning_rate in (lambda update: 0.125, {"a": lambda update: 0.125}):
        w = decayed(None, learning_rate, steps=1).players["a"].module.w.item()
        assert w == pytest.approx(2 - 0.125, abs=1e-6)


def test_clipping_comes_before_an_optimizer_of_one_s_own():
    """With clip c far below the gradient every step of SGD is lr c: w falls in a straight line."""
    seen, reported = [], []

    class Seeing(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["params"][0].grad.item())
            return super().step(closure)

    class Observer:
        def after(self, training, outcomes):
            reported.extend((o.grad, o.lr) for o in outcomes)

    training = decayed(partial(Seeing, lr=0.5), clip=0.01, observer=Observer())
    assert training.players["a"].module.w.item() == pytest.approx(2 - 7 * 0.5 * 0.01, abs=1e-6)
    assert seen[-7:] == pytest.approx([0.01] * 7)
    assert reported == [(pytest.approx(2 - 0.005 * k), 0.5) for k in range(7)]  # the norm before it


def test_bf16_covers_the_forward_pass_under_an_optimizer_of_one_s_own(tmp_path, data, monkeypatch):
    kinds = set()
    forward = nn.Linear.forward

    def watched(self, x):
        out = forward(self, x)
        kinds.add((self.training, out.dtype, self.weight.dtype))
        return out

    monkeypatch.setattr(nn.Linear, "forward", watched)
    config = replace(TINY, {"fit.precision": "bf16"})
    trained(tmp_path / "run", data, 2, config=config, optimizer=SGD)
    assert {kind for kind in kinds if kind[0]} == {(True, torch.bfloat16, torch.float32)}


class Moody(torch.optim.Optimizer):
    """Keeps what state_dicts may hold: nested dicts and lists, plain numbers, None, and numbers in its groups."""

    def __init__(self, parameters, lr=0.01):
        super().__init__(parameters, {"lr": lr, "count": 0, "mood": "calm", "betas": (0.5, 0.75)})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            group["count"] += 1
            group["mood"] = "wild" if group["count"] % 2 else "calm"
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state |= {"means": [torch.zeros_like(p), {"of": torch.zeros_like(p)}], "scale": 1.0, "none": None}
                for beta, mean in zip(group["betas"], (state["means"][0], state["means"][1]["of"]), strict=True):
                    mean.lerp_(p.grad, beta)
                state["scale"] /= 1.0 + 0.1 / group["count"]
                sign = -1 if group["mood"] == "wild" else 1
                p.sub_(group["lr"] * state["scale"] * (state["means"][0] + sign * state["means"][1]["of"]))


def in_two_groups(parameters):
    return torch.optim.SGD([{"params": parameters[:1], "lr": 0.05}, {"params": parameters[1:]}], lr=0.1, momentum=0.5)


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD,
        partial(torch.optim.Adam, lr=1e-2, amsgrad=True),
        partial(torch.optim.RMSprop, lr=1e-3, centered=True, momentum=0.5),
        partial(torch.optim.NAdam, lr=1e-2),
        Moody,
        in_two_groups,
    ],
    ids=lambda o: called(o).partition("(")[0].rpartition(":")[2],
)
def test_a_resumed_training_is_the_uninterrupted_one_to_the_bit(tmp_path, optimizer):
    config = FitConfig(batch=4, steps=7)
    whole, cut, back = (TrainingState(Lines(), {"a": PlayerConfig()}, optimizer) for _ in range(3))
    fit(whole, feed, config, CPU)
    fit(cut, feed, dataclasses.replace(config, steps=3), CPU)
    back.restore(checkpoint.load(checkpoint.save(tmp_path, 3, cut.tensors(), cut.state())))
    fit(back, feed, config, CPU)
    one, two = whole.tensors(), back.tensors()
    assert one.keys() == two.keys()
    assert all(one[g].keys() == two[g].keys() and torch.equal(one[g][k], two[g][k]) for g in one for k in one[g])
    assert whole.state() | {"seconds": 0, "cpu_seconds": 0} == back.state() | {"seconds": 0, "cpu_seconds": 0}
    assert not torch.equal(one["players"]["a/weight"], cut.tensors()["players"]["a/weight"])


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path, data):
    whole = trained(tmp_path / "whole", data, optimizer=Moody)
    cut = trained(tmp_path / "cut", data, 3, optimizer=Moody)
    trained(cut, data, resume="auto", optimizer=Moody)
    assert same(whole, cut)
    assert Folder(whole).newest().state["optimizer"] == Folder(cut).newest().state["optimizer"]
    assert Folder(whole).about()["optimizer"] == called(Moody)


def test_a_resumed_learning_rate_goes_on_at_its_update(tmp_path, data):
    def rate(update):
        return 1e-2 / update

    whole = trained(tmp_path / "whole", data, learning_rate=rate)
    cut = trained(tmp_path / "cut", data, 3, learning_rate=rate)
    trained(cut, data, resume="auto", learning_rate=rate)
    assert same(whole, cut)
    assert [line["lr"]["denoiser"] for line in Folder(whole).lines()] == [rate(k) for k in (2, 4, 6)]


def test_plain_runs_say_nothing_of_it(tmp_path, data):
    path = trained(tmp_path / "run", data, 2)
    assert not {"optimizer", "learning_rate", "stopped"} & Folder(path).about().keys()
    assert "optimizer" not in Folder(path).newest().state
    assert set(Folder(path).newest().tensors["optimizer"]) == {
        f"denoiser/{i}/{k}"
        for i in range(len(list(TINY.build(data.meta())["denoiser"].parameters())))
        for k in ("step", "exp_avg", "exp_avg_sq")
    }


def test_each_player_may_have_its_own(tmp_path, data):
    config = replace(df.presets.preset("gan", "moons").config, {"fit": TINY.fit})
    console = Console(file=io.StringIO(), width=1000)
    makers = {"discriminator": partial(torch.optim.RMSprop, lr=1e-3)}
    path = trained(
        tmp_path / "run", data, 2, config=config, optimizer=makers, learning_rate={"generator": lambda k: 1e-4 / k},
        console=console,
    )  # fmt: skip
    assert Folder(path).about()["optimizer"] == {"discriminator": "torch.optim.rmsprop:RMSprop(lr=0.001)"}
    assert Folder(path).lines()[-1]["lr"] == {"discriminator": 1e-3, "generator": 1e-4 / 2}
    assert set(Folder(path).newest().state["optimizer"]) == {"discriminator"}
    told = console.file.getvalue()
    assert "discriminator is trained by RMSprop with its own learning rate, 0.001; the settings discriminator" in told
    assert "generator is trained by AdamW with the learning rate of your function; the settings generator.lr" in told
    with pytest.raises(ConfigError, match="optimizer for critic: the players of this model are discriminator, gener"):
        trained(tmp_path / "other", data, 2, config=config, optimizer={"critic": SGD})


class Forgetful(torch.optim.SGD):
    """Remembers outside its state."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.1)
        self.count = 0

    def step(self, closure=None):
        self.count += 1
        self.param_groups[0]["lr"] = 0.1 / self.count
        return super().step(closure)


class Hoarder(torch.optim.SGD):
    def __init__(self, parameters, what):
        super().__init__(parameters, lr=0.1)
        self.what = what

    def step(self, closure=None):
        self.state[self.param_groups[0]["params"][0]]["kept"] = self.what
        return super().step(closure)


OTHER = [nn.Parameter(torch.zeros(2))]


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"optimizer": torch.optim.LBFGS}, r"optimizer = torch.optim.lbfgs:LBFGS: its step wants a closure"),
        ({"optimizer": torch.optim.SGD(OTHER)}, r"optimizer is a SGD, not a function: give one of the para"),
        ({"optimizer": len}, r"optimizer = builtins:len makes a int, no torch.optim.Optimizer"),
        ({"optimizer": lambda p: torch.optim.SGD(OTHER)}, r"does not move just the parameters that it is given"),
        ({"optimizer": lambda p: torch.optim.SGD(p[1:])}, r"does not move just the parameters that it is given"),
        ({"optimizer": Forgetful}, r"Forgetful: read back from its state_dict it takes another step"),
        ({"optimizer": partial(Hoarder, what={1, 2})}, r"cannot be stored.*\(TypeError: state/0/kept is a set\)"),
        ({"optimizer": partial(Hoarder, what=torch.eye(2).to_sparse())}, r"its state cannot be stored.*be resumed"),
        ({"learning_rate": 1e-3}, r"learning_rate is a float, not a function: give one of the upd"),
        ({"learning_rate": lambda k: -1.0}, r"learning_rate\(1\) = -1.0 must be a finite number that is not negative"),
        ({"learning_rate": lambda k: "much"}, r"learning_rate\(1\) = 'much' must be"),
        ({"learning_rate": {"critic": float}}, r"learning_rate for critic: the players of this model are denoiser"),
        ({"optimizer": in_two_groups, "learning_rate": float}, r"to one rate, and they have 0\.05, 0\.1: give"),
        ({"on_log": "print"}, r"on_log is a str, not a function: give one of a line of the log"),
        ({"on_checkpoint": 3}, r"on_checkpoint is a int, not a function"),
    ],
)
def test_what_cannot_train_or_resume_is_refused_before_anything_is_written(tmp_path, data, hooks, message):
    with pytest.raises(ConfigError, match=message) as error:
        trained(tmp_path / "run", data, **hooks)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_trial_leaves_no_trace():
    """Neither in the parameters nor in what is drawn afterwards, and the optimizer has not stepped."""
    parameters = [nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.tensor(1.0))]

    class Noisy(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad += torch.randn_like(p)
            return super().step(closure)

    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    optimizer = own(parameters, partial(Noisy, lr=0.1, momentum=0.9))
    assert torch.equal(torch.randn(3), expected)
    assert all(torch.equal(p, torch.ones_like(p)) and p.grad is None for p in parameters)
    assert not optimizer.state


def test_packing_a_state_and_unpacking_it_is_the_identity():
    t = torch.arange(3.0)
    tree = {"state": {0: {"a": t, "b": [1, 2.5, (t + 1, None)]}}, "param_groups": [{"lr": 0.1, "on": True, "s": "x"}]}
    tensors = {}
    stored = json.loads(json.dumps(pack(tree, tensors)))
    back = unpack(stored, tensors)
    assert repr(back) == repr(tree)
    assert set(tensors) == {"state/0/a", "state/0/b/2/0"}
    for wrong in ({1.5: 0}, {"a": object()}, {"a": [b"x"]}):
        with pytest.raises(TypeError):
            pack(wrong, {})


def test_going_on_with_other_code_is_refused_and_named(tmp_path, data, monkeypatch, capsys):
    path = trained(tmp_path / "run", data, 2, optimizer=SGD)
    before = "optimizer = torch.optim.sgd:SGD(lr=0.1, momentum=0.9)"
    for other in ({}, {"optimizer": partial(SGD, lr=0.2)}, {"optimizer": SGD, "learning_rate": float}):
        with pytest.raises(ConfigError) as error:
            trained(path, data, 4, resume="auto", **other)
        message = str(error.value)
        assert f"was begun with {before}, which is code and no setting" in message
        assert ("not with" in message) == bool(other)
        assert message.endswith("resume=True, optimizer=...))")
    plain = trained(tmp_path / "plain", data, 2)
    with pytest.raises(ConfigError, match=r"was begun by its settings alone: go on without optimizer = torch\.optim"):
        trained(plain, data, 4, resume="auto", optimizer=SGD)
    monkeypatch.chdir(tmp_path)
    # on the command line too
    assert df.train(TINY, "cli", steps=2, optimizer=SGD).step == 2
    from diffflow.cli import main

    assert main(["train", "--resume", "auto", "--out", "cli", "--steps", "4"]) == 2
    assert f"cli was begun with {before}, which is code and no setting" in " ".join(capsys.readouterr().err.split())


# -- callbacks --------------------------------------------------------------------------------------------------------


def test_on_log_is_told_each_line_and_on_checkpoint_each_checkpoint(tmp_path, data, monkeypatch):
    lines, places, monitors = [], [], []
    path = tmp_path / "run"
    watch = recorder.HealthMonitor
    monkeypatch.setattr(recorder, "HealthMonitor", lambda *before: (monitors.append(watch(*before)), monitors[-1])[1])

    def on_log(line):
        assert Folder(path).lines()[-1] == line  # it is written already
        lines.append(line)
        line["grad"].clear()  # what is done to it, is done to a copy
        return 1  # stops nothing: only True does

    def on_checkpoint(place, step):
        assert checkpoint.flaw(place) is None
        places.append((place.name, step))

    config = replace(TINY, {"fit.checkpoint_minutes": 1e-9})
    trained(path, data, 5, config=config, on_log=on_log, on_checkpoint=on_checkpoint)
    assert [line["step"] for line in lines] == [2, 4, 5]
    assert all(line["grad"] for line in monitors[0].lines)
    assert places == [(f"{k:08d}", k) for k in range(1, 6)]
    trained(path, data, 5, config=config, resume="auto", on_checkpoint=on_checkpoint)
    assert len(places) == 5  # there was no new one
    assert same(path, trained(tmp_path / "plain", data, 5))


def stop_at_four(line) -> bool:
    return line["step"] == 4


def test_on_log_stops_the_training_as_the_end_of_a_budget_does(tmp_path, data):
    console = Console(file=io.StringIO(), width=1000)
    path = trained(tmp_path / "run", data, on_log=stop_at_four, console=console)
    assert same(path, trained(tmp_path / "four", data, 4))
    about = Folder(path).about()
    assert about["finished"]
    assert about["stopped"] == f"on_log ({called(stop_at_four)}) after step 4"
    assert f"stopped by {about['stopped']}" in console.file.getvalue()
    assert (path / "samples" / "000004.png").exists()
    trained(path, data, resume="auto")  # and it goes on, if asked to
    assert same(path, trained(tmp_path / "whole", data))
    assert "stopped" not in Folder(path).about()


def test_several_processes_stop_together():
    """The first one is told; the others learn of it by the votes of the next step."""

    class Two(Process):
        def average(self, tensors):
            pass

    class Observer:
        def after(self, training, outcomes):
            return training.step == 3

    assert decayed(SGD, observer=Observer()).step == 3
    assert decayed(SGD, observer=Observer(), process=Two(CPU.device, 0, 2)).step == 4


def test_an_error_in_a_callback_ends_the_training_after_a_checkpoint(tmp_path, data):
    def on_log(line):
        if line["step"] == 4:
            raise ZeroDivisionError("mine")

    def on_checkpoint(path, step):
        raise KeyError("mine too")

    path = tmp_path / "run"
    with pytest.raises(ZeroDivisionError, match="mine") as error:
        trained(path, data, on_log=on_log)
    assert traceback.extract_tb(error.value.__traceback__)[-1].name == "on_log"
    assert Folder(path).newest().state["step"] == 4
    assert not Folder(path).about()["finished"]
    with pytest.raises(KeyError, match="mine too"):
        trained(path, data, 5, resume="auto", on_checkpoint=on_checkpoint)
    assert Folder(path).newest().state["step"] == 5
    trained(path, data, resume="auto")
    assert same(path, trained(tmp_path / "whole", data))


def test_code_is_called_by_its_name():
    def mine():
        pass

    class Callable:
        def __call__(self):
            pass

    assert called(torch.optim.SGD) == "torch.optim.sgd:SGD"
    assert called(SGD) == "torch.optim.sgd:SGD(lr=0.1, momentum=0.9)"
    assert called(partial(partial(torch.optim.SGD, lr=0.1), lr=0.2)) == "torch.optim.sgd:SGD(lr=0.2)"
    assert called(partial(mine, 3, by=mine)).endswith("<locals>.mine(3, by=" + called(mine) + ")")
    assert called(Callable()) == called(Callable)
