"""Mode coverage against the chi distribution, missing modes and mixtures of which the answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

import diffflow as df
from diffflow.metrics import modes

SQUARES = torch.arange(8).repeat_interleave(100)


def within(d: int) -> float:
    """P(chi_d <= 3)."""
    return float(torch.special.gammainc(torch.tensor(d / 2, dtype=torch.float64), torch.tensor(4.5)))


@examples(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(0, 1000), st.floats(0.1, 3.0))
def test_an_exact_sample_lies_within_as_chi_says(d: int, seed: int, std: float) -> None:
    centres = 100.0 * std * torch.arange(4)[:, None] * torch.ones(d)
    law = df.GaussianMixture(centres, std, [0.1, 0.2, 0.3, 0.4])
    count, share = modes(law.sample(5000, df.Noise(seed)), law)
    assert count.value == 4
    assert abs(share.value - within(d)) < 5 * max(share.stderr, math.sqrt(within(d) * (1 - within(d)) / 5000))


def test_distances_are_in_standard_deviations_of_the_component() -> None:
    turned = torch.tensor([[5.0, 4.0], [4.0, 5.0]])  # variances 9 and 1 along the diagonals
    law = df.GaussianMixture([[0.0, 0.0], [40.0, 0.0]], covariances=torch.stack([turned, 4 * torch.eye(2)]))
    along, across = torch.tensor([1.0, 1.0]) / 2**0.5, torch.tensor([1.0, -1.0]) / 2**0.5
    x = torch.stack([8.9 * along, 9.1 * along, 2.9 * across, 3.1 * across, torch.tensor([46.1, 0.0])])
    for point, inside in zip(x, (1, 0, 1, 0, 0), strict=True):
        assert modes(point.repeat(12, 1), law)[1].value == inside
    exact = modes(law.sample(20_000, noise=0), law)[1]
    assert abs(exact.value - within(2)) < 4 * exact.stderr
    thin = df.GaussianMixture([[0.0, 0.0]], 1.0, factors=torch.tensor([[[8**0.5], [0.0]]]))  # widths 3 and 1
    assert [modes(torch.tensor([p] * 6), thin)[1].value for p in ([8.9, 0.0], [9.1, 0.0], [0.0, 3.1])] == [1, 0, 0]


def test_a_lost_mode_is_missed() -> None:
    law = df.TOYS["25gaussians"]()
    samples = law.sample(4000, df.Noise(1))
    lost = samples[(samples - law.means[7]).norm(dim=1) > 0.3]
    floor = law.sample(4000, df.Noise(2))
    count, share = modes(lost, law, floor)
    assert (count.value, count.floor) == (24, 25)
    assert share.floor is not None
    assert abs(share.value - share.floor) < 4 * math.sqrt(2) * share.stderr
    blurred = law.noised(1.0, 2 * law.narrowest).sample(4000, noise=0)  # variance 5: P(chi_2 <= 3 / sqrt 5)
    blurred = modes(blurred, law)[1]
    assert abs(blurred.value - (1 - math.exp(-4.5 / 5))) < 4 * blurred.stderr


@pytest.mark.parametrize(("copies", "covered"), [(19, 1), (20, 2), (21, 2)])
def test_a_mode_is_covered_from_a_fifth_of_its_fair_share(copies: int, covered: int) -> None:
    law = df.GaussianMixture([[0.0], [10.0]], 0.1)
    x = torch.tensor([[0.0]] * (200 - copies) + [[10.0]] * copies)
    count, share = modes(x, law)
    assert count.value == covered
    assert share.value == 1.0
    # at the threshold another draw covers it every second time
    assert copies != 20 or count.stderr == pytest.approx(0.5, abs=0.02)


def test_components_can_share_a_mode() -> None:
    law = df.TOYS["checkerboard"]()
    x = law.sample(4000, df.Noise(3))
    assert modes(x, law, groups=SQUARES)[0].value == 8
    assert modes(x[(x < 0).any(1)], law, groups=SQUARES)[0].value == 6  # two dark squares lie in the corner cut away
    # a light square's inside is further than 3 std from every dark one
    light = torch.rand(2000, 2, generator=torch.Generator().manual_seed(0)) * 0.6 + torch.tensor([0.2, 1.2])
    count, share = modes(light, law, groups=SQUARES)
    assert (count.value, share.value) == (0, 0)


def test_bad_input_is_named() -> None:
    law = df.TOYS["25gaussians"]()
    with pytest.raises(ValueError, match="100 samples are too few to look for 25 modes: give at least 126"):
        modes(law.sample(100), law)
    with pytest.raises(ValueError, match="no width"):
        modes(torch.zeros(50, 1), df.Empirical([[0.0], [1.0]]))
    with pytest.raises(ValueError, match="a mode for each of the 25 components, got 8"):
        modes(law.sample(200), law, groups=torch.arange(8))
