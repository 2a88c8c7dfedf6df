"""Pascal VOC's files: an XML file for each image."""

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS

from ...core.errors import check_range, nearest
from ..image_files import in_threads
from ..problems import KEPT, Problems
from .annotations import Annotations, Wording, corners_to_bbox, numbered_by_name, table_of
from .base import Format, Request, missing_file
from .coco import crowd_of
from .faults import Faults
from .folders import ImageFinder, image_entries, list_files, read_names, shown, stem_of
from .pascal_voc_xml import CORNERS, VOCFile, VOCObject, line_of_object, parse_voc

WORDING = Wording(
    file="XML",
    whole="XML file",
    box="xmin, ymin, xmax and ymax must be in pixels",
    name="filename",
    crowd="difficult",
    xywh=False,
)
FOLDERS = ("JPEGImages", "images", "Images", "")
"""Names of image folders beside the folder of the XML files; the last is that folder itself."""
SHAPES = "rotated boxes and polygons are not read: write the upright box around each as its bndbox"
ODD = "Unspecified", "unspecified"


class VOCFormat(Format):
    """Pascal VOC: a folder with an XML file for each image, or a list of images such as ``ImageSets/Main/train.txt``.

    Objects marked ``difficult`` are treated as COCO's crowds: neither trained on nor counted. Class ids are numbers
    from 1, in the order of ``classes.txt`` (one name a line) in the folder of the XML files or in its parent, or else
    in alphabetical order.

    Args:
        first_pixel: The coordinate of the first pixel, 0 or 1. With 0, coordinates are used as written, as most tools
            write them. With 1, xmin and ymin are reduced by one, as in the files of the VOC challenge: there, an object
            that covers an image of 500 pixels has xmin 1 and xmax 500.
        names: Class names in the order of their ids. Default: ``classes.txt``, or else the names of all objects.
    """

    def __init__(self, first_pixel: int = 0, names: Sequence[str] | None = None) -> None:
        super().__init__()
        self.first_pixel = int(check_range("VOCFormat", "first_pixel", first_pixel, 0, 1))
        self.names = None if names is None else list(names)

    def recognises(self, path: Path) -> bool:
        """Return whether a folder holds XML files, or a file is XML or a list in ``ImageSets``."""
        if path.is_dir():
            return _holds_xml(path)
        return path.suffix.lower() == ".xml" or (path.suffix.lower() == ".txt" and "ImageSets" in path.parts)

    def read(self, request: Request, problems: Problems) -> Annotations | None:
        """Read the XML files of one split."""
        if not request.path.exists():
            problems.add(request.path, missing_file(request.path))
            return None
        if request.path.suffix.lower() == ".xml":
            problems.add(request.path, f"a single XML file: give its folder, {request.path.parent}")
            return None
        folder, files = _files(request.path, problems)
        if not files:
            problems.add(request.path, "no XML file")
            return None
        return _Reader(self, request, folder, problems).read(files)

    def write(self, splits: Mapping[str, Annotations], folder: Path) -> list[str]:
        """Write ``annotations/SPLIT`` and ``annotations/classes.txt``."""
        from .pascal_voc_writer import write_voc

        return write_voc(splits, folder, self.first_pixel)


def _holds_xml(path: Path) -> bool:
    """Return whether a folder or those below it hold XML files, and no other folder of it holds images.

    A whole data set with its images in another folder is not the folder of the XML files of one split.
    """
    found = False
    for _, _, names in os.walk(path):
        lowered = [name.lower() for name in names]
        has_xml = any(name.endswith(".xml") for name in lowered)
        if not has_xml and any(name.endswith(IMG_EXTENSIONS) for name in lowered):
            return False
        found |= has_xml
    return found


def _files(path: Path, problems: Problems) -> tuple[Path, list[str]]:
    """Return the folder of the XML files, and their names, sorted."""
    if path.is_dir():
        return path, list_files(path, (".xml",))
    folder = path.parents[2] / "Annotations" if len(path.parents) > 2 else path.parent
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    stems = sorted({line.split()[0] for line in lines if line.strip()})
    missing = [f"{stem}: looked for {folder / stem}.xml" for stem in stems if not (folder / f"{stem}.xml").is_file()]
    if missing:
        problems.add(path, "images without an XML file", missing, repair="dropped")
    return folder, [f"{stem}.xml" for stem in stems if (folder / f"{stem}.xml").is_file()]


class _Image(NamedTuple):
    name: str
    file: str
    width: int | None
    height: int | None


