"""Cells of anchors: their centres and the strides of their levels."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from lit_dense.core.geometry import Geometry


def anchors_of(size, levels, ratios=(0.5, 1.0)):
    """Anchors and geometry of an image with levels of these sizes, as torchvision makes them."""
    generator = AnchorGenerator(tuple((10, 20 + level) for level in range(len(levels))), (ratios,) * len(levels))
    images = ImageList(torch.zeros(1, 3, *size), [size])
    return generator(images, [torch.zeros(1, 1, *level) for level in levels])[0], Geometry(levels, [size])


@pytest.mark.parametrize(
    ("size", "levels", "strides"),
    [
        ((64, 96), [(8, 12), (4, 6), (2, 3)], [8, 16, 32]),
        ((800, 1088), [(100, 136), (50, 68), (25, 34), (13, 17), (7, 9)], [8, 16, 32, 64, 128]),
        ((160, 160), [(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)], [8, 16, 32, 64, 128, 256]),
        ((32, 64), [(4, 8), (2, 4), (1, 2), (1, 1), (1, 1)], [8, 16, 32, 64, 128]),
        ((64, 32), [(16, 8), (16, 8), (4, 2)], [4, 4, 16]),
        ((32, 32), [(1, 1), (1, 1)], [32, 64]),
        ((32, 64), [(1, 2)], [32]),
    ],
    ids=str,
)
def test_cells__have_the_stride_of_their_level_and_the_centre_of_their_anchor(size, levels, strides):
    anchors, geometry = anchors_of(size, levels)
    cells = geometry.cells(anchors)
    torch.testing.assert_close(cells[:, :2] + cells[:, 2:], anchors[:, :2] + anchors[:, 2:])
    expected = torch.cat([torch.full((4 * h * w, 2), float(s)) for (h, w), s in zip(levels, strides, strict=True)])
    torch.testing.assert_close(cells[:, 2:] - cells[:, :2], expected)


def test_cells__of_anchors_in_half_precision():
    anchors, geometry = anchors_of((64, 96), [(8, 12), (4, 6)])
    cells = geometry.cells(anchors.bfloat16())
    assert cells.dtype == torch.float32
    assert (cells[:, 2] - cells[:, 0]).unique().tolist() == [8, 16]


def test_cells__do_not_depend_on_the_size_of_the_image():
    sides = []
    for size, levels in (
        ((64, 64), [(8, 8), (4, 4), (2, 2), (1, 1)]),
        ((160, 96), [(20, 12), (10, 6), (5, 3), (3, 2)]),
    ):
        anchors, geometry = anchors_of(size, levels)
        cells = geometry.cells(anchors)
        sides.append((cells[:, 2] - cells[:, 0]).unique().tolist())
    assert sides[0] == sides[1] == [8, 16, 32, 64]
