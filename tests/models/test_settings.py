"""Settings survive YAML, misspelt ones are refused with a suggestion, and what a resumed run may change is exactly
the budget and the cadence.
"""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffflow.models.diffusion import ScoreConfig
from diffflow.models.presets import BY_DATA, preset
from diffflow.models.settings.networks import MLPConfig, UNetConfig
from diffflow.models.settings.serialise import (
    ConfigError,
    changed,
    from_dict,
    from_yaml,
    load_yaml,
    replace,
    to_dict,
    to_yaml,
)
from diffflow.networks.denoiser import Denoiser
from diffflow.objectives.score_matching import EDMWeighting, FlowWeighting


@pytest.mark.parametrize("name", BY_DATA)
def test_recipes_survive_yaml_and_build_on_their_data(name):
    made = preset(name)
    assert made.name == name
    assert made.about.endswith(".")
    assert from_yaml(to_yaml(made.config)) == made.config
    assert from_yaml(to_yaml(made.config), preset("toy").config) == made.config
    assert made.config.fit.minutes is not None


def test_a_config_builds_what_it_describes():
    meta = {"shape": [2], "classes": ["a", "b"], "std": 0.5, "principal_std": 0.7}
    denoiser = preset("toy").config.model.build(meta)
    assert isinstance(denoiser, Denoiser)
    assert (denoiser.classes, denoiser.sigma_data, denoiser.principal_std) == (2, 0.5, 0.7)
    with pytest.raises(ConfigError, match="UNetConfig is for images"):
        preset("demo").config.model.build(meta)
    with pytest.raises(ConfigError, match="MLPConfig is for vectors"):
        preset("toy").config.model.build(meta | {"shape": [1, 8, 8]})


@settings(deadline=None)
@given(
    st.builds(
        dict,
        lr=st.floats(1e-8, 1.0),
        batch=st.integers(1, 10**6),
        minutes=st.none() | st.floats(1e-3, 1e5),
        widths=st.lists(st.integers(1, 1000), min_size=1, max_size=5),
        net=st.sampled_from([UNetConfig(), MLPConfig(width=7)]),
        loss=st.sampled_from([EDMWeighting(), FlowWeighting(std=0.5), FlowWeighting()]),
    )
)
def test_any_values_survive_yaml(v):
    net = dataclasses.replace(v["net"], widths=tuple(v["widths"])) if isinstance(v["net"], UNetConfig) else v["net"]
    config = replace(ScoreConfig(), {"denoiser.lr": v["lr"], "fit.batch": v["batch"], "fit.minutes": v["minutes"]})
    config = dataclasses.replace(config, loss=v["loss"], model=dataclasses.replace(config.model, net=net))
    assert from_yaml(to_yaml(config)) == config
    assert from_dict(to_dict(config)) == config
    assert not changed(config, from_yaml(to_yaml(config)))


def test_a_file_keeps_what_it_does_not_mention_and_flags_come_last(tmp_path):
    base = preset("demo").config
    (tmp_path / "c.yaml").write_text(
        "denoiser: {lr: 1e-4}\nmodel:\n  net: {widths: [16, 16]}\nloss: {type: FlowWeighting, std: 1}\n"
    )
    config = load_yaml(tmp_path / "c.yaml", base)
    assert config.denoiser.lr == 1e-4  # YAML 1.1 reads 1e-4 as text
    assert config.denoiser.decay == base.denoiser.decay
    assert config.model.net == dataclasses.replace(base.model.net, widths=(16, 16))
    assert config.loss == FlowWeighting(std=1.0)
    assert replace(config, {"denoiser.lr": 3e-4}).denoiser == dataclasses.replace(base.denoiser, lr=3e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("denoiser: {learning_rat: 1}", r"unknown setting 'denoiser.learning_rat'"),
        ("fit: {batchh: 1}", r"'fit.batchh'; did you mean 'batch'\?"),
        ("modle: {}", r"'modle'; did you mean 'model'\?"),
        ("model: {net: {type: UNetConfg}}", r"'UNetConfg'.*did you mean 'UNetConfig'\?"),
        ("model: {form: epss}", r"'epss'.*did you mean 'eps'\?"),
        ("fit: {batch: many}", r"fit.batch = 'many' must be of type int"),
        ("fit: {batch: 1.5}", r"fit.batch = 1.5 must be of type int"),
        ("fit: {batch: true}", r"fit.batch = True"),
        ("fit: {compile: 1}", r"fit.compile = 1 must be of type bool"),
        ("fit: {precision: fp64}", r"'fp64' must be one of fp32, bf16"),
        ("fit: {batch: 10, accumulate: 3}", r"accumulate = 3 must divide"),
        ("fit: {minutes: -1}", r"minutes = -1.0 must be positive"),
        ("fit: {cpu_minutes: .inf}", r"cpu_minutes = inf must be positive and finite"),
        ("model: {net: {widths: 3}}", r"widths = 3 must be a list"),
        ("denoiser: {betas: [0.9]}", r"denoiser.betas = \[0.9\] must be a list of 2"),
        ("denoiser: {betas: [0.9, 0.99, 0.5]}", r"denoiser.betas .* must be a list of 2"),
        ("denoiser: {betas: [0.9, 1]}", r"betas = \(0.9, 1.0\) must be two numbers"),
        ("denoiser: 3", r"denoiser = 3 must be a mapping"),
        ("denoiser: {ema: [0.5]}", r"ema = \(0.5,\)"),
        ("sampling: {steps: 0}", r"steps = 0 must be at least 1"),
        ("sampling: {churn: -0.5}", r"churn = -0.5 must not be negative"),
        ("loss: {std: 0}", r"std = 0.0 must be positive"),
        ("[1", "this is not YAML"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_name(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        from_yaml(text)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_yaml(tmp_path / "c.yaml")


def test_an_unknown_preset_suggests_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown preset 'minst'; did you mean 'mnist'\?"):
        preset("minst")
    with pytest.raises(ConfigError, match="known are cifar10, conditioned, demo"):
        preset("xyz")


def test_a_resumed_run_may_change_its_budget_and_cadence_only():
    old = preset("demo").config
    free = {
        "fit.steps": 10,
        "fit.minutes": 99.0,
        "fit.log_every": 7,
        "fit.checkpoint_minutes": 9.0,
        "fit.sample_minutes": 9.0,
        "fit.keep": 9,
        "fit.tensorboard": False,
        "sampling.steps": 5,
        "data.source": "moved/digits",  # the same data elsewhere: their fingerprint is what training compares
    }
    assert changed(old, replace(old, free)) == []
    for key, value in {
        "denoiser.lr": 1.0,
        "fit.batch": 1,
        "fit.seed": 5,
        "data.split": "all",
        "model.net.layers": 9,
        "fit.precision": "bf16",
    }.items():
        assert changed(old, replace(old, {key: value})) == [key]
    other = dataclasses.replace(old, loss=FlowWeighting())
    assert "loss.type" in changed(old, other)
