"""The files of each split, and a reader that parses each COCO file once."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.errors import UsageError
from .checks.annotation_file import check_split
from .checks.bit_depth import note_depths
from .coco_data import Category, CocoData
from .formats.coco import CocoJson, read_coco
from .image_files import Header, find_images, read_headers
from .problems import Problems

MAX_LABEL = 9999  # labels=category_id makes a column for every number up to the largest id; larger ids are a mistake


class Source(NamedTuple):
    """The files of a split.

    Args:
        annotations: The COCO file.
        images: The folder of its images.
    """

    annotations: Path
    images: Path


Given = dict[str, tuple[str | Path | None, str | Path | None]]
"""The annotation file and the image folder of each split; None for those that are not given."""


def find_sources(root: Path, given: Given) -> dict[str, Source]:
    """Return the sources of the splits whose files are given.

    Args:
        root: Folder that paths are relative to.
        given: The given paths; by default, validation and test use the image folder of training.

    Raises:
        UsageError: An annotation file is given without an image folder, or an image folder without annotations.
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
    """Return the sources of the demo data set.

    Raises:
        UsageError: Other files are given.
    """
    if any(path for paths in given.values() for path in paths):
        raise UsageError("demo=True uses its own images and annotations: leave out the other paths.")
    folder = root / "digits"
    return {split: Source(folder / f"{split}.json", folder / split) for split in ("train", "val")}


class SourceReader:
    """A reader of COCO files that keeps the parts that are needed again.

    Args:
        weight_key: The key of annotations with a weight. Default: no weights are read.
        ignore_key: The key of annotations that marks ignore regions, as ``iscrowd`` does. Default: none is read.
    """

    def __init__(self, weight_key: str | None = None, ignore_key: str | None = None) -> None:
        self._weight_key, self._ignore_key = weight_key, ignore_key
        self._contents: dict[Path, tuple[CocoJson | None, Problems]] = {}
        self._categories: dict[Path, tuple[list[Category], Problems]] = {}

    def split(self, source: Source, problems: Problems) -> CocoData | None:
        """Read and check the images and boxes of a split; None if no images can be used.

        Args:
            source: The files of the split.
            problems: All problems of the file and the images are added to it.
        """
        self._parse(source.annotations)
        content, of_file = self._contents.pop(source.annotations)
        problems.extend([*of_file.found, *of_file.hints])
        return check_split(content, source.images, problems) if content else None

    def categories(self, paths: Iterable[Path], problems: Problems) -> list[Category]:
        """Merge the categories of several files, by ascending id.

        Args:
            paths: COCO files.
            problems: Errors are added to it: unreadable files, ids with two names, and names with different ids in
                different files.
        """
        names: dict[int, tuple[str, Path]] = {}
        for path in paths:
            if path not in self._categories:
                self._parse(path)
            categories, of_file = self._categories[path]
            problems.extend(of_file.errors(strict=False))
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
            content = read_coco(path, problems, self._weight_key, self._ignore_key)
            if content and not content.categories and not problems.errors(strict=False):
                problems.add(path, "no categories")
            self._contents[path] = content, problems
            self._categories[path] = content.categories if content else [], problems


def label_categories(categories: list[Category], by_id: bool, path: Path | str, problems: Problems) -> list[Category]:
    """Return the category of each label.

    Args:
        categories: Categories by ascending id.
        by_id: Whether labels are category ids; unused labels between them have the name "".
        path: The file of the categories, for the report.
        problems: Ids that cannot be labels are added to it.
    """
    if not by_id or not categories:
        return categories
    invalid = [f"category id {c['id']}: {c['name']}" for c in categories if not 0 <= c["id"] <= MAX_LABEL]
    if invalid:
        problems.add(path, f"category ids that cannot be labels (0 to {MAX_LABEL}): use labels=contiguous", invalid)
        return categories
    names = {category["id"]: category["name"] for category in categories}
    return [Category(id=label, name=names.get(label, "")) for label in range(max(names) + 1)]


def check_known(data: CocoData, labels: list[Category], problems: Problems) -> None:
    """Report categories of a test file that have no label.

    Args:
        data: The test images and boxes.
        labels: The category of each label; if it is empty, nothing is reported.
        problems: The categories are added to it.
    """
    names = {category["id"]: category["name"] for category in labels}
    unknown = [
        f"category {category['id']}: {category['name']} here, {names.get(category['id']) or 'none'} there"
        for category in data.categories
        if category["name"] != names.get(category["id"])
    ]
    if names and unknown:
        problems.add(data.path, "categories that differ from those of the training and validation files", unknown)


def read_images(
    patterns: Iterable[str | Path], problems: Problems, where: str = "images to predict on"
) -> CocoData | None:
    """Find images without annotations and read their headers; ids count from 1.

    Args:
        patterns: Files, folders and globs.
        problems: Paths without images and unreadable images are added to it.
        where: What the images are, for the report.

    Returns:
        The images; None if there are none.
    """
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
