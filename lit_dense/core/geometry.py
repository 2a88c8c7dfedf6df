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

    def cells(self, anchors: Tensor) -> Tensor:
        """Return squares around the centres of anchors whose side is the stride of the level [K, 4].

        The stride of the finest level is the distance of its neighbouring centres. That of each further level is a
        multiple of it: sizes of levels are rounded up, so the distance of coarse centres depends on the image.

        Args:
            anchors: Anchors of an image, in the order of its levels [K, 4].
        """
        anchors, numbers = anchors.float(), self.anchors_of_levels(len(anchors))  # of half precision under autocast
        sides = [self._finest_stride(anchors).expand(numbers[0])]
        factor = 1
        for before, size, number in zip(self.level_sizes[:-1], self.level_sizes[1:], numbers[1:], strict=True):
            ratios = [int(whole / part + 0.5) for whole, part in zip(before, size, strict=True) if whole > 1]
            factor *= max(ratios, default=2)
            sides.append((sides[0][:1] * factor).expand(number))
        half = torch.cat(sides).unsqueeze(1) / 2
        centres = (anchors[:, :2] + anchors[:, 2:]) / 2
        return torch.cat([centres - half, centres + half], 1)

    def _finest_stride(self, anchors: Tensor) -> Tensor:
        """Return the mean distance of neighbouring centres of the first level; for a single cell, the image's side."""
        (height, width), per_cell = self.level_sizes[0], self.anchors_of_cells(len(anchors))[0]
        steps = [anchors[per_cell, 0] - anchors[0, 0]] if width > 1 else []
        if height > 1:
            steps.append(anchors[per_cell * width, 1] - anchors[0, 1])
        if not steps:
            return anchors.new_full((), float(max(max(size) for size in self.image_sizes)))
        return torch.stack(steps).mean()
