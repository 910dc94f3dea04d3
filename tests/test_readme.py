"""Python and commands of the README, of the documentation and of examples/ run as printed, in an empty directory.

A page runs from top to bottom. A block with a title is a piece of the file of that name, which the blocks after it can
import; the commands of a tutorial (```bash) run in their place.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffflow as df
from diffflow.cli import main
from diffflow.models.base import TrainConfig
from diffflow.models.settings.own_net import FACTORIES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = ROOT / "examples"
BLOCK = re.compile(r'^```(python|bash)(?: title="([\w.]+)")?\n(.*?)^```', flags=re.S | re.M)


def blocks(page: Path) -> list[str]:
    """The Python of a page that is not a piece of a file."""
    return [source for kind, file, source in BLOCK.findall(page.read_text()) if kind == "python" and not file]


def files(page: Path) -> dict[str, str]:
    """The files whose pieces a page shows."""
    found: dict[str, list[str]] = {}
    for _, name, source in BLOCK.findall(page.read_text()):
        if name:
            found.setdefault(name, []).append(source)
    return {name: "\n\n".join(pieces) for name, pieces in found.items()}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, from which modules can be imported; what they define is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)
    tables = (TrainConfig.kinds, df.SCHEDULES, df.GAMES, df.METRICS, df.data.READERS, FACTORIES)
    before = [set(table) for table in tables]
    yield tmp_path
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__ or "").parent == tmp_path:
            del sys.modules[name]
    for table, names in zip(tables, before, strict=True):
        for name in set(table) - names:
            if ":" in name or table is df.METRICS:  # the library's own families stay, once they are loaded
                del table[name]


def run(source: str, name: str) -> None:
    exec(compile(source, name, "exec", dont_inherit=True), {"__name__": "example"})  # not this file's __future__


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_examples_run(page: Path, empty: Path) -> None:
    for name, source in files(page).items():
        (empty / name).write_text(source)
    for number, (kind, file, source) in enumerate(BLOCK.findall(page.read_text()), 1):
        if kind == "bash":
            for line in source.splitlines():
                program, *arguments = shlex.split(line)
                assert program == "diffflow"
                assert main(arguments) == 0
        elif not file:
            run(source, f"{page.name}, block {number}")


def test_readme_has_seven_examples_of_about_ten_lines() -> None:
    found = blocks(ROOT / "README.md")
    assert len(found) == 7
    assert max(len(source.splitlines()) for source in found) <= 15


def test_examples_of_the_readme_are_files() -> None:
    """examples/1_..., 2_..., as README has them: whoever reads one has read the other."""
    sources = {path.name: path.read_text() for path in sorted(EXAMPLES.glob("[0-9]_*.py"))}
    assert [re.sub(r'\A""".*?"""\n+', "", s, flags=re.S) for s in sources.values()] == blocks(ROOT / "README.md")
    for number, (name, source) in enumerate(sources.items(), 1):
        title = re.search(rf"^\*\*{number}\. (.*?)\.?\*\*", (ROOT / "README.md").read_text(), flags=re.M)
        assert name.startswith(f"{number}_")
        assert title is not None
        assert source.startswith(f'"""{title[1]}')


def test_files_of_tutorials_are_those_of_examples() -> None:
    shown = {name: text for page in PAGES for name, text in files(page).items()}
    assert shown == {name: (EXAMPLES / name).read_text() for name in shown}
    assert shown.keys() == {path.name for path in EXAMPLES.glob("*.py")} - {p.name for p in EXAMPLES.glob("[0-9]_*.py")}


@pytest.mark.parametrize("notebook", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda p: p.name)
def test_notebooks_run(notebook: Path, empty: Path) -> None:
    """Their code cells, one after the other in one namespace, and nothing of an earlier run is kept in them."""
    cells = [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]
    space = {"__name__": "example"}
    for number, cell in enumerate(cells, 1):
        exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), space)
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_to_files_resolve(page: Path) -> None:
    prose = re.sub(r"\$\$.*?\$\$|\$[^$]*\$", "", page.read_text(), flags=re.S)  # in formulas ](V) is no link
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", prose)
    missing = [t for t in targets if not (page.parent / t).exists()]
    generated = [t for t in missing if (page.parent / t).resolve().is_relative_to(ROOT / "docs" / "reference")]
    assert missing == generated
