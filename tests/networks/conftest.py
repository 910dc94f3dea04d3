"""Checks that several kinds of networks share."""

import pytest
import torch

import diffflow as df
from diffflow.networks.games import Penalty


@pytest.fixture(scope="session")
def check_penalty_slopes():
    """A function that compares the gradient of a penalty in named weights with finite differences."""

    def check(discriminator, x, cond, names, *, step, rel):
        def penalty():
            return Penalty(real=1.0, fake=1.0)(lambda y, _: discriminator(y, 0.3, cond), x, 2 * x, df.Noise(0)).sum()

        for name in names:
            weight = discriminator.get_parameter(name)
            (slope,) = torch.autograd.grad(penalty(), weight)
            way = torch.randn_like(weight)
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    weight += sign * step * way
                values.append(penalty().item())
                with torch.no_grad():
                    weight -= sign * step * way
            assert slope.any()
            assert (values[0] - values[1]) / (2 * step) == pytest.approx((slope * way).sum().item(), rel=rel)

    return check
