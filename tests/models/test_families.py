"""Every family of models through the one loop: it trains, is loaded and sampled, and a resumed run is the
uninterrupted one to the bit, with its pool or its frozen denoiser; what cannot be meant is refused by name.
"""

import dataclasses
import functools
import io
import json
import math
import shutil
import warnings

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from rich.console import Console

import diffflow as df
from diffflow.models.catalogue import MODELS as CATALOGUE
from diffflow.models.diffusion import ScoreConfig
from diffflow.models.discriminator_flow import PathConfig
from diffflow.models.distill import DistillConfig, PlanConfig
from diffflow.models.joint_likelihood import LikelihoodConfig
from diffflow.models.presets import BY_MODEL, DATA_SCALES, fitting, preset, scale_for
from diffflow.models.presets.by_model import distilled
from diffflow.models.score_gan import ScoreGANConfig
from diffflow.models.settings.networks import ConvGeneratorConfig, MLPGeneratorConfig
from diffflow.models.settings.serialise import (
    ConfigError,
    changed,
    families,
    from_dict,
    from_yaml,
    replace,
    to_dict,
    to_yaml,
)
from diffflow.networks.games import GAMES
from diffflow.objectives.movers.moments import Moments
from diffflow.training import checkpoint
from diffflow.training.distributed import Process
from diffflow.training.run_folder import Folder, RunError
from diffflow.training.train import train

# one of each family, and of each of its ways to move
KINDS = ["gan", "discriminator-flow", "improved-gan-independent", "diffusion-gan", "score-gan", "distill", "drifting"]
GENERATORS = {"gan", "score-gan", "distill", "drifting"}
STARTED = {"score-gan", "distill"}  # from a denoiser
TINY = {
    "width": 16, "depth": 1, "embed": 8, "latent": 4, "widths": [8, 8], "layers": 1, "attention": False, "groups": 4,
    "stages": 3, "warmup": 2,
}  # fmt: skip
FIT = {"batch": 16, "steps": 4, "minutes": None, "log_every": 2, "checkpoint_minutes": 1e4, "sample_minutes": 1e4}


def shrunk(values):
    """Settings with every network as small as it may be."""
    small = {k: v if k not in TINY or v is None else TINY[k] for k, v in values.items()}
    return {k: shrunk(v) if isinstance(v, dict) else v for k, v in small.items()}


def sized(name, source):
    if name == "distill":  # a first phase, then both movers
        return replace(
            distilled(DATA_SCALES[fitting(source)], "both", 2), {"teacher_first_steps": 2, "teacher_steps": 4}
        )
    return preset(name, source).config


def tiny(name, source, **settings):
    values = shrunk(to_dict(sized(name, source)))
    values["data"]["source"] = source
    values["fit"] |= FIT | {"tensorboard": False}
    if "path" in values:
        values["path"] |= {"steps": 3, "eta": 0.2}  # an untrained discriminator is steep: short steps keep floats close
    if "ranges" in values:
        values |= {"ranges": {"gan": 2.0, "churn": 1.0, "steps": [2, 4]}}
        # D* = y + sigma^2 grad log r + ...: at a high level the rounding of a gradient is no longer small
        values["sampling"] |= {"steps": 4, "sigma_max": 2.0}
    return replace(from_dict(values), settings)


def quiet():
    return Console(file=io.StringIO(), width=200)


def saved(path):
    return Folder(path).newest().tensors


def same(a, b):
    return a.keys() == b.keys() and all(
        a[g].keys() == b[g].keys() and all(torch.equal(v, b[g][k]) for k, v in a[g].items()) for g in a
    )


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """A run of a denoiser on each source, for Score GAN to start from."""
    home = tmp_path_factory.mktemp("scores")
    presets = {"digits": "digits", "moons": "toy"}
    return {s: train(tiny(preset, s), home / s, console=quiet()) for s, preset in presets.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory, scores):
    """Runs by (model, source), each trained when first asked for."""
    home, runs = tmp_path_factory.mktemp("families"), {}

    def run(name, source):
        if (name, source) not in runs:
            start = scores[source] if name in STARTED else None
            where = home / f"{name}-{source}"
            runs[name, source] = train(tiny(name, source), where, init_from=start, console=quiet())
        return runs[name, source]

    return run


# -- settings ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("scale", DATA_SCALES)
@pytest.mark.parametrize("name", BY_MODEL)
def test_every_preset_of_every_size_survives_yaml(name, scale):
    made = BY_MODEL[name](scale)
    config = made.config
    assert (made.name, made.about) == (name, BY_MODEL[name].__doc__)
    assert made.about.endswith(".")
    assert from_yaml(to_yaml(config)) == config
    assert from_yaml(to_yaml(config), preset("toy").config) == config
    assert not changed(config, from_dict(to_dict(config)))
    assert config.row in CATALOGUE


