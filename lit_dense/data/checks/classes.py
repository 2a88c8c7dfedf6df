"""Checks of classes: too few boxes in a split, duplicate categories, categories without boxes."""

import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from ..coco_data import Category, CocoData
from ..origins import Origins
from ..problems import KEPT, Problems

_CROWD_CURE = (
    "iscrowd 1 marks a box around a crowd of objects, which is neither trained on nor counted; some mask exports set "
    "it for every object: set it to 0 then"
)


def check_boxes(splits: Mapping[str, CocoData], problems: Problems) -> None:
    """Report splits without boxes, and splits with mostly crowd boxes.

    Args:
        splits: The available splits of training, validation and test.
        problems: Problems are added to it; a training split without usable boxes is an error.
    """
    for split, data in splits.items():
        crowds, number = int(data.iscrowd.sum()), len(data.boxes)
        effect = ", so there is nothing to train on" if split == "train" else ": its mAP is -1"
        repair = "" if split == "train" else KEPT
        if not number and split == "train":
            problems.add(data.path, f"no boxes{effect}")
        elif not number:
            problems.add(data.path, f"no boxes in {split}{effect}", repair=repair)
        elif crowds == number:
            what = f"all boxes of {split} are crowds (iscrowd 1){effect}"
            problems.add(data.path, what, _crowds(data), count=crowds, repair=repair, cure=_CROWD_CURE)
        elif 2 * crowds > number:
            what = f"more than half of the {number:,} boxes of {split} are crowds (iscrowd 1)"
            problems.add(data.path, what, _crowds(data), count=crowds, repair=KEPT, cure=_CROWD_CURE)


def _crowds(data: CocoData) -> Iterator[str]:
    for row in np.flatnonzero(data.iscrowd):
        image = int(np.searchsorted(data.offsets, row, side="right")) - 1
        yield f"annotation {data.annotation_ids[row]} of image {data.image_ids[image]} ({data.file_names[image]})"


def check_classes(splits: Mapping[str, CocoData], new: Collection[str], problems: Problems) -> None:
    """Report classes without boxes, classes that are evaluated but never trained, and duplicate names.

    Args:
        splits: The available splits of training, validation and test.
        new: Names of the splits to check, among themselves and against the others.
        problems: Problems are added to it.
    """
    boxes = {split: _names_with_boxes(data) for split, data in splits.items()}
    categories = {c["id"]: c for data in splits.values() for c in data.categories}
    root = None
    if not any(data.path.suffix.lower() in (".yaml", ".yml") for data in splits.values()):  # YOLO's classes begin at 0
        root = _group_of_roboflow(list(categories.values()), set().union(*boxes.values()))
    for split, data in splits.items():
        if split not in new or not boxes[split]:  # the latter is reported for the split as a whole
            continue
        empty = [_named(c) for c in data.categories if c["name"] not in boxes[split] and c != root]
        if empty:
            effect = "never learnt" if split == "train" else "left out of mAP"
            problems.add(data.path, f"classes without a box in {split}, which are {effect}", empty, hint=True)
        if split != "train" and boxes.get("train"):
            unseen = [_named(c) for c in data.categories if c["name"] in boxes[split] - boxes["train"]]
            if unseen:
                what = f"classes with boxes in {split} and none in train, whose AP will be 0"
                problems.add(data.path, what, unseen, repair=KEPT, cure="split the images so that training has them")
    where = ", ".join(dict.fromkeys(str(data.path) for data in splits.values()))
    if root:
        problems.add(
            where,
            "a first category without boxes; Roboflow exports one for the whole project",
            [_named(root)],
            cure="it takes a column of the head but is not a class: remove it from the categories of all files",
            hint=True,
        )
    reported = {c["id"] for split, data in splits.items() if split not in new for c in data.categories}
    origins = next((data.origins for data in splits.values() if data.origins is not None), None)
    _note_duplicate_names(list(categories.values()), reported, where, origins, problems)


def _names_with_boxes(data: CocoData) -> set[str]:
    """Return the names of categories with a non-crowd box."""
    used = set(np.unique(data.category_ids[~data.iscrowd]).tolist())
    return {c["name"] for c in data.categories if c["id"] in used}


def _named(category: Category) -> str:
    return f"category {category['id']}: {category['name']}"


def _group_of_roboflow(categories: Sequence[Category], used: set[str]) -> Category | None:
    first = min(categories, key=lambda c: c["id"], default=None)
    if first is None or first["id"] != 0 or first["name"] in used or not used:
        return None
    return first


def _note_duplicate_names(
    categories: Sequence[Category], reported: Collection[int], where: str, origins: Origins | None, problems: Problems
) -> None:
    alike: dict[str, list[Category]] = {}
    for category in categories:
        alike.setdefault(_bare(category["name"]), []).append(category)
    duplicates = [same for same in alike.values() if len(same) > 1 and not all(c["id"] in reported for c in same)]
    details = [", ".join(f"{c['id']} {c['name']!r}" for c in same) for same in duplicates]
    if details and origins is not None:
        details = [
            ", ".join(f"{c['name']!r} of {' and '.join(origins.annotated(c['id'])) or 'no source'}" for c in same)
            for same in duplicates
        ]
        first, other = duplicates[0][:2]
        problems.add(
            where,
            "classes of joined data with names that differ only in case, spaces or hyphens",
            details,
            repair=KEPT,
            cure=f"if they are one class, rename one in its source: rename: {{{other['name']}: {first['name']}}}",
        )
    elif details:
        problems.add(
            where,
            "categories with the same name, or with names that differ only in case, spaces or hyphens",
            details,
            repair=KEPT,
            cure="if they are one class, give its annotations one category id",
        )


def _bare(name: str) -> str:
    """Normalise a name: removes case, spaces and hyphens, except between two digits."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"(?<!\d)[\s_-]+|[\s_-]+(?!\d|[\s_-])", "", folded) or name
