"""Tables by name: the library's rows and those of plug-ins, with suggestions for misspelt names.

A row of our own has a plain name ("edm", "ScoreConfig"); one from outside the package is called MODULE:NAME, and so a
saved run says where it comes from. Reading a name never imports anything: a module enters its rows when the user
imports it (`diffflow --import my_models.py`, `df.load(path, modules=["my_models.py"])`, an import of their own) or has
installed it with an entry point of the group "diffflow.plugins".
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")
PLUGINS = "diffflow.plugins"  # the group of entry points whose modules are plug-ins
PLUGGED: dict[str, ModuleType] = {}  # the modules that the user has imported as plug-ins, by name


class PluginError(ImportError):
    """A plug-in that cannot be imported; the message says which and why."""


class Registry(MutableMapping[str, Row], Generic[Row]):
    """A table of named rows of one kind, which plug-ins may add to.

    Args:
        kind: what a row is, for messages, such as "noise schedule".
        rows: the library's own rows.

    Raises:
        ValueError: a new row whose name does not say its module (MODULE:NAME), or is taken.
    """

    def __init__(self, kind: str, rows: Mapping[str, Row] | None = None) -> None:
        self.kind, self._rows = kind, dict(rows or {})

    def __getitem__(self, name: str) -> Row:
        return self._rows[name]

    def __setitem__(self, name: str, row: Row) -> None:
        if ":" not in name:
            raise ValueError(
                f"a {self.kind} from outside the package is called MODULE:NAME, so that saved runs say where it comes "
                f"from: use a name such as 'my_models:{name}'"
            )
        self._rows[name] = row

    def __delitem__(self, name: str) -> None:
        if ":" not in name:
            raise ValueError(f"{name!r} is the library's own {self.kind}: only rows from outside can be taken out")
        del self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<table of {len(self)} rows, each a {self.kind}: {', '.join(self)}>"

    def own(self, name: str, row: Row) -> None:
        """Enter a row of the library itself."""
        self._rows[name] = row

    def unknown(self, name: object) -> str:
        """What is wrong with a name that is not in the table, and what to do."""
        return f"{name!r} is no {self.kind}{missing(str(name), self)}"


def missing(name: str, names: Iterable[str]) -> str:
    """The remedy for a name that no table has: what it may have meant, or the module that would have to be imported."""
    module, colon, _ = name.partition(":")
    if colon:
        return (
            f": it is defined outside diffflow, in the module {module!r}, and settings never import anything. Import "
            f"it yourself if you trust it: diffflow --import {module}.py COMMAND ... (in Python: import {module}, or "
            f'df.load(path, modules=["{module}.py"]))'
        )
    return suggest(name, names)


def suggest(name: str, names: Iterable[str]) -> str:
    """'; did you mean ...?' for a misspelt name, or the list of what there is."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, 3)
    if close:  # of equally close ones the one that is about as long
        ratio = {word: difflib.SequenceMatcher(None, word, name).ratio() for word in close}
        close.sort(key=lambda word: (-ratio[word], abs(len(word) - len(name))))
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(names)}"


def name_of(row: Any, name: str | None = None) -> str:
    """The name of a class or function in its table: plain for our own, MODULE:NAME for others.

    A script that runs as the main program is called by its file, as it is when it is imported.

    Args:
        row: the class or function.
        name: what to call it in its module; default its own name.
    """
    module: str = row.__module__
    name = str(name or row.__qualname__)
    if module.partition(".")[0] == "diffflow":
        return name
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return f"{Path(main).stem if module == '__main__' and main else module}:{name}"


def import_plugin(name: str | Path) -> ModuleType:
    """Import a plug-in and return its module.

    Args:
        name: a file (my_models.py) or a module (my_models).

    Raises:
        PluginError: it is not there, or its own code fails.
    """
    module = _imported(name)
    PLUGGED[module.__name__] = module
    return module


def _imported(name: str | Path) -> ModuleType:
    """The module of a plug-in; see `import_plugin`."""
    path = Path(name)
    try:
        if path.suffix == ".py":
            loaded = sys.modules.get(path.stem)
            if loaded is not None and Path(getattr(loaded, "__file__", None) or "").resolve() == path.resolve():
                return loaded
            if loaded is not None:
                raise PluginError(f"{name}: a module called {path.stem!r} is loaded already; rename the file")
            spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
            if spec is None or spec.loader is None or not path.is_file():
                raise PluginError(f"{name}: there is no such file")
            module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[path.stem]
                raise
            return module
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # a module beside the user, which an installed command does not see
        return importlib.import_module(str(name))
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def installed_plugins() -> tuple[EntryPoint, ...]:
    """The installed plug-ins: entry points of the group "diffflow.plugins"."""
    return tuple(entry_points(group=PLUGINS))


def load_installed() -> None:
    """Import the installed plug-ins, each once; one that fails is named in a warning and left out."""
    for point in installed_plugins():
        module = point.value.partition(":")[0]
        if module in PLUGGED:
            continue
        try:
            point.load()
            PLUGGED[module] = sys.modules[module]
        except Exception as error:
            warnings.warn(
                f"the plug-in {point.name!r} ({point.value}) failed and is left out: {type(error).__name__}: {error}"
            )