@pytest.mark.parametrize("accelerated", [False, True])
def test_a_scale_is_that_of_the_data_on_any_machine(tmp_path, monkeypatch, accelerated):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerated)
    rng = np.random.default_rng(0)
    for name, channels, sizes in (("grey", 1, (8, 8)), ("colour", 3, (8, 12)), ("one", 3, (8, 8))):
        (tmp_path / name).mkdir()
        for i, side in enumerate(sizes):
            pixels = rng.integers(0, 256, (side, side, channels), np.uint8)
            Image.fromarray(pixels.squeeze()).save(tmp_path / name / f"{i}.png")
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 256, (20, channels, 8, 8), np.uint8))
    np.save(tmp_path / "rows.npy", rng.normal(size=(20, 3)))
    kinds = {"grey": "mnist", "grey.npy": "mnist", "colour": "cifar10", "one": "cifar10", "one.npy": "cifar10"}
    for source, scale in {**kinds, "rows.npy": "table"}.items():
        assert fitting(str(tmp_path / source)) == scale
        scale = {"cifar10": "pictures"}.get(scale, scale)  # colour pictures have a ladder
        assert scale_for(str(tmp_path / source)) == scale
        for name in ("gan", "discriminator-flow", "diffusion-gan", "score-gan"):
            config = preset(name, str(tmp_path / source)).config
            assert not config.data.flip  # asked for, or not at all
            assert config.fit.minutes == BY_MODEL[name](scale).config.fit.minutes
    assert (fitting("moons"), fitting("digits")) == ("toy", "digits")
    with pytest.raises(df.data.DataError, match="did you mean 'moons'"):
        fitting("mons")
    (tmp_path / "empty").mkdir()
    with pytest.raises(df.data.DataError, match="is empty"):
        fitting(str(tmp_path / "empty"))


@pytest.mark.parametrize("scale", ["digits", "mnist", "pictures"])
def test_a_discriminator_flow_draws_pictures_in_at_most_25_evaluations(scale):
    assert 2 * BY_MODEL["discriminator-flow"](scale).config.path.steps <= 25  # value and gradient


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_steps_of_a_slowing_path_shrink_evenly_and_sum_to_one(noise):
    """t_k = 1 - (1 - k/N)^2: steps (2 (N - k) - 1)/N^2, in the pool and in any number at sampling."""
    config = replace(BY_MODEL["discriminator-flow"]("toy").config, {"path.slowing": 2.0, "path.noise": noise})
    meta = {"shape": [2], "std": 1.0, "mean": 0.0, "classes": None}
    modules = config.build(meta)
    pool, expected = config.objective(modules, meta).grids[0], lambda n: (2 * torch.arange(n, 0, -1) - 1.0) / n**2
    torch.testing.assert_close(pool.diff(), expected(config.path.steps).double())
    for n in (4, 10):
        times = df.sample(config.sde(modules, meta, config.dials), 2, steps=n, keep=1, noise=df.Noise(0)).times
        torch.testing.assert_close(times.diff(), expected(n).double())
        assert times[-1] == 1
    assert config.path.grid(7)[0] == 0
    for wrong in (0.5, 5.0, math.nan):
        with pytest.raises(ValueError, match=r"slowing = .*between 1, which is equal steps, and 4"):
            PathConfig(slowing=wrong)
    with pytest.raises(ConfigError, match=r"stages = 3.*leave path.slowing at 1"):
        replace(config, {"model.stages": 3})
    with pytest.raises(ConfigError, match=r"stages = 5 networks for path.steps = 4 would leave some"):
        replace(config, {"model.stages": 5, "path.steps": 4, "path.slowing": 1.0})
    with pytest.raises(ConfigError, match=r"move.updates = 2: a field .* has no network that learns"):
        replace(BY_MODEL["drifting"]("toy").config, {"move.updates": 2})


def test_families_differ_in_what_they_are_and_in_what_they_hold():
    configs = {name: sized(name, "moons") for name in KINDS}
    assert {type(c).__name__ for c in configs.values()} == families().keys() - {"ScoreConfig", "LikelihoodConfig"}
    for a in KINDS:
        for b in KINDS:
            assert (changed(configs[a], configs[b]) == []) == (a == b)
    assert "type" in changed(configs["gan"], configs["drifting"])
    assert changed(configs["gan"], replace(configs["gan"], {"game.penalty.real": 3.0})) == ["game.penalty.real"]
    for key, value in {"discriminator.lr": 9.0, "path.pool": 7, "model.stages": 9, "game.loss": "hinge"}.items():
        old = configs["discriminator-flow"]
        assert changed(old, replace(old, {key: value})) == [key]


def test_noise_levels_that_a_discriminator_is_trained_along_are_no_sampling_choice():
    score, both = preset("toy").config, BY_MODEL["diffusion-gan"]("toy").config
    change = {"sampling.sigma_max": 2.0, "sampling.steps": 9}
    assert changed(score, replace(score, change)) == []
    assert changed(both, replace(both, change)) == ["sampling.sigma_max"]


