"""Choices: what a user says of the columns of a table, in place of what their cells say."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .by_columns import Wishes
from .errors import DataError
from .table_transform import TableTransform
from .transform import Transform

AUTO = "auto"


@dataclass(frozen=True)
class Columns:
    """What becomes of the columns of a table.

    By themselves all are modelled as what they hold (schema.py), and what was decided is said. The first three fields
    are the older way, in which every column is a number with a density: where one of them says something, columns that
    have none are refused, with the choices named, unless it says what to do with them.

    Raises:
        DataError: a choice that there is not.
    """

    text: str = "auto"
    """Columns of words: auto; refuse; drop; levels, to model each word as a level, spread over a cell."""
    constant: str = "auto"
    """Columns that never change: auto; refuse; drop."""
    discrete: str = "auto"
    """Columns of few values (each met ten times on average): auto; refuse; drop; levels, to spread each value over the
    cell that it stands for, and to read samples back from it; keep, as if they were continuous."""
    by_name: tuple[str, ...] = ()
    """What columns are, in place of what their cells say: "age=integer", "id=drop", "code=words", "height=gap=-999"."""
    min_count: int = 1
    """Words that occur fewer times become one word."""

    def __post_init__(self) -> None:
        choices = {"text": ("refuse", "drop", "levels"), "constant": ("refuse", "drop")}
        for name, allowed in (choices | {"discrete": ("refuse", "drop", "levels", "keep")}).items():
            if getattr(self, name) not in (AUTO, *allowed):
                raise DataError(
                    f"{name} (--data.{name}) is one of {AUTO}, {', '.join(allowed)}, not {getattr(self, name)!r}"
                )
        if self.min_count < 1:
            raise DataError(f"min_count (--data.min-count) = {self.min_count} must be at least 1")
        if self.by_name and not self.automatic:
            raise DataError("column (--data.column) and text, constant, discrete are two ways to say it: give one")

    @property
    def automatic(self) -> bool:
        """Whether columns are modelled as what they hold."""
        return self.text == self.constant == self.discrete == AUTO

    @property
    def older(self) -> Columns:
        """The older way: what is not said is refused."""
        said = {k: "refuse" if (v := getattr(self, k)) == AUTO else v for k in ("text", "constant", "discrete")}
        return replace(self, by_name=(), **said)

    def wishes(self, like: Transform | None = None) -> Wishes:
        """The same for a reader that reads by columns.

        Args:
            like: the transform of the table of a model, whose columns are wanted; None: a new table.

        Raises:
            DataError: words that are no NAME=KIND.
        """
        found = {}
        for word in self.by_name:
            name, _, kind = word.partition("=")
            if not (name and kind):
                raise DataError(f"column (--data.column) = {word!r}: give NAME=KIND, such as age=integer or id=drop")
            found[name] = kind
        return Wishes(found, like.schema if isinstance(like, TableTransform) else (), self.min_count)


BY_CONTENT = Columns()
