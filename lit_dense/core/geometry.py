"""Sizes of a batch: pyramid levels and images."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """Sizes of a batch that the loss of torchvision's detectors is not told.

    Args:
        level_sizes: Height and width of each pyramid level, in cells.
        image_sizes: Height and width of each image in the padded batch, in pixels.
        anchors_per_cell: Anchors of a cell of each level; None where it is the same number on all levels.
    """

    level_sizes: Sequence[tuple[int, int]]
    image_sizes: Sequence[tuple[int, int]]
    anchors_per_cell: Sequence[int] | None = None

    def anchors_of_cells(self, number: int) -> Sequence[int]:
        """Anchors of a cell of each level.

        Args:
            number: Anchors of an image.
        """
        if self.anchors_per_cell is not None:
            return self.anchors_per_cell
        cells = sum(height * width for height, width in self.level_sizes)
        return [number // max(1, cells)] * len(self.level_sizes)

    def anchors_of_levels(self, number: int) -> list[int]:
        """Anchors of each level.

        Args:
            number: Anchors of an image.
        """
        per_cell = self.anchors_of_cells(number)
        return [h * w * n for (h, w), n in zip(self.level_sizes, per_cell, strict=True)]
