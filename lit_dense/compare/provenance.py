"""What the numbers of a run come from: the versions of the software, a digest of the code and of the data."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path, PureWindowsPath
from typing import Any

from .._version import __version__
from ..data import CocoDataModule
from ..data.coco_data import CocoData
from ..data.problems import DataError, Problems
from ..metrics.detection_table import Array

NOT_RECORDED = "not recorded"
WITHOUT_INFLUENCE = ("compare", "export", "testing", "visualization")
"""Folders of the package that no number of a run depends on; what ``compare`` decides is in the configuration."""
READ_BY = (
    *("root", "train_images", "train_annotations", "val_images", "val_annotations", "val_split", "demo", "join"),
    *("background_images", "labels", "weight_key", "ignore_key", "seed", "format"),
)
"""Options of the data module that decide which images and boxes it reads."""

_LENGTH = 16  # hexadecimal digits of a digest


@cache
def code_digest() -> str:
    """Return a digest of the package's Python files: all development builds have one version number.

    The folders ``WITHOUT_INFLUENCE`` do not count.
    """
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix()):
        name = path.relative_to(package)
        if name.parts[0] not in WITHOUT_INFLUENCE:
            lines = path.read_bytes().replace(b"\r\n", b"\n")
            digest.update(f"{name.as_posix()}\n{len(lines)}\n".encode() + lines)
    return digest.hexdigest()[:_LENGTH]


def versions(codes: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions of the software that computes the numbers.

    Args:
        codes: Digests of the code of each part of an interrupted run; by default the code of this process.
    """
    named = {name: version(name) for name in ("torch", "torchvision", "lightning", "numpy")}
    code = "+".join(codes or [code_digest()])
    return {"python": platform.python_version(), "lit-dense": __version__, "code": code, **named}


def fingerprint(data: CocoData) -> dict[str, Any]:
    """Return the identity of a data set: numbers of images and boxes, a digest, and the bytes of all image files.

    The digest is that of classes, image names and sizes, and boxes with their attributes, in their order. It does not
    depend on the folders of the files, nor on the format or layout of the annotation file.

    Args:
        data: The data set.
    """
    names = [_portable_name(name) for name in data.file_names]
    digest = hashlib.sha256(json.dumps([data.categories, names]).encode())
    arrays: list[Array] = [data.image_ids, data.sizes, data.upright, data.offsets, data.category_ids]
    arrays += [data.boxes, data.area, data.iscrowd]
    arrays += [] if data.weight is None else [data.weight]
    for lists in data.federated or ():
        arrays += [lists.offsets, lists.values]
    if data.origins is not None:  # names of sources do not count
        arrays += [data.origins.source_idxs, *data.origins.unknown]
    for array in arrays:
        little_endian = array.astype(array.dtype.newbyteorder("<"), order="C")
        digest.update(f"{little_endian.dtype} {array.shape}".encode() + little_endian.tobytes())
    paths = [data.folder / name for name in data.file_names]
    return {
        "images": len(data),
        "boxes": len(data.boxes),
        "digest": digest.hexdigest()[:_LENGTH],
        "image_bytes": sum(path.stat().st_size for path in paths if path.exists()),
    }


def _portable_name(name: str) -> str:
    """Return a file name as on every system; background images have absolute names, of which the last part counts."""
    is_absolute = name.startswith("/") or PureWindowsPath(name).is_absolute()
    return PureWindowsPath(name).name if is_absolute else name.replace("\\", "/")


def fingerprints(data: Mapping[str, CocoData]) -> dict[str, Any]:
    """Return the fingerprints of the training and the validation set."""
    return {split: fingerprint(data[split]) for split in ("train", "val") if split in data}


def same_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two fingerprints are those of the same images and boxes; the bytes of images do not count.

    Args:
        one: The result of :func:`fingerprint`; empty for no data.
        other: Another one.
    """
    return all(one.get(fact) == other.get(fact) for fact in ("images", "boxes", "digest"))


def read_fingerprints(options: Mapping[str, Any], working_folder: str, prepare: bool = False) -> dict[str, Any]:
    """Read the data of a configuration and return its fingerprints.

    Args:
        options: The options of the data module.
        working_folder: The folder that ``root`` is relative to.
        prepare: Whether to create the demo data set if it does not exist.

    Raises:
        UsageError: If the data cannot be read.
    """
    given = {name: options[name] for name in READ_BY if name in options}
    module = CocoDataModule(**{**given, "root": Path(working_folder) / given.get("root", ".")})
    if prepare:
        module.prepare_data()
    problems = Problems()
    data = module.read([split for split in ("train", "val") if split in module.available], problems)
    if problems.errors(strict=False):
        raise DataError(problems.report(strict=False))
    return fingerprints(data)
