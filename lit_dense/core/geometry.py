"""Geometry of a batch: sizes of its pyramid levels and images."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Geometry:
    """Sizes of the levels and images of a batch, which torchvision does not pass to ``compute_loss``.

    Args:
        level_sizes: Height and width of each pyramid level in cells.
        image_sizes: Height and width of each image in pixels, without the padding of the batch.
        anchors_per_cell: Number of anchors of a cell, for each level; None if all levels have the same number.
    """

    level_sizes: Sequence[tuple[int, int]]
    image_sizes: Sequence[tuple[int, int]]
    anchors_per_cell: Sequence[int] | None = None

    def anchors_of_cells(self, number: int) -> Sequence[int]:
        """Return the number of anchors of a cell, for each level.

        Args:
            number: Number of anchors of an image.
        """
        if self.anchors_per_cell is not None:
            return self.anchors_per_cell
        cells = sum(height * width for height, width in self.level_sizes)
        return [number // max(1, cells)] * len(self.level_sizes)

    def anchors_of_levels(self, number: int) -> list[int]:
        """Return the number of anchors of each level.

        Args:
            number: Number of anchors of an image.
        """
        per_cell = self.anchors_of_cells(number)
        return [h * w * n for (h, w), n in zip(self.level_sizes, per_cell, strict=True)]

    def strides(self, anchors: Tensor) -> Tensor:
        """Return the size of the cell of each anchor in pixels, x y: the distance of neighbouring centres [K, 2].

        A level with one cell in a direction has twice the size of the level before it.

        Args:
            anchors: Anchors of an image, in the order of its levels and in any order within a level [K, 4].
        """
        centres, numbers = (anchors[:, :2] + anchors[:, 2:]) / 2, self.anchors_of_levels(len(anchors))
        strides, previous = [], centres.new_ones(2)
        for (height, width), of_level in zip(self.level_sizes, centres.split(numbers), strict=True):
            extent_x, extent_y = of_level.amax(0) - of_level.amin(0)
            x = extent_x / (width - 1) if width > 1 else 2 * previous[0]
            y = extent_y / (height - 1) if height > 1 else 2 * previous[1]
            previous = torch.stack([x, y])
            strides.append(previous.expand(len(of_level), 2))
        return torch.cat(strides)