@pytest.mark.parametrize("game", [game.name for game in GAMES.values() if not game.paired])
def test_a_logit_beside_a_score_is_a_log_ratio(game):
    for name in ("diffusion-gan", "improved-gan"):
        config = BY_MODEL[name]("toy").config
        if GAMES[game].additive:
            assert replace(config, {"game.loss": game}).game.loss == game
        else:
            with pytest.raises(ConfigError, match=rf"game.loss = '{game}'.*vanilla, saturating, kl, chi2, fgan-kl"):
                replace(config, {"game.loss": game})
    replace(BY_MODEL["discriminator-flow"]("toy").config, {"game.loss": game})  # its flow is the game's own


# -- the equation that the settings mean ------------------------------------------------------------------------------
META = {"shape": [1, 4, 4], "std": 0.5, "mean": 0.25, "principal_std": 0.7, "classes": None}


class Linear(df.Ratio):
    """d = <a, x>, with a of ones: a ratio of known gradient."""

    def value_and_grad(self, x, t):
        return x.flatten(1).sum(1), torch.ones_like(x)


def starts_as(sde, mean, std):
    """N(mean, std^2 I) has score -1/std at mean + std."""
    x = torch.full((1, *sde.start.shape), mean + std)
    torch.testing.assert_close(sde.start.score(x).float(), torch.full_like(x, -1 / std))


def test_a_discriminator_flow_is_the_equation_of_its_settings():
    """dx = -eta D std^2 l'(d) grad d dt + sqrt(entropy) std dW from N(mean, (spread std)^2), derivations.md 6.4."""
    settings = {
        "path.eta": 0.3,
        "path.start_width": 2.0,
        "path.entropy": 0.09,
        "path.noise": 0.0,
        "game.loss": "vanilla",
    }
    config = replace(BY_MODEL["discriminator-flow"]("digits").config, settings)
    sde = config.flow(Linear(), META, torch.device("cpu"))
    x = torch.linspace(-1, 1, 3)[:, None, None, None].expand(3, 1, 4, 4)
    speed = 0.3 * 16 * 0.5**2 * (-x.flatten(1).sum(1)).sigmoid()
    # lam2 < 0 weighs the data score, which is absent: the law spreads by noise alone
    torch.testing.assert_close(sde.drift(x, 0.4), speed[:, None, None, None].expand_as(x))
    torch.testing.assert_close(torch.as_tensor(sde.noise(0.4)), torch.tensor(0.3 * 0.5, dtype=torch.float64))
    starts_as(sde, 0.25, 2.0 * 0.5)


def test_an_improved_gan_is_the_equation_of_its_settings():
    """dx = eta D std^2 grad d dt toward data noised from noise std to noise_end std (derivations.md 3.2)."""
    settings = {"path.eta": 0.3, "path.start_width": 1.0, "path.noise": 2.0, "path.noise_end": 0.1}
    config = replace(BY_MODEL["improved-gan"]("digits").config, settings)
    sde = config.flow(Linear(), META, torch.device("cpu"))
    x = torch.zeros(3, 1, 4, 4)
    torch.testing.assert_close(sde.drift(x, 0.4), torch.full_like(x, 0.3 * 16 * 0.5**2))
    for t, sigma in ((0.0, 2.0 * 0.5), (1.0, 0.1 * 0.5)):
        torch.testing.assert_close(float(sde.schedule.sigma(t)), sigma)
    starts_as(sde, 0.25, 0.5 * math.hypot(1.0, 2.0))


def test_a_diffusion_gan_is_the_equation_of_its_settings():
    """g2 = (1 + z) G2 and beta = g2/2 + (k G2/2) / (1 + sigma^2/std^2), from N(mean, std^2 + sigma_max^2)."""
    config = BY_MODEL["diffusion-gan"]("toy").config
    meta = META | {"shape": [2]}
    sde = config.path(config.build(meta), meta).sde(Linear(), torch.tensor([16.0, 0.8, 0.5], dtype=torch.float64))
    for sigma in (0.05, 0.5, 7.0):
        t = config.sampling.path.time(sigma)
        G2 = config.sampling.path.lam2(t)
        torch.testing.assert_close(sde.g2(t), 1.5 * G2)
        torch.testing.assert_close(sde.beta(t), 0.75 * G2 + 0.5 * 0.8 * G2 / (1 + (sigma / 0.5) ** 2))
    starts_as(sde, 0.25, math.hypot(0.5, config.sampling.sigma_max))
    # the logit that the network gives is as large as two laws may differ at a noise level: std / sqrt(sigma^2 + std^2)
    discriminator = config.build(meta)["discriminator"]
    t = config.sampling.path.time(torch.tensor([0.05, 0.5, 7.0], dtype=torch.float64))
    expected = torch.tensor([0.5 / math.hypot(s, 0.5) for s in (0.05, 0.5, 7.0)], dtype=torch.float64)
    torch.testing.assert_close(discriminator.amplitude(t), expected)
    torch.testing.assert_close(discriminator.precondition(t), expected / 0.5)


