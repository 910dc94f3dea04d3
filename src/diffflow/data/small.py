"""Small sets: what can be learned of few, equal or unbalanced examples, said before the work."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from .errors import DataError
from .transform import Transform

UNBALANCED = 10  # times as many examples in the largest class as in the smallest, from which it is said
FIRST = 16  # examples that are looked at first: large sets are seldom all equal


class Labelled(Protocol):
    """What is asked of `Data` here."""

    @property
    def x(self) -> Tensor:
        """The examples."""
        ...

    @property
    def y(self) -> Tensor | None:
        """Their classes."""
        ...

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes."""
        ...

    @property
    def kind(self) -> str:
        """What an example is."""
        ...

    @property
    def name(self) -> str:
        """What messages call the data."""
        ...

    @property
    def std(self) -> float:
        """Standard deviation over all entries, model units."""
        ...

    @property
    def transform(self) -> Transform:
        """The map between data units and model units."""
        ...

    def __len__(self) -> int: ...


def remarks(data: Labelled) -> list[str]:
    """What must be known of the number of examples before a model learns from them, one sentence each."""
    found, n = [], len(data)
    if n == 1:
        found.append(f"a single {data.kind}: a model can learn it by heart, and samples can only repeat it")
    elif all_equal(data):
        found.append(f"all {n:,} {data.kind}s are equal: samples can only repeat that one")
    counts = {} if data.y is None else dict(zip(data.classes or (), data.y.bincount().tolist(), strict=False))
    counts = {name: k for name, k in counts.items() if k}
    if counts and max(counts.values()) >= UNBALANCED * min(counts.values()):
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        found.append(
            f"unbalanced classes: {counts[least]:,} of {least}, {counts[most]:,} of {most}. Samples are of every class "
            "in turn; `--class data` draws them as often as here"
        )
    return found


def all_equal(data: Labelled) -> bool:
    """Whether all examples are the same."""
    return all(bool((part == data.x[:1]).all()) for part in (data.x[:FIRST], data.x))


def refuse_constant(data: Labelled) -> None:
    """Raise DataError for data that are one value throughout: they have no width, and nothing to learn in them."""
    if data.std > 0 or not len(data):
        return
    value = data.x.flatten()[0].item()
    shown = f"the grey level {value} of 255" if data.transform.of_bytes else f"the value {value:g}"
    which = f"the only {data.kind}" if len(data) == 1 else f"each of the {len(data):,} {data.kind}s"
    raise DataError(
        f"{which} of {data.name!r} is {shown} throughout: there is nothing to learn in it. Look at the files: a mask "
        "of zeros, a failed export, or a transparent picture whose colours are lost look like this"
    )
