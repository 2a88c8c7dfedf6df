"""Checks of the images of one split: names, files and sizes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..file_names import cure_of_leaving, cure_of_missing, inside, relocated, similar
from ..formats.annotations import Annotations, Wording
from ..formats.coco import integer, short
from ..image_files import Header, read_headers
from ..problems import KEPT, SHOWN, Problems
from .bit_depth import note_depths
from .exif_rotations import ExifRotations

UNTURNED = "read without the rotation"


class CheckedImage(NamedTuple):
    """An image that can be used.

    Args:
        id: The image id.
        file_name: Path relative to the image folder.
        height: Height of the image that its boxes refer to, in pixels.
        width: Width of the image that its boxes refer to, in pixels.
        upright: Whether to apply the EXIF orientation.
        stated: Width and height in the annotations if they differ from the image file; else None.
    """

    id: int
    file_name: str
    height: int
    width: int
    upright: bool
    stated: tuple[int, int] | None = None


class _ImageNotes:
    """A collection of the problems of images by kind, reported after all images are checked."""

    def __init__(self, content: Annotations) -> None:
        ids, counts = np.unique(content.annotations["image_id"], return_counts=True)
        self.num_boxes = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        self.details: dict[tuple[str, str], list[str]] = {}
        self.cures: dict[str, str] = {}
        self.dropped: set[int] = set()

    def note(self, what: str, repair: str, detail: str) -> None:
        self.details.setdefault((what, repair), []).append(detail)

    def drop(self, what: str, image_id: int | None, detail: str, more: str = "") -> None:
        if image_id is not None:
            self.dropped.add(image_id)
            if number := self.num_boxes.get(image_id):
                detail += f"; annotations dropped with it: {number}"
        self.note(what, "dropped", detail + more)

    def report(self, path: Path, problems: Problems) -> None:
        for (what, repair), details in self.details.items():
            problems.add(path, what, details, repair=repair, cure=self.cures.get(what, ""))


def check_images(content: Annotations, folder: Path, problems: Problems) -> tuple[list[CheckedImage], set[int]]:
    """Return the images that can be used, and the ids of the others.

    Args:
        content: The content of the file.
        folder: The folder with its images.
        problems: All problems are added to it, repaired or not.
    """
    notes = _ImageNotes(content)
    entries, names = _named(content, folder, notes)
    headers = dict(zip(names, read_headers([f"{folder}/{name}" for name in names.values()]), strict=True))
    _find_again(names, headers, folder, notes, content.wording)
    images, missing, rotations = [], [], ExifRotations()
    for image_id, file_name in names.items():
        header = headers[image_id]
        name = f"image {image_id} ({file_name})"
        if header == "no such file":
            missing.append(file_name)
            nearest = similar(file_name, folder) if len(missing) <= SHOWN else ""
            notes.drop("missing image files", image_id, name, f"; looked for {folder / file_name}{nearest}")
        elif isinstance(header, str):
            notes.drop("unreadable image files", image_id, f"{name}: {header}")
        else:
            entry = entries[image_id]
            images.append(_sized(image_id, file_name, entry, header, notes, content.wording))
            rotations.add(image_id, header, (integer(entry.get("width")), integer(entry.get("height"))))
    if missing:
        notes.cures["missing image files"] = cure_of_missing(missing, folder, content.wording.name)
    images = _as_the_others(images, headers, rotations, notes, problems, content.path)
    notes.report(content.path, problems)
    _note_shared_files(images, content.path, problems)
    _note_stems(images, content, problems)
    _note_huge(images, content.path, problems)
    deep = [image.file_name for image in images if _is_deep(headers[image.id])]
    note_depths([folder / name for name in deep], content.path, problems)
    return images, notes.dropped - {image.id for image in images}


def _named(content: Annotations, folder: Path, notes: _ImageNotes) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """Return the entries with an id and a name inside the folder, and these names, by id."""
    entries: dict[int, dict[str, Any]] = {}
    names: dict[int, str] = {}
    leaving = []
    for entry in content.images:
        fields = entry if isinstance(entry, dict) else {}
        image_id, file_name = integer(fields.get("id")), fields.get("file_name")
        if image_id is None or not isinstance(file_name, str) or not file_name:
            what = "images without an integer id or a file name"
            notes.drop(what, image_id, f"image {short(entry)}")
            notes.cures[what] = "each image needs an id, a number without quotation marks, and a file_name, a text"
        elif image_id in entries:
            detail = f"image {image_id}: {entries[image_id]['file_name']}, {file_name}"
            notes.note("image ids used more than once", "", detail)
        elif (name := inside(file_name, folder)) is None:
            leaving.append(file_name)
            nearest = similar(file_name, folder) if len(leaving) <= SHOWN else ""
            notes.drop("file names that leave the image folder", image_id, f"image {image_id} ({file_name})", nearest)
        else:
            entries[image_id], names[image_id] = entry, name
    if leaving:
        notes.cures["file names that leave the image folder"] = cure_of_leaving(leaving, folder, content.wording.name)
    return entries, names


def _find_again(
    names: dict[int, str], headers: dict[int, Header | str], folder: Path, notes: _ImageNotes, wording: Wording
) -> None:
    """Correct the names of missing files that exist in the folder under another spelling of the path."""
    corrected = {
        image_id: name
        for image_id, header in headers.items()
        if header == "no such file" and (name := relocated(names[image_id], folder))
    }
    what = "file names with backslashes or with the image folder in them"
    for image_id, name in corrected.items():
        notes.note(what, "read as names in the image folder", f"image {image_id} ({names[image_id]}): read as {name}")
        notes.cures[what] = f"write {wording.name} with slashes and relative to the image folder, {folder}"
    names |= corrected
    headers |= zip(corrected, read_headers([f"{folder}/{name}" for name in corrected.values()]), strict=True)


def _sized(
    image_id: int, file_name: str, entry: Mapping[str, Any], header: Header, notes: _ImageNotes, wording: Wording
) -> CheckedImage:
    """Return the image with the size that its boxes refer to."""
    name = f"image {image_id} ({file_name})"
    width, height = integer(entry.get("width")), integer(entry.get("height"))
    size = header.width, header.height
    unknown = "width" not in entry and "height" not in entry and not wording.sized
    if (width, height) == size or unknown:
        return CheckedImage(image_id, file_name, header.height, header.width, True)
    if header.swapped and (height, width) == size:
        # The boxes were drawn on the image without its EXIF rotation, so the rotation would misplace them.
        what = "sizes of images before their EXIF rotation"
        notes.note(what, UNTURNED, name)
        notes.cures[what] = "the boxes fit the pixels as stored: save the images without the EXIF orientation"
        return CheckedImage(image_id, file_name, header.width, header.height, False)
    if width is None or height is None or min(width, height) < 1:
        notes.note("images without width and height", "read from the image file", name)
        return CheckedImage(image_id, file_name, header.height, header.width, True)
    swapped = (height, width) == size
    what = "sizes with width and height swapped" if swapped else "sizes that differ from the image file"
    if swapped:
        notes.cures[what] = (
            "swap them in the file; if the boxes are misplaced, the images were rotated: rotate the boxes"
        )
    sizes = f"{width} x {height}, the file {header.width} x {header.height}"
    notes.note(what, "the image file's are used", f"{name}: the {wording.file} says {sizes}")
    return CheckedImage(image_id, file_name, header.height, header.width, True, (width, height))


def _as_the_others(
    images: list[CheckedImage],
    headers: Mapping[int, Header | str],
    rotations: ExifRotations,
    notes: _ImageNotes,
    problems: Problems,
    path: Path,
) -> list[CheckedImage]:
    """Read images whose size does not show the EXIF rotation as the other images of the file, and report them."""
    undecided = {image_id for image_id in rotations.undecided if image_id in notes.num_boxes}
    if not undecided or rotations.verdict == "after":
        return images
    what = "images whose sizes do not show whether their boxes were drawn before the EXIF rotation"
    if rotations.verdict == "before":
        for image in images:
            if image.id in undecided:
                notes.note(what, f"{UNTURNED}, as the other images", f"image {image.id} ({image.file_name})")
        notes.cures[what] = "save the images without the EXIF orientation, and the boxes stay where they are"
        return [_unturned(image, headers[image.id]) if image.id in undecided else image for image in images]
    details = [f"image {image.id} ({image.file_name})" for image in images if image.id in undecided]
    others = "; the sizes of the other images disagree" if rotations.verdict == "mixed" else ""
    cure = (
        f"they are read with the rotation{others}: look at one with its boxes; if these are misplaced, save the images "
        "without the EXIF orientation"
    )
    problems.add(path, what, details, repair=KEPT, cure=cure, hint=not others)
    return images


def _unturned(image: CheckedImage, header: Header | str) -> CheckedImage:
    swapped = isinstance(header, Header) and header.swapped
    height, width = (image.width, image.height) if swapped else (image.height, image.width)
    return image._replace(height=height, width=width, upright=False)


def _note_shared_files(images: list[CheckedImage], path: Path, problems: Problems) -> None:
    """Report image files that several entries refer to."""
    entries: dict[str, list[int]] = {}
    for image in images:
        entries.setdefault(os.path.normpath(image.file_name), []).append(image.id)
    details = [f"{name}: images {', '.join(map(str, ids))}" for name, ids in entries.items() if len(ids) > 1]
    if details:
        cure = (
            "give each image one entry that all of its annotations refer to: otherwise each entry is trained and "
            "evaluated without the boxes of the others"
        )
        problems.add(path, "images with several entries", details, repair=KEPT, cure=cure)


def _note_stems(images: list[CheckedImage], content: Annotations, problems: Problems) -> None:
    """Report images whose names differ only in the suffix; some formats give them one file of boxes."""
    names: dict[str, str] = {}
    details = []
    for image in images:
        stem = os.path.splitext(image.file_name)[0]  # noqa: PTH122 (pathlib is slow for 100,000 names)
        if (other := names.setdefault(stem, image.file_name)) != image.file_name:
            details.append(f"{other}, {image.file_name}")
    if not details:
        return
    what = "images whose names differ only in the suffix"
    if content.wording.stems:
        what += ", which have one label file"
        problems.add(content.path, what, details, repair=KEPT, cure="rename one of them, and its label file")
    else:
        problems.add(content.path, what, details, hint=True)


def _note_huge(images: list[CheckedImage], path: Path, problems: Problems) -> None:
    limit = Image.MAX_IMAGE_PIXELS or 0  # above it PIL warns without a file name; above twice the limit it raises
    huge = [image for image in images if 0 < limit < image.height * image.width]
    if huge:
        details = [f"image {image.id} ({image.file_name}): {image.width} x {image.height}" for image in huge]
        cure = (
            "they are loaded whole and scaled down to model.max_size, where small objects vanish: cut them into tiles"
        )
        problems.add(path, f"images of more than {limit:,} pixels", details, cure=cure, hint=True)


def _is_deep(header: Header | str) -> bool:
    return isinstance(header, Header) and header.deep
