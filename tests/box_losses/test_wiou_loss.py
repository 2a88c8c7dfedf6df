"""The running mean of WIoU, and the image sizes of MPDIoU."""

from dataclasses import replace

import pytest
import torch

from lit_dense.box_losses import MPDIoULoss, WIoULoss
from lit_dense.core.errors import UsageError
from lit_dense.core.geometry import Geometry
from lit_dense.criterion import Criterion
from lit_dense.detectors import patch
from lit_dense.functional import mpdiou_loss
from lit_dense.functional.iou import paired_iou
from tests.builders.detectors import padded_batch, small_fcos, small_retinanet
from tests.builders.samples import samples_of


def test_wiou__the_mean_moves_once_per_training_step_and_before_it_is_used():
    samples, loss = samples_of((3, 2)), WIoULoss()
    criterion = Criterion(box_loss=loss)
    costs = 1 - paired_iou(samples.pos_boxes, samples.pos_gt_boxes)
    first = criterion(samples)["bbox_regression"]
    expected = 0.99 + 0.01 * costs.detach().mean()
    torch.testing.assert_close(loss.mean, expected)
    with torch.no_grad():
        torch.testing.assert_close(criterion(samples)["bbox_regression"], first)
    torch.testing.assert_close(loss.mean, expected)


def test_wiou__a_batch_without_positives_leaves_the_mean():
    samples, loss = samples_of((0, 0)), WIoULoss()
    Criterion(box_loss=loss)(samples)
    assert loss.mean == 1
    assert WIoULoss("v1")(samples.pos_boxes, samples.pos_gt_boxes, samples).shape == (0,)


def test_wiou__checkpoint_keeps_the_mean():
    criterion = Criterion(box_loss="wiou")
    criterion(samples_of((3, 2)))
    other = Criterion(box_loss="wiou")
    other.load_state_dict(criterion.state_dict())
    assert other.box_loss.mean == criterion.box_loss.mean != 1


def test_mpdiou__distances_are_relative_to_the_image_of_each_positive():
    samples = samples_of((3, 2))
    sizes = [(64, 48), (32, 64)]
    samples = replace(samples, geometry=Geometry(samples.geometry.level_sizes, sizes))
    of_positives = torch.tensor(sizes)[samples.pos_image_idxs]
    expected = mpdiou_loss(samples.pos_boxes, samples.pos_gt_boxes, of_positives)
    torch.testing.assert_close(MPDIoULoss()(samples.pos_boxes, samples.pos_gt_boxes, samples), expected)
    known = replace(samples, geometry=None, known_image_sizes=sizes)
    torch.testing.assert_close(MPDIoULoss()(samples.pos_boxes, samples.pos_gt_boxes, known), expected)
    with pytest.raises(UsageError, match="do not tell the sizes of their images: give known_image_sizes="):
        MPDIoULoss()(samples.pos_boxes, samples.pos_gt_boxes, replace(samples, geometry=None))


@pytest.mark.parametrize("make", [small_retinanet, small_fcos])
def test_mpdiou__paa_rates_candidates_by_it(make):
    model = make()
    patch(model, box_loss="mpdiou", assigner="paa")
    images, targets = padded_batch()
    assert model(images, targets)["bbox_regression"] > 0
