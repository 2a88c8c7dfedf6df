"""Pictures with the same content under different names."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..coco import CocoData
from ..images import in_threads
from ..problems import Problems
from .split_overlap import note_shared

BLOCK = 4096  # bytes that are read at two places of files of equal size
CHUNK = 1 << 20  # bytes of a file that are in memory at a time
LIMIT = 4_000_000_000  # bytes of files that are read as a whole, together


def check_contents(splits: Mapping[str, CocoData], problems: Problems) -> None:
    """Notes different files with the same content, within a split and between two.

    Only files of equal size are read: of each its middle and its end, and as a whole where these are equal too.

    Args:
        splits: Training, validation and test, those that there are, in this order.
        problems: Where they are noted.
    """
    # where each file is first; that several entries or splits name one file is noted by its name
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
        problems.add("pictures", "files that may be equal, too large to be compared as a whole", skipped, hint=True)


def _narrowed(groups: Sequence[Sequence[str]], key: Callable[[str], Hashable]) -> list[list[str]]:
    """Groups of files that have the same key besides, where there are several; a key of None is in no group."""
    paths = [path for group in groups for path in group]
    keys = iter(in_threads(key, paths, "Looking for equal pictures"))
    found: dict[tuple[int, Hashable], list[str]] = defaultdict(list)
    for number, group in enumerate(groups):
        for path in group:
            if (value := next(keys)) is not None:
                found[number, value].append(path)
    return [group for group in found.values() if len(group) > 1]


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
    """A hash of some blocks of a file, each with its start and length."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with Path(path).open("rb") as file:
            for start, length in blocks:
                file.seek(start)
                digest.update(file.read(length))
    except OSError:
        return None  # told where the picture is read
    return digest.digest()
