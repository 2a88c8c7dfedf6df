"""The data set that the checks of a format read: a given sample, or one that the format has written."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..core.errors import UsageError
from ..data.problems import Problems
from ..formats import Annotations, Format, Request, table_of

SIZE = (48, 32)  # width and height of the generated images, pixels
NAMES = ("square", "bar", "never")
BOXES = {  # x, y, width, height and class of the boxes of each image
    "a.png": ((4.0, 5.0, 10.5, 8.0, 0), (20.25, 3.0, 16.0, 20.0, 1)),
    "b.png": (),
    "sub/c.png": ((0.0, 0.0, 48.0, 32.0, 1),),
}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class FormatSubject:
    """A format and a data set in its files.

    Args:
        format: The format.
        folder: The folder of the data set.
        path: The annotation file or folder.
        images: The image folder; None if the format finds it.
        written: The annotations that were written; None for a sample.
        losses: The lines that the writer returned.
    """

    format: Format
    folder: Path
    path: Path
    images: Path | None
    written: Annotations | None
    losses: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Title of the report."""
        return f"The format {type(self.format).__name__}"

    def request(self, **parts: Any) -> Request:
        """Return a request for the training split."""
        return Request(self.path, self.images)._replace(**parts)

    def read(self, **parts: Any) -> tuple[Annotations | None, Problems]:
        """Read the training split, and return its annotations and problems."""
        problems = Problems()
        return self.format.read(self.request(**parts), problems), problems

    def copies(self, folder: Path) -> Iterator[tuple[str, "FormatSubject", list[Path]]]:
        """Yield copies of the data set to be damaged: a name, the copy, and its annotation files."""
        for name in ("empty", "noise", "cut"):
            root = folder / name
            shutil.copytree(self.folder, root)
            path = root / self.path.relative_to(self.folder)
            images = None if self.images is None else root / self.images.relative_to(self.folder)
            files = [f for f in sorted(root.rglob("*")) if f.is_file() and f.suffix.lower() not in IMAGE_SUFFIXES]
            yield name, FormatSubject(self.format, root, path, images, None), files


def generated() -> Annotations:
    """Return annotations of three images, one of them without boxes and one in a folder, and a class without boxes."""
    rows = [(number, *box) for number, boxes in enumerate(BOXES.values(), start=1) for box in boxes]
    values = np.array(rows, np.float64)
    entries = [
        {"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]}
        for number, name in enumerate(BOXES, start=1)
    ]
    table = table_of(values[:, 0].astype(np.int64), values[:, 5].astype(np.int64) + 1, values[:, 1:5])
    categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
    return Annotations(Path("generated"), entries, table, categories)  # type: ignore[arg-type]


def write_sample(form: Format, folder: Path, annotations: str | None, images: str | None) -> FormatSubject:
    """Let a format write the generated data set, and find its annotation file.

    Raises:
        UsageError: The format cannot write, or its files are not found.
    """
    content = generated()
    for seed, name in enumerate(BOXES):
        path = folder / "images" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    losses = form.write({"train": content}, folder)
    path = folder / annotations if annotations is not None else _recognised(form, folder)
    return FormatSubject(form, folder, path, _images(form, folder, images), content, tuple(losses))


def use_sample(form: Format, sample: Path, folder: Path, annotations: str | None, images: str | None) -> FormatSubject:
    """Copy a sample, and find its annotation file.

    Raises:
        UsageError: The files are not found.
    """
    shutil.copytree(sample, folder, dirs_exist_ok=True)
    path = folder / annotations if annotations is not None else _recognised(form, folder)
    return FormatSubject(form, folder, path, None if images is None else folder / images, None)


def _images(form: Format, folder: Path, images: str | None) -> Path | None:
    if images is not None:
        return folder / images
    return folder / "images" / "train" if form.needs_images else None


def _recognised(form: Format, folder: Path) -> Path:
    found = [path for path in (folder, *sorted(folder.rglob("*"))) if form.recognises(path)]
    if found:
        return next((path for path in found if "train" in path.name), found[0])
    raise UsageError(
        f"{type(form).__name__} recognises no file or folder of its sample: correct recognises, or give check_format "
        "the argument annotations, the path of the annotations in the folder."
    )
