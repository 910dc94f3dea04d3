"""Adaptive augmentation (ADA): the probability follows how sure the discriminator is, within bounds, and is resumed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diffflow.equation.noise import Noise
from diffflow.networks.discriminator import Discriminator
from diffflow.networks.games import GAMES, Penalty
from diffflow.objectives.base import Batch
from diffflow.objectives.movers.adaptive import MOST, AdaptiveAugmentation
from diffflow.objectives.movers.adversarial import DiscriminatorMover


class Logit(nn.Module):
    """A discriminator's net that looks at a picture as one row of numbers."""

    timed, dials, classes = False, 0, 0

    def __init__(self, size: int, curved: bool = True):
        super().__init__()
        self.first, self.curved = nn.Linear(size, 5, dtype=torch.float64), curved

    def forward(self, x: Tensor, time: Tensor, cond: Tensor | None = None, dials: Tensor | None = None) -> Tensor:
        h = self.first(x.flatten(1))
        return (h.sin() if self.curved else h).sum(1)


def signs(game: str, real: float, fake: float, steps: int, p: float = 0.0) -> float:
    """p after so many batches with these logits."""
    ada = AdaptiveAugmentation(0.6, pictures=1000, window=64)
    ada.p = p
    for _ in range(steps):
        ada.follow(GAMES[game], torch.full((32,), real), torch.full((32,), fake))
    return float(ada.p)


@pytest.mark.parametrize("game", list(GAMES))
def test_p_rises_where_real_ones_are_known_and_falls_where_they_are_not(game: str) -> None:
    assert signs(game, 3.0, -3.0, 20) == pytest.approx(20 * 32 / 1000)  # by one for `pictures` real ones
    assert signs(game, 3.0, -3.0, 200) == pytest.approx(MOST)
    assert signs(game, -3.0, 3.0, 4, p=0.5) == pytest.approx(0.5 - 4 * 32 / 1000)
    assert signs(game, -3.0, 3.0, 200, p=0.5) == 0


def test_games_without_a_level_are_read_by_the_difference() -> None:
    """A shift of all logits says nothing there; elsewhere the sign is that of d on real ones."""
    for game in ("relativistic", "ipm"):
        assert signs(game, -50.0, -53.0, 20) == signs(game, 3.0, 0.0, 20) > 0
    assert signs("vanilla", -1.0, -3.0, 20, p=0.0) == 0


def test_an_even_discriminator_is_left_alone() -> None:
    """Of logits of either sign alike the mean sign is 0, below the target."""
    ada = AdaptiveAugmentation(0.6, pictures=1000, window=64)
    for k in range(50):
        ada.follow(GAMES["vanilla"], torch.randn(32, generator=torch.Generator().manual_seed(k)), torch.zeros(32))
    assert float(ada.p) == 0


def mover(p: float, game: str = "vanilla") -> DiscriminatorMover:
    ada = AdaptiveAugmentation(0.6, pictures=1000, window=8)
    ada.p = p
    torch.manual_seed(0)
    discriminator = Discriminator(Logit(48))
    return DiscriminatorMover(discriminator, GAMES[game], Penalty(real=0.1), augment=ada)


@pytest.mark.parametrize("game", ["vanilla", "relativistic"])
def test_the_velocity_is_the_gradient_through_the_change(game: str) -> None:
    """v = -grad_x l(d(T x)), by finite differences along a direction; T x is what `_shown` makes of x."""
    x, batch = torch.randn(6, 3, 4, 4).double(), Batch(torch.randn(6, 3, 4, 4).double(), None, torch.arange(6))
    player, noise = mover(0.7, game), Noise(3)
    v = player.velocity(x, None, batch, noise)
    real = player._shown(batch.x, noise.fork("seen", "real"))

    def loss(x: Tensor) -> Tensor:
        d = player.discriminator(player._shown(x, noise.fork("seen", "fake")), 0.0)
        return player.game.generator(d - player.discriminator(real, 0.0) if player.game.paired else d).sum()

    way, h = torch.randn_like(x), 1e-2  # pictures are read in float32
    with torch.no_grad():
        slope = (loss(x + h * way) - loss(x - h * way)) / (2 * h)
    assert float((v * way).sum()) == pytest.approx(-float(slope), rel=2e-3, abs=2e-3)


def test_without_changes_it_is_the_plain_mover_to_the_bit() -> None:
    x, batch = torch.randn(6, 3, 4, 4).double(), Batch(torch.randn(6, 3, 4, 4).double(), None, torch.arange(6))
    ours = mover(0.0)
    plain = DiscriminatorMover(ours.discriminator, ours.game, ours.penalty)
    assert torch.equal(ours.velocity(x, None, batch, Noise(1)), plain.velocity(x, None, batch, Noise(1)))
    turns = [next(iter(m.learn(batch, lambda _: x, None, Noise(2)))) for m in (ours, plain)]
    assert torch.equal(turns[0].loss, turns[1].loss)
    assert turns[0].log.keys() - turns[1].log.keys() == {"augmented"}
    assert plain.state() == {}


def test_both_sides_are_shown_changed_pictures_in_the_same_measure() -> None:
    """The same law of changes on real and generated ones: no side is told from the other by it."""
    n = 3000
    player = mover(0.5)
    x = torch.rand(n, 3, 4, 4).double()
    shares = [
        float((player._shown(x, Noise(4).fork("seen", side)) == x).flatten(1).all(1).double().mean())
        for side in ("real", "fake")
    ]
    expected = 0.5**4 * 0.75**2
    for share in shares:
        assert share == pytest.approx(expected, abs=4.5 * (expected * (1 - expected) / n) ** 0.5)


def test_the_state_goes_on_where_it_was() -> None:
    one, other = mover(0.25), mover(0.0)
    one.augment.signs, one.augment.count = 3.0, 5
    other.load_state(one.state())
    for player in (one, other):
        player.augment.follow(player.game, torch.ones(4), -torch.ones(4))
    assert torch.equal(one.state()["augmentation"], other.state()["augmentation"])
    with pytest.raises(ValueError, match="augmentation"):
        other.load_state({})
    with pytest.raises(ValueError, match="no state"):
        DiscriminatorMover(one.discriminator, one.game).load_state(one.state())


def test_a_target_that_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="target = 1"):
        AdaptiveAugmentation(1.0)
    with pytest.raises(ValueError, match="window = 0"):
        AdaptiveAugmentation(0.6, window=0)
