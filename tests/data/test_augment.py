"""Augmentation is a map that its label determines, and leaves pictures with label 0 alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from diffflow.data.augment import FEW, KINDS, LABELS, augment, augment_by_default, changed, draw
from diffflow.equation.noise import Noise

SIDE = 33
# torch's cubic kernel (a = -3/4) reads a straight line wrong by up to 2 |a + 1/2| t (1 - t) |1 - 2t| < .049 of its
# slope in each of two axes; the slopes of `smooth` are below .11 a pixel
CUBIC = 2 * 0.049 * 0.11


def label(**entries: float | tuple[float, ...]) -> Tensor:
    """A label of one picture with these entries, by the kind of change."""
    out = torch.zeros(1, LABELS)
    for kind, values in entries.items():
        out[0, list(KINDS[kind])] = torch.tensor(values if isinstance(values, tuple) else (values,)).float()
    return out


def turn(angle: float) -> tuple[float, float]:
    return math.cos(angle) - 1, math.sin(angle)


def smooth(p: np.ndarray) -> np.ndarray:
    """A smooth picture without symmetry, as a function of places (..., 2) in pixels from the centre."""
    x, y = p[..., 0] / 8, p[..., 1] / 8
    return np.exp(-((x - 0.4) ** 2) - 0.6 * (y + 0.3) ** 2) * (1 + 0.3 * np.sin(x + 2 * y))


def places(height: int, width: int) -> np.ndarray:
    y, x = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    return np.stack([x, y], -1)


def picture(height: int = SIDE, width: int = SIDE) -> Tensor:
    return torch.from_numpy(smooth(places(height, width))).float()[None, None]


def inside(x: Tensor, margin: int = 8) -> Tensor:
    return x[..., margin:-margin, margin:-margin]


def test_probability_0_is_the_identity_to_the_bit() -> None:
    x = torch.randn(50, 3, 9, 7)
    same, labels = augment(x, 0.0, Noise(0))
    assert torch.equal(same, x)
    assert not labels.any()


def test_labels_are_0_exactly_where_pictures_are_untouched_as_often_as_p_says() -> None:
    """Four kinds stay out with probability 1 - p each, the two mirrors with 1 - p/2, as one of their values is none."""
    n, p = 4000, 0.3
    x = torch.rand(n, 1, 5, 5)
    moved, labels = augment(x, p, Noise(1))
    zero = ~labels.any(1)
    assert torch.equal(zero, (moved == x).flatten(1).all(1))
    share = (1 - p) ** 4 * (1 - p / 2) ** 2
    assert float(zero.float().mean()) == pytest.approx(share, abs=4.5 * math.sqrt(share * (1 - share) / n))
    assert torch.equal(moved[zero], x[zero])  # the law of the data among those with label 0: nothing leaks


def test_each_kind_comes_as_often_as_p_says_and_alone_where_it_is_asked_for_alone() -> None:
    n, p = 4000, 0.4
    for kind, at in KINDS.items():
        found = draw(n, p, Noise(2), (kind,))
        others = [k for k in range(LABELS) if k not in at]
        share = p / 2 if kind in ("xflip", "yflip") else p
        assert not found[:, others].any()
        assert float(found.any(1).float().mean()) == pytest.approx(share, abs=4.5 * math.sqrt(p / n))
        assert torch.equal(found[:, at], draw(n, p, Noise(2))[:, at])  # whatever else is drawn


def test_mirrors_are_exact_and_labelled() -> None:
    x = torch.randn(1, 3, 6, 5)
    assert torch.equal(changed(x, label(xflip=1)), x.flip(-1))
    assert torch.equal(changed(x, label(yflip=1)), x.flip(-2))
    assert torch.equal(changed(changed(x, label(xflip=1, yflip=1)), label(xflip=1)), x.flip(-2))


@pytest.mark.parametrize("shape", [(33, 33), (25, 41)])
def test_the_label_says_which_map_it_was(shape: tuple[int, int]) -> None:
    """Against the product of the maps, made from the definitions."""
    s, r, k, q, u, v = 0.7, 0.6, -0.9, 0.4, 0.5, -0.3

    def rotation(a: float) -> np.ndarray:
        return np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])

    along = rotation(q) @ np.diag([2 ** (k / 5), 2 ** (-k / 5)]) @ rotation(-q)
    matrix = along @ rotation(r) * 2 ** (s / 5)
    p = places(*shape) - np.array([u * shape[1], v * shape[0]]) / 8
    wanted = smooth(p @ np.linalg.inv(matrix).T)
    told = label(scale=s, rotate=turn(r), stretch=(k * math.cos(2 * q), k * math.sin(2 * q)), shift=(u, v))
    found = changed(picture(*shape), told)[0, 0].numpy()
    back = p @ np.linalg.inv(matrix).T
    seen = (np.abs(back[..., 0]) < shape[1] / 2 - 2) & (np.abs(back[..., 1]) < shape[0] / 2 - 2)
    assert seen.mean() > 0.5
    assert np.abs(found - wanted)[seen].max() < CUBIC


def test_changes_form_groups() -> None:
    """Turning back, and scaling, stretching and moving back, up to interpolation; two quarter turns are a half."""
    x = picture()
    pairs = [
        (label(rotate=turn(0.7)), label(rotate=turn(-0.7))),
        (label(scale=1.0), label(scale=-1.0)),
        (label(stretch=(0.6, 0.8)), label(stretch=(-0.6, -0.8))),
        (label(shift=(0.4, -0.7)), label(shift=(-0.4, 0.7))),
    ]
    for there, back in pairs:
        assert not torch.allclose(inside(changed(x, there)), inside(x), atol=5 * CUBIC)
        assert torch.allclose(inside(changed(changed(x, there), back)), inside(x), atol=2 * CUBIC)
    quarter = label(rotate=turn(math.pi / 2))
    assert torch.allclose(changed(changed(x, quarter), quarter), x.flip(-1, -2), atol=1e-4)


def test_a_shift_by_whole_pixels_is_a_roll_inside_and_reflects_beyond() -> None:
    x = torch.randn(1, 2, 16, 16)
    moved = changed(x, label(shift=(8 * 3 / 16, -8 * 2 / 16)))
    assert torch.allclose(moved[..., :-2, 3:], x.roll((-2, 3), (-2, -1))[..., :-2, 3:], atol=1e-4)
    assert torch.allclose(moved[..., :-2, :3], x[..., 2:, :3].flip(-1), atol=1e-4)


def test_a_white_ground_stays_white() -> None:
    x = torch.ones(200, 3, 12, 12)
    moved, labels = augment(x, 1.0, Noise(3))
    assert labels[:, 2:].any(1).all()
    assert torch.allclose(moved, x, atol=1e-5)


def test_changes_are_linear_and_their_gradient_is_the_transpose() -> None:
    """<y, A x> = <A' y, x>, to float32."""
    x = torch.randn(8, 1, 10, 12, requires_grad=True)
    y = torch.randn(8, 1, 10, 12)
    moved, labels = augment(x, 0.8, Noise(4))
    (pulled,) = torch.autograd.grad((y * moved).sum(), x)
    z = torch.randn_like(x)
    assert float((pulled * z).sum()) == pytest.approx(float((y * changed(z, labels)).sum()), rel=1e-4, abs=1e-3)


def test_a_picture_gets_the_same_change_in_any_batch() -> None:
    x = torch.rand(9, 1, 6, 6)
    whole, labels = augment(x, 0.7, Noise(5))
    part, told = augment(x[4:], 0.7, Noise(5).shift(4))
    assert torch.equal(labels[4:], told)
    assert torch.equal(whole[4:], part)


def test_what_cannot_be_meant_is_refused() -> None:
    x = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"p = 1\.5"):
        augment(x, 1.5, Noise(0))
    with pytest.raises(ValueError, match="no augmentation 'flip'; there are xflip"):
        augment(x, 0.5, Noise(0), ("flip",))
    with pytest.raises(ValueError, match="pictures"):
        augment(torch.zeros(2, 3), 0.5, Noise(0))


def test_the_default_is_on_for_few_pictures_and_off_where_orientation_matters() -> None:
    assert augment_by_default(3786, grey=False, small=False)[0] == 0.12
    for count, grey, small, passes, why in (
        (1797, True, True, None, "digits"),
        (FEW, False, True, None, "enough"),
        (500, False, True, 20, "seldom"),
    ):
        p, reason = augment_by_default(count, grey, small, passes)
        assert p == 0
        assert why in reason
