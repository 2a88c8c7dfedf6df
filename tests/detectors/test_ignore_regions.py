"""Ignore regions: no anchor, proposal or query that lies in one is background, in every detector."""

import copy

import pytest
import torch
from torchvision.ops import box_iou

from lit_dense.detectors import attached, patch
from lit_dense.detectors.ignore_regions import IGNORE_BOXES
from lit_dense.functional.ignore_regions import in_regions
from lit_dense.training import LitRetinaNet
from tests.builders.detectors import (
    COUNTS,
    random_batch,
    small_faster_rcnn,
    small_fcos,
    small_retinanet,
    small_ssd,
    small_ssdlite,
    terms_and_gradients,
)
from tests.builders.samples import seen_by

REGION = torch.tensor([[0.0, 0, 40, 64]])
ONE_STAGE = {
    "retinanet": (small_retinanet, "", 0),
    "fcos": (small_fcos, "", 0),
    "ssd": (small_ssd, "", 1),
    "ssdlite": (small_ssdlite, "", 1),
    "rpn": (small_faster_rcnn, "rpn", 1),
    "roi": (small_faster_rcnn, "roi", 1),
}


def batch(first_label, regions=(REGION, REGION, None)):
    images, targets = random_batch((2, 0, 3), first_label=first_label)
    for target, region in zip(targets, regions, strict=True):
        if region is not None:
            target[IGNORE_BOXES] = region.clone()
    return images, targets


def samples_of(name, data, **arguments):
    build, stage, _ = ONE_STAGE[name]
    model = build()
    seen = seen_by(patch(model, stage=stage, class_counts=None if stage == "rpn" else COUNTS, **arguments))
    torch.manual_seed(5)
    terms = model.train()(*copy.deepcopy(data))
    assert all(term.isfinite() for term in terms.values())
    return seen[0]


@pytest.mark.parametrize("name", ONE_STAGE)
def test_ignore_regions__hold_no_background(name):
    first = ONE_STAGE[name][2]
    samples, plain = samples_of(name, batch(first)), samples_of(name, batch(first, (None,) * 3))
    inside = in_regions(samples.anchors, REGION) & (samples.image_idxs < 2)
    assert not (samples.matched_idxs[inside] == -1).any()
    outside = samples.matched_idxs[~inside & (samples.image_idxs < 2)]
    assert (outside == -1).any()
    if ONE_STAGE[name][1] == "":  # all anchors, so they can be compared
        assert ((plain.matched_idxs == -1) & inside).any()
        changed = samples.matched_idxs != plain.matched_idxs
        assert torch.equal(changed, inside & (plain.matched_idxs == -1))
        assert torch.equal(samples.positives, plain.positives)
    assert IGNORE_BOXES not in samples.target_fields


def test_ignore_regions__are_not_mistaken_for_a_field_of_the_boxes():
    samples = samples_of("retinanet", batch(0, (REGION.repeat(2, 1), REGION[:0], REGION.repeat(3, 1))))
    assert IGNORE_BOXES not in samples.target_fields


@pytest.mark.parametrize("assigner", ["atss", "max_iou"])
def test_ignore_regions__with_an_assigner(assigner):
    samples = samples_of("retinanet", batch(0), assigner=assigner)
    inside = in_regions(samples.anchors, REGION) & (samples.image_idxs < 2)
    assert not (samples.matched_idxs[inside] == -1).any()
    assert (samples.matched_idxs[inside] == -2).any()


def test_ignore_regions__are_resized_with_their_image():
    model = small_retinanet()
    seen = seen_by(patch(model))
    images, targets = random_batch((1,), size=128)
    model.train()(images, [targets[0] | {IGNORE_BOXES: torch.tensor([[0.0, 0, 80, 128]])}])
    inside = in_regions(seen[0].anchors, REGION)
    assert not (seen[0].matched_idxs[inside] == -1).any()
    assert (seen[0].matched_idxs[~inside] == -1).any()


@pytest.mark.parametrize("name", ["retinanet", "fcos", "roi"])
def test_ignore_regions__in_evaluation(name):
    build, stage, first = ONE_STAGE[name]
    model = build()
    seen = seen_by(patch(model, stage=stage))
    attached(model.eval()).losses_and_detections(*batch(first))
    inside = in_regions(seen[0].anchors, REGION) & (seen[0].image_idxs < 2)
    assert not (seen[0].matched_idxs[inside] == -1).any()


def test_ignore_regions__without_any_nothing_changes():
    model = small_retinanet()
    patch(model)
    plain, empty = batch(0, (None,) * 3), batch(0, (REGION[:0], None, REGION[:0]))
    (terms, gradients), (same_terms, same_gradients) = (terms_and_gradients(model, b) for b in (plain, empty))
    assert terms == same_terms
    assert torch.equal(gradients, same_gradients)


def test_ignore_regions__crowd_boxes_of_a_data_module_become_regions():
    torch.manual_seed(0)
    model = LitRetinaNet(num_classes=2, backbone="tiny", min_size=64, max_size=64, fpn_channels=8)
    seen = seen_by(model.criterion)
    boxes = torch.tensor([[2.0, 2, 20, 20], [30, 0, 64, 64]])
    target = {"boxes": boxes, "labels": torch.tensor([0, 1]), "iscrowd": torch.tensor([0, 1])}
    model.log = model.log_dict = lambda *args, **kwargs: None
    model.training_step(([torch.rand(3, 64, 64)], [target]), 0)
    samples = seen[0]
    assert samples.gt_labels.tolist() == [0]
    inside = in_regions(samples.anchors, boxes[1:])
    assert inside.any()
    assert not (samples.matched_idxs[inside] == -1).any()
    positives = samples.anchors[samples.positives]
    assert (box_iou(positives, boxes[:1]) > 0).all()
