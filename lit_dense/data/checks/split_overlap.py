"""Pictures that are in several splits: the same files, or copies of one source."""

import itertools
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath

import numpy as np

from ...core.array_types import Ints
from ..coco import CocoData
from ..problems import KEPT, Problems


def source_of(file_name: str) -> str:
    """The picture that a file shows: Roboflow's names of augmented copies have it before ``.rf.``, others are it."""
    source, mark, _ = PurePath(file_name).name.partition(".rf.")
    return source if mark else os.path.normpath(file_name)


def picture_groups(file_names: Iterable[str]) -> Ints:
    """A number for each image, which those of the same picture share; numbered as they come, [I]."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(source_of(name), len(numbers)) for name in file_names], np.int64)


CURE = "what is measured on them says little about new pictures: keep each picture in one split"


def check_overlap(splits: Mapping[str, CocoData], new: Collection[str], problems: Problems) -> None:
    """Notes images of a split that an earlier one has too, by the path of the file or by Roboflow's source.

    Args:
        splits: Training, validation and test, those that there are, in this order.
        new: Those of them to check, with each other and with the rest.
        problems: Where they are noted.
    """
    files = {split: _places(map(os.path.normpath, data.file_names)) for split, data in splits.items()}
    folders = {split: os.path.realpath(data.folder) for split, data in splits.items()}
    sources = {split: _places(_roboflow_sources(data)) for split, data in splits.items()}
    for first, second in itertools.combinations(splits, 2):
        if first not in new and second not in new:
            continue
        shared = _shared(files[first], files[second]) if folders[first] == folders[second] else {}
        note_shared(splits, first, second, shared, "", problems)
        copies = _shared(sources[first], sources[second])
        copies = {index: other for index, other in copies.items() if index not in shared}
        note_shared(splits, first, second, copies, " as other copies (the name before .rf. is the same)", problems)


def note_shared(
    splits: Mapping[str, CocoData], first: str, second: str, shared: Mapping[int, int], how: str, problems: Problems
) -> None:
    """Notes images of one split that another has too.

    Args:
        splits: The splits.
        first: The name of the other one.
        second: The name of the one that the images are in; it may be the same.
        shared: The images, and for each that of the other split.
        how: In which way they are the same.
        problems: Where they are noted.
    """
    if not shared:
        return
    data, other = splits[second], splits[first]
    if first == second:
        what = f"pictures that are in {second} more than once{how}"
        cure = "keep one entry of each, with all of its boxes"
    else:
        number = "all pictures of" if len(shared) == len(data) else "pictures of"
        what = f"{number} {second} that are in {first} too{how}"
        cure = CURE
    file = "" if other.path == data.path else f" of {other.path}"
    details = (
        f"image {data.image_ids[index]} ({data.file_names[index]}) is image {other.image_ids[its]} "
        f"({other.file_names[its]}){file}"
        for index, its in sorted(shared.items())
    )
    one_file = first == "val" and data.path == other.path  # who tests on the validation file means to
    problems.add(data.path, what, details, count=len(shared), repair=KEPT, cure=cure, hint=one_file)


def _roboflow_sources(data: CocoData) -> Iterable[str | None]:
    return (source_of(name) if ".rf." in name else None for name in data.file_names)


def _places(keys: Iterable[str | None]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        if key is not None:
            places[key].append(index)
    return places


def _shared(first: dict[str, list[int]], second: dict[str, list[int]]) -> dict[int, int]:
    """Images of the second split, each with one of the first that has the same key."""
    return {index: first[key][0] for key, indices in second.items() if key in first for index in indices}