class VOCPlaces:
    """Places of objects in XML files: file and line, which is looked up when it is shown.

    Args:
        folder: The folder of the files.
        base: The folder that shown paths are relative to.
        objects: File and number of each object, counted from 1.
    """

    def __init__(self, folder: Path, base: Path, objects: Sequence[tuple[str, int]]) -> None:
        self.folder, self.base, self.objects = folder, base, objects

    def __call__(self, row: int) -> str:
        """Return file and line of an object."""
        file, number = self.objects[row]
        path = self.folder / file
        return f"{shown(path, self.base)}, line {line_of_object(path, number)}"


class _Reader:
    """A reader of the XML files of one split."""

    def __init__(self, spec: VOCFormat, request: Request, folder: Path, problems: Problems) -> None:
        self.request, self.folder, self.problems = request, folder, problems
        self.base = request.path.parent
        self.first_pixel = spec.first_pixel
        self.names = spec.names or read_names(folder, problems)
        self.known = {name: number for number, name in enumerate(self.names or (), start=1)}
        self.faults = Faults()
        self.images: list[_Image] = []
        self.rows: list[tuple[int, str, float, float, float, float, int, float]] = []
        self.places: list[tuple[int, int]] = []

    def read(self, files: list[str]) -> Annotations | None:
        """Read files, given relative to the folder."""
        parse = partial(parse_voc, weight_key=self.request.weight_key)
        contents = in_threads(parse, [f"{self.folder}/{file}" for file in files], "Reading XML files")
        images = self.request.images or _image_folder(self.folder, files)
        finder = ImageFinder(images, WORDING)
        for file, content in zip(files, contents, strict=True):
            if isinstance(content, str):
                self.faults.add(
                    "files that are not Pascal VOC's XML", "dropped, with their images", f"{self._shown(file)}{content}"
                )
            else:
                self._read_file(file, content, finder)
        self._note_other_images(files, finder)
        finder.report(self.request.path, self.problems)
        self.faults.report(self.request.path, self.problems)
        return self._table(images)

    def _read_file(self, file: str, content: VOCFile, finder: ImageFinder) -> None:
        index = len(self.images)
        name = self._image_of(file, content.filename, finder)
        self.images.append(_Image(name, file, _whole(content.width), _whole(content.height)))
        for number, entry in enumerate(content.objects, start=1):
            self._read_object(index, number, entry, file)

    def _image_of(self, file: str, written: str, finder: ImageFinder) -> str:
        """Return the image of a file: that of ``filename``, or else that with the name of the XML file."""
        stem = stem_of(file)
        inner = f"{stem.rpartition('/')[0]}/{written}" if "/" in stem else written
        same = finder.of_stem(stem)
        for name in dict.fromkeys((inner, written)):
            if name in finder:
                if same and name not in same:
                    self.faults.add(
                        "XML files that name another image", KEPT, f"{self._shown(file)}: filename is {written}"
                    )
                return name
        if len(same) == 1 or (same and not written):
            if written and written != same[0].rpartition("/")[2]:
                self.faults.add(
                    "names of images that do not exist",
                    "the image with the name of the XML file is used",
                    f"{self._shown(file)}: filename is {written}, used {same[0]}",
                )
            return same[0]
        found = finder.find(written, f"{self._shown(file)}: ") if written else None
        return found or written or f"{stem}.jpg"

    def _read_object(self, index: int, number: int, entry: VOCObject, file: str) -> None:
        name, difficult = entry.name, entry.difficult
        try:
            x1, y1, x2, y2 = map(float, entry.corners)
        except ValueError:
            x1 = y1 = x2 = y2 = float("nan")
        if not name or math.isnan(x1 + y1 + x2 + y2):
            texts = zip(CORNERS, entry.corners, strict=True)
            text = ", ".join(f"{key} is {text or 'missing'}" for key, text in texts) if name else "no name"
            cure = "an object needs name, and bndbox with xmin, ymin, xmax and ymax, which are numbers of pixels"
            if entry.shape:
                text = f"{text}; it has {entry.shape}"
                cure += f"; {SHAPES}"
            self.faults.add(
                "objects without a name or four numbers", "dropped", f"{self._line(file, number)}: {text}", cure
            )
            return
        if entry.boxes > 1:
            detail = f"{self._line(file, number)}: {name} has {entry.boxes} bndbox elements"
            cure = "write an object element for each box"
            self.faults.add("objects with several boxes", "their first box is used", detail, cure)
        if self.known and name not in self.known:
            detail = f"{self._line(file, number)}: {name}{nearest(name, self.known)}"
            cure = "write one of the classes of classes.txt or of the argument names, or add the class there"
            self.faults.add("objects of unknown classes", "dropped", detail, cure)
            return
        weight = 1.0 if entry.weight is None else _number(entry.weight)
        crowd = 0 if difficult in (None, "0") else 1 if difficult == "1" else self._odd(difficult or "", file, number)
        self.places.append((index, number))
        self.rows.append((index, name, x1, y1, x2, y2, crowd, weight))

    def _odd(self, difficult: str, file: str, number: int) -> int:
        crowd = 0 if difficult.strip() in ("", *ODD) else crowd_of(difficult)
        if crowd is None:
            detail = f"{self._line(file, number)}: {difficult}"
            self.faults.add("values of difficult that are neither 0 nor 1", "read as 0", detail)
        return crowd or 0

    def _line(self, file: str, number: int) -> str:
        return VOCPlaces(self.folder, self.base, [(file, number)])(0)

    def _shown(self, file: str) -> str:
        return shown(self.folder / file, self.base)

    def _note_other_images(self, files: list[str], finder: ImageFinder) -> None:
        """Report images without an XML file; only a hint if the folder is mostly not of this split."""
        if not self.request.path.is_dir():
            return
        used = {image.name for image in self.images} | {
            name for file in files for name in finder.of_stem(stem_of(file))
        }
        others = [name for name in finder.names if name not in used]
        if others:
            hint = len(others) > len(files)
            repair = "" if hint else "not used"
            cure = "an image without objects needs an XML file without object elements"
            what = "images without an XML file"
            self.problems.add(self.request.path, what, others, repair=repair, cure=cure, hint=hint)
        by_stem = {image.name: finder.of_stem(stem_of(image.name)) for image in self.images}
        shared = [", ".join(names) for names in by_stem.values() if len(names) > 1]
        if shared:
            what = "images whose names differ only in the suffix, which have one XML file"
            self.problems.add(self.request.path, what, shared, repair=KEPT, cure="rename one of them, and its XML file")

    def _table(self, images: Path) -> Annotations:
        order = sorted(range(len(self.images)), key=lambda index: self.images[index].name)
        ids = np.empty(len(order), np.int64)
        ids[order] = np.arange(1, len(order) + 1)
        by_image = sorted(range(len(self.rows)), key=lambda row: ids[self.rows[row][0]])
        rows, places = [self.rows[row] for row in by_image], [self.places[row] for row in by_image]
        names = self.names or sorted({row[1] for row in rows})
        numbers = {name: number for number, name in enumerate(names, start=1)}
        corners = np.array([row[2:6] for row in rows], np.float64).reshape(-1, 4)
        corners[:, :2] -= self.first_pixel
        weights = None if self.request.weight_key is None else np.array([row[7] for row in rows], np.float64)
        image_ids = np.array([ids[row[0]] for row in rows], np.int64)
        classes = np.array([numbers[row[1]] for row in rows], np.int64)
        table = table_of(image_ids, classes, corners_to_bbox(corners), weights)
        table["iscrowd"] = [row[6] for row in rows]
        entries = image_entries([self.images[index].name for index in order])
        for entry, index in zip(entries, order, strict=True):
            image = self.images[index]
            entry |= {"width": image.width, "height": image.height}
        return Annotations(
            path=self.request.path,
            images=entries,
            annotations=table,
            categories=numbered_by_name(names),
            weight_key=self.request.weight_key,
            folder=images,
            by_name=self.names is None,
            place=VOCPlaces(self.folder, self.base, [(self.images[index].file, number) for index, number in places]),
            wording=WORDING,
        )


def _image_folder(folder: Path, files: list[str]) -> Path:
    """Return the image folder that belongs to a folder of XML files: one with the image of an XML file."""
    candidates = [folder.parent / name if name else folder for name in FOLDERS]
    candidates += [folder.parents[1] / name / folder.name for name in FOLDERS[:-1]] if len(folder.parents) > 1 else []
    stems = {stem_of(file) for file in files[:100]}
    for candidate in candidates:
        if candidate.is_dir() and any(stem_of(name) in stems for name in list_files(candidate)):
            return candidate
    return folder


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return int(number) if number.is_integer() else None


def _number(text: str | None) -> float:
    """Convert a text to a number; NaN if it is none."""
    try:
        return float(text or "")
    except ValueError:
        return float("nan")
