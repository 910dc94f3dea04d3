"""mkdocs hooks: the reference, made from the tree of src/diffflow and from `df.__all__`.

One page a room, and a page of the public names: a module that moves moves here too, a name that becomes public is
listed, and mkdocstrings writes what the docstrings say.
"""

from __future__ import annotations

import ast
import html
import inspect
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "diffflow"
ROOMS = {  # in this order, under these titles; a room that is not named here follows under its own name
    "equation": "Equation: what moves particles",
    "sampling": "Sampling: solvers, grids, plans",
    "likelihood": "Likelihood",
    "networks": "Networks",
    "objectives": "Objectives: what is minimised",
    "data": "Data",
    "metrics": "Metrics",
    "models": "Model families and their settings",
    "training": "Training",
    "runs": "Runs",
    "": "Beside the rooms",
}
UNLISTED = {"cli", "explorer"}  # programs: guides/cli.md and guides/explorer.md say what they do

CITED = re.compile(r"derivations\.md(?:\s+eqs?\. (\d+))?")

INDEX = """# Reference

Everything public is reached from one import, `import diffflow as df`. Each name leads to its arguments; the pages
beside this one show all modules of a room, private helpers left out. Times are generation time: 0 is the prior,
`horizon` the data. Shapes: `n` particles of shape `shape`, so `x` is `(n, *shape)`; a time is a float, or `(n,)` for
one per particle.
"""


def on_config(config: Any, **_: Any) -> Any:
    """Put the reference's pages into the navigation where it says `reference/`."""
    for entry in config.nav:
        if entry.get("Reference") == "reference/":
            entry["Reference"] = ["reference/index.md", *({title(room): page(room)} for room in rooms())]
    return config


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the pages."""
    for room, modules in rooms().items():
        files.append(File.generated(config, page(room), content=room_page(room, modules)))
    files.append(File.generated(config, "reference/index.md", content=public_names()))
    return files


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Lead what docstrings cite, `derivations.md eq. 4`, to the equation."""

    def link(found: re.Match[str]) -> str:
        anchor = f"#eq-{found[1]}" if found[1] else ""
        return f'<a href="{"../" * page.url.count("/")}theory/derivations/{anchor}">{found[0]}</a>'

    return CITED.sub(link, content) if page.file.src_uri.startswith("reference/") else content


def title(room: str) -> str:
    return ROOMS.get(room, room.capitalize())


def page(room: str) -> str:
    return f"reference/{room or 'other'}.md"


def rooms() -> dict[str, list[str]]:
    """The modules of every room, by dotted name; the room "" holds those beside the rooms."""
    found: dict[str, list[str]] = {room: [] for room in ROOMS}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        room = parts[0] if len(parts) > 1 else ""
        if room not in UNLISTED and not any(part.startswith("_") for part in parts):
            found.setdefault(room, []).append(".".join(("diffflow", *parts)))
    return {room: modules for room, modules in found.items() if modules}


def room_page(room: str, modules: list[str]) -> str:
    """What the room is for, then its modules."""
    about = (PACKAGE / room / "__init__.py") if room else None
    text = ast.get_docstring(ast.parse(about.read_text())) if about and about.is_file() else None
    return "\n\n".join([f"# {title(room)}", text or "", *(f"::: {name}" for name in modules)])


def public_names() -> str:
    """The `df.` names: what each is, in a line, by rooms."""
    import diffflow as df

    listed = {name: room for room, modules in rooms().items() for name in modules}
    tables: dict[str, list[str]] = {}
    for name in sorted(df.__all__, key=str.lower):
        value, shown = getattr(df, name), f"`df.{name}`"
        if inspect.ismodule(value):
            group, text = "Modules", first_line(value)
            if value.__name__ in listed:
                shown = f"[{shown}][{value.__name__}]"
            elif value.__name__.rpartition(".")[2] in rooms():  # a package is a page, not an entry of one
                shown = f"[{shown}]({page(value.__name__.rpartition('.')[2]).removeprefix('reference/')})"
        elif inspect.isclass(value) or inspect.isroutine(value):
            group, text = title(listed.get(value.__module__, "")), first_line(value)
            if value.__module__ in listed and text:
                shown = f"[{shown}][{value.__module__}.{value.__qualname__}]"
        else:
            rows = isinstance(value, (dict, list, tuple, frozenset))
            group, text = "Tables, by name", ", ".join(map(str, value)) if rows else repr(value)
        for mark in ("|", "*", "_"):
            text = text.replace(mark, "\\" + mark)
        tables.setdefault(group, []).append(f"| {shown} | {html.escape(text, quote=False)} |")
    order = [*map(title, rooms()), "Tables, by name", "Modules"]
    parts = ["\n".join([f"## {g}\n", "| name | |", "|---|---|", *tables[g]]) for g in order if g in tables]
    return "\n\n".join([INDEX, *parts])


def first_line(value: Any) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())
