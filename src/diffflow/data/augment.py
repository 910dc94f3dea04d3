"""Augmentation that does not leak: pictures mirrored, turned, scaled and moved, with a label that says how.

Few pictures are learned by heart, and turned ones are more. What a network learns from turned pictures it also makes,
unless it is told of each how it was turned (Karras et al. 2022): the label is 0 for a picture as it is, and 0 is what
samples are asked for. A discriminator needs no label while enough of what it sees, real and generated alike, is as it
was (Karras et al. 2020): each change is a mixture with the identity, so only equal laws look equal through it.

    kind     change, in this order             its entries of the label    drawn as
    xflip    mirrored left and right           a                           a in {0, 1}
    yflip    mirrored up and down              b                           b in {0, 1}
    scale    2^(s/5) as large                  s                           s ~ N(0, 1)
    rotate   turned by an angle r              cos r - 1, sin r            r uniform in (-pi, pi)
    stretch  2^(k/5) as long along an axis     k cos 2q, k sin 2q          k ~ N(0, 1), q uniform: the axis' angle
             and as much shorter across it
    shift    moved by (u width, v height)/8    u, v                        u, v ~ N(0, 1)

Each kind is drawn with probability p for itself, else its entries are 0. The label determines the change and is
determined by it: stretching by k along an axis is stretching by -k across it, which is why the angle is doubled. Mirror
images are exact; the other changes are one map, read by cubic interpolation. Where it looks beyond the border the
picture is reflected: a white ground stays white and a photograph goes on, where a fill of any colour would draw edges
that the network then knows. Untouched pictures stay as they are to the last bit.

Shapes: x (n, c, h, w) in model units, label (n, 9).

References:
    Karras et al. 2020, "Training generative adversarial networks with limited data", arXiv:2006.06676.
    Karras et al. 2022, arXiv:2206.00364, appendix F.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..equation.noise import Noise

KINDS: dict[str, tuple[int, ...]] = {  # the places of their entries in the label
    "xflip": (0,),
    "yflip": (1,),
    "scale": (2,),
    "rotate": (3, 4),
    "stretch": (5, 6),
    "shift": (7, 8),
}
LABELS = 9
OCTAVES = 0.2  # a standard deviation of scale and stretch, as a power of 2
SHIFT = 1 / 8  # of a shift, as a share of the side
FEW = 10_000  # pictures below which they are augmented by default
OFTEN = 100  # times that each picture must be seen before it can be learned by heart
GENTLE = 0.12  # probability of each kind by default: EDM's for CIFAR-10


def augment(x: Tensor, p: float | Tensor, noise: Noise, kinds: Sequence[str] = tuple(KINDS)) -> tuple[Tensor, Tensor]:
    """Pictures changed at random, and the labels that say how.

    Args:
        x: pictures (n, c, h, w) in model units.
        p: probability of each kind of change, in [0, 1]; a number, or 0-d.
        noise: stream i for picture i.
        kinds: which changes there are, names of KINDS.

    Returns:
        The pictures (n, c, h, w), differentiable in x, and their labels (n, 9).

    Raises:
        ValueError: for a p outside [0, 1], an unknown kind, and what are no pictures.
    """
    label = draw(len(x), p, noise, kinds, device=x.device)
    return changed(x, label), label


def draw(
    n: int,
    p: float | Tensor,
    noise: Noise,
    kinds: Sequence[str] = tuple(KINDS),
    *,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Labels (n, 9) of changes at random, as of `augment`."""
    if not 0 <= float(p) <= 1:
        raise ValueError(f"p = {float(p)} is the probability of each change: give a number in [0, 1]")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"no augmentation {unknown[0]!r}; there are {', '.join(KINDS)}")
    on = noise.fork("on").uniform(n, (len(KINDS),), device=device) < p
    on &= torch.tensor([kind in kinds for kind in KINDS], device=device)
    u = noise.fork("uniform").uniform(n, (4,), device=device)
    z = noise.fork("normal").normal(n, (4,), device=device)
    flips = (u[:, :2] < 0.5).float()
    turn, axis = math.pi * (2 * u[:, 2] - 1), 2 * math.pi * u[:, 3]
    entries = [turn.cos() - 1, turn.sin(), z[:, 1] * axis.cos(), z[:, 1] * axis.sin()]
    label = torch.cat([flips, z[:, :1], torch.stack(entries, 1), z[:, 2:]], 1)
    which = [k for k, places in enumerate(KINDS.values()) for _ in places]
    return label.where(on[:, which], 0.0)


