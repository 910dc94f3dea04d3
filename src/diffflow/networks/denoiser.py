"""Denoisers: networks that estimate E[Y | y], the one thing that the flow needs of a network.

    y = Y + sigma * eps,    D(y, sigma) = E[Y | y],    score of y's law = (D(y, sigma) - y) / sigma^2

Every prediction form in use is affine in what the net returns, so all of them are rows of ONE table:

    D = a(sigma) y + b(sigma) F,    F = net(c(sigma) y, time(sigma), cond)

    form    c               a               b                      F predicts
    eps     1/sqrt(1+s^2)   1               -s                     eps
    v       1/sqrt(1+s^2)   1/(1+s^2)       -s/sqrt(1+s^2)         (eps - s Y)/sqrt(1+s^2)
    x0      1/sqrt(1+s^2)   0               1                      Y
    flow    1/(1+s)         1/(1+s)         -s/(1+s)               eps - Y
    score   1               1               s^2                    (Y - y)/s^2
    edm     1/sqrt(s^2+d^2) d^2/(s^2+d^2)   s d/sqrt(s^2+d^2)      a unit-variance target (Karras et al. 2022)

d = sigma_data. No row knows a schedule: a variance-preserving net sees y/sqrt(1+s^2), a rectified flow sees y/(1+s),
whatever path the particles take.
Shapes: y (n, *shape); sigma 0-d or (n,); D like y; cond None or int64 (n,), -1 = no class, or any other condition as
`data.conditions.encode` gives it.

References:
    Karras et al. 2022, "Elucidating the design space of diffusion-based generative models", arXiv:2206.00364, table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..data.conditions import Condition, Conditions, checked
from ..equation.algebra import recordable_net
from ..equation.conditions import Cond, apply, count


class Coefficients(NamedTuple):
    """Preconditioning at one sigma or at each: the net sees c y, and D = a y + b F.

    Attributes:
        c: factor of the net's input, shaped like sigma.
        a: weight of y in the denoiser, shaped like sigma.
        b: weight of the net's output, shaped like sigma.
    """

    c: Tensor
    a: Tensor
    b: Tensor


@dataclass(frozen=True)
class Form:
    """Prediction form: what a net predicts, as the coefficients that make a denoiser of it.

    Args:
        at: (sigma, sigma_data) -> Coefficients, each shaped like sigma.
    """

    at: Callable[[Tensor, float], Coefficients]

    def denoised(self, out: Tensor, y: Tensor, sigma: Tensor, sigma_data: float = 1.0) -> Tensor:
        """Denoiser D = a y + b F from what a net of this form returned.

        Args:
            out: the net's output F (n, *shape).
            y: noisy data (n, *shape).
            sigma: its noise level, 0-d or (n,).
            sigma_data: standard deviation of the data in model units.

        Returns:
            D(y, sigma), (n, *shape).
        """
        _, a, b = (_factor(k, y) for k in self.at(sigma, sigma_data))
        return a * y + b * out

    def predicted(self, D: Tensor, y: Tensor, sigma: Tensor, sigma_data: float = 1.0) -> Tensor:
        """Output F of a net of this form whose denoiser is D: the inverse of `denoised`.

        Args:
            D: the denoiser's value (n, *shape).
            y: noisy data (n, *shape).
            sigma: its noise level, 0-d or (n,).
            sigma_data: standard deviation of the data in model units.

        Returns:
            F = (D - a y) / b, (n, *shape).
        """
        _, a, b = (_factor(k, y) for k in self.at(sigma, sigma_data))
        return (D - a * y) / b


def _factor(k: Tensor, y: Tensor) -> Tensor:
    """Factor k of shape () or (n,), in y's dtype and device, shaped to multiply y of shape (n, *shape).

    `times.per_particle` but for one number for all: that stays a tensor on its device, since to read a number would
    wait for the device at every evaluation.
    """
    k = k.to(y.device, y.dtype)
    return k.reshape(-1, *[1] * (y.dim() - 1)) if k.dim() else k


def _eps_form(s: Tensor, d: float) -> Coefficients:
    return Coefficients((1 + s * s).rsqrt(), torch.ones_like(s), -s)


def _v_form(s: Tensor, d: float) -> Coefficients:
    r = (1 + s * s).rsqrt()
    return Coefficients(r, r * r, -s * r)


def _x0_form(s: Tensor, d: float) -> Coefficients:
    return Coefficients((1 + s * s).rsqrt(), torch.zeros_like(s), torch.ones_like(s))


def _flow_form(s: Tensor, d: float) -> Coefficients:
    u = 1 / (1 + s)
    return Coefficients(u, u, -s * u)


def _score_form(s: Tensor, d: float) -> Coefficients:
    return Coefficients(torch.ones_like(s), torch.ones_like(s), s * s)


def _edm_form(s: Tensor, d: float) -> Coefficients:
    r = (s * s + d * d).rsqrt()
    return Coefficients(r, (d * r) ** 2, s * d * r)


FORMS: dict[str, Form] = {
    "eps": Form(_eps_form),
    "v": Form(_v_form),
    "x0": Form(_x0_form),
    "flow": Form(_flow_form),
    "score": Form(_score_form),
    "edm": Form(_edm_form),
}


def quarter_log(sigma: Tensor) -> Tensor:
    """EDM's noise conditioning 0.25 ln sigma (Karras et al. 2022, table 1)."""
    return 0.25 * sigma.log()


