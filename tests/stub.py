"""Writes src/diffflow/__init__.pyi from the table of public names: python tests/stub.py (a test compares the two)."""

from __future__ import annotations

from pathlib import Path

import diffflow

PATH = Path(diffflow.__file__).with_suffix(".pyi")


HEAD = '"""For editors and type checkers. python tests/stub.py writes this file from the table in __init__.py."""'


def kind(name: str) -> int:
    """Constants, classes, functions: the order of import sorters."""
    return 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2


def stub() -> str:
    """The text of __init__.pyi."""
    rooms: dict[str, list[str]] = {f".{module}": names.split() for module, names in diffflow._NAMES.items()}
    for name, module in diffflow._MODULES.items():
        rooms.setdefault("." + module.removesuffix(name).rstrip("."), []).append(name)
    lines = [HEAD, ""]
    for room, names in sorted(rooms.items()):
        order = sorted(names, key=lambda name: (kind(name), name.lower()))
        lines += [f"from {room} import {name} as {name}" for name in order]
    return "\n".join([*lines, "", "__version__: str", ""])


if __name__ == "__main__":
    PATH.write_text(stub())
