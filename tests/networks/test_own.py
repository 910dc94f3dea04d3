"""Own networks: what may be trained, what is refused before the first step, and in which words."""

import copy
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import diffflow as df
from diffflow.cli import main
from diffflow.data.conditions import Condition
from diffflow.explorer.server import Runs
from diffflow.models.settings.own_net import FACTORIES, OwnNetConfig, find_factory, handing, register
from diffflow.models.settings.serialise import ConfigError
from diffflow.networks.backbones.own import TIMES, OwnNet, OwnNetError, check, fresh_copy
from diffflow.networks.denoiser import Denoiser
from diffflow.registry import PLUGGED

CPU = torch.device("cpu")
SMALL = {"fit.batch": 8, "fit.tensorboard": False, "sampling.steps": 2}


class Plain(nn.Module):
    """(x, t) of vectors."""

    def __init__(self, d: int = 2, width: int = 8):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(d + 1, width), nn.SiLU(), nn.Linear(width, d))

    def forward(self, x, t):
        return self.layers(torch.cat([x, t[:, None]], 1))


class Told(Plain):
    """(x, t, cond) with a declared null."""

    def __init__(self, d: int = 2, k: int = 3):
        super().__init__(d)
        self.null = nn.Parameter(torch.full((k,), 7.0))
        self.cond = nn.Linear(k, d)

    def forward(self, x, t, cond):
        return super().forward(x, t) + self.cond(cond)


def own(net: nn.Module, conditions=None) -> OwnNet:
    return OwnNet(net, conditions)


def test_null_rows_become_what_the_network_declares_and_others_stay():
    net = own(Told(), Condition("vector", (3,), mean=(0.0,) * 3, std=(1.0,) * 3))
    x, t, c = torch.randn(4, 2), torch.rand(4), torch.randn(4, 3)
    hidden = c.clone()
    hidden[1] = torch.nan
    declared = c.clone()
    declared[1] = 7.0
    assert torch.equal(net(x, t, hidden), net.net(x, t, declared))
    assert torch.equal(net(x, t, None), net.net(x, t, torch.full((4, 3), 7.0)))
    net(x, t, hidden).sum().backward()
    assert net.net.null.grad.abs().sum() > 0  # a declared null that is a parameter is learned


def test_a_label_that_is_hidden_becomes_the_declared_one():
    class Classes(Plain):
        null = 10

        def forward(self, x, t, y):
            return x + y[:, None]

    net = own(Classes(), Condition.labels(10))
    assert net(torch.zeros(3, 2), torch.zeros(3), torch.tensor([0, -1, 9]))[:, 0].tolist() == [0, 10, 9]


def test_a_network_without_condition_input_ignores_labels_and_is_unconditional():
    net = own(Plain(), Condition.labels(3))
    assert not net.takes_cond
    assert net.conditions is None
    assert net.classes == 0
    x, t = torch.randn(4, 2), torch.rand(4)
    assert torch.equal(net(x, t, torch.tensor([0, 1, 2, 0])), net(x, t))


class OneArgument(nn.Module):
    def forward(self, x):
        return x


class NeedsCondition(Plain):
    def forward(self, x, t, cond):
        return x


class FourArguments(Plain):
    def forward(self, x, t, cond, more):
        return x


class WrongShape(Plain):
    def forward(self, x, t):
        return super().forward(x, t)[:, :1]


class Whole(Plain):
    def forward(self, x, t):
        return x.long()


class Detached(Plain):
    def forward(self, x, t):
        return super().forward(x, t).detach()


class NotFinite(Plain):
    def forward(self, x, t):
        return super().forward(x, t) / 0.0


class Pair(Plain):
    def forward(self, x, t):
        return super().forward(x, t), t


class Breaks(Plain):
    def forward(self, x, t):
        return self.layers(x)


class OneSize(Plain):
    def forward(self, x, t):
        return super().forward(x, t).reshape(2, 2)