def test_an_unknown_preset_or_setting_is_helped():
    with pytest.raises(ConfigError, match=r"'discriminator-flo'; did you mean 'discriminator-flow'\?"):
        preset("discriminator-flo")
    with pytest.raises(ConfigError, match=r"type = 'GANConfg' is no family.*did you mean 'GANConfig'\?"):
        from_dict({"type": "GANConfg"})
    with pytest.raises(ConfigError, match=r"game.loss = 'hing' is no game; did you mean 'hinge'\?"):
        tiny("gan", "moons", **{"game.loss": "hing"})


# -- training, loading, sampling --------------------------------------------------------------------------------------
@pytest.mark.parametrize("source", ["moons", "digits"])
@pytest.mark.parametrize("name", KINDS)
def test_a_run_trains_is_loaded_and_sampled(made, name, source):
    path = made(name, source)
    run = df.load(path, device="cpu")
    shape = (2,) if source == "moons" else (1, 8, 8)
    assert list((path / "samples").glob("*.png"))
    assert (run.step, run.shape, run.config) == (4, shape, tiny(name, source))
    labels = None if run.classes is None else torch.arange(6) % 10
    x = run.sample(6, labels, noise=0)
    assert x.last.shape == (6, *shape)
    assert torch.isfinite(x.last).all()
    if source == "digits":
        assert 0 <= x.last.min() <= x.last.max() <= 1
    assert x.nfe == (
        2 if name == "distill" else 1 if name in GENERATORS else 3 * 4 if name == "diffusion-gan" else 2 * 3
    )
    parts = [run.sample(3, None if labels is None else labels[k : k + 3], noise=df.Noise(0, first=k)) for k in (0, 3)]
    torch.testing.assert_close(torch.cat([p.last for p in parts]), x.last, rtol=1e-5, atol=1e-5)
    log = [line["log"] for line in run.metrics()]
    assert len(log) >= 2
    assert all(key.partition("/")[0] in (*run.players, "samples") for line in log for key in line)
    assert run.players.keys() == run.config.players().keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluations": 0}, "evaluations = 0"),
        ({"score": -1.0}, "score = -1"),
        ({"score": 0.0, "ratio": 0.0}, "what moves the generator after its first phase"),
        ({"teacher_first_steps": None}, "both weights are 0"),
        ({"teacher_first_steps": -1}, "teacher_first_steps = -1"),
        ({"plan.levels": [4.0]}, r"plan.weights are 0 numbers: rows of 1 to 1 for 1 levels are 1"),
        ({"evaluations": 3, "plan": {"levels": [4.0], "weights": [1.0]}}, "plan.levels are 1: give 3"),
        ({"penalty_share": 0.0}, "penalty_share = 0.0 must be a share"),
        ({"instance_noise": -1.0}, r"instance_noise = -1.0: noise"),
        ({"game.penalty.between": 1.0}, r"penalty_share = 0.25 goes with .* leave it at 1"),
        ({"sigma_min": 90.0}, "sigma_min = 90"),
        ({"teacher_steps": 2}, "teacher_steps = 2 must be more than the 2 evaluations"),
        ({"guidance": 2.0}, "the fine solutions of the first phase have none"),
    ],
)
def test_settings_of_distillation_that_cannot_be_meant_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny("distill", "moons", **settings)


def test_instance_noise_is_counted_in_standard_deviations_of_the_data():
    config = tiny("distill", "moons", instance_noise=0.25, teacher_first_steps=0, score=0.0)
    meta = config.data.load().meta()
    ((_, discriminator),) = config.objective(config.build(meta), meta).mover.parts
    assert discriminator.instance_noise == 0.25 * meta["std"]


@pytest.mark.parametrize(("source", "clip"), [("moons", math.inf), ("digits", 1.0)])
def test_images_are_judged_as_they_are_saved(source, clip):
    config = tiny("distill", source, teacher_first_steps=0, score=0.0)
    meta = config.data.load().meta()
    ((_, discriminator),) = config.objective(config.build(meta), meta).mover.parts
    assert discriminator.data_range == clip


def test_a_plan_survives_the_configuration():
    s = df.EDM()
    plan = df.calibrate(df.probability_flow(s, s.score(df.TOYS["8gaussians"]())), 6, starts=64, rounds=0)
    config = dataclasses.replace(tiny("distill", "moons"), evaluations=6, teacher_steps=9, plan=PlanConfig.of(plan))
    again = from_yaml(to_yaml(config))
    assert again == config
    assert again.sampler({}).levels == plan.levels
    for mine, row in zip(again.sampler({}).weights, plan.weights, strict=True):
        assert mine == (*row, *[0.0] * (len(mine) - len(row)))


def test_a_score_gan_starts_where_noised_data_are(made):
    run = df.load(made("score-gan", "digits"), device="cpu")
    start = run.players["generator"].net
    assert (start.mean, start.plan.levels) == (run.data["mean"], (run.config.sigma * run.data["std"],))
    assert start.mean < -0.1  # digits are mostly background


