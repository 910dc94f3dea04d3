"""Weight averages along training: two are tracked, and one of any other width is rebuilt from them afterwards.

A power-function profile weighs the weights of step s, seen from step t, by s^gamma (Karras et al. 2024, eq. 7-8):

    theta_hat(t) = (gamma+1)/t^(gamma+1)  integral_0^t  s^gamma theta(s) ds
    update:  theta_hat <- beta theta_hat + (1-beta) theta,   beta = (1 - 1/t)^(gamma+1)

Its width is a fixed share sigma_rel of the training so far, sigma_rel^2 = (gamma+1) / ((gamma+2)^2 (gamma+3)), so the
start is forgotten at any length of training and no horizon can outlast it. Snapshots of a few such averages span a
space of profiles; a new one p is rebuilt by least squares on functions, min_x |sum_i x_i p_i - p|^2 with sum x = 1,
whose Gram matrix has the closed form below. From widths .05 and .10 stored every factor 2^(1/4), the rebuilt profile
is within 4 % of the wanted one (in L1) for widths .04-.16, and 10 % for .03-.25.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


def exponent(sigma_rel: float) -> float:
    """Exponent gamma of the profile whose relative width is sigma_rel.

    It is the largest root of gamma^3 + 7 gamma^2 + (16-r) gamma + 12-r, r = sigma_rel^-2.

    Args:
        sigma_rel: width of the average as a share of the training so far, in (0, 0.28).

    Raises:
        ValueError: a width outside that interval.

    References:
        Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", appendix C.
    """
    if not 0 < sigma_rel < 0.28:
        raise ValueError(
            f"sigma_rel = {sigma_rel} must lie in (0, 0.28): the average's width as a share of the training so far"
        )
    r = sigma_rel**-2
    return float(np.roots([1.0, 7.0, 16.0 - r, 12.0 - r]).real.max())


def early_share(sigma_rel: float, early: int, now: int) -> float:
    """Weight that the profile at step `now` gives to the first `early` steps: (early/now)^(gamma+1)."""
    return min(1.0, early / now) ** (exponent(sigma_rel) + 1) if now else 1.0


class PowerEMA:
    """Power-function averages of a module's parameters, one per profile; of buffers only those of batch statistics.

    `clock` counts updates of this player. `averages[sigma_rel][name]` are float32 tensors (or the parameter's own
    wider type).

    Args:
        module: whose parameters are averaged.
        profiles: relative widths sigma_rel.
    """

    def __init__(self, module: nn.Module, profiles: Sequence[float]):
        self.module = module
        present = averaged_tensors(module)
        self.parameters = list(present.values())  # once: the walk through a network takes longer than the means
        self.gammas = {s: exponent(s) for s in profiles}
        self.clock = 0
        self.averages = {
            s: {k: p.detach().to(torch.promote_types(p.dtype, torch.float32)).clone() for k, p in present.items()}
            for s in profiles
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the module's current parameters. The first update copies them."""
        self.clock += 1
        for s, gamma in self.gammas.items():
            mean = list(self.averages[s].values())
            beta = (1 - 1 / self.clock) ** (gamma + 1)
            torch._foreach_lerp_(mean, [p.to(m.dtype) for p, m in zip(self.parameters, mean, strict=True)], 1 - beta)

    @contextmanager
    def applied(self, sigma_rel: float) -> Iterator[None]:
        """Let the module carry the average inside the block, and exactly its present parameters again after it."""
        present = {k: p.detach().clone() for k, p in averaged_tensors(self.module).items()}
        put(self.module, self.averages[sigma_rel])
        try:
            yield
        finally:
            put(self.module, present)


def averaged_tensors(module: nn.Module) -> dict[str, Tensor]:
    """What is averaged, by name: the parameters, and the running statistics that belong to them (BatchNorm)."""
    averaged: dict[str, Tensor] = dict(module.named_parameters())
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
            averaged |= {
                f"{name}.{key}" if name else key: getattr(part, key) for key in ("running_mean", "running_var")
            }
    return averaged


@torch.no_grad()
def put(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights into what is averaged of a module, in place.

    Raises:
        ValueError: names or shapes that are not exactly the module's.
    """
    names = averaged_tensors(module)
    if names.keys() != weights.keys():
        raise ValueError(
            f"weights do not fit the network: {sorted(names.keys() ^ weights.keys())[:5]} are on one side only"
        )
    for name, parameter in names.items():
        if parameter.shape != weights[name].shape:
            raise ValueError(
                f"{name} has shape {tuple(weights[name].shape)}, the network's is {tuple(parameter.shape)}"
            )
        parameter.copy_(weights[name])


@dataclass(frozen=True)
class Profile:
    """The averaging profile (gamma+1) s^gamma / t^(gamma+1) on [0, t]."""

    t: float
    gamma: float

    def dot(self, other: Profile) -> float:
        """Inner product of two profiles on [0, min(t, t')]."""
        low, high = sorted((self, other), key=lambda p: p.t)
        return (
            (low.gamma + 1) * (high.gamma + 1) / (low.gamma + high.gamma + 1) * (low.t / high.t) ** high.gamma / high.t
        )


def mixture(stored: Sequence[Profile], target: Profile) -> np.ndarray:
    """Weights x (k,) with sum 1 that bring sum_i x_i p_i closest to `target` in L2.

    Args:
        stored: the k profiles p_i that there are.
        target: the one that is wanted.

    Raises:
        ValueError: nothing is stored.

    References:
        Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models", appendix C.3.
    """
    if not stored:
        raise ValueError("no EMA snapshots to rebuild an average from")
    k = len(stored)
    system, right = np.zeros((k + 1, k + 1)), np.ones(k + 1)
    scale = target.t  # makes the Gram matrix dimensionless
    for i, p in enumerate(stored):
        system[i, :k] = [p.dot(q) * scale for q in stored]
        right[i] = p.dot(target) * scale
    system[k, :k] = system[:k, k] = 1.0
    return np.linalg.lstsq(system, right, rcond=1e-12)[0][:k]


def snapshot_due(clock: int) -> bool:
    """Whether to keep a snapshot at this step: at geometric times of ratio 2^(1/4), for profiles are scale-free."""
    return clock >= 8 and int(4 * np.log2(clock)) != int(4 * np.log2(clock - 1))


FORGET = 16.0  # snapshots older than clock/FORGET carry less than (1/16)^(gamma+1) of any profile and are removed
