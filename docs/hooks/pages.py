"""mkdocs hooks: formulas become MathML, and links out of docs/ lead to copies.

So a page loads no script and nothing from other hosts, a formula that cannot be read fails the build, and a link that
works on the repository's site (results/solvers.json, src/diffflow/equation/sde.py) works in the built pages as well.
"""

from __future__ import annotations

import html
import os
import re
from pathlib import Path
from typing import Any

from math_core import LatexError, LatexToMathML
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from diffflow.metrics.table import markdown as metrics_table

ROOT = Path(__file__).resolve().parents[2]
COPIES = "repository"  # where the files that pages link to, outside docs/, lie in the site
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>([.,;:!?)]*)', flags=re.S)
TAG = re.compile(r"\\tag\{(\w+)\}")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#|/)([^)#\s]+)((?:#[^)]*)?)\)")

TABLE = re.compile(r"^\| metric \|.*?\n(?=\n)", flags=re.S | re.M)

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
        if not display:  # with the full stop behind it, which may not begin a line
            return f'<span class="nobreak">{mathml}{found[4]}</span>' if found[4] else mathml
        if number is None:
            return f'<div class="formula">{mathml}</div>'
        page.present_anchor_ids.add(f"eq-{number[1]}")
        return f'<div class="formula" id="eq-{number[1]}">{mathml}<a href="#eq-{number[1]}">({number[1]})</a></div>'

    return FORMULA.sub(formula, content)


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add a copy of every file outside docs/ that a page links to."""
    for file in files.documentation_pages():
        for *_, target, _ in LINK.findall(file.content_string):
            path = outside(file.src_uri, target)
            if path is not None and path.is_file():
                copy = f"{COPIES}/{path.relative_to(ROOT).as_posix()}"
                if files.get_file_from_path(copy) is None:
                    files.append(File.generated(config, copy, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links out of docs/ to the copies; of a link to a folder, which has no page of its own, keep the text."""
    here = Path(page.file.src_uri).parent.as_posix()
    if page.file.src_uri == "guides/metrics.md":
        markdown = TABLE.sub(lambda _: metrics_table(), markdown, count=1)  # as it is now, with every row

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