@pytest.mark.parametrize("name", KINDS)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, scores, name):
    config = tiny(name, "moons", **{"fit.steps": 20})
    start = scores["moons"] if name in STARTED else None
    whole = train(config, tmp_path / "whole", init_from=start, console=quiet())
    half = replace(config, {"fit.steps": 10})
    train(half, tmp_path / "parts", init_from=start, console=quiet())
    first = saved(tmp_path / "parts")
    parts = train(config, tmp_path / "parts", resume="auto", console=quiet())
    a, b = saved(whole), saved(parts)
    assert same(a, b)
    assert not same(first, b)
    kept = {"discriminator-flow": "pool/x", "improved-gan-independent": "pool/k", "diffusion-gan": "1/pool/x"}
    if name in kept:
        assert not torch.equal(first["objective"][kept[name]], b["objective"][kept[name]])  # the particles moved on
    elif name in STARTED:
        teacher_first_steps = "then/0/" if name == "distill" else ""
        source = Folder(scores["moons"])
        width = source.config().denoiser.ema[0]
        for k, v in saved(source.path)["ema"].items():  # the data's denoiser is the run's average, and stays it
            if k.startswith(f"denoiser/{width}/"):
                assert torch.equal(b["objective"][teacher_first_steps + k.replace(f"denoiser/{width}/", "data/")], v)
    else:
        assert not b["objective"]
    assert [line["step"] for line in Folder(parts).lines()] == list(range(2, 21, 2))


@pytest.mark.parametrize("dropout", [0.5, 0.0])
def test_images_distilled_by_the_log_ratio_remember_their_moments(tmp_path, monkeypatch, scores, dropout):
    """Twin classifiers and moments, through the recipe; of a denoiser that never learned "no class", too. A resumed run
    is the uninterrupted one, and the moments of a short window have moved something."""
    short = functools.partial(Moments, window=64.0)
    monkeypatch.setattr("diffflow.models.distill.Moments", short)
    start = scores["digits"]
    if not dropout:
        start = train(tiny("digits", "digits", **{"model.label_dropout": 0.0}), tmp_path / "start", console=quiet())
    config = distilled(DATA_SCALES["digits"], "ratio", 2).after(Folder(start).config())
    assert config.moments > 0
    settings = {f"fit.{k}": v for k, v in FIT.items()} | {"fit.steps": 8, "fit.tensorboard": False}
    config = replace(config, settings)
    whole = train(config, tmp_path / "whole", init_from=start, console=quiet())
    train(replace(config, {"fit.steps": 5}), tmp_path / "parts", init_from=start, console=quiet())
    parts = train(config, tmp_path / "parts", resume="auto", console=quiet())
    assert same(saved(whole), saved(parts))
    kept = saved(whole)["objective"]
    assert kept["1/real/counts"].sum() == 8 * 16
    assert kept["1/made/counts"].sum().item() == pytest.approx(sum(16 * 0.75**k for k in range(8)))
    run = df.load(whole, device="cpu")
    assert run.sample(3, [0, 1, 2], noise=0).last.isfinite().all()
    table = run.players["discriminator"].net.unet.class_embedding.weight
    assert torch.allclose(table[-1], table[:-1].mean(0), atol=0.1) == (not dropout)
    without = train(replace(config, {"moments": 0.0}), tmp_path / "without", init_from=start, console=quiet())
    assert not same({"players": saved(whole)["players"]}, {"players": saved(without)["players"]})


def test_moments_go_beside_what_moves_samples():
    with pytest.raises(ConfigError, match=r"moments = -1.0 must be finite, and not negative"):
        DistillConfig(moments=-1.0)
    with pytest.raises(ConfigError, match=r"moments = 0.3 go beside a score difference or a log-ratio"):
        DistillConfig(score=0.0, ratio=0.0, moments=0.3, teacher_first_steps=None)


def test_micro_batches_sum_to_the_batch(tmp_path):
    """The same samples and streams, summed in another order, for a pool that moves on after each micro-batch's own last
    turn: all that differs is float32 rounding."""
    config = tiny("discriminator-flow", "moons", **{"fit.steps": 3, "discriminator.betas": [0.9, 0.99]})
    one = saved(train(config, tmp_path / "one", console=quiet()))
    two = saved(train(replace(config, {"fit.accumulate": 2}), tmp_path / "two", console=quiet()))
    for key in ("pool/k", "pool/cond", "pool/dials"):
        assert torch.equal(one["objective"][key], two["objective"][key])
    torch.testing.assert_close(two["objective"]["pool/x"], one["objective"]["pool/x"], rtol=1e-3, atol=1e-4)
    for k, v in one["players"].items():
        torch.testing.assert_close(two["players"][k], v, rtol=1e-3, atol=1e-4)


def test_micro_batches_of_a_gan_sum_to_the_batch(tmp_path):
    """Two players in turns, the same samples and streams: all that differs is float32 rounding."""
    config = tiny("gan", "moons", **{"fit.steps": 3})
    one = saved(train(config, tmp_path / "one", console=quiet()))
    two = saved(train(replace(config, {"fit.accumulate": 2}), tmp_path / "two", console=quiet()))
    for k, v in one["players"].items():
        torch.testing.assert_close(two["players"][k], v, rtol=1e-3, atol=1e-4)


