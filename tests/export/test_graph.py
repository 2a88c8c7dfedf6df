"""Tests of the traceable function of a detector."""

import pytest
import torch

from lit_dense import LitDetector
from lit_dense.core.errors import UsageError
from lit_dense.export.verification import as_detections, compare
from tests.builders.exported import DETECTORS, random_images, small_module


@pytest.mark.parametrize("size", [(96, 96), (64, 120), (150, 200)], ids=str)
@pytest.mark.parametrize("detector", DETECTORS)
@torch.no_grad()
def test_detection_graph__equals_the_module(detector, size):
    module = small_module(detector)
    graph, images = module.export_graph(size), random_images(3, size)
    expected = module(list(images))
    found = [as_detections(graph(image.unsqueeze(0)), module.score_thresh)[0] for image in images]
    difference = compare(expected, found, size)
    assert difference.detections > 50
    assert difference.unmatched == 0
    assert difference.score < 1e-5
    assert difference.box < 1e-2


@pytest.mark.parametrize("loss", ["softmax", "ghm", "seesaw"])
@pytest.mark.parametrize("detector", DETECTORS)
@torch.no_grad()
def test_detection_graph__has_the_scores_that_the_loss_trains(detector, loss):
    if detector == "ssd" and loss == "seesaw":
        pytest.skip("seesaw has more columns than SSD")
    module = small_module(detector, loss=loss)
    image = random_images(1, (96, 96))
    found = as_detections(module.export_graph((96, 96))(image), module.score_thresh)
    assert compare(module(list(image)), found, (96, 96)).unmatched == 0


@torch.no_grad()
def test_detection_graph__rows_without_a_detection_are_empty():
    module = small_module(score_thresh=0.9999)
    boxes, scores, labels = module.export_graph((96, 96))(random_images(1, (96, 96)))
    assert boxes.shape == (1, module.detections_per_img, 4)
    assert not boxes.any()
    assert not scores.any()
    assert (labels == -1).all()


@torch.no_grad()
def test_detection_graph__candidates_of_a_batch_are_those_of_its_images():
    module = small_module()
    graph, images = module.export_graph((96, 96), nms=False), random_images(3, (96, 96))
    together, apart = graph(images), [graph(image.unsqueeze(0)) for image in images]
    torch.testing.assert_close(together[1], torch.cat([scores for _, scores, _ in apart]), rtol=1e-4, atol=1e-6)
    assert (together[1].diff(dim=1) <= 0).all()


def test_detection_graph__a_two_stage_detector_is_refused():
    module = LitDetector("faster_rcnn", num_classes=2, backbone="tiny", fpn_channels=32)
    with pytest.raises(UsageError, match=r"FasterRCNN cannot be exported.*Export RetinaNet, FCOS, SSD"):
        module.export_graph((64, 64))
