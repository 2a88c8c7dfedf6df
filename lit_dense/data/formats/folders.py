"""Listing of image and label folders, and the search for an image by the name that an annotation file gives it."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from torchvision.datasets.folder import IMG_EXTENSIONS

from ..problems import Problems
from .annotations import Wording
from .base import NOT_UTF8, not_utf8

CLASSES = "classes.txt"


def list_files(folder: Path, suffixes: tuple[str, ...] = IMG_EXTENSIONS) -> list[str]:
    """List the files of a folder and of the folders below it: sorted names, relative to the folder, with slashes.

    Args:
        folder: The folder; a missing folder has no files.
        suffixes: Suffixes of the files, in lower case; case is ignored.
    """
    names = []
    top = str(folder)
    for place, _, files in os.walk(top):
        inner = os.path.relpath(place, top).replace(os.sep, "/")
        prefix = "" if inner == "." else f"{inner}/"
        names += [f"{prefix}{name}" for name in files if name.lower().endswith(suffixes)]
    return sorted(names)


def stem_of(name: str) -> str:
    """Return a name without its suffix; folders are kept."""
    return os.path.splitext(name)[0]  # noqa: PTH122 (pathlib is slow for 100,000 names)


def read_names(folder: Path, problems: Problems) -> list[str] | None:
    """Read class names from ``classes.txt``, one a line, in a folder or else in its parent; None if there is none.

    Args:
        folder: The folder of the annotations.
        problems: Repeated names, and a file that cannot be read, are added to it.
    """
    path = file_of_names(folder)
    if path is None:
        return None
    names = [name for name in read_lines(path, problems) if name]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        problems.add(path, "class names given more than once", repeated, repair="the first is used")
    return list(dict.fromkeys(names))


def file_of_names(folder: Path) -> Path | None:
    """Return ``classes.txt`` in a folder or else in its parent; None if there is none."""
    return next((path for path in (folder / CLASSES, folder.parent / CLASSES) if path.is_file()), None)


def read_lines(path: Path, problems: Problems) -> list[str]:
    """Read the lines of a text file, without the spaces around them; no lines if it cannot be read.

    Args:
        path: An existing file.
        problems: The fault of a file that cannot be read is added to it.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        problems.add(path, not_utf8(error), cure=NOT_UTF8)
    except OSError as error:
        problems.add(path, f"cannot be read: {error}")
    return []


class ImageFinder:
    """The images of a folder, found by the names that annotation files give them.

    A name is tried as it is, with another case of the suffix, without leading folders, and without a suffix. What was
    found otherwise than by the exact name is reported.

    Args:
        folder: The image folder.
        wording: The format's words in messages.

    Attributes:
        names: The images, relative to the folder, sorted.
    """

    def __init__(self, folder: Path, wording: Wording) -> None:
        self.names = list_files(folder)
        self._folder, self._wording = folder, wording
        self._known = set(self.names)
        self._stems: dict[str, list[str]] = {}
        self._last: dict[str, list[str]] = {}
        for name in self.names:
            self._stems.setdefault(stem_of(name), []).append(name)
            self._last.setdefault(name.rpartition("/")[2], []).append(name)
        self._corrected: dict[str, list[str]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def of_stem(self, stem: str) -> list[str]:
        """Return the images with a stem, folders included."""
        return self._stems.get(stem, [])

    def seek(self, written: str) -> str | None:
        """Return the image that a name means, without reporting how it was found; None if it is not in the folder."""
        return self._look(written)[0]

    def find(self, written: str, where: str = "", any_suffix: bool = False) -> str | None:
        """Return the image that a name means; None if it is not in the folder.

        Args:
            written: The name in the annotation file.
            where: The place in the annotation file, for the report.
            any_suffix: Whether a name without a suffix is regular, as in files that give ids of images.
        """
        found, what = self._look(written)
        if found is not None and found != written and not (any_suffix and what == "without their suffix"):
            self._corrected.setdefault(what, []).append(f"{where}{written}: read as {found}")
        return found

    def _look(self, written: str) -> tuple[str | None, str]:
        if written in self._known:
            return written, ""
        name = os.path.normpath(written.replace("\\", "/")) if written else ""
        if name.startswith(root := f"{os.path.abspath(self._folder)}/"):  # noqa: PTH100 (resolve() would replace links)
            name = name[len(root) :]
        return self._search(name)

    def _search(self, name: str) -> tuple[str | None, str]:
        if name in self._known:
            return name, "in another spelling of the path"
        alike = self._stems.get(stem_of(name), [])
        same = [image for image in alike if image.lower() == name.lower()]
        if len(same) == 1:
            return same[0], "with another case of the suffix"
        last = self._last.get(name.rpartition("/")[2], [])
        if "/" in name and len(last) == 1:
            return last[0], "with other folders"
        if PurePath(name).suffix.lower() not in IMG_EXTENSIONS and len(bare := self._stems.get(name, [])) == 1:
            return bare[0], "without their suffix"
        if len(alike) == 1:
            return alike[0], "with another suffix"
        return None, ""

    def report(self, path: Path, problems: Problems) -> None:
        """Report the names that were corrected."""
        for what, details in self._corrected.items():
            problems.add(
                path,
                f"names of images {what}",
                details,
                repair="read as the images in the folder",
                cure=f"write {self._wording.name} relative to the image folder, {self._folder}",
            )


def image_entries(names: Sequence[str]) -> list[dict[str, object]]:
    """Return one entry for each image, with ids from 1."""
    return [{"id": number, "file_name": name} for number, name in enumerate(names, start=1)]


def is_name(value: Any) -> bool:
    """Return whether a value of JSON or YAML can be the name of a class: text, or a number such as a digit."""
    return type(value) in (int, float) or (isinstance(value, str) and bool(value.strip()))


def shown(path: str | Path, base: Path) -> str:
    """Return a path for a message: relative to a folder if it lies in it."""
    text, start = str(path), f"{base}/"
    return text[len(start) :] if text.startswith(start) else text