def test_a_field_keeps_its_batch_whole(tmp_path, monkeypatch):
    config = tiny("sw-generator", "moons")
    with pytest.raises(ConfigError, match=r"one process.* --fit.accumulate 1, not in 1 x 2 parts"):
        train(replace(config, {"fit.accumulate": 2}), tmp_path / "run", console=quiet())
    monkeypatch.setattr("diffflow.training.train.find_process", lambda device: Process(torch.device("cpu"), 0, 2))
    with pytest.raises(ConfigError, match=r"one process.* not in 2 x 1 parts"):
        train(config, tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["discriminator-flow", "gan"])
def test_drawing_grids_leaves_the_players_alone(tmp_path, name):
    """Spectral normalisation moves its power iteration at every call while training: grids, however many, are not
    training, and a resumed run is the uninterrupted one."""
    net = {"discriminator-flow": "model.net.spectral", "gan": "model.discriminator.spectral"}[name]
    config = tiny(name, "moons", **{net: True, "fit.steps": 6})
    often = replace(config, {"fit.sample_minutes": 1e-6})
    rare = saved(train(config, tmp_path / "rare", console=quiet()))
    assert any(k.endswith("._u") for k in rare["players"])
    assert same(rare, saved(train(often, tmp_path / "often", console=quiet())))
    train(replace(often, {"fit.steps": 3}), tmp_path / "parts", console=quiet())
    assert same(rare, saved(train(config, tmp_path / "parts", resume="auto", console=quiet())))


def test_likelihood_where_there_is_a_velocity(made):
    for name in ("discriminator-flow", "diffusion-gan"):
        run = df.load(made(name, "moons"), device="cpu")
        value = run.log_prob(df.TOYS["moons"]().sample(4, noise=0)).value
        assert torch.isfinite(value).all()
    with pytest.raises(ValueError, match="a generator has no equation"):
        df.load(made("gan", "moons")).log_prob(torch.zeros(2, 2))


# -- dials ------------------------------------------------------------------------------------------------------------
def test_dials_outside_their_training_warn_and_the_equation_is_the_sampler(made):
    run = df.load(made("diffusion-gan", "moons"), device="cpu")
    with pytest.warns(UserWarning, match=r"gan=5 is outside \[0, 2\]"):
        run.sample(3, gan=5.0)
    with pytest.warns(UserWarning, match=r"steps=9 is outside \[2, 4\]"):
        run.sample(3, steps=9)
    assert run.sample(3, gan=0.0).nfe == 4  # the score alone, of which any number of steps is known
    assert run.sample(3, gan=0.0, steps=9).nfe == 9
    moved = [run.sample(3, gan=g, churn=z, noise=0).last for g, z in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))]
    assert not torch.equal(moved[0], moved[1])
    assert not torch.equal(moved[1], moved[2])
    assert run.sde().needs(0.3).ratio
    assert not run.sde(gan=0.0).needs(0.3).ratio


