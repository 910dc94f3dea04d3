r"""Coefficients of the equation: numbers, tensors or functions of t alone, whose values decide which field is needed.

They are read in float64, with the gradients that run through them. A weight that is zero up to rounding is exactly
zero, so that its field is never evaluated; unless a gradient by that weight is wanted, which is the field itself.
Two coefficients, and two equations, are equal when they are built alike (`equal_values`). Functions of the particles
are fields (algebra.py), which know nothing of this file but that equality.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .times import Time, wants_gradient

NEGLIGIBLE = 1e-12  # relative size below which a weight is zero; decided in float64
ALIKE = 1e-6  # relative difference of a coefficient from the schedule's own below which it is the schedule's own

Coefficient = float | Tensor | Callable[[Time], float | Tensor]


def value_of(c: Coefficient, t: Time) -> Tensor:
    """Value of the coefficient c at time t, float64, 0-d or (n,)."""
    return torch.as_tensor(c(t) if callable(c) else c, dtype=torch.float64)


def has_derivative(w: Tensor, size: Tensor) -> bool:
    """Whether w, which is zero, has a derivative by the parameters that it depends on, relative to that of `size`.

    beta - g2/2 has none where g2 is twice beta by construction, and has one where the two are learned apart.

    Args:
        w: a weight whose values are zero, any shape.
        size: what w is small against, such as beta.

    Returns:
        True where a derivative of w exceeds ALIKE times the largest of `size`.
    """
    if not wants_gradient(w):
        return False
    leaves, todo = {}, [w.grad_fn] if w.grad_fn is not None else []
    if not todo:
        return True  # a parameter itself
    seen = set(todo)
    while todo:
        node = todo.pop()
        if (leaf := getattr(node, "variable", None)) is not None:
            leaves[id(leaf)] = leaf
        new = [n for n, _ in node.next_functions if n is not None and n not in seen]
        seen.update(new)
        todo += new
    small, large = (
        torch.autograd.grad(v.sum(), list(leaves.values()), retain_graph=True, allow_unused=True)
        if v.requires_grad
        else [None] * len(leaves)
        for v in (w, size)
    )
    top = max((g.abs().max().item() for g in large if g is not None), default=0.0)
    return any(g is not None and g.abs().max().item() > ALIKE * top for g in small)


def short(value: Any) -> str:
    """A setting of an equation in a few characters, for its repr."""
    if isinstance(value, Tensor):
        return f"tensor({value.item():g})" if value.numel() == 1 else f"tensor of shape {tuple(value.shape)}"
    if isinstance(value, (int, float)):
        return f"{value:g}"
    if inspect.ismethod(value):
        return f"{short(value.__self__)}.{value.__name__}"
    return getattr(value, "__name__", str(value))


def equal_values(a: Any, b: Any) -> bool:
    """Whether two settings of an equation are equal: tensors by value, methods by their object and function."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        both = isinstance(a, Tensor) and isinstance(b, Tensor)
        return a is b or (both and a.dtype == b.dtype and a.device == b.device and torch.equal(a, b))
    if inspect.ismethod(a) and inspect.ismethod(b):
        return a.__func__ is b.__func__ and a.__self__ == b.__self__
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(equal_values(v, w) for v, w in zip(a, b, strict=True))
    return a is b or bool(a == b)


class EqualByValue:
    """A base for objects that are equal when they have one class and equal attributes (see `equal_values`)."""

    def __eq__(self, other: object) -> bool:
        if self is other or type(self) is not type(other):
            return self is other
        a, b = vars(self), vars(other)
        return a.keys() == b.keys() and all(equal_values(value, b[name]) for name, value in a.items())

    def __hash__(self) -> int:
        return hash(type(self))


def is_evaluated(w: Tensor) -> bool:
    """Whether a field weighed by w is evaluated: w is not zero, or a gradient by it is wanted."""
    return bool((w != 0).any()) or wants_gradient(w)


def ratio_weight(beta: Tensor, half: Tensor) -> Tensor:
    """Weight of the log-ratio's gradient, beta - half, exactly zero where negligible.

    Args:
        beta: the speed, float64, 0-d or (n,).
        half: g2/2 for the drift, lam2/2 for the velocity.

    Returns:
        The difference; a zero that has no derivative lets no gradient through.
    """
    w = beta - half
    zero = w.abs() <= NEGLIGIBLE * torch.maximum(beta.abs(), half.abs())
    if wants_gradient(w) and bool(zero.any()):
        if has_derivative(w[zero], beta):
            return w
        w = w.detach() if bool(zero.all()) else w
    return torch.where(zero, 0.0, w)
