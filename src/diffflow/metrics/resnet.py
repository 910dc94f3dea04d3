"""A judge of small colour images: the ResNet-20 of He et al. 2016 for CIFAR-10.

    x (n, 3, h, w) in [0, 1], normalised by ImageNet's statistics -> 3x3 convolution, 16 maps
      -> 3 stages of 3 blocks of two 3x3 convolutions, 16, 32, 64 maps, halving between stages; a shortcut onto more
         maps takes every other pixel and adds empty maps
      -> mean over the image: 64 features -> 10 logits

Its Frechet distance is not FID: it sees 64 numbers that tell ten classes apart. Weights come from a file the user
names.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .classifier import Classifier
from .weights import WeightsError


class Block(nn.Module):
    """(n, a, h, w) -> (n, b, h / stride, w / stride)."""

    def __init__(self, a: int, b: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
        self.stride, self.more = stride, b - a

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        kept = x[:, :, :: self.stride, :: self.stride]
        return (out + F.pad(kept, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))).relu()


class ResNet20(nn.Module):
    """Colour images in [0, 1] to logits (n, 10); `features` gives the 64 means below them."""

    mean: Tensor
    std: Tensor

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(2)))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(2)))
        self.linear = nn.Linear(64, 10)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)

    def features(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) in [0, 1] -> (n, 64)."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"ResNet-20 judges colour images (n, 3, h, w), not {tuple(x.shape)}")
        x = self.bn1(self.conv1((x - self.mean) / self.std)).relu()
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.features(x))


def load_resnet20(path: str | Path) -> Classifier:
    """ResNet-20 with the weights in a file as published (state_dict under "state_dict", names behind "module.").

    Read with weights_only. Raises WeightsError that says what is wrong with the file.
    """
    net = ResNet20()
    try:
        saved = torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True)["state_dict"]
        net.load_state_dict({k.removeprefix("module."): v for k, v in saved.items()})
    except Exception as error:  # whatever a damaged file makes torch raise
        raise WeightsError(
            f"{path} holds no ResNet-20 weights ({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from None
    return Classifier(net.eval().requires_grad_(False), None, 10, "resnet20")
