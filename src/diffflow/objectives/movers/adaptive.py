"""Adaptive augmentation for a discriminator: as many changed pictures as keep it from knowing the real ones by heart.

A discriminator that has learned few pictures by heart is sure of every one of them: the mean sign r of its logits on
real pictures goes to 1, and what it tells the generator to nonsense. Then all that it sees, real and generated alike,
is changed (`data.augment`) with a probability p that rises while r is above a target and falls while it is below.
Each change leaves a part of the pictures as it is, up to p = .8 and beyond, so only equal laws look equal through it.

Where a game has no logit of its own that says "even", the sign is that of d(real) - d(generated).

Shapes: x (n, c, h, w), logits (n,).

References:
    Karras et al. 2020, "Training generative adversarial networks with limited data", arXiv:2006.06676.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ...data.augment import changed, draw
from ...equation.noise import Noise
from ...networks.games import Game
from ..base import gather_rows

MOST = 0.8  # beyond it changed pictures look like the data themselves
WINDOW = 256  # real pictures between two looks at r
PICTURES = 100_000  # real pictures in which p may go from 0 to 1


class AdaptiveAugmentation:
    """Augmentation whose probability follows how sure a discriminator is of real pictures.

    Args:
        target: mean sign of the logits on real pictures that is sought, in (0, 1).
        pictures: how many real pictures it takes p from 0 to 1.
        window: how many there are between two changes of p.

    Attributes:
        p: the probability of each kind of change, in [0, .8].

    Raises:
        ValueError: for values out of range.
    """

    def __init__(self, target: float = 0.6, pictures: int = PICTURES, window: int = WINDOW):
        if not 0 < target < 1:
            raise ValueError(f"target = {target}: the mean sign of logits that is sought lies between 0 and 1")
        if not 1 <= window <= pictures:
            raise ValueError(f"window = {window} must be between 1 and pictures = {pictures}")
        self.target, self.pictures, self.window = target, pictures, window
        self.p = 0.0
        self.signs, self.count = 0.0, 0  # the sum of the signs since the last change of p, and how many there were

    def __call__(self, x: Tensor, noise: Noise) -> Tensor:
        """Pictures (n, c, h, w) as the discriminator is shown them, differentiable in x."""
        if not self.p:
            return x
        return changed(x, draw(len(x), self.p, noise.fork("changes"), device=x.device))

    def back(self, grad: Tensor, noise: Noise) -> Tensor:
        """Gradients (n, c, h, w) in the pictures, from those in what was shown of them with the same noise."""
        if not self.p:
            return grad
        with torch.enable_grad():
            x = torch.zeros_like(grad, requires_grad=True)  # the changes are linear
            (pulled,) = torch.autograd.grad(self(x, noise), x, grad)
        return pulled

    def follow(self, game: Game, real: Tensor, fake: Tensor) -> None:
        """Look at logits on real and on generated pictures (n,), and change p where enough of them were seen."""
        if isinstance(real, FakeTensor):  # a trial without numbers, by which memory is estimated
            return
        signs = gather_rows((real if game.balanced else real - fake).float().sign())
        self.signs, self.count = self.signs + float(signs.sum()), self.count + len(signs)
        if self.count >= self.window:
            rate = self.signs / self.count
            step = self.count / self.pictures * ((rate > self.target) - (rate < self.target))
            self.p, self.signs, self.count = min(max(self.p + step, 0.0), MOST), 0.0, 0

    def state(self) -> dict[str, Tensor]:
        """What goes on in a resumed training: p and what was seen since it last changed."""
        return {"augmentation": torch.tensor([self.p, self.signs, self.count], dtype=torch.float64)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a saved `state`. Raises ValueError for one of another objective."""
        if state.keys() != {"augmentation"}:
            raise ValueError(f"the checkpoint holds {sorted(state)}, and this objective keeps ['augmentation']")
        self.p, self.signs, count = state["augmentation"].tolist()
        self.count = round(count)