class Empty(nn.Module):
    def forward(self, x, t):
        return x


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (OneArgument(), r"forward\(x\) takes x alone.*forward\(x, t\)"),
        (NeedsCondition(), r"takes a condition, and the data have none.*with_cond.*cond=None"),
        (FourArguments(), "takes 4 arguments"),
        (WrongShape(), r"returned shape \(2, 1\) for x of shape \(2, 2\)"),
        (Whole(), r"returned torch.int64"),
        (Detached(), "does not depend on its parameters"),
        (NotFinite(), "not finite"),
        (Pair(), "returned a tuple"),
        (Breaks(), r"cannot be called with x \(2, 2\) torch.float32, t \(2,\) on cpu: RuntimeError"),
        (OneSize(), r"cannot be called with x \(3, 2\)"),
        (Empty(), "no parameters"),
        (Plain().half(), "weights of torch.float16.*float.*bf16"),
        (nn.Sequential(nn.Linear(2, 2)), "takes x alone"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence(net, words):
    with pytest.raises(OwnNetError, match=words) as caught:
        check(own(net), (2,), CPU)
    assert "\n" not in str(caught.value)


class Careless(Told):
    """Changes all that it is given."""

    def forward(self, x, t, cond):
        out = super().forward(x.clone(), t.clone(), cond.clone())
        for given in (x, t, cond):
            given.mul_(3).add_(1)
        return out


@pytest.mark.parametrize("time", TIMES)
def test_what_a_network_changes_in_place_nobody_else_sees(time):
    conditions = Condition("vector", (3,), mean=(0.0,) * 3, std=(1.0,) * 3)
    torch.manual_seed(0)
    careful, careless = Told(), Careless()
    careless.load_state_dict(careful.state_dict())
    for net in (careful, careless):
        del net.null
        net.null = "missing"  # the net is handed the very rows
    y, c = torch.randn(4, 2), torch.randn(4, 3)
    for sigma in (torch.tensor(2.0), torch.tensor([0.5, 1.0, 2.0, 4.0])):
        for cond in (c, c[:1]):
            kept = [t.clone() for t in (y, sigma, cond)]
            wanted, got = (
                Denoiser(own_of_time(net, conditions, time), 0.5, time=TIMES[time], conditions=conditions)
                for net in (careful, careless)
            )
            assert torch.equal(got.given(cond)(y, sigma), wanted.given(cond)(y, sigma))
            assert all(torch.equal(a, b) for a, b in zip(kept, (y, sigma, cond), strict=True))


def own_of_time(net: nn.Module, conditions, time: str) -> OwnNet:
    return OwnNet(net, conditions, TIMES[time])


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.LazyLinear(2)

    def forward(self, x, t):
        return self.layer(torch.cat([x, t[:, None]], 1))


def test_lazy_layers_are_made_when_the_run_is_loaded(tmp_path):
    run = df.train(df.data.of(torch.randn(20, 2)), tmp_path / "run", net=Lazy, steps=1, settings=SMALL)
    for again in (df.load(run.path), df.load(run.path, net=Lazy())):
        assert torch.equal(again.sample(3, noise=0).last, run.sample(3, noise=0).last)


class Remembers(Plain):
    def get_extra_state(self):
        return {"k": 1}

    def set_extra_state(self, state):
        pass


def with_buffer(buffer: torch.Tensor) -> nn.Module:
    net = Plain()
    net.register_buffer("graph", buffer)
    return net


def with_complex() -> nn.Module:
    net = Plain()
    net.turn = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    return net


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Plain().to("meta"), "Plain has weights on the meta device"),
        (Remembers(), "'_extra_state', which no checkpoint holds"),
        (with_buffer(torch.eye(2).to_sparse()), "layout torch.sparse_coo, 'graph', which no checkpoint holds"),
        (with_complex(), "complex weights"),
    ],
)
def test_weights_that_no_run_keeps_are_refused_before_it_begins(net, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        df.train("moons", tmp_path / "run", net=net, steps=2, settings=SMALL)
    assert not (tmp_path / "run").exists()


def test_a_run_of_the_library_s_network_takes_no_other(tmp_path):
    run = df.train("moons", tmp_path / "run", steps=1, settings=SMALL)
    with pytest.raises(ValueError, match="network of the library"):
        df.load(run.path, net=Plain())


def test_a_refused_network_leaves_no_run_behind(tmp_path):
    with pytest.raises(ConfigError, match=r"net: WrongShape returned shape"):
        df.train("moons", tmp_path / "run", net=WrongShape(), steps=2, settings=SMALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bad", [torch.zeros(2), "x", [[1.0]]])
def test_a_null_that_fits_no_row_is_refused(bad):
    net = Told()
    del net.null
    net.null = bad
    with pytest.raises(OwnNetError, match=r"Told.null = .* is no value of vector of 3"):
        own(net, Condition("vector", (3,), mean=(0.0,) * 3, std=(1.0,) * 3))


class LabelsOnly(Plain):
    null = 3

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(3, 2)  # no row for the null

    def forward(self, x, t, y):
        return super().forward(x, t) + self.table(y)


class ByName(Plain):
    def forward(self, x, t, *, cond=None):
        return super().forward(x, t)


class Ignores(Told):
    def __init__(self):
        super().__init__()
        del self.null
        self.null = "missing"  # and yet NaN goes through it


@pytest.mark.parametrize(
    ("net", "conditions", "words"),
    [
        (LabelsOnly, Condition.labels(3), r"cond \(2,\) torch.int64 on cpu: IndexError"),
        (Ignores, Condition("vector", (3,), mean=(0.0,) * 3, std=(1.0,) * 3), "returned numbers that are not finite"),
        (ByName, Condition.labels(3), "takes cond by name only"),
    ],
)
def test_the_null_and_the_condition_are_tried_before_the_first_step(net, conditions, words):
    with pytest.raises(OwnNetError, match=words):
        check(own(net(), conditions), (2,), CPU)


def test_a_null_label_is_a_whole_number():
    net = LabelsOnly()
    net.null = 0.5
    with pytest.raises(OwnNetError, match=r"LabelsOnly.null = 0.5 is no value of 3 classes: give a whole number"):
        own(net, Condition.labels(3))


def test_a_network_that_is_not_told_the_condition_says_so():
    assert any("takes no condition" in line for line in check(own(Plain(), Condition.labels(3)), (2,), CPU))
    assert not any("takes no condition" in line for line in check(own(Plain()), (2,), CPU))


def test_the_check_moves_nothing_in_the_network():
    class Batch(Plain):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, x, t):
            return super().forward(self.norm(x), t)

    net = own(Batch())
    before = copy.deepcopy(net.state_dict())
    state = torch.get_rng_state()
    assert any("BatchNorm" in line for line in check(net, (2,), CPU))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert net.net.norm.training


@pytest.mark.parametrize("name", TIMES)
def test_times_rise_with_the_noise_and_are_finite(name):
    t = TIMES[name](torch.logspace(-3, 2, 50))
    assert bool((t.diff() > 0).all())
    assert bool(t.isfinite().all())


def test_every_form_is_the_same_denoiser_where_the_network_predicts_accordingly():
    """D = a y + b F: a network that returns F of an exact D in any form gives this D."""
    law = df.TOYS["8gaussians"]()
    y, sigma = law.sample(6, noise=1).float(), torch.full((6,), 0.7)
    exact = law.denoise(y, sigma)
    for form in df.FORMS.values():
        F = form.predicted(exact, y, sigma, 1.0)
        D = df.Denoiser(OwnNet(Fixed(F)), 1.0, form=form)
        torch.testing.assert_close(D(y, sigma), exact, rtol=1e-5, atol=1e-5)


class Fixed(nn.Module):
    def __init__(self, out):
        super().__init__()
        self.out = nn.Parameter(out)

    def forward(self, x, t):
        return self.out


def test_float64_weights_train_in_float64(tmp_path):
    run = df.train("moons", tmp_path / "run", net=Plain().double(), steps=2, settings=SMALL)
    assert {p.dtype for p in run.denoiser.parameters()} == {torch.float64}
    assert run.sample(3).last.isfinite().all()


def test_shared_weights_are_one_weight_after_loading(tmp_path):
    class Shared(Plain):
        def __init__(self):
            super().__init__(2, 2)
            self.again = nn.Linear(3, 2)
            self.again.weight = self.layers[0].weight

        def forward(self, x, t):
            return super().forward(x, t) + self.again(torch.cat([x, t[:, None]], 1))

    run = df.train("moons", tmp_path / "run", net=Shared(), steps=3, settings=SMALL)
    inner = run.denoiser.net.net
    assert inner.again.weight is inner.layers[0].weight
    assert run.sample(3).last.isfinite().all()


def test_batch_norm_statistics_are_averaged_as_the_weights_are(tmp_path):
    class Batch(Plain):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, x, t):
            return super().forward(self.norm(x), t)

    net = Batch()
    run = df.train("moons", tmp_path / "run", net=net, steps=6, settings=SMALL)
    averaged = run.denoiser.net.net.norm.running_var
    assert not torch.equal(averaged, torch.ones(2))
    assert not torch.equal(averaged, net.norm.running_var)
    raw = df.load(tmp_path / "run", net=net, raw=True).denoiser.net.net.norm.running_var
    assert torch.equal(raw, net.norm.running_var)
    with pytest.raises(ConfigError, match="BatchNorm sees the whole batch"):
        df.train("moons", tmp_path / "two", net=Batch(), steps=2, settings=SMALL | {"fit.accumulate": 2})


