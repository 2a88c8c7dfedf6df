"""A check of checkpoint files before Lightning loads them; identifies files that are not checkpoints."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UsageError

SHARDED = (".metadata", "meta.pt", "latest", "checkpoint")
"""Files that identify a folder as a sharded checkpoint of a Lightning strategy."""

OF_TORCH = (b"PK", b"\x80")  # a zip archive, or a pickle as torch wrote before 1.6
SCRIPTED = "it is a TorchScript archive, as torch.jit.save writes."
BEGINNINGS = {
    b"version https://git-lfs": "a pointer of Git LFS: run git lfs pull",
    b"<": "a web page or XML: was it downloaded from the right address?",
    b"{": "a text file",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "compressed with gzip: unpack it",
}


def check_checkpoint(path: Path) -> None:
    """Check that a file is an undamaged checkpoint of LitRetinaNet.

    Args:
        path: An existing file or folder.

    Raises:
        UsageError: If it is not; the message describes the file.
    """
    if path.is_dir():
        if any((path / name).exists() for name in SHARDED):
            return
        candidates = ", ".join(sorted(p.name for p in path.glob("*.ckpt")))
        cure = f"give one of its files, {candidates}." if candidates else "give a file."
        raise UsageError(f"{path} is a folder, not a checkpoint: {cure}")
    _check_beginning(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if zipfile.is_zipfile(path):
            _check_sums(path)  # torch ignores checksums and would load damaged weights
    except Exception as error:  # damaged bytes can raise any error in the unpickler
        raise UsageError(f"{path} cannot be read as a checkpoint: {_reason(error)}") from error
    if problem := _problem(content):
        raise UsageError(f"{path} is not a checkpoint of LitRetinaNet: {problem}")


def _check_beginning(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise UsageError(f"{path} cannot be read as a checkpoint: it is empty.")
    if start[8:10] == b'{"':
        raise UsageError(
            f"{path} is not a checkpoint of LitRetinaNet: it is a safetensors file, which contains only weights. Load "
            "them in Python with safetensors.torch.load_model(model, path)."
        )
    if not start.startswith(OF_TORCH):
        known = (what for beginning, what in BEGINNINGS.items() if start.lstrip().startswith(beginning))
        raise UsageError(f"{path} cannot be read as a checkpoint: it is {next(known, 'not a file of torch.save')}.")


def _check_sums(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if (bad := archive.testzip()) is not None:
            raise zipfile.BadZipFile(bad)


def _reason(error: Exception) -> str:
    if "TorchScript" in str(error):
        return SCRIPTED
    if isinstance(error, UnpicklingError) and (found := re.search(r"GLOBAL (\S+)", str(error))):
        return (
            f"it contains pickled objects ({found[1]}), as written by torch.save(model), but only plain data is "
            "loaded. Save checkpoints with trainer.save_checkpoint(path)."
        )
    return "it is damaged, truncated, or not a file of torch.save."


def _problem(content: Any) -> str | None:
    """Explain why a loaded object is not a checkpoint of LitRetinaNet; None if it is one."""
    if isinstance(content, torch.jit.ScriptModule):  # torch before 2.5 loads it without an error
        return SCRIPTED
    if not isinstance(content, dict):
        return f"it contains a {type(content).__name__}."
    if any(isinstance(value, Tensor) and "." in str(name) for name, value in content.items()):
        target = "model" if any(str(name).startswith("model.") for name in content) else "model.model"
        return (
            f"it contains only weights, a state_dict of {len(content)} items. Load them in Python with "
            f"{target}.load_state_dict(torch.load(path)), and save a checkpoint with trainer.save_checkpoint(path)."
        )
    if "pytorch-lightning_version" not in content:
        return f"another library wrote it. It contains {', '.join(map(str, list(content)[:8])) or 'nothing'}."
    if not isinstance(content.get("state_dict"), Mapping):
        return "it contains no weights."
    if "lit_dense" not in content:
        hparams = ", ".join(map(str, list(content.get("hyper_parameters") or {})[:8]))
        return "it is that of another LightningModule" + (f", with the arguments {hparams}." if hparams else ".")
    return None
