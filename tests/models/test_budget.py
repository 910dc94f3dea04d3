"""Settings for a budget: monotone in time, told in words, and always trainable."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffflow.models.diffusion import ScoreConfig
from diffflow.models.presets import budget
from diffflow.models.presets.budget import Budget, Machine, Pictures
from diffflow.models.settings.networks import FastUNetConfig
from diffflow.models.settings.serialise import from_yaml, to_yaml
from diffflow.objectives.score_matching import EDMWeighting

SIDES = st.integers(4, 300)
GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "training.md"


@given(st.floats(0.1, 1000), st.floats(1.0, 10.0), st.floats(0.01, 2.0), st.floats(1.1, 3.0))
def test_more_minutes_never_give_a_narrower_net(minutes, more, first, growth):
    costs = {rung: (first * growth**k, first * growth**k) for k, rung in enumerate(budget.RUNGS)}
    rungs = list(budget.RUNGS)
    small, large = (rungs.index(budget.widest(Budget(minutes=m), costs)) for m in (minutes, minutes * more))
    assert small <= large
    steps = [Budget(minutes=minutes).steps_at(*costs[rung]) for rung in rungs]
    assert steps[small] >= budget.needed(small)
    assert all(steps[k] < budget.needed(k) for k in range(small + 1, len(rungs)))


def test_nothing_is_kept_aside_where_each_picture_is_a_class_of_its_own():
    """The user was told to change fit.holdout, which he had not set."""
    held = [budget.settings(Pictures(250, (3, 8, 8), classes), "M").fit.holdout for classes in (0, 249, 250)]
    assert held[0] == held[1] > 0
    assert held[2] == 0


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


def net_of(config: ScoreConfig) -> FastUNetConfig:
    """The network of these settings."""
    assert isinstance(config.model.net, FastUNetConfig)
    return config.model.net


def tables() -> list[str]:
    """What the guide says of the ladder, of stems and of the rest, as tables."""
    kinds = {"a processor": Machine(), "a GPU": Machine(accelerator=True)}
    nets = ["| net | widths | tried on |", "|---|---|---|"]
    for rung, widths in budget.RUNGS.items():
        where = [name for name, machine in kinds.items() if rung in budget.rungs(machine)]
        steady = ["a budget of steps"] if rung == budget.STEADY else []
        nets.append(f"| {rung} | {' '.join(map(str, widths))} | {', '.join(where + steady)} |")
    stems = ["| longer side in pixels | pixels of a place, processor | GPU |", "|---|---|---|"]
    bounds = [side for side in range(1, 500) if budget.stem_of(side) != budget.stem_of(side + 1)]
    for name, side in [*((f"up to {side}", side) for side in bounds), ("more", bounds[-1] + 1)]:
        found = [net_of(budget.settings(Pictures(9999, (3, side, side)), "L", m)) for m in kinds.values()]
        stems.append(f"| {name} | {' | '.join(f'{net.stem} x {net.stem}' for net in found)} |")
    first, second = (budget.settings(Pictures(9999, (3, 32, 32)), "L", m) for m in kinds.values())
    player, net, large, law = first.denoiser, net_of(first), net_of(second), first.loss
    assert isinstance(law, EDMWeighting)
    assert player.anneal == second.denoiser.anneal
    fewest = next(n for n in range(1, 9999) if budget.kept_aside(n))
    assert round(budget.kept_aside(10**5) * 10**5) == 256
    rest = [
        "| | processor | GPU |",
        "|---|---|---|",
        f"| pictures a step | {first.fit.batch} | {second.fit.batch} |",
        f"| blocks at each resolution, attention at the lowest | {net.layers}, {'yes' if net.attention else 'no'} "
        f"| {large.layers}, {'yes' if large.attention else 'no'} |",
        f"| peak rate | {player.lr:g} | {second.denoiser.lr:g} |",
        f"| the rate rises over | {player.anneal or 0:.0%} of the training | the same |",
        "| noise of training, of pixels with standard deviation .5 | log-normal, median "
        f"{math.exp(law.mean):.2g}, log-width {law.std:g} | the same |",
        f"| pictures kept aside | a twentieth, at most 256; of fewer than {fewest} none | the same |",
        f"| steps of a sample | {first.sampling.steps} | {second.sampling.steps} |",
    ]
    return ["\n".join(lines) for lines in (nets, stems, rest)]


def test_the_guide_says_what_is_chosen():
    for table in tables():
        assert table in GUIDE.read_text(), f"docs/guides/training.md wants\n\n{table}"
