"""Conversion of a data set into another format: ``lit-dense convert``."""

import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..core.errors import UsageError
from .checks.annotation_file import check_content
from .checks.splits import SPLITS
from .file_names import clash, ignores_case
from .formats import FORMATS, FormatLike
from .formats.annotations import Annotations
from .problems import Problems
from .sources import SourceReader, image_folder

if TYPE_CHECKING:
    from .module import CocoDataModule


class Conversion(NamedTuple):
    """The result of a conversion.

    Args:
        folder: The folder that was written.
        counts: Number of images and boxes of each split.
        losses: A line about each kind of content that the format cannot hold.
        problems: The problems of the data that were repaired, as a report; empty if there are none.
    """

    folder: Path
    counts: dict[str, tuple[int, int]]
    losses: list[str]
    problems: str

    def text(self) -> str:
        """Format the result for the terminal."""
        lines = [f"{split}: {images:,} images, {boxes:,} boxes" for split, (images, boxes) in self.counts.items()]
        lines.append(f"written to {self.folder}")
        if self.losses:
            lines += ["", "The format cannot hold:", *(f"  - {line}" for line in self.losses)]
        else:
            lines += ["", "The format holds everything: nothing is lost."]
        if self.problems:
            lines += ["", "The data was repaired first:", self.problems]
        return "\n".join(lines)


def convert(datamodule: "CocoDataModule", to: FormatLike, folder: Path | str) -> Conversion:
    """Check the data of a data module, repair it as training does, and write it in another format.

    Images are put into ``images/SPLIT`` of the new folder: as hard links where the file system allows, so that they
    need no space, and else as copies. The source is not changed.

    Args:
        datamodule: The data module. All splits that its arguments define are written.
        to: The format to write.
        folder: The folder to write; it must not exist or must be empty.

    Raises:
        DataError: The data cannot be used.
        UsageError: The folder is not empty; the data module has no annotations; the format cannot be written, or cannot
            hold the images.
    """
    folder, target = Path(folder), FORMATS.build(to)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty: choose another folder to write to.")
    if datamodule.val_split:
        raise UsageError("convert writes the splits of the files: leave val_split out, or add --data.val_split=0.")
    if datamodule.is_joined:
        raise UsageError(
            "convert writes a data set whose images are annotated for all classes: convert the sources of join singly."
        )
    if not datamodule.sources:
        raise UsageError("There is nothing to convert: give train_annotations, val_annotations or test_annotations.")
    datamodule.prepare_data()
    problems = Problems()
    splits, places = _read(datamodule, problems)
    if problems.errors(datamodule.strict):
        problems.settle(datamodule.strict)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _check_names(splits, folder)
        losses = [*target.write(splits, folder), *_left_out(datamodule)]
    except UsageError:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    for split, content in splits.items():
        for entry in content.images:
            _place(places[split] / entry["file_name"], folder / "images" / split / entry["file_name"])
    counts = {split: (len(content.images), len(content.annotations)) for split, content in splits.items()}
    return Conversion(folder, counts, losses, problems.report(datamodule.strict) if problems.found else "")


def _read(datamodule: "CocoDataModule", problems: Problems) -> tuple[dict[str, Annotations], Mapping[str, Path]]:
    """Return the checked annotations and the image folder of each split."""
    reader = SourceReader(datamodule.sources, datamodule.weight_key, SPLITS, datamodule.ignore_key)
    splits, places = {}, {}
    for split, source in datamodule.sources.items():
        content = reader.content(source, problems)
        if content is None:
            continue
        places[split] = image_folder(content, source)
        checked = check_content(content, places[split], problems)
        if checked is not None:
            splits[split] = checked
    categories = reader.categories(datamodule.sources.values(), problems)
    for split, content in splits.items():
        splits[split] = content.with_categories(categories)
    return splits, places


def _left_out(datamodule: "CocoDataModule") -> list[str]:
    return ["images of background_images, which are left out"] if datamodule.background_images else []


def _check_names(splits: Mapping[str, Annotations], folder: Path) -> None:
    """Reject files with several entries, and images that would be one file where upper and lower case are equal."""
    for split, content in splits.items():
        counts = Counter(entry["file_name"] for entry in content.images)
        if repeated := [name for name, count in counts.items() if count > 1]:
            raise UsageError(
                f"{split}: {repeated[0]} has {counts[repeated[0]]} entries, and annotations of one image cannot be in "
                f"several: join the entries ({len(repeated)} images have several), then convert."
            )
    if not ignores_case(folder):
        return
    for split, content in splits.items():
        if pair := clash((entry["file_name"] for entry in content.images), str.casefold):
            raise UsageError(
                f"{split}: {' and '.join(pair)} would be one file in {folder}, whose file system does not distinguish "
                "upper and lower case: rename one of them."
            )


def _place(source: Path, target: Path) -> None:
    """Link or copy an image."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another file system, one without links, or a file of another user
        shutil.copyfile(source, target)
