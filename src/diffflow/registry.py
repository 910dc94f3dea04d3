"""Tables by name: rows that load when they are first used, and what was meant by a misspelt one."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Generic, TypeVar

Row = TypeVar("Row")


class Registry(MutableMapping[str, Row], Generic[Row]):
    """A table of named rows. A row of our own is an attribute of that name in a module, imported at first use; others
    are entered like entries of a dictionary."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules, self._rows = dict(modules), dict[str, Row]()

    def __getitem__(self, name: str) -> Row:
        if name not in self._rows:
            self._rows[name] = getattr(importlib.import_module(self._modules[name]), name)
        return self._rows[name]

    def __setitem__(self, name: str, row: Row) -> None:
        self._rows[name] = row

    def __delitem__(self, name: str) -> None:
        del self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._modules or name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules | dict.fromkeys(self._rows, ""))

    def __len__(self) -> int:
        return len(self._modules | dict.fromkeys(self._rows, ""))


def suggest(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' for a misspelt name, or the list of what there is."""
    names = list(known)
    close = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(names))}"
