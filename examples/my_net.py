"""A network of one's own: convolutions over 8x8 digits, told the noise level and the class."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Prediction like x (n, 1, h, w), from t (n,) and classes y (n,)."""

    null = 10  # the class that means "no class"

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width)
        self.enter = nn.Conv2d(1, width, 3, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.leave = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        told = (self.time(t[:, None]) + self.label(y))[:, :, None, None]
        h = self.enter(x)
        for layer in self.middle:
            h = h + layer(torch.nn.functional.silu(h + told))
        return self.leave(h)
