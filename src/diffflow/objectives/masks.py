"""Random masks: which columns of each training row are known, so that one denoiser learns every conditional law."""

from __future__ import annotations

import torch
from torch import Tensor

from ..equation.noise import Noise


def random_masks(
    noise: Noise,
    n: int,
    shape: tuple[int, ...],
    share: float,
    groups: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Random masks of whole columns: any number of them, from none to all but one, is as likely as any other.

    Args:
        noise: streams, one a row.
        n: number of rows.
        shape: event shape of a row.
        share: share of the rows of which columns are known; of the others none is.
        groups: number of the column that each coordinate of a vector belongs to, int64 (d,); None: each coordinate is
            a column.
        device: of the masks.

    Returns:
        bool (n, *shape), True where known.
    """
    groups = torch.arange(torch.Size(shape).numel()) if groups is None else groups.reshape(-1)
    groups = groups.to(device)
    columns = int(groups.max()) + 1
    rank = noise.fork("order").uniform(n, (columns,), device=device).argsort(1).argsort(1)
    count = noise.fork("count").randint(n, columns, device=device)
    masked = noise.fork("share").uniform(n, device=device) < share
    known = (rank < count[:, None]) & masked[:, None]
    return known[:, groups].reshape(n, *shape)
