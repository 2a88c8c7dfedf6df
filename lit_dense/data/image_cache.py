"""Decoded images that are kept in memory or on disk, shared by the workers of all loaders."""

import hashlib
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor

from .coco_data import CocoData

CacheMode = Literal["ram", "disk"]
GIB = 2**30


class ImageCache(ABC):
    """Base class of caches of decoded images: the images of one split, as many of the first as fit.

    Args:
        data: The images.
        capacity: Bytes that may be used.

    Attributes:
        number: Number of images that fit.
        used: Bytes that they need.
    """

    def __init__(self, data: CocoData, capacity: int) -> None:
        self._sizes = data.sizes
        self._ends = 3 * data.sizes.astype(np.int64).prod(1).cumsum()
        self.number = int(np.searchsorted(self._ends, capacity, side="right"))
        self.used = int(self._ends[self.number - 1]) if self.number else 0

    def read(self, index: int, decode: Callable[[], Tensor]) -> Tensor:
        """Return an image, a copy that may be changed: uint8 [3, H, W] with the channels innermost in memory.

        Args:
            index: Index of the image.
            decode: Reads the image from its file. It is called if the image is not in the cache.
        """
        if index >= self.number:
            return decode()
        pixels = self._load(index)
        if pixels is not None:
            return pixels.permute(2, 0, 1)
        image = decode()
        if list(image.shape[-2:]) == self._sizes[index].tolist():  # otherwise the file was replaced: an error follows
            self._store(index, image.permute(1, 2, 0))
        return image

    @abstractmethod
    def _load(self, index: int) -> Tensor | None:
        """Return the pixels [H, W, 3] of an image that was stored; None for another."""

    @abstractmethod
    def _store(self, index: int, pixels: Tensor) -> None:
        """Store the pixels of an image [H, W, 3]."""


class RamCache(ImageCache):
    """A cache of decoded images in shared memory, which worker processes fill and read together.

    Args:
        data: The images.
        capacity: Bytes that may be used.
    """

    def __init__(self, data: CocoData, capacity: int) -> None:
        super().__init__(data, capacity)
        self._pixels, self._stored = _shared(self.used), _shared(self.number)
        self._stored.zero_()

    def _load(self, index: int) -> Tensor | None:
        return self._place(index).clone() if self._stored[index] else None

    def _store(self, index: int, pixels: Tensor) -> None:
        self._place(index).copy_(pixels)
        self._stored[index] = 1  # after the pixels: two workers may store the same image, but none reads a part of it

    def _place(self, index: int) -> Tensor:
        height, width = self._sizes[index].tolist()
        end = int(self._ends[index])
        return self._pixels[end - 3 * height * width : end].view(height, width, 3)


class DiskCache(ImageCache):
    """A cache of decoded images in a folder, with a file for each image. Later runs use it too.

    The name of a file depends on the path, size and modification time of the image. So an image that was replaced is
    decoded again. Files are complete when they appear under their name.

    Args:
        data: The images.
        capacity: Bytes that may be used.
        folder: The folder.
    """

    def __init__(self, data: CocoData, capacity: int, folder: Path) -> None:
        super().__init__(data, capacity)
        self._data, self._folder = data, folder

    def file(self, index: int) -> Path | None:
        """Return the file of an image in the cache; None if the image does not exist.

        Args:
            index: Index of the image.
        """
        path = os.path.abspath(self._data.folder / self._data.file_names[index])  # noqa: PTH100 (keeps links)
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError:
            return None
        identity = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{self._data.upright[index]}"
        name = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:40]
        return self._folder / name[:2] / f"{name}.raw"

    def _load(self, index: int) -> Tensor | None:
        file = self.file(index)
        height, width = self._sizes[index].tolist()
        try:
            pixels = None if file is None else np.fromfile(file, np.uint8)
        except OSError:
            return None
        if pixels is None or pixels.size != 3 * height * width:
            return None
        return torch.from_numpy(pixels).view(height, width, 3)

    def _store(self, index: int, pixels: Tensor) -> None:
        file = self.file(index)
        if file is None:
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
                try:
                    part.write(pixels.contiguous().numpy().data)
                    part.close()
                    os.replace(part.name, file)  # noqa: PTH105
                except OSError:
                    os.unlink(part.name)  # noqa: PTH108
                    raise
        except OSError:
            return  # a full or read-only disk costs time only: the image is decoded again


