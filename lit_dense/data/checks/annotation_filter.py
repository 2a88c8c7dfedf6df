"""Annotations of one COCO file that are still good, and how to tell of those that are not."""

from collections.abc import Callable, Iterable

import numpy as np

from ...core.array_types import Bools
from ..formats.coco import NO_ID, CocoJson
from ..problems import Problems
from .images import CheckedImage


class AnnotationFilter:
    """Annotations that are still good, and how to tell of those that are not.

    Args:
        content: What the file says: N annotations.
        images: The images that can be used.
        problems: Where problems are noted.

    Attributes:
        table: The N annotations as the file has them.
        keep: Which of them are still good, [N].
    """

    def __init__(self, content: CocoJson, images: Iterable[CheckedImage], problems: Problems) -> None:
        self.table = content.annotations
        self.keep: Bools = np.ones(len(self.table), bool)
        self._path = content.path
        self._file_names = {image.id: image.file_name for image in images}
        self._problems = problems

    def drop(self, bad: Bools, what: str, describe: Callable[[int], str], cure: str = "") -> None:
        """Notes and drops annotations; each is told for the first thing that is wrong with it."""
        self.note(bad, what, "dropped", describe, cure)
        self.keep &= ~bad

    def note(self, bad: Bools, what: str, repair: str, describe: Callable[[int], str], cure: str = "") -> None:
        """Notes annotations that are still good.

        Args:
            bad: Which annotations, [N].
            what: What is wrong with them.
            repair: What is done about it; empty where nothing can be done, which makes it an error.
            describe: A line about the annotation in a row of the table.
            cure: What the user can do about it.
        """
        rows = np.flatnonzero(bad & self.keep).tolist()
        if rows:
            details = (f"{self._name(row)}: {describe(row)}" for row in rows)
            self._problems.add(self._path, what, details, count=len(rows), repair=repair, cure=cure)

    def _name(self, row: int) -> str:
        number, image_id = self.table["id"][row], self.table["image_id"][row]
        file_name = f" ({self._file_names[image_id]})" if image_id in self._file_names else ""
        return f"annotation {'without id' if number == NO_ID else number} of image {image_id}{file_name}"

    def box(self, row: int) -> str:
        """The box as the file has it."""
        return f"box [{', '.join(f'{value:g}' for value in self.table['bbox'][row])}]"
