"""mkdocs hooks: formulas become MathML, links out of docs/ lead to copies, the reference is made from the tree of src/.

So a page loads no script and nothing from other hosts, a formula that cannot be read fails the build, and a link that
works on the repository's site (results/solvers.json, src/diffflow/equation/sde.py) works in the built pages as well.
"""

from __future__ import annotations

import ast
import html
import os
import re
from pathlib import Path
from typing import Any

from math_core import LatexError, LatexToMathML
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
COPIES = "repository"  # where the files that pages link to, outside docs/, lie in the site
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.S)
TAG = re.compile(r"\\tag\{(\w+)\}")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#|/)([^)#\s]+)((?:#[^)]*)?)\)")

_to_mathml = LatexToMathML(fancy_error=False)


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Replace the formulas that pymdownx.arithmatex has marked by MathML."""

    def formula(found: re.Match[str]) -> str:
        display, latex = found[2] == "[", html.unescape(found[3]).strip()
        number = TAG.search(latex)
        try:
            mathml = _to_mathml.convert_with_local_state(TAG.sub("", latex), displaystyle=display)
        except LatexError as error:
            raise PluginError(f"{page.file.src_uri}: {error} In: {latex}") from None
        if not display:
            return mathml
        if number is None:
            return f'<div class="formula">{mathml}</div>'
        return f'<div class="formula" id="eq-{number[1]}">{mathml}<a href="#eq-{number[1]}">({number[1]})</a></div>'

    return FORMULA.sub(formula, content)


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add a copy of every file outside docs/ that a page links to, and the pages of the reference."""
    for file in files.documentation_pages():
        for *_, target, _ in LINK.findall(file.content_string):
            path = outside(file.src_uri, target)
            if path is not None and path.is_file():
                copy = f"{COPIES}/{path.relative_to(ROOT).as_posix()}"
                if files.get_file_from_path(copy) is None:
                    files.append(File.generated(config, copy, abs_src_path=str(path)))
    for room, modules in rooms().items():
        page = f"reference/{room or 'other'}.md"
        files.append(File.generated(config, page, content=reference(room, modules)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links out of docs/ to the copies; of a link to a folder, which has no page of its own, keep the text."""
    here = Path(page.file.src_uri).parent.as_posix()

    def link(found: re.Match[str]) -> str:
        image, text, target, anchor = found.groups()
        path = outside(page.file.src_uri, target)
        if path is None or not path.exists():
            return found[0]
        if path.is_dir():
            return text
        copy = os.path.relpath(f"{COPIES}/{path.relative_to(ROOT).as_posix()}", here)
        return f"{image}[{text}]({copy}{anchor})"

    return LINK.sub(link, markdown)


def outside(page: str, target: str) -> Path | None:
    """The path of a link if it leads out of docs/ and stays in the repository, else None."""
    path = Path(os.path.normpath(ROOT / "docs" / Path(page).parent / target))
    return path if path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "docs") else None


# The reference: one page a room, made from the tree of src/diffflow, so that a module that moves moves here too.
PACKAGE = ROOT / "src" / "diffflow"
ROOMS = {  # in this order, under these titles; a room that is not named here follows under its own name
    "equation": "Equation: what moves particles",
    "sampling": "Sampling: solvers, grids, plans",
    "likelihood": "Likelihood",
    "kernels": "Kernels",
    "networks": "Networks",
    "nets": "Networks",
    "objectives": "Objectives: what is minimised",
    "data": "Data",
    "metrics": "Metrics",
    "models": "Model families and their settings",
    "recipes": "Presets",
    "training": "Training",
    "runs": "Runs",
    "": "Beside the rooms",
}
UNLISTED = {"cli", "explorer"}  # programs: guides/cli.md and guides/explorer.md say what they do


def on_config(config: Any, **_: Any) -> Any:
    """Put the reference's pages into the navigation where it says `reference/`."""
    for entry in config.nav:
        if entry.get("Reference") == "reference/":
            pages = [{ROOMS.get(room, room.capitalize()): f"reference/{room or 'other'}.md"} for room in rooms()]
            entry["Reference"] = ["reference/index.md", *pages]
    return config


def rooms() -> dict[str, list[str]]:
    """The modules of every room, by dotted name; the room "" holds those beside the rooms."""
    found: dict[str, list[str]] = {room: [] for room in ROOMS}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        room = parts[0] if len(parts) > 1 else ""
        if room not in UNLISTED and not any(part.startswith("_") for part in parts):
            found.setdefault(room, []).append(".".join(("diffflow", *parts)))
    return {room: modules for room, modules in found.items() if modules}


def reference(room: str, modules: list[str]) -> str:
    """The page of a room: what the room is for, then its modules."""
    about = (PACKAGE / room / "__init__.py") if room else None
    text = ast.get_docstring(ast.parse(about.read_text())) if about and about.is_file() else None
    return "\n\n".join([f"# {ROOMS.get(room, room.capitalize())}", text or "", *(f"::: {name}" for name in modules)])
