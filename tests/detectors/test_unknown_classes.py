"""Classes that an image is not annotated for: no anchor, proposal or query of it is their negative, in any detector."""

import copy
import math

import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.detectors import patch
from lit_dense.training import LitDetector
from tests.builders.data_parallel import SPLITS, assert_equal_training, share_of, train_patched, weighted
from tests.builders.detectors import (
    COUNTS,
    NUM_CLASSES,
    random_batch,
    small_faster_rcnn,
    small_fcos,
    small_retinanet,
    small_ssd,
    small_ssdlite,
)
from tests.builders.samples import seen_by

DETECTORS = {
    "retinanet": (small_retinanet, "", 0),
    "fcos": (small_fcos, "", 0),
    "ssd": (small_ssd, "", 1),
    "ssdlite": (small_ssdlite, "", 1),
    "roi": (small_faster_rcnn, "roi", 1),
}
LISTS = ([1, 3], [], [0])
"""Unknown classes of three images, from 0."""


def batch(first_label, lists=LISTS, counts=(2, 0, 3)):
    images, targets = random_batch(counts, first_label=first_label)
    for target, labels in zip(targets, lists, strict=True):
        target["unknown_labels"] = torch.tensor(labels, dtype=torch.int64) + first_label
    return images, targets


def seen_samples(name, data, **arguments):
    build, stage, _ = DETECTORS[name]
    model = build()
    criterion = patch(model, stage=stage, class_counts=COUNTS, **arguments)
    seen = seen_by(criterion)
    torch.manual_seed(5)
    terms = model.train()(*copy.deepcopy(data))
    assert all(term.isfinite() for term in terms.values())
    return seen[0], criterion


@pytest.mark.parametrize("name", DETECTORS)
def test_unknown_classes__reach_the_columns_of_every_detector(name):
    samples, criterion = seen_samples(name, batch(DETECTORS[name][2]))
    extra = criterion.loss.extra_logits
    assert samples.unknown[:, :NUM_CLASSES].int().tolist() == [[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert not samples.unknown[:, NUM_CLASSES:].any()
    assert samples.unknown.shape[1] == NUM_CLASSES + extra
    assert "unknown_labels" not in samples.target_fields


def test_unknown_classes__lists_as_long_as_the_boxes_are_no_field_of_them():
    samples, _ = seen_samples("retinanet", batch(0, ([1, 3], [], [0, 1, 2])))
    assert not samples.target_fields


@pytest.mark.parametrize("name", DETECTORS)
def test_unknown_classes__without_any_the_batch_is_as_usual(name):
    samples, _ = seen_samples(name, batch(DETECTORS[name][2], ([], [], [])))
    assert samples.unknown is None


def test_unknown_classes__the_region_proposal_network_knows_any_object_only():
    model = small_faster_rcnn()
    seen = seen_by(patch(model, stage="rpn"))
    model.train()(*batch(1))
    assert seen[0].unknown is None


@pytest.mark.parametrize("assigner", ["paa", "simota"])
def test_unknown_classes__do_not_change_matches_by_their_logits(assigner):
    matches = []
    for bias in (0.0, 8.0):
        model = small_retinanet()
        criterion = patch(model, assigner=assigner, class_counts=COUNTS)
        with torch.no_grad():
            model.head.classification_head.cls_logits.bias.view(-1, NUM_CLASSES)[:, 1] += bias
        seen = seen_by(criterion)
        images, targets = random_batch((2, 3))
        for target in targets:
            target["labels"] = torch.where(target["labels"] == 1, 0, target["labels"])
            target["unknown_labels"] = torch.tensor([1])
        model.train()(images, targets)
        matches.append(seen[0].matched_idxs)
    assert torch.equal(*matches)


@pytest.mark.parametrize("name", ["retinanet", "ssd"])
def test_unknown_classes__without_a_column_are_refused(name):
    first = DETECTORS[name][2]
    with pytest.raises(UsageError, match=f"run from .* to {7 + first}"):
        seen_samples(name, batch(first, ([7], [], [])))


@pytest.mark.parametrize("name", ["detr", "deformable_detr", "rt_detr"])
def test_unknown_classes__of_set_predictors(name):
    predictors = pytest.importorskip("tests.builders.set_predictors")
    model = getattr(predictors, name)()
    seen = seen_by(patch(model))
    images, targets = random_batch((2, 0, 3), predictors.CLASSES)
    labels = predictors.labels_of(copy.deepcopy(targets))
    for one, unknown in zip(labels, ([1], [], [0]), strict=True):
        one["unknown_labels"] = torch.tensor(unknown, dtype=torch.int64)
    assert model(pixel_values=torch.stack(images), labels=labels).loss.isfinite()
    samples = seen[0]
    layers = samples.num_images // 3
    assert samples.unknown.nonzero().tolist() == [[3 * i + b, c] for i in range(layers) for b, c in ((0, 1), (2, 0))]


def test_unknown_classes__of_a_data_module_are_moved_to_the_labels_of_the_network():
    torch.manual_seed(0)
    module = LitDetector("ssd", num_classes=3, backbone="tiny", max_size=64)
    seen = seen_by(module.criterion)
    boxes = torch.tensor([[2.0, 2, 20, 20], [30, 0, 64, 64]])
    lists = {"unknown_labels": torch.tensor([1, 2]), "neg_labels": torch.tensor([1, 2])}
    target = {"boxes": boxes, "labels": torch.tensor([0, 0]), "iscrowd": torch.tensor([0, 1]), **lists}
    module.log = module.log_dict = lambda *args, **kwargs: None
    module.training_step(([torch.rand(3, 64, 64)], [target]), 0)
    assert seen[0].unknown.tolist() == [[False, True, True, False]]  # background is last
    with pytest.raises(UsageError, match="has 3 in unknown_labels, but the head takes labels 0 to 2"):
        module.training_step(([torch.rand(3, 64, 64)], [{**target, "unknown_labels": torch.tensor([3])}]), 0)


CASES = {
    "retinanet": (small_retinanet, "ghm", None, None, ("pisa",)),
    "fcos": (small_fcos, "eql_v2", None, "sampled", ("soft_background",)),
    "ssd": (small_ssd, None, None, None, None),
}


def _batch(name, split):
    images, targets = weighted(*random_batch(sum(SPLITS[split], ()), first_label=int(name == "ssd")))
    targets[0]["unknown_labels"] = torch.tensor([1, 3])
    return images, targets


def _share_of(rank, name, split):
    return train_patched(CASES[name], share_of(rank, SPLITS[split], *_batch(name, split)))


@pytest.mark.ddp
@pytest.mark.parametrize("split", ["one rank empty", "unequal"])
@pytest.mark.parametrize("name", CASES)
def test_unknown_classes__gradients_of_two_processes_are_those_of_one(two_processes, name, split):
    expected, state = train_patched(CASES[name], _batch(name, split))
    assert_equal_training(two_processes(_share_of, name, split), expected, state, norm=math.inf)
