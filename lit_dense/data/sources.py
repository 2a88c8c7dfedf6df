"""The files of each split, the recognition of their format, and a reader that parses each file once."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..core.component import name_or_path
from ..core.errors import UsageError
from .checks.annotation_file import check_split
from .checks.bit_depth import note_depths
from .coco_data import Category, CocoData
from .formats import FORMATS
from .formats.annotations import Annotations
from .formats.base import ROBOFLOW_COCO, Format, Request
from .image_files import Header, find_images, read_headers
from .problems import KEPT, Problems

MAX_LABEL = 9999  # labels=category_id makes a column for every number up to the largest id; larger ids are a mistake


class Source(NamedTuple):
    """The files of a split.

    Args:
        annotations: The annotation file or folder.
        images: The folder of its images; None if the format finds it.
        split: The split, for files that hold several.
        format: The format; None if it must be recognised.
    """

    annotations: Path
    images: Path | None = None
    split: str = "train"
    format: Format | None = None

    @property
    def is_shared(self) -> bool:
        """Whether the annotation file holds several splits."""
        return self.format is not None and bool(self.format.splits(self.annotations))


Given = dict[str, tuple[str | Path | None, str | Path | None]]
"""The annotation file and the image folder of each split; None for those that are not given."""

TRIED = ("roboflow", "coco", "yolo", "voc", "csv")
"""The formats of this package in the order in which they are tried."""
BY_SUFFIX = {".yaml": "yolo", ".yml": "yolo", ".csv": "csv", ".tsv": "csv"}


def find_sources(root: Path, given: Given, given_format: Format | None = None) -> dict[str, Source]:
    """Return the sources of the splits whose files are given; no file is read.

    Args:
        root: Folder that paths are relative to.
        given: The given paths.
        given_format: The format of all files; by default it is recognised when the files are read.

    Raises:
        UsageError: A COCO file is given without an image folder, or an image folder without annotations.
    """
    sources = {}
    for split, (annotations, images) in given.items():
        if annotations is not None:
            path = root / annotations
            if images is None and given["train"][1] is None and _needs_images(path, given_format):
                raise UsageError(f"{split}_annotations needs {split}_images, the folder of its images.")
            sources[split] = Source(path, None if images is None else root / images, split, given_format)
        elif images is not None and (split == "train" or given["train"][0] is None):
            raise UsageError(f"{split}_images needs {split}_annotations, the annotations of these images.")
    return sources


def _needs_images(path: Path, given_format: Format | None) -> bool:
    if given_format is not None:
        return given_format.needs_images
    return path.suffix.lower() == ".json" and path.name != ROBOFLOW_COCO


def complete_sources(sources: Mapping[str, Source], root: Path, given: Given) -> dict[str, Source]:
    """Return sources with formats and image folders, and the further splits that the training annotations hold.

    Args:
        sources: The sources of the splits whose files are given.
        root: Folder that paths are relative to.
        given: The given paths.

    Raises:
        UsageError: The format of a file is not recognised; an image folder is given without annotations.
    """
    complete = {}
    train_images = given["train"][1]
    for split, source in sources.items():
        chosen = source.format or recognise(source.annotations)
        images = source.images
        if images is None and train_images is not None and not chosen.finds_images:
            images = root / train_images
        complete[split] = source._replace(format=chosen, images=images)
    train = complete.get("train")
    for split in train.format.splits(train.annotations) if train is not None and train.format is not None else ():
        if train is not None and split not in complete:
            own = given[split][1]
            complete[split] = Source(train.annotations, None if own is None else root / own, split, train.format)
    for split, (annotations, folder) in given.items():
        if annotations is None and folder is not None and split not in complete:
            raise UsageError(f"{split}_images needs {split}_annotations, the annotations of these images.")
    return complete


def recognise(path: Path) -> Format:
    """Return the format that a file or folder looks like.

    Args:
        path: The file or folder; the reader of the returned format reports that it is missing.

    Raises:
        UsageError: It looks like no format.
    """
    if not path.exists():
        return FORMATS.build(BY_SUFFIX.get(path.suffix.lower(), "coco"))
    for name in (*TRIED, *(name for name in FORMATS.points if name not in TRIED)):
        if (candidate := FORMATS.build(name)).recognises(path):
            return candidate
    raise UsageError(
        f"{path}: the format is not recognised. Recognised are COCO JSON (.json), YOLO (data.yaml), a folder of Pascal "
        f"VOC XML, .csv, and the folder of a Roboflow export. data.format names one: {', '.join(FORMATS.points)}."
    )


def demo_sources(root: Path, given: Given) -> dict[str, Source]:
    """Return the sources of the demo data set.

    Raises:
        UsageError: Other files are given.
    """
    if any(path for paths in given.values() for path in paths):
        raise UsageError("demo=True uses its own images and annotations: leave out the other paths.")
    folder = root / "digits"
    coco = FORMATS.build("coco")
    return {split: Source(folder / f"{split}.json", folder / split, split, coco) for split in ("train", "val")}


class SourceReader:
    """A reader of annotations that keeps the parts that are needed again.

    Args:
        sources: The sources of all splits, with their formats.
        weight_key: The key of annotations with a weight. Default: no weights are read.
        masks: The splits whose masks are kept.
        ignore_key: The key of annotations that marks ignore regions, as ``iscrowd`` does. Default: none is read.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        weight_key: str | None = None,
        masks: Collection[str] = (),
        ignore_key: str | None = None,
    ) -> None:
        self._sources = dict(sources)
        self._weight_key, self._masks, self._ignore_key = weight_key, masks, ignore_key
        self._contents: dict[Source, tuple[Annotations | None, Problems]] = {}
        self._categories: dict[Source, tuple[list[Category], bool, Problems]] = {}
        self._numbers: dict[str, int] | None = None

    def split(self, source: Source, problems: Problems) -> CocoData | None:
        """Read and check the images and boxes of a split; None if no images can be used.

        Args:
            source: The files of the split.
            problems: All problems of the file and the images are added to it.
        """
        content = self.content(source, problems)
        return None if content is None else check_split(content, image_folder(content, source), problems)

    def content(self, source: Source, problems: Problems) -> Annotations | None:
        """Read the annotations of a split without checking them; None if they cannot be read.

        Args:
            source: The files of the split.
            problems: All problems of the files' form are added to it.
        """
        self._parse(source)
        content, of_file = self._contents.pop(source)
        problems.extend([*of_file.found, *of_file.hints])
        return self._numbered(content) if content is not None and content.by_name else content

    def categories(self, sources: Iterable[Source], problems: Problems) -> list[Category]:
        """Merge the categories of several sources, by ascending id.

        Args:
            sources: The sources.
            problems: Errors are added to it: unreadable files, ids with two names, and names with different ids in
                different files.
        """
        names: dict[int, tuple[str, Path]] = {}
        for source in sources:
            path = source.annotations
            categories, by_name, of_file = self._categories_of(source)
            problems.extend(of_file.errors(strict=False))
            if by_name:
                categories = self._renumbered(categories)
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

    def _categories_of(self, source: Source) -> tuple[list[Category], bool, Problems]:
        if source not in self._categories:
            self._parse(source)
        return self._categories[source]

    def _parse(self, source: Source) -> None:
        if source in self._contents:
            return
        problems = Problems()
        request = Request(
            source.annotations,
            source.images,
            source.split,
            self._weight_key,
            source.split in self._masks,
            self._ignore_key,
        )
        chosen = source.format or recognise(source.annotations)
        content = chosen.read(request, problems)
        if content is None or problems.errors(strict=False):
            _note_other_format(chosen, source.annotations, problems)
        if content and self._ignore_key is not None and content.wording.crowd not in ("iscrowd", self._ignore_key):
            what = f"ignore_key={self._ignore_key!r} is not read: boxes of this format have no keys"
            problems.add(source.annotations, what, repair=KEPT)
        if content and not content.categories and not problems.errors(strict=False):
            problems.add(source.annotations, "no categories")
        self._contents[source] = content, problems
        self._categories[source] = (content.categories, content.by_name, problems) if content else ([], False, problems)

    def _numbered(self, content: Annotations) -> Annotations:
        """Replace provisional category ids by those that all splits share."""
        old = np.array([category["id"] for category in content.categories], np.int64)
        new = np.array(self._ids_of(content.categories), np.int64)
        table = content.annotations.copy()
        if len(old):
            table["category_id"] = new[np.searchsorted(old, table["category_id"])]
        return replace(content, annotations=table, categories=self._renumbered(content.categories))

    def _renumbered(self, categories: list[Category]) -> list[Category]:
        names = [category["name"] for category in categories]
        pairs = sorted(zip(self._ids_of(categories), names, strict=True))
        return [Category(id=number, name=name) for number, name in pairs]

    def _ids_of(self, categories: list[Category]) -> list[int]:
        """Return the ids of the classes of files without ids.

        Classes that another source gives an id keep it. The others are numbered in alphabetical order: first those of
        the training and validation files, so that a test file does not change them.
        """
        if self._numbers is None:
            numbers: dict[str, int] = {}
            free: dict[bool, set[str]] = {False: set(), True: set()}
            for split, source in self._sources.items():
                found, by_name, _ = self._categories_of(source)
                if by_name:
                    free[split == "test"].update(category["name"] for category in found)
                else:
                    numbers |= {category["name"]: category["id"] for category in found}
            for is_test in (False, True):
                for name in sorted(free[is_test] - numbers.keys()):
                    numbers[name] = max(numbers.values(), default=0) + 1
            self._numbers = numbers
        return [self._numbers[category["name"]] for category in categories]


def _note_other_format(chosen: Format, path: Path, problems: Problems) -> None:
    """Say which other format an unreadable file looks like."""
    try:
        other = recognise(path)
    except UsageError:
        return
    if path.exists() and not isinstance(chosen, type(other)) and not isinstance(other, type(chosen)):
        read, likely = name_or_path(type(chosen)), name_or_path(type(other))
        cure = f"data.format={likely}, or leave data.format out"
        problems.add(path, f"read as {read}, but it looks like {likely}", cure=cure)


def image_folder(content: Annotations, source: Source) -> Path:
    """Return the folder that the file names of a source are relative to."""
    return content.folder or source.images or source.annotations.parent


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
        cure = "give image files, folders that hold some, or globs"
        problems.add(where, "paths without an image", empty, cure=cure)
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
