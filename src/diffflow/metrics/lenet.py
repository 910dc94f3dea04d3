"""A judge the field already knows: the tanh LeNet-5 whose features make the usual MNIST FID.

    x (n, 1, h, w) in [0, 1] -> bilinear to 32x32 -> 5x5 convolutions 6, 16, 120, 2x2 max-pooling -> 84 -> 10 logits

LeCun et al. 1998, in the form used by Xu et al. 2018, "An empirical study on evaluation metrics of GANs". The input is
not normalised. Weights come from a file the user names; nothing is downloaded.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .classifier import Classifier


class LeNet5(nn.Module):
    """Grey images in [0, 1], any size, to logits (n, 10); `features` gives the 84 activations below them."""

    def __init__(self):
        super().__init__()
        self.convnet = nn.Sequential(
            OrderedDict(
                c1=nn.Conv2d(1, 6, 5),
                tanh1=nn.Tanh(),
                s2=nn.MaxPool2d(2),
                c3=nn.Conv2d(6, 16, 5),
                tanh3=nn.Tanh(),
                s4=nn.MaxPool2d(2),
                c5=nn.Conv2d(16, 120, 5),
                tanh5=nn.Tanh(),
            )
        )
        self.fc = nn.Sequential(OrderedDict(f6=nn.Linear(120, 84), tanh6=nn.Tanh(), f7=nn.Linear(84, 10)))

    def features(self, x: Tensor) -> Tensor:
        """(n, 1, h, w) in [0, 1] -> (n, 84)."""
        if x.ndim != 4 or x.shape[1] != 1:
            raise ValueError(f"LeNet-5 judges grey images (n, 1, h, w), not {tuple(x.shape)}")
        if x.shape[2:] != (32, 32):
            x = F.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)
        return self.fc[:2](self.convnet(x).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc[2](self.features(x))


def load_lenet(path: str | Path) -> Classifier:
    """LeNet-5 with the weights in a state-dict file (keys convnet.c1.weight ... fc.f7.bias), read with weights_only.

    Raises FileNotFoundError or ValueError that says what is wrong with the file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"no LeNet-5 weights at {str(path)!r}. The file is lenet.pth of github.com/abdulfatir/gan-metrics-pytorch "
            f"(commit c56c62b, sha256 e4bed3817dd7723c605580e7b7393538a5dfc3508aacc4890b07e7f07c16bebf); put it there"
        )
    net = LeNet5()
    try:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{str(path)!r} holds no LeNet-5 weights ({str(error).splitlines()[0]}); fetch the file again"
        ) from None
    return Classifier(net.eval().requires_grad_(False), None, 10, "lenet5")
