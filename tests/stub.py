"""Writes what is generated in the package: python tests/stub.py (tests compare).

src/diffflow/__init__.pyi          from the table of public names
src/diffflow/cli/train_help.txt    `diffflow train --help`, so that asking for it needs no torch
"""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

import diffflow
from diffflow.cli import help_file

PATH = Path(diffflow.__file__).with_suffix(".pyi")
HELP = help_file("train")

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


def train_help() -> str:
    """What `diffflow train --help` says of itself, 100 columns wide."""
    from diffflow.cli import train

    content = io.BytesIO()
    with (
        io.TextIOWrapper(content, encoding="utf-8", write_through=True) as stream,
        mock.patch.dict(os.environ, COLUMNS="100"),
        contextlib.redirect_stdout(stream),
    ):
        with contextlib.suppress(SystemExit):
            train.main(["--help"])
        return content.getvalue().decode()


if __name__ == "__main__":
    PATH.write_text(stub())
    HELP.write_text(train_help(), encoding="utf-8")
