"""Tests of the traceable function of a detector."""

import pytest
import torch
from torchvision.ops import batched_nms

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


def test_detection_graph__suppresses_small_objects_of_many_classes_as_exactly_as_of_one():
    module = LitDetector("retinanet", num_classes=1203, backbone="tiny", fpn_channels=16, min_size=800, max_size=1344)
    graph = module.export_graph((800, 1344))
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2000, 2, generator=generator) * torch.tensor([1300.0, 780.0])
    boxes = torch.cat([corners, corners + 6 + 6 * torch.rand(2000, 2, generator=generator)], 1)
    boxes = torch.cat([boxes, boxes + torch.rand(2000, 4, generator=generator) * 3])  # pairs around the threshold
    scores = torch.rand(4000, generator=generator).sort(descending=True).values
    labels = torch.randint(1100, 1200, (2000,), generator=generator).repeat(2)
    kept = batched_nms(boxes.double(), scores.double(), labels, module.model.nms_thresh)
    graph.detections_per_img = 4000
    found = graph._suppressed(boxes, scores, labels)[1]
    expected = set(scores[kept].tolist()) - {s for s in scores.tolist() if s <= graph.score_thresh}
    assert len(expected ^ set(found[found > 0].tolist())) <= 4  # of 55 with the classes in one row