def test_another_process_than_that_of_the_training_warns(made):
    digits, moons = (df.load(made("diffusion-gan", source), device="cpu") for source in ("digits", "moons"))
    with pytest.warns(UserWarning, match="guidance = 2 moves the particles otherwise"):
        digits.sample(3, cond=1, guidance=2.0)
    with pytest.warns(UserWarning, match=r"solver = Euler.* moves the particles otherwise"):
        moons.sample(3, solver=df.Euler())
    with pytest.warns(UserWarning, match="a grid of your own moves the particles otherwise"):
        moons.sample(3, steps=2, grid=[0.0, 0.5, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        digits.sample(3, cond=1)
        digits.sample(3, cond=1, guidance=2.0, gan=0.0)
        moons.sample(3, solver=df.Euler(), gan=0.0)


def test_the_equation_is_told_the_steps_to_come(made):
    run = df.load(made("diffusion-gan", "moons"), device="cpu")
    start = run.config.sampling.start(run.data, run.device).sample(5, df.Noise(0))
    for steps in (2, 3):
        drawn = run.sample(5, steps=steps, gan=1.0, churn=0.0, noise=0)
        sde = run.sde(steps=steps)
        x = df.sample(sde, 5, steps=steps, solver=run.config.solver(run.dials), noise=0).last
        torch.testing.assert_close(run.decode(x), drawn.last)
    here = torch.tensor(0.9, dtype=torch.float64)
    assert not torch.equal(run.sde(steps=2).ratio(start, here), run.sde(steps=3).ratio(start, here))
    assert torch.equal(run.sde().ratio(start, here), run.sde(steps=run.dials.steps).ratio(start, here))
    with pytest.warns(UserWarning, match=r"steps=9 is outside \[2, 4\]"):
        run.sde(steps=9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranges.gan": 0.0}, "ranges.gan = 0.0 must be positive"),
        ({"ranges.gan": float("inf")}, "ranges.gan = inf must be positive and finite"),
        ({"ranges.churn": -0.1}, "ranges.churn = -0.1 must be finite and not negative"),
        ({"ranges.steps": [0, 4]}, r"ranges.steps = \(0, 4\) must be"),
        ({"ranges.steps": [5, 4]}, r"ranges.steps = \(5, 4\) must be"),
        ({"sampling.steps": 9}, r"sampling.steps = 9 is outside \[2, 4\].*widen ranges.steps"),
        ({"sampling.gan": 2.5}, r"sampling.gan = 2.5 is outside \[0, 2\].*widen ranges.gan"),
        ({"sampling.churn": 1.5}, r"sampling.churn = 1.5 is outside \[0, 1\].*widen ranges.churn"),
    ],
)
def test_ranges_that_cannot_be_meant_and_defaults_outside_them(change, message):
    with pytest.raises(ConfigError, match=message):
        tiny("diffusion-gan", "moons", **change)


def test_without_its_discriminator_a_diffusion_gan_samples_in_any_way():
    config = tiny("diffusion-gan", "moons", **{"sampling.gan": 0.0, "sampling.steps": 50, "sampling.churn": 3.0})
    assert config.dials.steps == 50


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("discriminator-flow", {"churn": 1.0}, "churn = 1: this model has no such dial"),
        ("discriminator-flow", {"gan": 0.0}, "gan = 0: this model has no such dial"),
        ("discriminator-flow", {"guidance": 2.0}, "guidance = 2: this model has no such dial"),
        ("gan", {"steps": 5}, "steps = 5: a generator draws in one evaluation"),
        ("gan", {"churn": 0.5}, "churn = 0.5: a generator"),
        ("gan", {"keep": 1}, "keep = 1: a generator"),
        ("gan", {"gan": 1.0}, "gan = 1.0: a generator"),
        ("drifting", {"guidance": 2.0}, "guidance = 2.0: a generator"),
        ("score-gan", {"solver": df.Euler()}, r"solver = Euler.*: a generator"),
        ("diffusion-gan", {"gan": -1.0}, "gan=-1.0 positive"),
        ("diffusion-gan", {"churn": -1.0}, "churn=-1.0 not negative"),
        ("diffusion-gan", {"steps": 0}, "steps=0 must be at least 1"),
        ("diffusion-gan", {"guidance": 2.0}, "guidance = 2.0 needs a condition"),
    ],
)
def test_dials_that_a_model_does_not_have_are_named(made, name, arguments, message):
    with pytest.raises(ValueError, match=message):
        df.load(made(name, "moons"), device="cpu").sample(3, **arguments)


@pytest.mark.parametrize("name", ["digits", "discriminator-flow", "diffusion-gan"])
def test_without_label_dropout_there_is_no_law_of_all_classes(tmp_path, name):
    config = tiny(name, "digits", **{"model.label_dropout": 0.0, "fit.steps": 1})
    run = df.load(train(config, tmp_path / "run", console=quiet()), device="cpu")
    assert run.sample(2, cond=[0, 1]).last.isfinite().all()
    for wrong in ({}, {"cond": [0, -1]}, {"cond": 0, "guidance": 2.0}):
        with pytest.raises(ValueError, match=r"of no class or condition, .* none \(model.label_dropout = 0\)"):
            run.sample(2, **wrong)
    with pytest.raises(ValueError, match="learned none"):
        run.log_prob(torch.rand(1, 1, 8, 8))
    if name == "digits":
        with pytest.raises(ConfigError, match=r"guidance = 2.0 compares with samples of no class"):
            replace(BY_MODEL["score-gan"]("digits").config, {"guidance": 2.0}).after(run.config)


@pytest.mark.parametrize("source", ["moons", "digits"])
@pytest.mark.parametrize("name", [*KINDS, "relativistic", "ipm", "sw-generator", "mmd-generator"])
def test_every_kind_trains_in_half_precision(tmp_path, scores, name, source):
    """bf16 is the default of large images: networks in half precision, samples, penalties and forces in full."""
    config = tiny(name, source, **{"fit.precision": "bf16", "fit.steps": 2})
    start = scores[source] if name in STARTED else None
    run = df.load(train(config, tmp_path / "run", init_from=start, console=quiet()), device="cpu")
    labels = [0, 1, 2] if source == "digits" else None
    assert run.step == 2
    assert run.sample(3, cond=labels).last.dtype == torch.float32


def test_compiled_players_are_all_but_the_discriminator(tmp_path, monkeypatch):
    """torch.compile has no second derivative, which a gradient penalty takes."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    console = quiet()
    train(tiny("gan", "moons", **{"fit.compile": True}), tmp_path / "run", console=console)
    assert compiled == ["Generator"]
    assert "The discriminator stays uncompiled" in console.file.getvalue()


def test_a_run_without_a_discriminator_has_no_gan(scores):
    with pytest.raises(ValueError, match=r"gan = 1.0 weighs the log-ratio, and this run has no discriminator"):
        df.load(scores["moons"]).sample(3, gan=1.0)


# -- what cannot be meant ---------------------------------------------------------------------------------------------
class Flat(torch.nn.Module):
    """A generator's net that makes samples of one number too few."""

    latent_shape, classes = (4,), 0

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)

    def forward(self, z, cond=None):
        return self.linear(z)


