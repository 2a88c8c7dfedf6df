"""Images that would vanish when they are scaled."""

import numpy as np
import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from lit_dense.core.errors import UsageError
from lit_dense.data import CocoData
from lit_dense.data.checks.thin_images import check_all_sizes, check_sizes, vanishes


@pytest.mark.parametrize("max_size", [96, 100, 133])
def test_vanishes__exactly_where_torchvision_cannot_scale_an_image(max_size):
    transform = GeneralizedRCNNTransform(64, max_size, [0.0] * 3, [1.0] * 3)
    for short in (1, 2, 3, 7):
        for long in (short * max_size - 1, short * max_size, short * max_size + 1, short * max_size + 9):
            try:
                transform([torch.zeros(3, short, long)])
            except RuntimeError:
                works = False
            else:
                works = True
            assert bool(vanishes(short, long, max_size)) == bool(vanishes(long, short, max_size)) == (not works)


def test_check_sizes__a_thin_image_is_named_with_the_cure():
    images = [torch.zeros(3, 30, 40), torch.zeros(3, 1, 3000)]
    targets = [{}, {"image_id": 7, "file_name": "line.png"}]
    told = (
        r"^Image 7 \(line\.png\) is 3000 x 1 pixels: .*max_size=1333 leaves .* raise model\.max_size to 3000 or more\.$"
    )
    with pytest.raises(UsageError, match=told):
        check_sizes(images, targets, 1333)
    with pytest.raises(UsageError, match=r"^Image 1 of the batch is 3000 x 1"):
        check_sizes(images, [{}, {}], 1333)
    check_sizes(images, targets, 3000)


def test_check_all_sizes__thin_images_of_a_data_module_are_named_before_the_first_batch():
    data = CocoData.without_boxes(["a.png", "b.png", "c.png"], np.array([[30, 40], [10_000, 50], [1, 5000]]))
    with pytest.raises(UsageError, match=r"^Image 2 \(b\.png\) is 50 x 10000 pixels.*max_size to 200 or more"):
        check_all_sizes([data], 96)
    with pytest.raises(UsageError, match=r"^Image 3 \(c\.png\) is 5000 x 1 pixels"):
        check_all_sizes([data], 1333)
    check_all_sizes([data], 5000)