def test_batch_norm_and_rows_kept_aside_go_together(tmp_path):
    class Batch(Plain):
        def __init__(self):
            super().__init__()
            self.layers.insert(1, nn.BatchNorm1d(8))

    with pytest.raises(ConfigError, match="a batch of one example"):
        df.train("moons", tmp_path / "one", net=Batch(), steps=1, settings=SMALL | {"fit.batch": 1})
    run = df.train(
        df.data.of(torch.randn(100, 2)), tmp_path / "run", net=Batch(), steps=12, settings=SMALL | {"fit.holdout": 0.2}
    )
    last = df.load(run.path, net=Batch(), raw=True)
    chosen = safetensors.torch.load((run.path / "chosen.safetensors").read_bytes())
    assert torch.equal(run.denoiser.net.net.layers[1].running_mean, chosen["denoiser/net.net.layers.1.running_mean"])
    assert not torch.equal(run.denoiser.net.net.layers[1].running_mean, last.denoiser.net.net.layers[1].running_mean)


def test_a_network_in_evaluation_mode_is_trained_in_training_mode(tmp_path, capsys):
    class Batch(Plain):
        def __init__(self):
            super().__init__()
            self.layers.insert(1, nn.BatchNorm1d(8))

    whole, part = Batch().eval(), Batch()
    part.layers[1].eval()  # on purpose
    for name, net in {"whole": whole, "part": part}.items():
        df.train("moons", tmp_path / name, net=net, steps=2, settings=SMALL)
        assert ("was in evaluation mode" in capsys.readouterr().err) == (name == "whole")
    assert whole.layers[1].num_batches_tracked == 2
    assert part.layers[1].num_batches_tracked == 0


