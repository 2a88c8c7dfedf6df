"""Where splits come from, and reading them: each COCO file is parsed once, whoever asks first."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.errors import UsageError
from .checks.annotations import check_split
from .checks.bit_depth import note_depths
from .coco import Category, CocoData
from .formats.coco import CocoJson, read_coco
from .images import Header, find_images, read_headers
from .problems import Problems

MAX_LABEL = 9999  # a class column for each number up to a category id: more are a mistake


class Source(NamedTuple):
    """Where a split comes from.

    Args:
        annotations: The COCO file.
        images: The folder of its images.
    """

    annotations: Path
    images: Path


Given = dict[str, tuple[str | Path | None, str | Path | None]]
"""Of each split the annotation file and the image folder, where they are given."""


def find_sources(root: Path, given: Given) -> dict[str, Source]:
    """The splits whose files are given.

    Args:
        root: Folder that paths start from.
        given: What is given; images of validation and test are by default those of training.

    Raises:
        UsageError: One of two files that belong together is not given.
    """
    sources = {}
    for split, (annotations, images) in given.items():
        if annotations is not None and (folder := images or given["train"][1]) is not None:
            sources[split] = Source(root / annotations, root / folder)
        elif annotations is not None:
            raise UsageError(f"{split}_annotations needs {split}_images, the folder of its images.")
        elif images is not None:
            raise UsageError(f"{split}_images needs {split}_annotations, the COCO file of these images.")
    return sources


def demo_sources(root: Path, given: Given) -> dict[str, Source]:
    """The splits of the demo set.

    Raises:
        UsageError: Other files are given.
    """
    if any(path for paths in given.values() for path in paths):
        raise UsageError("demo=True uses its own images and annotations: give none.")
    folder = root / "digits"
    return {split: Source(folder / f"{split}.json", folder / split) for split in ("train", "val")}


class SourceReader:
    """Reads COCO files and keeps of each what may still be asked for.

    Args:
        weight_key: The key of annotations that holds a weight. Default: none is read.
    """

    def __init__(self, weight_key: str | None = None) -> None:
        self._weight_key = weight_key
        self._contents: dict[Path, tuple[CocoJson | None, Problems]] = {}
        self._categories: dict[Path, tuple[list[Category], Problems]] = {}

    def split(self, source: Source, problems: Problems) -> CocoData | None:
        """The images and boxes of a split, checked; None where there are none.

        Args:
            source: Where the split comes from.
            problems: Where all that is wrong with the file and the images is noted.
        """
        self._parse(source.annotations)
        content, found = self._contents.pop(source.annotations)
        problems.extend([*found.found, *found.hints])
        return check_split(content, source.images, problems) if content else None

    def categories(self, paths: Iterable[Path], problems: Problems) -> list[Category]:
        """The categories of several files together, by ascending id.

        Args:
            paths: COCO files.
            problems: Where is noted what prevents it: files that cannot be read, ids with two names, names that have
                one id in a file and another in the next.
        """
        names: dict[int, tuple[str, Path]] = {}
        for path in paths:
            if path not in self._categories:
                self._parse(path)
            categories, found = self._categories[path]
            problems.extend(found.errors(strict=False))
            details, moved = [], []
            before = {name: (number, first) for number, (name, first) in names.items()}
            for category in categories:
                if category["id"] not in names and category["name"] in before:
                    number, first = before[category["name"]]
                    moved.append(f"category {category['name']!r}: id {category['id']} here, {number} in {first}")
                name, first = names.setdefault(category["id"], (category["name"], path))
                if name != category["name"]:
                    details.append(f"category id {category['id']}: {category['name']!r} here, {name!r} in {first}")
            if details:
                problems.add(path, "categories with another name than in another file", details)
            if moved:
                problems.add(path, "categories with another id than in another file", moved)
        return [Category(id=number, name=names[number][0]) for number in sorted(names)]

    def _parse(self, path: Path) -> None:
        if path not in self._contents:
            problems = Problems()
            content = read_coco(path, problems, self._weight_key)
            if content and not content.categories and not problems.errors(strict=False):
                problems.add(path, "no categories")
            self._contents[path] = content, problems
            self._categories[path] = content.categories if content else [], problems


def label_categories(categories: list[Category], by_id: bool, path: Path | str, problems: Problems) -> list[Category]:
    """The category of each label.

    Args:
        categories: By ascending id.
        by_id: A label is the category's id, and labels between that are none have the name "".
        path: Where the categories come from, for the report.
        problems: Where ids that cannot be labels are noted.
    """
    if not by_id or not categories:
        return categories
    strange = [f"category id {c['id']}: {c['name']}" for c in categories if not 0 <= c["id"] <= MAX_LABEL]
    if strange:
        problems.add(path, f"category ids that cannot be labels (0 to {MAX_LABEL}): use labels=contiguous", strange)
        return categories
    names = {category["id"]: category["name"] for category in categories}
    return [Category(id=label, name=names.get(label, "")) for label in range(max(names) + 1)]


def check_known(data: CocoData, labels: list[Category], problems: Problems) -> None:
    """Notes categories of a test file that no label stands for.

    Args:
        data: The test images and boxes.
        labels: The category of each label; nothing is noted where there are none.
        problems: Where they are noted.
    """
    names = {category["id"]: category["name"] for category in labels}
    unknown = [
        f"category {category['id']}: {category['name']} here, {names.get(category['id']) or 'none'} there"
        for category in data.categories
        if category["name"] != names.get(category["id"])
    ]
    if names and unknown:
        problems.add(data.path, "categories unlike those of the training and validation files", unknown)


def read_images(patterns: Iterable[str | Path], problems: Problems) -> CocoData | None:
    """Images to predict on, numbered from 1.

    Args:
        patterns: Files, folders and globs.
        problems: Where paths without images and unreadable images are noted.

    Returns:
        The images; None where there are none.
    """
    where = "images to predict on"
    files, empty = find_images(patterns)
    if empty:
        problems.add(where, "paths without an image", empty)
    headers = dict(zip(files, read_headers(files), strict=True))
    unreadable = [f"{file}: {header}" for file, header in headers.items() if not isinstance(header, Header)]
    if unreadable:
        problems.add(where, "unreadable image files", unreadable, repair="dropped")
    sizes = {file: (header.height, header.width) for file, header in headers.items() if isinstance(header, Header)}
    if not sizes:
        problems.add(where, "no image that can be used")
        return None
    deep = [Path(file) for file, header in headers.items() if isinstance(header, Header) and header.deep]
    note_depths(deep, where, problems)
    return CocoData.without_boxes(list(sizes), np.array(list(sizes.values())))
