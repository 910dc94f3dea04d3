"""Columns for tests of the metrics of tables, and a law to draw rows from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Made:
    """A column as metrics see it."""

    name: str
    kind: str = "number"
    words: tuple[str, ...] = ()
    decimals: int = -1
    modelled: bool = True

    def write(self, codes: np.ndarray) -> list[str]:
        return [self.words[int(v)] if self.words else f"{v:g}" for v in codes]


SCHEMA = (
    Made("a"),
    Made("id", "identifier", modelled=False),
    Made("b"),
    Made("w", "words", tuple("pqrstuvw")),
    Made("lev", "levels"),
    Made("k", "integer", decimals=0),
)
COLUMNS = tuple(spec for spec in SCHEMA if spec.modelled)


def draw(n: int, seed: int) -> np.ndarray:
    """Rows of one law: b follows a, w is a in bins, lev is b in bins, k is noise; a tenth of a are gaps."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3))
    b = 0.6 * z[:, 0] + 0.8 * z[:, 1]
    w = np.minimum(7, np.abs(2 * z[:, 0]).astype(int))
    lev = np.array([1.0, 2.0, 5.0])[np.digitize(b, [-0.5, 0.7])]
    a = np.where(rng.random(n) < 0.1, np.nan, z[:, 0])
    return np.stack([a, b, w, lev, np.round(3 * z[:, 2])], 1)