def changed(x: Tensor, label: Tensor) -> Tensor:
    """Pictures changed as their labels say, differentiable in the pictures.

    Args:
        x: pictures (n, c, h, w).
        label: (n, 9).

    Returns:
        The pictures (n, c, h, w); those with label 0 are the very same.

    Raises:
        ValueError: for what are no pictures, and for labels that are none.
    """
    if x.dim() != 4 or label.shape != (len(x), LABELS):
        raise ValueError(f"pictures (n, c, h, w) with labels (n, {LABELS}), got {tuple(x.shape)}, {tuple(label.shape)}")
    for k, side in ((0, -1), (1, -2)):
        if (mirrored := label[:, k] > 0).any():
            x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(side), x)
    rows = label[:, 2:].any(1).nonzero().flatten()
    if not len(rows):
        return x
    with torch.autocast(x.device.type, enabled=False):
        part = x[rows].float()
        size = [len(rows), 1, *x.shape[2:]]
        places = F.affine_grid(_back(label[rows].float(), *x.shape[2:]), size, align_corners=False)
        moved = F.grid_sample(part, places, mode="bicubic", padding_mode="reflection", align_corners=False)
    return x.index_copy(0, rows, moved.to(x.dtype))


def _back(label: Tensor, height: int, width: int) -> Tensor:
    """Where each place of the changed picture is read: the inverse map (n, 2, 3), in halves of the sides.

    In pixels from the centre, place P of the changed picture is read at p, P = A R S p + t, with S = 2^(s/5), R the
    rotation by r, and A = cosh k' + sinh k' [[cos 2q, sin 2q], [sin 2q, -cos 2q]], k' = k ln(2)/5.
    """
    s, cos, sin = label[:, 2], label[:, 3] + 1, label[:, 4]
    size = torch.tensor([width, height], device=label.device, dtype=label.dtype)
    shift = SHIFT * size * label[:, 7:]
    k = label[:, 5:7].norm(dim=1)
    towards = label[:, 5:7] / k.clamp_min(torch.finfo(k.dtype).tiny)[:, None]
    bend = math.log(2) * OCTAVES * k
    a, b = bend.sinh() * towards[:, 0], bend.sinh() * towards[:, 1]
    across = torch.stack([bend.cosh() - a, -b, -b, bend.cosh() + a], 1).view(-1, 2, 2)  # A inverse
    turned = torch.stack([cos, sin, -sin, cos], 1).view(-1, 2, 2)  # R inverse
    back = torch.exp2(-OCTAVES * s)[:, None, None] * turned @ across
    halves = size / 2
    matrix = back * (halves / halves[:, None])
    return torch.cat([matrix, -(back @ shift[:, :, None]) / halves[:, None]], 2)


def augment_by_default(count: int, grey: bool, small: bool, passes: float | None = None) -> tuple[float, str]:
    """The probability of augmentation that fits some pictures, and why.

    Args:
        count: how many there are.
        grey: whether they have one channel.
        small: whether their sides are at most 32 pixels.
        passes: how often the training shows each; None: nobody knows.

    Returns:
        p: probability of each kind of change; 0: none.
        reason: one sentence.
    """
    if grey and small:
        return 0.0, "no augmentation: small grey pictures are often text or digits, which must not be turned"
    if count >= FEW:
        return 0.0, f"no augmentation: {count:,} pictures are enough"
    if passes is not None and passes < OFTEN:
        return 0.0, f"no augmentation: each picture is seen {passes:.0f} times only, too seldom to be learned by heart"
    return GENTLE, (
        f"augmentation, each kind with probability {GENTLE:g}: {count:,} pictures are few, and turned ones teach the "
        "network more of them; it is told how they were turned, so samples are not"
    )
