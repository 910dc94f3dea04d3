"""Every public name is documented: what it is, its arguments, its result, its errors (issue 31, item 5)."""

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap

import pytest

import diffflow as df

# Modules whose docstrings are not done: the prefix of a module's name. Empty when all are.
NOT_YET: tuple[str, ...] = ()


def public() -> list[str]:
    """The public functions and classes of the modules whose docstrings are done."""
    values = {name: getattr(df, name) for name in df.__all__}
    kinds = {name: v for name, v in values.items() if inspect.isclass(v) or inspect.isroutine(v)}
    return [name for name, v in kinds.items() if not v.__module__.startswith(NOT_YET)]


def sections(doc: str) -> dict[str, str]:
    """The text of each section of a Google docstring, by its name."""
    parts = re.split(r"^(Args|Attributes|Returns|Raises|Yields|References):\n", doc, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(section: str) -> set[str]:
    """The names that a section describes, one an entry."""
    return set(re.findall(r"^ {4}(\w+): \S", section, flags=re.M))


def fields_described(value: type | object) -> set[str]:
    """The fields of a class of settings that have a docstring of their own, which `--help` prints."""
    found = set()
    for kind in inspect.getmro(value) if inspect.isclass(value) and value.__module__.startswith("diffflow") else ():
        if not kind.__module__.startswith("diffflow"):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore
        for field, text in itertools.pairwise(body):
            described = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and described:
                found.add(field.target.id)
    return found


def is_protocol(value: type | object) -> bool:
    """Whether it is a protocol, which nobody calls."""
    return inspect.isclass(value) and getattr(value, "_is_protocol", False)


def parameters(value: type | object) -> set[str]:
    """The parameters that a caller can give."""
    if is_protocol(value):
        return set()
    try:
        of = inspect.signature(value).parameters.values()
    except ValueError:
        return set()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name for p in of if p.kind not in kinds}


def statements(value: type | object) -> list[ast.AST]:
    """The syntax nodes of a function, or of what runs when a class is called as far as it is written there.

    Functions within it are left out: they are called by others.
    """
    functions = [value]
    if inspect.isclass(value):
        generated = {"__init__"} if dataclasses.is_dataclass(value) or is_protocol(value) else set()
        functions = [vars(value)[name] for name in {"__init__", "__post_init__"} - generated if name in vars(value)]
    todo: list[ast.AST] = []
    for function in functions:
        todo += ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0].body  # type: ignore
    nodes = []
    while todo:
        node = todo.pop()
        if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
            nodes.append(node)
            todo += ast.iter_child_nodes(node)
    return nodes


def complaints(name: str, value: type | object) -> list[str]:
    """What the docstring of a public name lacks."""
    doc = inspect.cleandoc((vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__) or "")
    if not doc:
        return ["no docstring"]
    first, found = doc.split("\n", 1)[0], sections(doc)
    wrong = []
    if not first.endswith("."):
        wrong.append(f"first line without a full stop: {first!r}")
    told = entries(found.get("Args", "")) | entries(found.get("Attributes", "")) | fields_described(value)
    wrong += [f"no entry for the argument {p}" for p in sorted(parameters(value) - told)]
    nodes = statements(value)
    returns = not inspect.isclass(value) and any(isinstance(n, ast.Return) and n.value is not None for n in nodes)
    if returns and not {"Returns", "Yields"} & found.keys():
        wrong.append("something is returned, and there is no Returns")
    if any(isinstance(n, ast.Raise) and n.exc for n in nodes) and "Raises" not in found:
        wrong.append("an error is raised, and there is no Raises")
    return wrong


def test_the_check_sees_what_is_missing():
    def undocumented(x, y):
        """First line without a stop

        Args:
            x: a number.
        """
        if x > y:
            raise ValueError
        return x

    assert complaints("undocumented", undocumented) == [
        "first line without a full stop: 'First line without a stop'",
        "no entry for the argument y",
        "something is returned, and there is no Returns",
        "an error is raised, and there is no Raises",
    ]
    assert len(public()) > 60


@pytest.mark.parametrize("name", public())
def test_a_public_name_is_documented(name):
    assert complaints(name, getattr(df, name)) == []
