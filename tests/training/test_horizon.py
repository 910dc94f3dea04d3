"""Horizons and pace: shares of a training are functions of the step, rates end at zero, and moved ends never jump."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffflow as df
from diffflow.models.settings.common import FitConfig
from diffflow.models.settings.serialise import ConfigError
from diffflow.training import pace as clocks
from diffflow.training.distributed import Process
from diffflow.training.horizon import Horizon
from diffflow.training.pace import Pace
from diffflow.training.run_folder import Folder
from diffflow.training.speed_probe import aim

ENDS = st.integers(2, 10_000)
WARM = st.floats(0.0, 0.5)


@given(ENDS, WARM)
def test_rates_rise_to_the_peak_and_end_at_zero(end, warm):
    horizon = Horizon()
    horizon.aim(0, end)
    rates = [horizon.rate(k, warm) for k in range(end)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert horizon.rate(end, warm) == pytest.approx(0.0, abs=1e-12)
    after = [rate for k, rate in enumerate(rates) if (k + 1) / end >= warm]
    assert after == sorted(after, reverse=True)  # once warm it only falls
    assert rates[0] > 0  # the first step learns
    middle = horizon.rate(end // 2, 0.0)
    assert middle == pytest.approx(0.5 * (1 + math.cos(math.pi * (end // 2) / end)))


@given(ENDS, st.data())
def test_a_moved_end_leaves_the_share_where_it_was(end, data):
    horizon = Horizon()
    horizon.aim(0, end)
    step = data.draw(st.integers(1, end - 1))
    before = horizon.share(step)
    horizon.aim(step, other := data.draw(st.integers(step + 1, 20_000)))
    assert horizon.share(step) == before
    assert horizon.share(other) == pytest.approx(1.0)
    assert horizon.rate(other, 0.02) == pytest.approx(0.0, abs=1e-9)
    again = Horizon()
    again.load(horizon.state())
    assert [again.rate(k, 0.02) for k in range(step, other)] == [horizon.rate(k, 0.02) for k in range(step, other)]


def test_a_finished_training_that_is_given_more_rises_again_to_where_a_longer_one_would_be():
    """From zero, over a share of the new part, to the rate of a training that was as long from the beginning."""
    horizon, longer = Horizon(), Horizon()
    horizon.aim(0, 1000)
    horizon.aim(1000, 3000)
    longer.aim(0, 3000)
    assert horizon.share(1000) == pytest.approx(1 / 3)
    assert horizon.rate(1000, 0.02) < 0.05 < horizon.rate(1020, 0.02)
    for k in (1040, 2000, 2999):
        assert horizon.rate(k, 0.02) == pytest.approx(longer.rate(k, 0.02), rel=1e-9)


def test_an_end_in_the_past_and_a_share_without_an_end_are_refused():
    horizon = Horizon()
    with pytest.raises(ValueError, match="needs its end"):
        horizon.share(0)
    horizon.aim(0, 10)
    with pytest.raises(ValueError, match="step 10 cannot end at step 10"):
        horizon.aim(10, 10)


class Clocks:
    """A training whose steps take what the test says."""

    anneals = True

    def __init__(self):
        self.step, self.seconds, self.cpu_seconds, self.horizon = 0, 0.0, 0.0, Horizon()

    def go(self, pace: Pace, seconds: float) -> None:
        self.step += 1
        self.seconds, self.cpu_seconds = self.seconds + seconds, self.cpu_seconds + 2 * seconds
        pace.look()


def paced(config: FitConfig, cost: float, said: list[str] | None = None) -> tuple[Clocks, Pace]:
    training = Clocks()
    pace = Pace(config, training, Process(torch.device("cpu")), (said if said is not None else []).append)
    pace.aim(cost, 2 * cost)
    return training, pace


def test_a_budget_of_time_becomes_steps_and_whichever_budget_ends_first_counts():
    assert paced(FitConfig(minutes=1.0), 0.1)[0].horizon.end == 600
    assert paced(FitConfig(cpu_minutes=1.0), 0.1)[0].horizon.end == 300
    assert paced(FitConfig(minutes=1.0, cpu_minutes=1.0), 0.1)[0].horizon.end == 300
    assert paced(FitConfig(minutes=1.0, steps=50), 0.1)[0].horizon.end == 50
    assert paced(FitConfig(steps=7), math.inf)[0].horizon.end == 7
    with pytest.raises(ConfigError, match=r"give fit\.steps"):
        paced(FitConfig(minutes=1.0), math.inf)


@pytest.mark.parametrize("factor", [0.5, 0.97, 1.03, 2.0, 5.0])
def test_the_end_follows_a_speed_that_changes_by_more_than_a_tenth_and_time_is_kept(factor):
    said: list[str] = []
    training, pace = paced(FitConfig(minutes=1.0), 0.1, said)
    while pace.goes_on:
        training.go(pace, 0.1 if training.step < 200 else 0.1 * factor)
    if abs(factor - 1) > clocks.TOLERANCE:
        assert "the speed has changed" in said[0]
    # at the last look a twentieth is left, of which a tenth may be wrong, and a hundredth of the whole is let be
    assert training.seconds == pytest.approx(60, rel=0.03)
    assert training.horizon.share(training.step) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("step", "minutes", "end", "share"),
    [
        (580, 2.0, 1160, 0.5),  # the clock ended it a little before its last step: finished, so its rate rises again
        (600, 2.0, 1200, 0.5),
        (300, 2.0, 1200, 0.5),  # stopped half way: the rate goes on from where it was
        (300, 1.0, 600, 0.5),
        (580, 1.0, 600, 580 / 600),  # nothing more is given: nothing moves, however often
        (600, 1.0, 600, 1.0),
    ],
)
def test_minutes_that_a_run_is_given_later_are_used(step, minutes, end, share):
    training, _ = paced(FitConfig(minutes=1.0), 0.1)
    spent = 30.0 if step == 300 else 60.0
    training.step, training.seconds, training.cpu_seconds = step, spent, 2 * spent
    process = Process(torch.device("cpu"))
    for budget in (1.0, minutes):  # `--resume auto` alone comes first, and must not be in the way
        fit = FitConfig(minutes=budget)
        aim(Pace(fit, training, process), training, SimpleNamespace(fit=fit), None, process)
    horizon = training.horizon
    assert horizon.end == pytest.approx(end, abs=1)
    assert horizon.share(step) == pytest.approx(share, abs=1e-3)
    assert horizon.legs[-1].rises == (minutes > 1 and step > 300)


def test_a_resumed_training_has_the_rates_of_an_uninterrupted_one(tmp_path):
    """To the bit, with Muon, rates that follow the budget, and steps as the budget."""
    x = torch.randint(0, 256, (60, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    config = df.presets.preset("pictures").config
    small = {"model.net.widths": [8, 16], "model.net.layers": 1, "fit.batch": 4, "fit.minutes": None}
    small |= {"fit.holdout": 0.0, "fit.steps": 12, "fit.tensorboard": False, "data.source": "memory"}
    config = df.replace(config, small)
    data = df.data.of(x, split="all")
    from diffflow.training.train import train

    whole = train(config, tmp_path / "whole", data=data)
    stops = {"left": 5}

    def stop(line):
        stops["left"] -= 1
        return stops["left"] == 0

    from diffflow.training.hooks import Hooks

    often = dataclasses.replace(config, fit=dataclasses.replace(config.fit, log_every=1))
    part = train(often, tmp_path / "part", data=data, hooks=Hooks(on_log=stop))
    assert Folder(part).newest().state["step"] == 5
    train(often, part, resume="auto", data=data)
    one, two = (Folder(path).newest() for path in (whole, part))
    assert one.state["horizon"] == two.state["horizon"]
    for group in one.tensors:
        assert all(torch.equal(one.tensors[group][k], two.tensors[group][k]) for k in one.tensors[group])
