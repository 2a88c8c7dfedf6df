"""A filter for the annotations of one split: keeps valid annotations and reports the others."""

from collections.abc import Callable, Iterable

import numpy as np

from ...core.array_types import Bools
from ..formats.annotations import NO_ID, Annotations
from ..problems import Problems
from .image_files import CheckedImage


class AnnotationFilter:
    """The annotations of a split; keeps track of valid annotations and reports problems.

    Args:
        content: The annotations of the split; N of them.
        images: The images that can be used.
        problems: Problems are added to it.

    Attributes:
        table: The N annotations as written in the file.
        keep: Whether an annotation is still valid, bool [N].
        wording: The format's words in messages.
    """

    def __init__(self, content: Annotations, images: Iterable[CheckedImage], problems: Problems) -> None:
        self.table = content.annotations
        self.keep: Bools = np.ones(len(self.table), bool)
        self.wording = content.wording
        self._path, self._place = content.path, content.place
        self._file_names = {image.id: image.file_name for image in images}
        self._problems = problems

    def drop(self, bad: Bools, what: str, describe: Callable[[int], str], cure: str = "") -> None:
        """Report and drop annotations; each annotation is reported only for its first problem."""
        self.note(bad, what, "dropped", describe, cure)
        self.keep &= ~bad

    def note(self, bad: Bools, what: str, repair: str, describe: Callable[[int], str], cure: str = "") -> None:
        """Report a problem of annotations that are still valid, without dropping them.

        Args:
            bad: Whether an annotation has the problem, bool [N].
            what: Description of the problem, in the plural.
            repair: The repair; empty if there is none, which makes the problem an error.
            describe: Returns a line about the annotation in a row of the table.
            cure: Advice to the user.
        """
        rows = np.flatnonzero(bad & self.keep).tolist()
        if rows:
            details = (f"{self.name(row)}: {describe(row)}" for row in rows)
            self._problems.add(self._path, what, details, count=len(rows), repair=repair, cure=cure)

    def name(self, row: int) -> str:
        """Return the place of a row: its file and line, or the ids of the annotation and of its image."""
        number, image_id = self.table["id"][row], self.table["image_id"][row]
        file_name = f" ({self._file_names[image_id]})" if image_id in self._file_names else ""
        if self._place is not None:
            return f"{self._place(row)}{file_name}"
        return f"annotation {'without id' if number == NO_ID else number} of image {image_id}{file_name}"

    def short_name(self, row: int) -> str:
        """Return the place of a row without its image."""
        return f"annotation {self.table['id'][row]}" if self._place is None else self._place(row)

    def box(self, row: int) -> str:
        """Format the box of a row: x, y, width and height."""
        return f"box [{', '.join(f'{value:g}' for value in self.table['bbox'][row])}]"
