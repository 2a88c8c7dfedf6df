"""Looks at a checkpoint before Lightning does, to say what a file is that is none."""

import re
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from .errors import UsageError

SHARDED = (".metadata", "meta.pt", "latest", "checkpoint")
"""Files of a checkpoint that a strategy of Lightning writes as a folder."""

BEGINNINGS = {
    b"version https://git-lfs": "it is a pointer of Git LFS: run git lfs pull",
    b"\x89HDF": "it is an HDF5 file",
    b"\x1f\x8b": "it is compressed with gzip: unpack it",
    b"<": "it is a web page or XML: was it downloaded from the right address?",
    b"{": "it is a text file",
}


def check_checkpoint(path: Path) -> None:
    """Check that a file is a checkpoint of LitRetinaNet.

    Only the list of its tensors is read, not their values.

    Args:
        path: A file or folder that exists.

    Raises:
        UsageError: If it is none; the message says what it is instead.
    """
    if path.is_dir():
        if any((path / name).exists() for name in SHARDED):
            return
        there = ", ".join(sorted(p.name for p in path.glob("*.ckpt")))
        cure = f"give one of its files, {there}." if there else "give a file."
        raise UsageError(f"{path} is a folder, not a checkpoint: {cure}")
    content = _read(path)
    if not isinstance(content, dict):
        raise UsageError(f"{path} is no checkpoint: it holds a {type(content).__name__}.")
    if "pytorch-lightning_version" not in content or "state_dict" not in content:
        raise UsageError(f"{path} is no checkpoint of Lightning: {_without_trainer(content)}")
    if "lit_dense" not in content:
        hparams = ", ".join(map(str, content.get("hyper_parameters") or {}))
        raise UsageError(
            f"{path} is a checkpoint of another LightningModule than LitRetinaNet"
            + (f", with the arguments {hparams}." if hparams else ".")
        )


def _read(path: Path) -> Any:
    if path.stat().st_size == 0:
        raise UsageError(f"{path} cannot be read as a checkpoint: it is empty.")
    with path.open("rb") as file:
        start = file.read(64)
    if path.suffix == ".safetensors" or start[8:10] == b'{"':
        raise UsageError(
            f"{path} is no checkpoint of Lightning: it is a safetensors file, which holds weights alone. Load them in "
            "Python with safetensors.torch.load_model(model, path)."
        )
    for beginning, what in BEGINNINGS.items():
        if start.lstrip().startswith(beginning):
            raise UsageError(f"{path} cannot be read as a checkpoint: {what}.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # damaged bytes can end the unpickler in any way
        raise UsageError(f"{path} cannot be read as a checkpoint: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, UnpicklingError) and (found := re.search(r"GLOBAL (\S+)", text)):
        return (
            f"it holds whole objects ({found[1]}), as torch.save(model) writes, and only plain data is loaded. Save "
            "checkpoints with trainer.save_checkpoint(path)."
        )
    if isinstance(error, UnpicklingError) or "central directory" in text or not text:
        return "it is damaged, cut off, or no file of torch.save."
    return f"it is damaged ({text.strip().splitlines()[0]})."


def _without_trainer(content: dict[Any, Any]) -> str:
    """What a dict is that Lightning's trainer has not written."""
    if content and all(isinstance(value, Tensor) for value in content.values()):
        lit = any(str(name).startswith("model.") for name in content)
        return (
            f"it holds weights alone, a state_dict of {len(content)} tensors. Load them in Python with "
            f"{'model' if lit else 'model.model'}.load_state_dict(torch.load(path)), and save a checkpoint with "
            "trainer.save_checkpoint(path)."
        )
    keys = ", ".join(map(str, list(content)[:8])) or "nothing"
    return f"it holds {keys}. It was written by another library."
