"""Signs of a training that goes wrong: said when they have stood for a while, once, and not of a young generator."""

import io

import pytest
from rich.console import Console

from diffflow.models.presets import preset
from diffflow.models.settings.serialise import replace
from diffflow.training import health as watch
from diffflow.training.health import PATIENCE, YOUNG, HealthMonitor
from diffflow.training.run_folder import Folder
from diffflow.training.train import train


def line(**log):
    return {"log": {k.replace("_", "/", 1): v for k, v in log.items()}, "grad": {}}


@pytest.mark.parametrize(
    ("sign", "wrong", "right", "words"),
    [
        ("discriminator_accuracy", 0.999, 0.9, "it has won"),
        ("discriminator_calibration", 0.3, 0.05, "its logit is not the log-ratio"),
        ("generator_std_ratio", 0.1, 0.9, "0.10 times as wide as the data"),
    ],
)
def test_a_sign_that_stands_is_said_once(sign, wrong, right, words):
    seen = HealthMonitor()
    for _ in range(YOUNG):
        assert seen.see(line(**{sign: right})) == []
    said = [seen.see(line(**{sign: wrong})) for _ in range(2 * PATIENCE)]
    assert [len(s) for s in said] == [0] * (PATIENCE - 1) + [1] + [0] * PATIENCE
    assert words in said[PATIENCE - 1][0]
    seen.see(line(**{sign: right}))  # it passes, comes back, and is worth another word
    assert [len(seen.see(line(**{sign: wrong}))) for _ in range(PATIENCE)] == [0] * (PATIENCE - 1) + [1]


@pytest.mark.parametrize(
    ("players", "remedies", "absent"),
    [
        ({"generator", "discriminator"}, ["--game.penalty.between", "--move.updates"], []),
        ({"discriminator"}, ["--game.penalty.between"], ["--move.updates"]),
        ({"generator", "fake"}, ["--move.updates"], ["--game.penalty"]),
        ({"generator"}, [], ["--game.penalty", "--move.updates"]),
    ],
)
def test_remedies_are_settings_of_the_family(players, remedies, absent):
    bad = line(samples_modes=0.1) | {"grad": dict.fromkeys(players, 1.0)}
    (words,) = watch.signs(bad, [line()] * YOUNG).values()
    assert all(flag in words for flag in remedies)
    assert not any(flag in words for flag in absent)


def test_a_grid_counts_at_once_and_is_said_once():
    """Grids are minutes apart: a training of two minutes has one, its last."""
    seen = HealthMonitor()
    for _ in range(YOUNG):
        assert seen.see(line()) == []
    (words,) = seen.see(line(samples_modes=0.25))
    assert "reach 25% of the modes" in words
    # lines without a grid say nothing of modes, for better or worse
    assert [seen.see(one) for one in 3 * [line(), line(samples_modes=0.1)]] == 6 * [[]]
    assert seen.see(line(samples_modes=0.9)) == []
    assert len(seen.see(line(samples_modes=0.1))) == 1


def test_what_is_not_measured_in_a_line_keeps_its_count():
    seen = HealthMonitor()
    for _ in range(YOUNG):
        seen.see(line())
    said = []
    for _ in range(PATIENCE):
        said += seen.see(line(critic_accuracy=1.0))
        said += seen.see(line())
    assert len(said) == 1


@pytest.mark.parametrize("cut", range(0, 3 * YOUNG, 3))
def test_a_resumed_training_goes_on_watching(cut):
    """What was said before is not said again, what was about to be said is."""
    log = [line() for _ in range(YOUNG)]
    log += [line(critic_accuracy=1.0, **({"samples_modes": 0.1} if k % 4 == 0 else {})) for k in range(2 * YOUNG)]
    whole = HealthMonitor()
    said = [whole.see(one) for one in log]
    assert sum(map(len, said)) == 2
    resumed = HealthMonitor(log[:cut])
    assert [resumed.see(one) for one in log[cut:]] == said[cut:]


def test_a_young_generator_may_be_narrow():
    seen = HealthMonitor()
    assert not any(seen.see(line(generator_std_ratio=0.01)) for _ in range(YOUNG))
    assert any(seen.see(line(generator_std_ratio=0.01)) for _ in range(PATIENCE))


def test_a_gradient_out_of_hand_is_measured_by_its_own_past():
    seen = HealthMonitor()
    for size in (1.0, 2.0) * YOUNG:
        assert seen.see({"log": {}, "grad": {"generator": size}}) == []
    large, small = ({"log": {}, "grad": {"generator": size}} for size in (1.5 * watch.GROWTH * 2, 1.0))
    for _ in range(2 * PATIENCE):  # a single spike passes, however often
        assert seen.see(large) == seen.see(small) == []
    said = [seen.see(large) for _ in range(PATIENCE)]
    assert "--generator.lr" in said[-1][0]


def test_the_last_grid_is_judged_too(tmp_path):
    """Modes of the averaged weights stand in the last line, also where that line was due before the grid."""
    console = Console(file=io.StringIO())
    config = replace(
        preset("drifting").config,
        {"data.source": "8gaussians", "fit.steps": 4, "fit.minutes": None, "fit.batch": 16, "fit.tensorboard": False},
    )
    for every in (2, 3):
        path = train(replace(config, {"fit.log_every": every}), tmp_path / str(every), console=console)
        *earlier, last = Folder(path).lines()
        assert last["step"] == 4
        assert 0 <= last["log"]["samples/modes"] <= 1
        assert 0 <= last["log"]["samples/within"] <= 1
        assert not any("samples/modes" in one["log"] for one in earlier)


def test_the_last_grid_warns_and_a_resumed_run_does_not_repeat_it(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "YOUNG", 1)
    out = io.StringIO()
    config = replace(
        preset("drifting").config,
        {"data.source": "25gaussians", "fit.steps": 4, "fit.minutes": None, "fit.batch": 16, "fit.log_every": 2}
        | {"fit.tensorboard": False, "generator.lr": 1e-9},
    )
    console = Console(file=out)
    for steps in (4, 8):
        train(replace(config, {"fit.steps": steps}), tmp_path / "run", resume="auto", console=console)
    lines = Folder(tmp_path / "run").lines()
    assert lines[1]["log"]["samples/modes"] < 0.5
    assert lines[3]["log"]["samples/modes"] < 0.5
    said = [[w for w in one.get("warnings", []) if "of the modes" in w] for one in lines]
    assert [len(s) for s in said] == [0, 1, 0, 0]
    assert " ".join(out.getvalue().split()).count("of the modes") == 1