def test_a_generator_of_the_wrong_shape_is_refused(tmp_path, monkeypatch):
    nets = dataclasses.replace(tiny("gan", "digits").model, generator=MLPGeneratorConfig())
    vectors = dataclasses.replace(tiny("gan", "digits"), model=nets)
    images = dataclasses.replace(tiny("drifting", "moons"), model=ConvGeneratorConfig())
    with pytest.raises(ConfigError, match="MLPGeneratorConfig is for vectors"):
        train(vectors, tmp_path / "a", console=quiet())
    with pytest.raises(ConfigError, match="ConvGeneratorConfig is for images"):
        train(images, tmp_path / "b", console=quiet())
    monkeypatch.setattr(MLPGeneratorConfig, "build", lambda self, shape, classes: Flat())
    with pytest.raises(ValueError, match=r"made samples of shape \(1,\), but the data have shape \(2,\)"):
        train(tiny("drifting", "moons"), tmp_path / "c", console=quiet())
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("name", ["discriminator-flow", "diffusion-gan"])
def test_a_path_needs_a_discriminator_that_is_told_the_time(tmp_path, monkeypatch, name):
    config, built = tiny(name, "moons"), type(tiny(name, "moons")).build

    def untimed(self, meta):
        players = built(self, meta)
        players["discriminator"].timed = False
        return players

    monkeypatch.setattr(type(config), "build", untimed)
    with pytest.raises(ValueError, match="not told the time"):
        train(config, tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()


def test_score_gan_starts_from_a_denoiser_of_the_same_data(tmp_path, scores, made):
    config = tiny("score-gan", "moons")
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"needs a trained denoiser of the same data.*--init-from"):
        train(config, out, console=quiet())
    with pytest.raises(ConfigError, match=r"has no denoiser \(it has discriminator, generator\): name one"):
        train(config, out, init_from=made("gan", "moons"), console=quiet())
    with pytest.raises(RunError, match=r"of the same data, but .*digits learned digits .* these data are moons"):
        train(config, out, init_from=scores["digits"], console=quiet())
    with pytest.raises(RunError, match=r"these data are moons \(test, "):  # of one shape, but other points
        train(replace(config, {"data.split": "test"}), out, init_from=scores["moons"], console=quiet())
    with pytest.raises(ConfigError, match="do not fit this network"):
        train(replace(config, {"model.net.width": 24}), out, init_from=scores["moons"], console=quiet())
    with pytest.raises(ConfigError, match="not a GANConfig"):
        ScoreGANConfig().after(Folder(made("gan", "moons")).config())
    with pytest.raises(ConfigError, match="by itself, not a LikelihoodConfig"):  # whose denoiser is half of a composite
        DistillConfig().after(LikelihoodConfig())
    assert not out.exists()


def test_distillation_takes_over_a_runs_network_and_noise_levels_and_its_data_without_the_noise_of_densities():
    run = replace(ScoreConfig(), {"data.source": "digits", "data.dequantise": True, "sampling.sigma_max": 40.0})
    found = DistillConfig().after(run)
    assert (found.model, found.sigma_min, found.sigma_max) == (run.model, run.sampling.sigma_min, 40.0)
    assert found.data == replace(run.data, {"dequantise": False})


@pytest.mark.parametrize("name", ["score-gan", "gan"])
def test_a_run_killed_before_its_first_checkpoint_keeps_the_weights_it_started_from(tmp_path, scores, made, name):
    config, source = tiny(name, "moons"), scores["moons"] if name in STARTED else made("gan", "moons")
    whole = train(config, tmp_path / "run", init_from=source, console=quiet())
    first = "checkpoints/00000000"  # all that a run leaves that is killed before it has named itself (config.yaml)
    shutil.copytree(whole / first, tmp_path / "killed" / first)
    assert same(saved(whole), saved(train(config, tmp_path / "killed", resume="auto", console=quiet())))


@pytest.mark.parametrize(
    ("name", "lost", "message"),
    [("discriminator-flow", "pool/x", "no particle pool"), ("score-gan", "data/", "lacks the data's denoiser")],
)
def test_a_checkpoint_without_the_objective_s_state_is_named(tmp_path, made, name, lost, message):
    path = shutil.copytree(made(name, "moons"), tmp_path / "run")
    last = Folder(path).newest().path
    kept = {k: v for k, v in saved(path)["objective"].items() if not k.startswith(lost)}
    content = safetensors.torch.save(kept)
    (last / "objective.safetensors").write_bytes(content)
    manifest = json.loads((last / "manifest.json").read_text())
    manifest["objective.safetensors"] = {
        "sha256": checkpoint.hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    (last / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(checkpoint.CheckpointError, match=message):
        train(replace(Folder(path).config(), {"fit.steps": 6}), path, resume="auto", console=quiet())
    assert df.load(path).sample(2).last.shape == (2, 2)  # samples need the players only
