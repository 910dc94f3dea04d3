"""Settings for a budget: monotone in time, told in words, and always trainable."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffflow.models.presets import budget
from diffflow.models.presets.budget import Budget, Machine, Pictures
from diffflow.models.settings.serialise import from_yaml, to_yaml

SIDES = st.integers(4, 300)


@given(st.floats(0.1, 1000), st.floats(1.0, 10.0), st.floats(0.01, 2.0), st.floats(1.1, 3.0))
def test_more_minutes_never_give_a_narrower_net(minutes, more, first, growth):
    costs = {rung: (first * growth**k, first * growth**k) for k, rung in enumerate(budget.RUNGS)}
    rungs = list(budget.RUNGS)
    small, large = (rungs.index(budget.widest(Budget(minutes=m), costs)) for m in (minutes, minutes * more))
    assert small <= large
    chosen = rungs[small]
    enough = Budget(minutes=minutes).steps_at(*costs[chosen]) >= budget.ENOUGH
    assert enough or chosen == rungs[0]
    if small + 1 < len(rungs):
        assert Budget(minutes=minutes).steps_at(*costs[rungs[small + 1]]) < budget.ENOUGH


def test_whichever_budget_ends_first_counts():
    assert Budget(minutes=1).steps_at(0.1, 0.2) == pytest.approx(600)
    assert Budget(cpu_minutes=1).steps_at(0.1, 0.2) == pytest.approx(300)
    assert Budget(minutes=1, steps=50).steps_at(0.1, 0.2) == 50
    assert Budget().steps_at(0.1, 0.2) == math.inf
    assert Budget(steps=5).by_steps
    assert not Budget(minutes=5).by_steps


@settings(deadline=None, max_examples=25)
@given(SIDES, SIDES, st.sampled_from([1, 3, 4]), st.integers(1, 10**6), st.floats(0.0, 2.0), st.booleans())
def test_all_pictures_have_settings_that_a_file_gives_back(height, width, channels, count, std, gpu):
    pictures, machine = Pictures(count, (channels, height, width), 0, std), Machine(gpu, "bf16")
    for rung in budget.rungs(machine):
        config = budget.settings(pictures, rung, machine)
        assert from_yaml(to_yaml(config)) == config
        assert 0 <= config.fit.holdout <= 0.05
        assert config.fit.holdout * count <= 257
        lines = budget.reasons(pictures, Budget(minutes=10), config, (0.1, 0.1))
        assert any("6,000" in line for line in lines)
        assert any("--flip" in line for line in lines)
    places = max(height, width) / budget.stem_of(max(height, width))
    assert places <= 38 or max(height, width) > 96


def test_the_first_grid_comes_within_three_minutes_of_any_budget_up_to_half_an_hour():
    assert all(budget.cadence(Budget(minutes=m))["sample_minutes"] <= 3 for m in (0.1, 1, 5, 15, 30))
    assert budget.cadence(Budget(cpu_minutes=60))["sample_minutes"] <= 6
