"""What losses and weighters are told of the proposals and anchors that Faster R-CNN draws."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN, roi_heads
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import MultiScaleRoIAlign

from lit_dense.core.errors import UsageError
from lit_dense.detectors import patch
from tests.builders.data_parallel import weighted
from tests.builders.detectors import COUNTS, NUM_CLASSES, gradients, random_batch, small_faster_rcnn
from tests.builders.samples import seen_by


def batch(counts=(2, 0, 5)):
    return weighted(*random_batch(counts, first_label=1))


def samples_of(model, stage, images, targets, **arguments):
    """The samples of a training step, its terms, and what the criterion was given besides."""
    criterion = patch(model, stage=stage, class_counts=COUNTS if stage == "roi" else None, **arguments)
    seen = seen_by(criterion)
    torch.manual_seed(5)
    terms = model(images, copy.deepcopy(targets))
    return seen[0], terms


def test_samples__of_proposals_are_those_that_the_heads_drew(monkeypatch):
    model = small_faster_rcnn()
    images, targets = batch()
    drawn = []
    own = RoIHeads.select_training_samples
    monkeypatch.setattr(
        RoIHeads, "select_training_samples", lambda *args: drawn.append(own(*args)) or drawn[-1], raising=True
    )
    samples, _ = samples_of(model, "roi", images, targets)
    proposals, matched_idxs, labels, regression_targets = drawn[0]
    assert torch.equal(samples.anchors, torch.cat(proposals))
    assert torch.equal(samples.labels + 1, torch.cat(labels))
    assert samples.image_idxs.bincount(minlength=3).tolist() == [len(p) for p in proposals]
    positive = torch.cat(labels) > 0
    assert torch.equal(samples.positives, positive.nonzero().squeeze(1))
    torch.testing.assert_close(samples.pos_target_deltas, torch.cat(regression_targets)[positive])
    offsets = torch.tensor([0, 2, 2])[samples.image_idxs]
    assert torch.equal(samples.pos_matched_idxs, (torch.cat(matched_idxs) + offsets)[positive])
    assert samples.pos_matched_idxs.unique().tolist() == list(range(7))  # every box is a proposal of its own
    weights = torch.cat([t["weight"] for t in targets])
    assert torch.equal(samples.target_fields["weight"], weights)
    with pytest.raises(UsageError, match="does not tell the sizes of its levels"):
        _ = samples.level_idxs


def test_samples__of_anchors_are_those_that_the_network_drew(monkeypatch):
    model = small_faster_rcnn(drawn=(24, 32))
    images, targets = batch()
    images[2] = images[2][:, :, :56]
    targets[2]["boxes"][:, 0::2] *= 56 / 64
    drawn, matches = [], []
    sampler, matcher = model.rpn.fg_bg_sampler, model.rpn.proposal_matcher
    monkeypatch.setattr(model.rpn, "fg_bg_sampler", lambda labels: drawn.append(sampler(labels)) or drawn[-1])
    noted = lambda quality: matches.append(matcher(quality)) or matches[-1]  # noqa: E731
    noted.BELOW_LOW_THRESHOLD, noted.BETWEEN_THRESHOLDS = matcher.BELOW_LOW_THRESHOLD, matcher.BETWEEN_THRESHOLDS
    monkeypatch.setattr(model.rpn, "proposal_matcher", noted)
    samples, _ = samples_of(model, "rpn", images, targets)
    assert len(drawn) == 1  # or the random stream would be another
    positive, negative = (torch.cat(masks).bool() for masks in drawn[0])
    assert torch.equal(samples.positives, positive.nonzero().squeeze(1))
    assert torch.equal(samples.labels == -1, negative)
    assert torch.equal(samples.labels == -2, ~(positive | negative))
    assert samples.valid.sum() == 3 * 24
    matches.insert(1, torch.full((320,), -1))  # the image without objects
    offsets = torch.tensor([0, 2, 2])[samples.image_idxs]
    assert torch.equal(samples.pos_matched_idxs, (torch.cat(matches) + offsets)[positive])
    assert samples.num_classes == 1
    assert samples.pos_labels.unique().tolist() == [0]
    assert torch.equal(samples.target_fields["weight"], torch.cat([t["weight"] for t in targets]))
    with pytest.raises(UsageError, match="does not tell the sizes of its levels"):
        _ = samples.level_idxs


@pytest.mark.parametrize("stage", ["roi", "rpn"])
def test_samples__weights_of_boxes_reach_both_stages(stage):
    images, targets = batch()
    heavy = [t | {"weight": t["weight"] * 0 + 3} for t in targets]
    names = {"roi": ("loss_classifier", "loss_box_reg"), "rpn": ("loss_objectness", "loss_rpn_box_reg")}[stage]
    _, plain = samples_of(small_faster_rcnn(), stage, images, targets)
    _, weighted = samples_of(small_faster_rcnn(), stage, images, heavy, weighters=["target_weights"])
    torch.testing.assert_close(weighted[names[1]], plain[names[1]] * 3)
    assert weighted[names[0]] > plain[names[0]]


@pytest.mark.parametrize("stage", ["roi", "rpn"])
def test_samples__terms_of_weighters_begin_with_the_stage(stage):
    model = small_faster_rcnn()
    images, targets = batch()
    _, terms = samples_of(model, stage, images, targets, weighters=["pisa", "swn"])
    own = ["loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"]
    assert set(terms) == {*own, f"{stage}_carl", f"{stage}_swn_classification", f"{stage}_swn_box"}


def test_samples__a_negative_has_the_deltas_of_its_best_class():
    model = small_faster_rcnn()
    outputs = []
    model.roi_heads.box_predictor.register_forward_hook(lambda module, args, given: outputs.append(given))
    samples, _ = samples_of(model, "roi", *batch(), loss="focal")
    logits, deltas = outputs[0]
    row = int((samples.labels == -1).nonzero()[0])
    best = 4 * (1 + int(logits[row, 1:].argmax()))
    assert torch.equal(samples.deltas[row], deltas[row, best : best + 4])


class Shared(nn.Module):
    """A box predictor with one set of deltas for all classes; ``repeat`` gives each class a copy of it."""

    def __init__(self, repeat):
        super().__init__()
        torch.manual_seed(3)
        self.cls_score, self.bbox_pred = nn.Linear(16, NUM_CLASSES + 1), nn.Linear(16, 4)
        self.repeat = repeat

    def forward(self, x):
        deltas = self.bbox_pred(x)
        return self.cls_score(x), deltas.repeat(1, NUM_CLASSES + 1) if self.repeat else deltas


def test_samples__deltas_that_classes_share(monkeypatch):
    own = roi_heads.fastrcnn_loss
    monkeypatch.setattr(  # torchvision's cannot
        roi_heads, "fastrcnn_loss", lambda x, deltas, *rest: own(x, deltas.repeat(1, 20 // deltas.shape[1]), *rest)
    )
    results = []
    images, targets = batch()
    for repeat in (True, False):
        model = small_faster_rcnn()
        model.roi_heads.box_predictor = Shared(repeat)
        patch(model, "bce", "giou")
        torch.manual_seed(5)
        terms = model(images, copy.deepcopy(targets))
        sum(terms.values()).backward()
        with torch.no_grad():
            found = model.eval()(images)
        results.append(([t.detach() for t in terms.values()], gradients(model), found))
    torch.testing.assert_close(results[1], results[0], rtol=1e-5, atol=1e-6)
    assert sum(len(d["boxes"]) for d in results[0][2])


@pytest.mark.parametrize(("shift", "message"), [(-1, r"from 0 to 3.*add 1"), (1, r"to 5, but the head has 4 classes")])
def test_samples__labels_without_a_column_are_named(shift, message):
    model = small_faster_rcnn()
    images, targets = batch((8,))
    targets = [t | {"labels": torch.tensor([1, 2, 3, 4, 1, 2, 3, 4]) + shift} for t in targets]
    patch(model, stage="rpn")  # which reads no labels
    if shift < 0:
        assert model(images, targets)["loss_objectness"].isfinite()
    patch(model)
    with pytest.raises(UsageError, match=message):
        model(images, targets)


@pytest.mark.parametrize(("width", "fields"), [(64, ["outlines", "weight"]), (56, ["weight"])])
def test_samples__masks_and_fields_of_unequal_width_are_left_out(width, fields):
    model = small_faster_rcnn(MaskRCNN, mask_roi_pool=MultiScaleRoIAlign(["a", "b"], 4, 2))
    images, targets = batch()
    images[2] = images[2][:, :, :width]
    for image, target in zip(images, targets, strict=True):
        target["boxes"][:, 0::2] *= image.shape[-1] / 64
        target["masks"] = torch.ones(len(target["boxes"]), *image.shape[1:], dtype=torch.uint8)
        target["outlines"] = torch.ones(len(target["boxes"]), image.shape[-1])
    for stage in ("roi", "rpn"):
        samples, _ = samples_of(model, stage, images, targets)
        assert list(samples.target_fields) == fields