def test_dropout_draws_the_same_in_a_resumed_run(tmp_path):
    def fresh():
        torch.manual_seed(3)
        net = Plain()
        net.layers.append(nn.Dropout(0.5))
        return net

    whole = df.train("moons", tmp_path / "whole", net=fresh(), steps=6, settings=SMALL)
    df.train("moons", tmp_path / "parts", net=fresh(), steps=3, settings=SMALL)
    torch.manual_seed(99)
    parts = df.train("moons", tmp_path / "parts", net=fresh(), steps=6, settings=SMALL, resume=True)
    for a, b in zip(whole.denoiser.parameters(), parts.denoiser.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_compiled_network_is_unwrapped(tmp_path):
    run = df.train("moons", tmp_path / "run", net=torch.compile(Plain()), steps=2, settings=SMALL)
    assert isinstance(run.denoiser.net.net, Plain)
    inside = Plain()
    inside.compile(backend="eager")
    assert isinstance(fresh_copy(inside), Plain)
    assert inside._compiled_call_impl is not None


# -- where a network comes from ----------------------------------------------------------------------------------------


def test_settings_alone_find_and_call_nothing(monkeypatch):
    for name in ("os:system", "builtins:exec", "subprocess:run", "torch.nn:Linear", "nowhere:Net", ""):
        with pytest.raises(ConfigError, match="no known network"):
            OwnNetConfig(factory=name, arguments={"command": "echo"}).build((2,), 0)
    with pytest.raises(ConfigError, match=r"net=Net\), .*--import nowhere.py .*modules=\['nowhere.py'\]"):
        OwnNetConfig(factory="nowhere:Net").build((2,), 0)  # a plain import would not do


@pytest.mark.parametrize("factory", ["os:system", "antigravity:fly", "builtins:exec"])
def test_a_run_whose_config_names_a_hostile_factory_executes_nothing(tmp_path, factory, monkeypatch, capsys):
    """Neither by the library nor by a command nor by the explorer, whatever its arguments are."""
    monkeypatch.chdir(tmp_path)
    df.train("moons", "run", net=Plain, steps=2, settings=SMALL)
    config = Path("run/config.yaml")
    text = config.read_text().replace(f"{__name__}:Plain", factory)
    config.write_text(text.replace("arguments: {}", "arguments: {command: touch owned}"))
    assert "touch owned" in config.read_text()
    with pytest.raises(ConfigError, match="is no known network"):
        df.load("run")
    for line in ("sample run -n 2", "evaluate run -n 12", "train --resume auto --out run --steps 3", "calibrate run"):
        assert main(line.split()) == 2
    with pytest.raises(ConfigError):
        Runs(tmp_path).load("run")
    assert not Path("owned").exists()
    assert "antigravity" not in sys.modules


def test_of_an_imported_module_only_what_it_defines_is_found(monkeypatch):
    monkeypatch.setitem(PLUGGED, __name__, sys.modules[__name__])
    assert find_factory(f"{__name__}:Plain") is Plain
    for name in ("copy.deepcopy", "nn.Linear", "pytest", "CPU", "df.train", "Plain.forward", "__builtins__.exec"):
        with pytest.raises(ConfigError, match="defines no such class or function"):
            find_factory(f"{__name__}:{name}")


def test_a_class_is_made_anew_and_an_instance_must_come_back(tmp_path):
    settings = register(Plain, {"d": 2, "width": 4})
    assert settings == OwnNetConfig(f"{__name__}:Plain", {"d": 2, "width": 4})
    assert FACTORIES[settings.factory] is Plain
    with handing(net := Plain()):
        built = register(net).build((2,), 0)
        assert built.net is net
        with pytest.raises(ConfigError, match=r"is an instance of .*:Plain.*df.load\(path, net=Plain"):
            register(net).build((2,), 0)  # a second one would share its weights
    with pytest.raises(ConfigError, match="net_arguments go with a class"):
        register(Plain(), {"d": 2})
    with pytest.raises(ConfigError, match=r"Plain\(wdith=4\) failed: TypeError"):
        register(Plain, {"wdith": 4}).build((2,), 0)


def test_a_local_class_is_like_an_instance(tmp_path):
    class Local(Plain):
        pass

    run = df.train("moons", tmp_path / "run", net=Local, net_arguments={"width": 4}, steps=2, settings=SMALL)
    assert run.config.model.net.instance
    del FACTORIES[run.config.model.net.factory]
    with pytest.raises(ConfigError, match="hand it back"):
        df.load(tmp_path / "run")
    again = df.load(tmp_path / "run", net=Local)
    assert torch.equal(again.sample(4, noise=1).last, run.sample(4, noise=1).last)


def test_a_family_without_denoiser_refuses_a_network(tmp_path):
    with pytest.raises(ConfigError, match="net is a denoiser's network, and GANConfig has none"):
        df.train("moons", tmp_path / "run", model="gan", net=Plain(), steps=2)