class Denoiser(nn.Module):
    """Denoiser D(y, sigma) = a y + b net(c y, time(sigma), cond), for a net of any form.

    The affine arithmetic runs in at least float32, whatever the net runs in.

    Args:
        net: module or callable (x (n, *shape), time (n,), cond) -> (n, *shape). `net.classes` (int, optional) is how
            many classes it knows. A net that is told how pictures were augmented says how long such a label is,
            `net.augment_labels`, and takes it by name, `augment` (n, labels) or None. A net that can be told which
            coordinates are known says `net.takes_known` and takes them by name, `known` bool (n, *shape) or None.
        sigma_data: standard deviation of the data in model units, > 0.
        principal_std: largest principal standard deviation of the data, for the default sampling grid; default
            sigma_data.
        form: what the net predicts, a row of `FORMS`; default EDM's preconditioning.
        time: what the net is told about sigma, a map of (n,) to (n,).
        conditions: what the net is told of each sample; None: a class, where `net.classes` is not 0.
        null: whether the net learns "no condition" too, so that conditions may be hidden from it.

    Raises:
        TypeError: for a net that is a class, or cannot be called.
        ValueError: for a sigma_data that is not positive and finite.
    """

    cost = 1

    def __init__(
        self,
        net: Callable[..., Tensor],
        sigma_data: float,
        principal_std: float | None = None,
        *,
        form: Form = FORMS["edm"],
        time: Callable[[Tensor], Tensor] = quarter_log,
        conditions: Conditions | None = None,
        null: bool = True,
    ):
        super().__init__()
        if isinstance(net, type) or not callable(net):
            name = f"the class {net.__name__}" if isinstance(net, type) else f"a {type(net).__name__}"
            raise TypeError(f"a denoiser is made of a net (x, time, cond) -> (n, *shape), an instance: got {name}")
        if not 0 < sigma_data < float("inf"):
            raise ValueError(
                f"sigma_data = {sigma_data} must be positive: the standard deviation of the data in model units"
            )
        self.net = net
        self.sigma_data = float(sigma_data)
        self.principal_std = float(sigma_data if principal_std is None else principal_std)
        self.form = form
        self.time = time
        self.conditions = conditions
        self.null = null

    @property
    def classes(self) -> int:
        """Number of classes the net knows; 0 when it is told none, or more than a class."""
        if self.conditions is not None:
            return self.conditions.classes if isinstance(self.conditions, Condition) else 0
        return int(getattr(self.net, "classes", 0))

    @property
    def conditional(self) -> bool:
        """Whether it takes a condition."""
        return self.conditions is not None or self.classes > 0

    @property
    def takes_known(self) -> bool:
        """Whether it can be told which coordinates are known (and was, where it was trained with masks)."""
        return bool(getattr(self.net, "takes_known", False))

    @property
    def groups(self) -> Tensor | None:
        """Number of the column that each coordinate of a vector belongs to, int64 (d,); None: each is one by itself."""
        return None

    def forward(
        self,
        y: Tensor,
        sigma: Tensor,
        cond: Cond = None,
        augment: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """Estimate of the clean data.

        Args:
            y: noisy data (n, *shape).
            sigma: its noise level, positive, 0-d or (n,).
            cond: classes int64 (n,), -1 for no class, or another condition in the net's units; None: none for all.
            augment: how the pictures were changed (n, 9), in training; None: they were not.
            known: which coordinates are known and stand in y without noise, bool (n, *shape), for a net that takes
                them; None: none.

        Returns:
            D(y, sigma) in y's dtype, (n, *shape): E[Y | y], where some are known given these, which it returns.

        Raises:
            ValueError: for a sigma <= 0 (NaN comes back where sigma lies on an accelerator) or of another length, for
                a net that returns another shape, and for known coordinates that the net cannot be told.
        """
        work = y.to(torch.promote_types(y.dtype, torch.float32))
        sigma = torch.as_tensor(sigma)
        if sigma.ndim > 1 or (sigma.ndim and len(sigma) != len(y)):
            raise ValueError(f"sigma has shape {tuple(sigma.shape)} for {len(y)} particles: one, or one for each")
        if sigma.device.type == "cpu" and not torch.compiler.is_compiling():
            if not (low := sigma.min().item() if sigma.numel() else 1.0) > 0:
                raise ValueError(f"a denoiser needs sigma > 0, got {low:.6g}: at 0 the data are known")
        else:  # to look would wait for the device: no number comes back for a sigma that is none
            sigma = torch.where(sigma > 0, sigma, torch.nan)
        if known is not None and not self.takes_known:
            raise ValueError(
                "known coordinates were given, and this denoiser's net cannot be told them: train with masks "
                "(model.masks), or draw by method='langevin'"
            )
        # Autocast would redo the affine part in half precision only for matmuls; the cast makes the sum float32 in
        # any case.
        told = {} if augment is None else {"augment": augment}
        told |= {} if known is None else {"known": known}
        D = self.estimate(work, sigma.to(y.device), cond, told).to(y.dtype)
        return D if known is None else torch.where(known, y, D)

    def estimate(self, y: Tensor, sigma: Tensor, cond: Cond, told: dict[str, Tensor]) -> Tensor:
        """D(y, sigma) from checked arguments, which kinds of denoisers other than a y + b F make their own way.

        Args:
            y: noisy data (n, *shape), at least float32.
            sigma: its noise level, 0-d or (n,), on y's device.
            cond: the condition, or None.
            told: what the net takes by name.

        Returns:
            D (n, *shape), in y's type.
        """
        out = self.predict(self.shown(y, sigma, told.get("known")), y.shape, sigma, cond, told)
        return self.form.denoised(out, y, sigma, self.sigma_data)

    def shown(self, y: Tensor, sigma: Tensor, known: Tensor | None = None) -> Tensor:
        """What the net is shown of noisy data: c(sigma) y, and known coordinates, which are clean, as c(0) y.

        Args:
            y: noisy data (n, *shape).
            sigma: its noise level, 0-d or (n,).
            known: which coordinates are known, bool (n, *shape); None: none.

        Returns:
            (n, *shape).
        """
        out = _factor(self.form.at(sigma, self.sigma_data).c, y) * y
        if known is None:
            return out
        return torch.where(known, self.form.at(torch.zeros_like(sigma), self.sigma_data).c.amax().to(y) * y, out)

    def predict(
        self, shown: Tensor, shape: tuple[int, ...], sigma: Tensor, cond: Cond, told: dict[str, Tensor]
    ) -> Tensor:
        """The net's output for what it is shown, in the type of that.

        Args:
            shown: its input (n, ...), c y in a plain form.
            shape: of the output.
            sigma: noise level, 0-d or (n,).
            cond: the condition, or None.
            told: what the net takes by name.

        Raises:
            ValueError: for a net that returns another shape.
        """
        inner = next((p.dtype for p in self.parameters() if p.is_floating_point()), shown.dtype)
        # A tensor of shape (n,), never a float: diffusers' UNet2DModel casts a python float to an integer.
        time = self.time(sigma).to(inner).expand(len(shown))
        more = {k: v.to(inner) if v.is_floating_point() else v for k, v in told.items()}
        out = recordable_net(self.net)(shown.to(inner), time, cond, **more)
        if out.shape != shape:
            raise ValueError(
                f"the net of this denoiser returned shape {tuple(out.shape)} for noisy data of shape {tuple(shape)}: "
                "a net (x, time, cond) returns what it predicts, of the shape of x"
            )
        return out.to(shown.dtype)

    def given(self, cond: Cond) -> Denoiser | Given:
        """This denoiser with the condition fixed.

        Args:
            cond: a class for all particles (an int or 0-d) or one each (n,), or another condition in the net's units,
                with a row for each particle or a single one; None for no condition.

        Returns:
            A denoiser that is called as D(y, sigma), sharing these weights.

        Raises:
            ValueError: for a net without condition, or a condition that it does not know.
        """
        return self if cond is None else Given(self, cond)


class Given:
    """Denoiser with its condition fixed: called as D(y, sigma), sharing the weights of its source.

    Args:
        source: the denoiser.
        cond: as `Denoiser.given` takes it.

    Raises:
        ValueError: for a denoiser without condition, or a condition that it does not know.
    """

    conditional = True

    def __init__(self, source: Denoiser, cond: Cond):
        if not source.conditional:
            raise ValueError("cond was given, but this denoiser was trained without a condition: leave cond out")
        self.source = source
        self.conditions = source.conditions or Condition.labels(source.classes)
        self.cond = (
            self.conditions.encode(cond) if isinstance(self.conditions, Condition) and self.conditions.classes else cond
        )
        checked(self.conditions, self.cond, count(self.cond) or 1)
        self.cost = source.cost
        self.principal_std = source.principal_std
        self.sigma_data = source.sigma_data
        self.classes = source.classes

    def __call__(self, y: Tensor, sigma: Tensor) -> Tensor:
        """D(y, sigma) of y (n, *shape) under the fixed condition. Raises ValueError for another number of rows."""
        return self.source(y, sigma, checked(self.conditions, apply(lambda leaf: leaf.to(y.device), self.cond), len(y)))

    def given(self, cond: Cond) -> Denoiser | Given:
        """The source with another condition fixed in place of this one."""
        return self.source.given(cond)
