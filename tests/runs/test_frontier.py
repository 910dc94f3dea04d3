"""The frontier: what is on it, what a budget buys, and what the presets promise, for any points whatever."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from diffflow.models.settings.common import Dials
from diffflow.runs.frontier import QUALITIES, Point, front, qualities, within

POINTS = st.lists(
    st.builds(
        Point,
        dials=st.builds(Dials, steps=st.integers(1, 50)),
        plan=st.booleans(),
        distance=st.floats(0.01, 100),
        stderr=st.floats(0, 5),
        evaluations=st.integers(1, 50),
        seconds=st.floats(0.1, 10),
    ),
    min_size=1,
    max_size=12,
)


@given(POINTS)
def test_the_front_is_what_nothing_undercuts(points: list[Point]) -> None:
    for cost in ("evaluations", "seconds"):
        best = front(points, cost)

        def beaten(p: Point, cost: str = cost) -> bool:
            cheaper = [q for q in points if getattr(q, cost) <= getattr(p, cost) and q.distance <= p.distance]
            return any(getattr(q, cost) < getattr(p, cost) or q.distance < p.distance for q in cheaper)

        assert not any(map(beaten, best))
        assert {(getattr(p, cost), p.distance) for p in points if not beaten(p)} == {
            (getattr(p, cost), p.distance) for p in best
        }
        assert all(a.distance > b.distance for a, b in itertools.pairwise(best))


@given(POINTS, st.integers(1, 60))
def test_a_budget_buys_the_smallest_distance_it_can(points: list[Point], budget: int) -> None:
    found = within(points, budget)
    cheap = [p.distance for p in points if p.evaluations <= budget]
    assert (found.distance if found else None) == (min(cheap) if cheap else None)


@given(POINTS)
def test_presets_get_dearer_and_better(points: list[Point]) -> None:
    chosen = qualities(points)
    assert chosen.keys() == QUALITIES.keys()
    assert chosen["fast"].evaluations <= chosen["balanced"].evaluations <= chosen["best"].evaluations
    top = min(p.distance for p in points)
    for name, factor in QUALITIES.items():
        slack = max(p.stderr for p in points) * 2**0.5
        assert chosen[name].distance <= max(factor * top, top + slack) + 1e-9
