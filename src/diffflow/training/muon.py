"""Muon: steps along the orthogonalised momentum of every weight matrix; AdamW for all that is no matrix.

    M <- momentum M + G,   N = G + momentum M (Nesterov),   O = the nearest semi-orthogonal matrix to N, up to some ten
    percent in its singular values,   W <- (1 - lr decay) W - lr .2 sqrt(max(rows, columns)) O

All directions of a matrix are learned at one speed, where gradients differ by orders. The factor makes the root mean
square of an update that of Adam's, about .2 lr, so that both take one learning rate. A convolution (out, in, k, k) is
the matrix (out, in k k); what lies outside the body of the net (biases, tables, first and last layers) is AdamW's.

References:
    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (the iteration and its coefficients).
    Liu et al. 2025, arXiv:2502.16982 (the factor, weight decay).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # of a polynomial that takes singular values of 1e-3 to 1 to about .7 to 1.2
ROUNDS = 5


def orthogonalised(x: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Matrices with the singular vectors of x and singular values of about 1, by Newton-Schulz iterations.

    y <- P y with P = a + b G + c G^2, G = y y'. All P are polynomials of the first G, so the product of the P is
    found among the small matrices (P G P is the next G), and the long ones are touched twice only.

    Args:
        x: matrices (..., rows, columns).
        rounds: iterations.

    Returns:
        The matrices, like x; zeros stay zeros.
    """
    a, b, c = QUINTIC
    wide = x.mT if x.shape[-2] > x.shape[-1] else x
    y = wide / (torch.linalg.vector_norm(wide, dim=(-2, -1), keepdim=True) + 1e-12)
    gram, identity = y @ y.mT, torch.eye(y.shape[-2], dtype=y.dtype, device=y.device)
    product = identity
    for k in range(rounds):
        power = a * identity + b * gram + c * gram @ gram
        product = power @ product
        gram = power @ gram @ power if k < rounds - 1 else gram
    y = product @ y
    return y.mT if x.shape[-2] > x.shape[-1] else y


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon moves a parameter: a weight of two or more axes inside the body of a network.

    Outside are the first and the last layer, the embeddings of time and condition, and the layers that tell a block of
    them, whose gradients are of few directions.
    """
    *path, _ = name.split(".")
    outside = {"embedding", "told", "conv_in", "conv_out", "time_embedding", "class_embedding", "time_emb_proj"}
    ends = path in (["enter"], ["leave"])  # of the whole network: blocks have layers of these names, too
    return parameter.ndim >= 2 and min(parameter.shape[:2]) > 1 and not ends and outside.isdisjoint(path)


class Muon(torch.optim.Optimizer):
    """Optimizer of a network: Muon for its weight matrices, AdamW for the rest, at one learning rate.

    Args:
        named: names and parameters.
        lr: learning rate, which a caller may set anew before each step.
        betas: AdamW's memories; the first is Muon's momentum, too.
        weight_decay: of all parameters, times the rate.
        matrix: (name, parameter) -> whether Muon moves it.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.99),
        weight_decay: float = 0.0,
        matrix: Callable[[str, nn.Parameter], bool] = is_matrix,
    ):
        sides: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, p in named:
            sides[matrix(name, p)].append(p)
        groups = [{"params": part, "muon": side} for side, part in sides.items() if part]
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step on the gradients that are there."""
        for group in self.param_groups:
            parameters: list[Tensor] = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            (self._muon if group["muon"] else self._adam)(parameters, group)

    def _muon(self, parameters: list[Tensor], group: Mapping[str, Any]) -> None:
        """One step of the matrices, those of one shape together."""
        momentum = group["betas"][0]
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for p in parameters:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
            by_shape.setdefault(p.shape, []).append(p)
        moments = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_mul_(moments, momentum)
        torch._foreach_add_(moments, _gradients(parameters))
        for shape, alike in by_shape.items():
            grads = _gradients(alike)
            ahead = torch.stack([g + momentum * self.state[p]["momentum"] for g, p in zip(grads, alike, strict=True)])
            ahead = ahead.flatten(2)
            scale = 0.2 * max(ahead.shape[1:]) ** 0.5
            for p, move in zip(alike, orthogonalised(ahead), strict=True):
                p.add_(move.view(shape), alpha=-group["lr"] * scale)

    def _adam(self, parameters: list[Tensor], group: Mapping[str, Any]) -> None:
        """One step of all others."""
        first, second = group["betas"]
        for p in parameters:
            if not self.state[p]:
                self.state[p] = {"step": torch.tensor(0.0), "mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
        states = [self.state[p] for p in parameters]
        grads = _gradients(parameters)
        for state in states:
            state["step"] += 1
        k = float(states[0]["step"])
        means, squares = [s["mean"] for s in states], [s["square"] for s in states]
        torch._foreach_lerp_(means, grads, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, grads, grads, 1 - second)
        scales = torch._foreach_sqrt(squares)
        torch._foreach_div_(scales, (1 - second**k) ** 0.5)
        torch._foreach_add_(scales, group["eps"])
        torch._foreach_addcdiv_(parameters, means, scales, -group["lr"] / (1 - first**k))


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    """The gradients of parameters that have one."""
    return [p.grad for p in parameters if p.grad is not None]
