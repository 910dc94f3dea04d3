"""Presets by model of pictures: as wide as the budget bears, in units of the data, and told where they are unfit."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffflow as df
from diffflow.models.presets import BY_MODEL, DATA_SCALES, budget, preset, sized
from diffflow.models.presets.budget import Budget, Machine, Pictures
from diffflow.models.presets.scales import of_pictures
from diffflow.models.settings.serialise import from_yaml, to_yaml

META = {"kind": "image", "classes": None, "std": 0.5, "mean": 0.0, "principal_std": 1.0}
MANY = "improved-gan-independent"  # ten networks


def weights(name: str, rung: str, shape: tuple[int, int, int]) -> int:
    config = sized.settings(name, Pictures(3000, shape), rung, Machine())
    with torch.device("meta"):
        modules = config.build(META | {"shape": shape})
    return sum(p.numel() for module in modules.values() for p in module.parameters())


@pytest.mark.parametrize("side", [8, 64])
def test_networks_of_a_processor_stay_small_and_widen_by_rung(side):
    for name in ("relativistic", "diffusion-gan", "drifting"):
        sizes = [weights(name, rung, (3, side, side)) for rung in budget.ON_PROCESSOR]
        assert sizes == sorted(sizes)
        assert sizes[-1] < 2e7
        assert sizes[1] < 1e7
    assert weights(MANY, "S", (3, side, side)) < 1e7


def test_a_folder_of_colour_pictures_is_not_mirrored_and_gets_nets_of_a_processor(tmp_path):
    colour = torch.randint(0, 256, (20, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    data = df.data.of(colour, split="all", name="noise")
    meta = data.meta()
    for name in BY_MODEL:
        made = preset(name, data)
        assert made.scale == "pictures"
        config = made.config
        assert not config.data.flip
        assert (config.fit.minutes, config.fit.holdout, config.fit.precision) == (budget.MINUTES, 0.0, "fp32")
        assert config.fit.batch <= 256
        assert all(player.anneal is not None for player in config.players().values())
        with torch.device("meta"):
            modules = config.build(meta)
        assert sum(p.numel() for m in modules.values() for p in m.parameters()) < 1e7
        assert from_yaml(to_yaml(config)) == config


def test_the_numbers_that_were_measured_come_back():
    """Weights and temperatures of MNIST, up to a third: they are in units of the distance of two pictures."""
    mnist, ours = DATA_SCALES["mnist"], of_pictures(Pictures(60_000, (1, 28, 28), 10, 0.616), "S", Machine())
    assert ours.penalty == pytest.approx(mnist.penalty, rel=0.1)
    for a, b in zip(ours.temperatures, mnist.temperatures, strict=True):
        assert a == pytest.approx(b, rel=1 / 3)


@given(st.floats(0.1, 1.0), st.integers(8, 128))
def test_penalties_and_temperatures_follow_the_distance_of_pictures(std, side):
    """Twice the contrast is twice the distance, and so are pictures of twice the sides: up to two digits."""
    one = of_pictures(Pictures(100, (3, side, side), 0, std), "S", Machine())
    for other in (Pictures(100, (3, side, side), 0, 2 * std), Pictures(100, (3, 2 * side, 2 * side), 0, std)):
        two = of_pictures(other, "S", Machine())
        assert two.penalty / one.penalty == pytest.approx(4, rel=0.1)
        assert two.temperatures[1] / one.temperatures[1] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("name", ["gan", "discriminator-flow", MANY, "diffusion-gan", "score-gan"])
def test_a_budget_is_unfit_where_too_few_steps_fit(name):
    config = BY_MODEL[name]("pictures").config
    cost = (0.5, 0.25)
    minutes = math.ceil(config.least_steps * cost[0] / 60)
    assert not sized.unfit(Budget(minutes=minutes), config, cost)
    said = sized.unfit(Budget(minutes=minutes / 10), config, cost)
    assert f"about {config.least_steps:,}" in said
    assert f"--minutes {minutes} or more" in said
    assert "--cpu-minutes" in sized.unfit(Budget(cpu_minutes=0.1), config, cost)
    assert f"--steps {config.least_steps} " in sized.unfit(Budget(steps=10), config, cost)


def test_fields_of_whole_pictures_are_unfit_for_any_budget():
    config = BY_MODEL["mmd-generator"]("pictures").config
    said = sized.unfit(Budget(minutes=1e6), config, (0.1, 0.1))
    assert "however long" in said
    assert "--minutes" not in said
