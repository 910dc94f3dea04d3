"""Whose eyes? The weights of the networks that the field judges images with: what they are called, where they lie, and
whether a file is the one it should be.

    home()/FILE      $DIFFFLOW_WEIGHTS, or weights/ in the user's cache
    fetch(name)      the only thing in this library that downloads, and only when asked; a file is put in its place
                     after its SHA-256 was verified

Two extractors with different weights are two different metrics, so the digest stands in every protocol card.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class WeightsError(ValueError):
    """Weights that are unknown, not there, or not what they should be."""


@dataclass(frozen=True)
class Weights:
    """A published file of weights; `sha256` may be its first digits, where no more is published."""

    name: str
    file: str
    url: str
    sha256: str
    what: str
    licence: str

    @property
    def path(self) -> Path:
        return home() / self.file


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
    )
}


def home() -> Path:
    """The folder of weights."""
    given = os.environ.get("DIFFFLOW_WEIGHTS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(given).expanduser() if given else cache.expanduser() / "diffflow" / "weights"


def known(name: str) -> Weights:
    if name not in KNOWN:
        raise WeightsError(f"no weights are called {name!r}; there are {', '.join(KNOWN)}")
    return KNOWN[name]


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def verify(name: str, path: str | Path | None = None) -> Path:
    """The path of these weights, verified; None: where `fetch` puts them. Raises WeightsError that names the remedy."""
    w = known(name)
    where = w.path if path is None else Path(path).expanduser()
    if not where.is_file():
        raise WeightsError(
            f"no {name} weights at {where}. Run `diffflow weights fetch {name}`, or fetch {w.url} "
            f"(sha256 {w.sha256}{'...' if len(w.sha256) < 64 else ''}) by hand and put it there"
        )
    found = digest(where)
    if not found.startswith(w.sha256):
        raise WeightsError(
            f"{where} is not the {name} file that is published: its sha256 is {found[:16]}..., not {w.sha256[:16]}... "
            "Delete it and fetch it again"
        )
    return where


def fetch(name: str, url: str | None = None, on_bytes: Callable[[int, int], None] | None = None) -> Path:
    """Download these weights to their place, or do nothing where they are; verified before they are put there.

    url: another place to fetch the same file from. on_bytes: called with (bytes so far, of how many, or 0).
    Raises WeightsError where the network or the file fails.
    """
    w = known(name)
    if w.path.is_file() and digest(w.path).startswith(w.sha256):
        return w.path
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
