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
        p: the probability of each kind of change, 0-d in [0, .8].

    Raises:
        ValueError: for values out of range.
    """

    def __init__(self, target: float = 0.6, pictures: int = PICTURES, window: int = WINDOW):
        if not 0 < target < 1:
            raise ValueError(f"target = {target}: the mean sign of logits that is sought lies between 0 and 1")
        if not 1 <= window <= pictures:
            raise ValueError(f"window = {window} must be between 1 and pictures = {pictures}")
        self.target, self.pictures, self.window = target, pictures, window
        self.p = torch.zeros(())
        self.seen = torch.zeros(2)  # sum of the signs since the last change of p, and their number

    def __call__(self, x: Tensor, noise: Noise) -> Tensor:
        """Pictures (n, c, h, w) as the discriminator is shown them, differentiable in x."""
        return changed(x, draw(len(x), self.p, noise.fork("changes"), device=x.device))

    def back(self, grad: Tensor, noise: Noise) -> Tensor:
        """Gradients (n, c, h, w) in the pictures, from those in what was shown of them with the same noise."""
        with torch.enable_grad():
            x = torch.zeros_like(grad, requires_grad=True)  # the changes are linear
            (pulled,) = torch.autograd.grad(self(x, noise), x, grad)
        return pulled

    def follow(self, game: Game, real: Tensor, fake: Tensor) -> None:
        """Look at logits on real and on generated pictures (n,), and change p where enough of them were seen."""
        signs = gather_rows((real if game.balanced else real - fake).float().sign()).cpu()
        self.seen = self.seen + torch.stack([signs.sum(), torch.tensor(float(len(signs)))])
        if self.seen[1] >= self.window:
            way = (self.seen[0] / self.seen[1] - self.target).sign()
            self.p = (self.p + way * self.seen[1] / self.pictures).clamp(0.0, MOST)
            self.seen = torch.zeros(2)

    def state(self) -> dict[str, Tensor]:
        """What goes on in a resumed training: p and what was seen since it last changed."""
        return {"augmentation": torch.cat([self.p.view(1), self.seen])}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over a saved `state`. Raises ValueError for one of another objective."""
        if state.keys() != {"augmentation"}:
            raise ValueError(f"the checkpoint holds {sorted(state)}, and this objective keeps ['augmentation']")
        saved = state["augmentation"].cpu()
        self.p, self.seen = saved[0].clone(), saved[1:].clone()
