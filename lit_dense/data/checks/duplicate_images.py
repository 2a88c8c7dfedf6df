"""A check for image files with equal content under different names."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..coco_data import CocoData
from ..image_files import in_threads
from ..problems import Problems
from .split_overlap import note_shared

BLOCK = 4096  # bytes read from the middle and from the end of files of equal size
CHUNK = 1 << 20  # bytes of a file in memory at a time
LIMIT = 4_000_000_000  # most bytes of all files that are read as a whole


def check_contents(splits: Mapping[str, CocoData], problems: Problems) -> None:
    """Report different files with equal content, within a split and between two splits.

    Only files of equal size are read: first their middle and their end, and the whole file if these are equal.

    Args:
        splits: The available splits of training, validation and test, in this order.
        problems: Problems are added to it.
    """
    # the first entry of each file; several entries or splits with one file are reported by name in another check
    places: dict[str, tuple[str, int]] = {}
    for split, data in splits.items():
        folder = os.path.realpath(data.folder)
        for index, name in enumerate(data.file_names):
            places.setdefault(os.path.normpath(f"{folder}/{name}"), (split, index))
    alike = _narrowed([list(places)], _size)
    alike = _narrowed(alike, _middle_and_end)
    read = np.cumsum([len(group) * (_size(group[0]) or 0) for group in alike])
    affordable = int((read <= LIMIT).sum())
    shared: dict[tuple[str, str], dict[int, int]] = defaultdict(dict)
    for first, *others in _narrowed(alike[:affordable], _whole):
        for other in others:
            (split, index), (its_split, its_index) = places[other], places[first]
            shared[its_split, split][index] = its_index
    for (first, second), images in shared.items():
        note_shared(splits, first, second, images, " under another name (the files are equal)", problems)
    if skipped := [path for group in alike[affordable:] for path in group]:
        problems.add("images", "files that may be equal, too large to be compared as a whole", skipped, hint=True)


def _narrowed(groups: Sequence[Sequence[str]], key: Callable[[str], Hashable]) -> list[list[str]]:
    """Split groups of files by a key; drops groups of one file and files with the key None."""
    paths = [path for group in groups for path in group]
    keys = iter(in_threads(key, paths, "Looking for equal images"))
    narrowed: dict[tuple[int, Hashable], list[str]] = defaultdict(list)
    for number, group in enumerate(groups):
        for path in group:
            if (value := next(keys)) is not None:
                narrowed[number, value].append(path)
    return [group for group in narrowed.values() if len(group) > 1]


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None


def _middle_and_end(path: str) -> bytes | None:
    size = _size(path) or 0
    return _digest(path, [(size // 2, BLOCK), (max(0, size - BLOCK), BLOCK)])


def _whole(path: str) -> bytes | None:
    return _digest(path, [(start, CHUNK) for start in range(0, _size(path) or 0, CHUNK)])


def _digest(path: str, blocks: Sequence[tuple[int, int]]) -> bytes | None:
    """Return a hash of some blocks of a file, given as start and length."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with Path(path).open("rb") as file:
            for start, length in blocks:
                file.seek(start)
                digest.update(file.read(length))
    except OSError:
        return None  # unreadable images are reported elsewhere
    return digest.digest()