def open_caches(
    mode: CacheMode, splits: Mapping[str, CocoData], gib: float | None = None, processes: int = 1
) -> dict[str, ImageCache]:
    """Create the caches of several splits within one bound; the first split is served first.

    Args:
        mode: ``ram`` or ``disk``.
        splits: The images of each split.
        gib: Largest size of all caches on this machine in GiB. Default: half of the available memory or disk space.
        processes: Number of training processes on this machine. Each has its own cache in memory, so the bound is
            divided among them.
    """
    folder = cache_folder()
    capacity = _capacity(mode, gib, folder) // (processes if mode == "ram" else 1)
    caches: dict[str, ImageCache] = {}
    remaining = capacity
    for split, data in splits.items():
        caches[split] = RamCache(data, remaining) if mode == "ram" else DiskCache(data, remaining, folder)
        remaining -= caches[split].used
    if mode == "disk":
        _make_room(folder, [cache for cache in caches.values() if isinstance(cache, DiskCache)], capacity)
        if fault := _unwritable(folder):
            rank_zero_warn(
                f"data.cache=disk: {folder} cannot be written ({fault}), so images that are not in it are decoded each "
                "time. Set the environment variable XDG_CACHE_HOME to a folder that can be written, or leave cache out."
            )
            return caches
    number, total = sum(cache.number for cache in caches.values()), sum(map(len, splits.values()))
    place = f" in {folder}" if mode == "disk" else ""
    beyond = "" if number == total else "; the others are decoded each time (data.cache_gib sets the bound)"
    rank_zero_info(
        f"data.cache={mode}: {number} of {total} decoded images, {(capacity - remaining) / GIB:.2f} of at most "
        f"{capacity / GIB:.2f} GiB{' per process' if processes > 1 and mode == 'ram' else ''}{place}{beyond}."
    )
    return caches


def cache_folder() -> Path:
    """Return the folder of ``data.cache=disk``: ``lit_dense/images`` in the user's folder of caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lit_dense" / "images"


def _capacity(mode: CacheMode, gib: float | None, folder: Path) -> int:
    if mode == "ram":
        limit, free = _free_space(Path("/dev/shm")), _available_memory()
    else:
        stored = sum(status.st_size for _, status in _files(folder))
        limit = free = _free_space(next(p for p in (folder, *folder.parents) if p.exists())) + stored
    wanted = min(free, limit) // 2 if gib is None else int(gib * GIB)
    return min(wanted, limit)


def _unwritable(folder: Path) -> str:
    """Create a folder, and return why no file can be written to it; empty if one can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _free_space(folder: Path) -> int:
    """Return the free bytes of the file system of a folder; without limit if the folder does not exist."""
    return shutil.disk_usage(folder).free if folder.exists() else 2**62


def _available_memory() -> int:
    """Return the bytes of memory that this process may still use, within the limit of its container."""
    available = 8 * GIB  # where the system does not say
    if (table := Path("/proc/meminfo")).exists():
        rows = dict(line.split(":") for line in table.read_text().splitlines() if ":" in line)
        available = int(rows["MemAvailable"].split()[0]) * 1024
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        available = min(available, max(0, int(text) - int(used.read_text())))
    return available


def _make_room(folder: Path, caches: list[DiskCache], capacity: int) -> None:
    """Delete the oldest files that these caches do not use, so that the folder does not exceed its bound."""
    used = {cache.file(index) for cache in caches for index in range(cache.number)}
    others = [(file, status) for file, status in _files(folder) if file not in used]
    excess = sum(cache.used for cache in caches) + sum(status.st_size for _, status in others) - capacity
    for file, status in sorted(others, key=lambda pair: pair[1].st_mtime):
        if excess <= 0:
            return
        file.unlink(missing_ok=True)
        excess -= status.st_size


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """List the files of the folder, incomplete ones of interrupted runs too."""
    files = []
    for file in folder.glob("*/*"):
        with suppress(FileNotFoundError):  # another process has just deleted or renamed it
            files.append((file, file.stat()))
    return files


def _shared(number: int) -> Tensor:
    """Return a uint8 tensor in shared memory, not initialised: its pages are used when they are first written."""
    storage = torch.UntypedStorage._new_shared(max(1, number))
    return torch.empty(0, dtype=torch.uint8).set_(storage)[:number]
