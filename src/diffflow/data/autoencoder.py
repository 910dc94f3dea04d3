"""Autoencoders of diffusers in a local folder, as coders: AutoencoderKL and AutoencoderTiny.

A folder holds config.json and diffusion_pytorch_model.safetensors. Nothing is downloaded, no pickle is opened, and no
class is imported but these two.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from .errors import DataError

KNOWN = ("AutoencoderKL", "AutoencoderTiny")
WEIGHTS = "diffusion_pytorch_model.safetensors"


def open_autoencoder(folder: str | Path) -> tuple[Any, dict[str, str]]:
    """The autoencoder of a folder, on the accelerator where there is one, and where it comes from.

    Args:
        folder: the folder.

    Returns:
        coder: the autoencoder.
        source: `class`, `path` (absolute) and `sha256` of its weights.

    Raises:
        DataError: no such folder, another class, or weights that do not fit.
    """
    path = Path(folder).expanduser().resolve()
    if not (path / "config.json").is_file():
        inside = f"; did you mean {path / 'vae'}?" if (path / "vae" / "config.json").is_file() else ""
        raise DataError(
            f"no autoencoder in {path}, as it has no config.json{inside}. Name its folder, also where it has moved: "
            "--latent PATH, or df.load(path, coder=PATH)"
        )
    try:
        config = json.loads((path / "config.json").read_bytes())
        name = config["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path / 'config.json'} describes no autoencoder of diffusers ({error!r})") from error
    if name not in KNOWN or "quantization_config" in config:
        raise DataError(f"{path} holds a {str(name)[:80]!r}, and {' or '.join(KNOWN)} is wanted, not quantised")
    file = path / WEIGHTS
    if not file.is_file() or (path / f"{WEIGHTS}.index.json").exists():
        raise DataError(
            f"{path} has no whole {WEIGHTS}, and other weights are not opened (.bin files are pickles, which could run "
            "code): save the autoencoder again by model.save_pretrained(folder)"
        )
    import diffusers
    from diffusers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # it warns of what its own save_pretrained writes
    try:
        model, about = getattr(diffusers, name).from_pretrained(
            str(path), use_safetensors=True, local_files_only=True, output_loading_info=True, torch_dtype=torch.float32
        )
    except Exception as error:  # whatever diffusers makes of a damaged folder
        raise DataError(f"{path} cannot be opened as {name}: {error}") from error
    finally:
        logging.set_verbosity(verbosity)
    if wrong := [*about["missing_keys"], *about["unexpected_keys"], *map(str, about["mismatched_keys"])]:
        raise DataError(f"the weights in {file} are not those of its config.json", wrong, show=5)
    with file.open("rb") as weights:
        sha256 = hashlib.file_digest(weights, "sha256").hexdigest()
    best = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    model.eval().requires_grad_(False).to(best or "cpu")
    return model, {"class": name, "path": str(path), "sha256": sha256}
