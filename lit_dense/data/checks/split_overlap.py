"""Checks for images that are in several splits: the same files, or copies of one source image."""

import itertools
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath

import numpy as np

from ...core.array_types import Ints
from ..coco_data import CocoData
from ..problems import KEPT, Problems


def source_of(file_name: str) -> str:
    """Return the source image of a file: the part before ``.rf.`` in Roboflow's names of copies, else the path."""
    source, mark, _ = PurePath(file_name).name.partition(".rf.")
    return source if mark else os.path.normpath(file_name)


def picture_groups(file_names: Iterable[str]) -> Ints:
    """Return a group number for each image; copies of one source image share it, int64 [I]."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(source_of(name), len(numbers)) for name in file_names], np.int64)


CURE = "metrics on them say little about new images: keep each image in one split"


def check_overlap(splits: Mapping[str, CocoData], new: Collection[str], problems: Problems) -> None:
    """Report images of a split that an earlier split also has, by file path or by Roboflow's source name.

    Args:
        splits: The available splits of training, validation and test, in this order.
        new: Names of the splits to check, among themselves and against the others.
        problems: Problems are added to it.
    """
    files = {split: _places(map(os.path.normpath, data.file_names)) for split, data in splits.items()}
    folders = {split: os.path.realpath(data.folder) for split, data in splits.items()}
    sources = {split: _places(_roboflow_sources(data)) for split, data in splits.items()}
    for first, second in itertools.combinations(splits, 2):
        if first not in new and second not in new:
            continue
        shared = _same_files(files[first], folders[first], files[second], folders[second])
        note_shared(splits, first, second, shared, "", problems)
        copies = _shared(sources[first], sources[second])
        copies = {index: other for index, other in copies.items() if index not in shared}
        note_shared(splits, first, second, copies, " as other copies (the name before .rf. is the same)", problems)


def note_shared(
    splits: Mapping[str, CocoData], first: str, second: str, shared: Mapping[int, int], how: str, problems: Problems
) -> None:
    """Report images of one split that another split also has.

    Args:
        splits: The splits.
        first: Name of the other split.
        second: Name of the split with the reported images; it may be the same.
        shared: Index of each reported image, with the index of its copy in the other split.
        how: The end of the message: how the copies were recognised.
        problems: Problems are added to it.
    """
    if not shared:
        return
    data, other = splits[second], splits[first]
    if first == second:
        what = f"images that are in {second} more than once{how}"
        cure = "keep one entry of each, with all of its boxes"
    else:
        number = "all images of" if len(shared) == len(data) else "images of"
        what = f"{number} {second} that are in {first} too{how}"
        cure = CURE
    file = "" if other.path == data.path else f" of {other.path}"
    details = (
        f"image {data.image_ids[index]} ({data.file_names[index]}) is image {other.image_ids[copy]} "
        f"({other.file_names[copy]}){file}"
        for index, copy in sorted(shared.items())
    )
    one_file = first == "val" and data.path == other.path  # testing on the validation file is intended
    problems.add(data.path, what, details, count=len(shared), repair=KEPT, cure=cure, hint=one_file)


def _same_files(first: dict[str, list[int]], around: str, second: dict[str, list[int]], folder: str) -> dict[int, int]:
    """Match files of two folders, which are one folder, or of which one lies in the other."""
    if folder == around:
        return _shared(first, second)
    if folder.startswith(os.path.join(around, "")):  # noqa: PTH118
        return _shared(first, _below(os.path.relpath(folder, around), second))
    if around.startswith(os.path.join(folder, "")):  # noqa: PTH118
        return _shared(_below(os.path.relpath(around, folder), first), second)
    return {}


def _below(folder: str, places: dict[str, list[int]]) -> dict[str, list[int]]:
    return {f"{folder}{os.sep}{name}": indices for name, indices in places.items()}


def _roboflow_sources(data: CocoData) -> Iterable[str | None]:
    return (source_of(name) if ".rf." in name else None for name in data.file_names)


def _places(keys: Iterable[str | None]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        if key is not None:
            places[key].append(index)
    return places


def _shared(first: dict[str, list[int]], second: dict[str, list[int]]) -> dict[int, int]:
    """Match images of the second split with images of the first that have the same key."""
    return {index: first[key][0] for key, indices in second.items() if key in first for index in indices}
