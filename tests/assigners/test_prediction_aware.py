"""Assigners that see predictions, alone and on detectors."""

from dataclasses import replace

import pytest
import torch

from lit_dense.assigners import ASSIGNERS, AssignInput, PAAAssigner, SimOTAAssigner, TaskAlignedAssigner
from lit_dense.core.errors import UsageError
from lit_dense.core.geometry import Geometry
from lit_dense.criterion import Criterion
from lit_dense.detectors import attached, patch
from lit_dense.detectors.fcos import FCOSAdapter
from lit_dense.detectors.one_stage import OneStageAdapter
from lit_dense.testing import check_detector
from tests.builders.assignment_vectors import BOXES, Direct, image
from tests.builders.detectors import random_batch, small_faster_rcnn, small_fcos, small_retinanet, small_ssd
from tests.builders.kit import CHECKS, failure_of
from tests.builders.samples import seen_by

MODELS = {"retinanet": small_retinanet, "fcos": small_fcos, "ssd": small_ssd}
AWARE = {
    "tal": {"warmup_steps": 0},
    "simota": {},
    "paa": {},
    "nwd": {},
}


def spec(name, **arguments):
    return {"class_path": name, "init_args": {**AWARE[name], **arguments}}


def step(model, counts=(2, 0, 5), first_label=0):
    terms = model(*random_batch(counts, first_label=first_label))
    sum(terms.values()).backward()
    return terms


@pytest.mark.parametrize("name", AWARE)
@pytest.mark.parametrize("detector", MODELS)
@pytest.mark.filterwarnings("ignore:.*counts twice")
def test_aware_assigners__train_each_one_stage_detector(detector, name):
    model = MODELS[detector]()
    criterion = patch(model, loss="qfl", box_loss="giou", assigner=spec(name))
    samples = seen_by(criterion)
    for counts in ((2, 0, 5), (0, 0)):
        terms = step(model, counts, int(detector == "ssd"))
        assert all(term.isfinite() for term in terms.values())
    first = samples[0]
    assert len(first.positives)
    assert (first.quality is not None) == (name in ("tal", "simota"))
    if first.quality is not None:
        assert first.quality.shape == first.positives.shape
        assert 0 < first.quality.max() <= 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
@pytest.mark.parametrize("name", AWARE)
def test_aware_assigners__labels_may_be_of_any_integer_type(name, dtype):
    model = small_retinanet()
    patch(model, loss="bce", assigner=spec(name))
    images, targets = random_batch((2, 0, 5))
    expected = model(images, targets)
    found = model(images, [{**target, "labels": target["labels"].to(dtype)} for target in targets])
    assert {n: float(v) for n, v in found.items()} == {n: float(v) for n, v in expected.items()}


@pytest.mark.parametrize("name", ["tal", "simota", "paa"])
def test_aware_assigners__are_refused_by_a_detector_that_matches_itself(name):
    with pytest.raises(UsageError, match=r"FasterRCNN matches .* itself .*, and .* cannot replace its matcher"):
        patch(small_faster_rcnn(), loss="bce", assigner=name)


@pytest.mark.parametrize("name", ["tal", "simota", "paa"])
def test_aware_assigners__are_refused_by_a_detector_that_matches_before_it_predicts(name, monkeypatch):
    monkeypatch.setattr(FCOSAdapter, "offers", FCOSAdapter.offers - {"predictions"})
    with pytest.raises(UsageError, match=f"FCOS matches before it predicts, and {ASSIGNERS.load(name).__name__} reads"):
        patch(small_fcos(), loss="bce", assigner=name)


def test_soft_targets__of_an_assigner_need_a_loss_that_uses_them():
    with pytest.raises(UsageError, match="TaskAlignedAssigner gives soft targets, which the loss SoftmaxLoss"):
        Criterion("softmax", assigner="tal")
    with pytest.raises(UsageError, match=r"both decide the soft targets|both decide the assignment"):
        Criterion("bce", assigner="tal", weighters="cleanliness")
    plain = Criterion("softmax", assigner=spec("tal", soft_targets=False))
    assert type(plain.normalizer).__name__ == "ImageNormalizer"


def test_tal__divides_by_the_sum_of_its_targets_and_weights_boxes():
    model = small_retinanet()
    criterion = patch(model, loss="qfl", box_loss="giou", assigner=spec("tal"))
    assert type(criterion.normalizer).__name__ == "SoftTargetsNormalizer"
    samples = seen_by(criterion)
    terms = step(model)
    seen = samples[0]
    divisor = seen.quality.sum().clamp(min=1)
    values = criterion.box_loss(seen.pos_boxes, seen.pos_gt_boxes, seen)
    torch.testing.assert_close(terms["bbox_regression"], (values * seen.quality).sum() / divisor)
    loss = criterion.loss(seen.logits, seen.labels, seen.with_soft_targets(seen.quality))
    torch.testing.assert_close(terms["classification"], loss.sum() / divisor)
    chosen = Criterion("qfl", normalizer="batch", assigner="tal")
    assert type(chosen.normalizer).__name__ == "BatchNormalizer"


def test_tal__evaluation_has_the_loss_of_training():
    model = small_retinanet()
    patch(model, loss="qfl", box_loss="giou", assigner=spec("tal"))
    batch = random_batch((2, 3))
    training = model(*batch)
    model.eval()
    with torch.no_grad():
        terms, _ = attached(model).losses_and_detections(*batch)
    for name, value in terms.items():
        torch.testing.assert_close(value, training[name].detach())


def test_tal__warms_up_with_atss():
    early = TaskAlignedAssigner(number=3, warmup_steps=3)
    expected = ASSIGNERS.build("atss")(image())
    answer = early(image(step=2))
    assert torch.equal(answer.matched_idxs, expected)
    assert answer.quality.tolist() == [1] * 8
    assert early(image(step=3)).matched_idxs.tolist() == [0, 0, -1, 1, -1, 0, 1, 1]


@pytest.mark.parametrize("name", AWARE)
def test_aware_assigners__order_of_objects_permutes_the_matches(name):
    def losses(rows, matched):
        return (rows.float() - 3).abs()

    answers = [ASSIGNERS.build(spec(name))(image(gt, losses=losses)) for gt in ((0, 1), (1, 0))]
    matched, other = (getattr(answer, "matched_idxs", answer) for answer in answers)
    assert torch.equal(torch.where(matched >= 0, 1 - matched, matched), other)


@pytest.mark.parametrize("name", AWARE)
def test_aware_assigners__objects_without_candidates(name):
    far = ASSIGNERS.build(spec(name))(image(losses=lambda rows, matched: rows.float(), gt=(0,)))
    assert (getattr(far, "matched_idxs", far) >= 0).any()
    away = replace(image(losses=lambda rows, matched: rows.float()), gt_boxes=torch.full((2, 4), 900.0) + 1)
    answer = ASSIGNERS.build(spec(name))(away)
    matched = getattr(answer, "matched_idxs", answer)
    assert (matched >= 0).any() == (name == "nwd")


def test_simota__uses_the_size_of_cells():
    answer = SimOTAAssigner()(image())
    assert answer.matched_idxs.tolist() == [0, 0, 0, 1, -1, 0, 1, 1]
    assert SimOTAAssigner(soft_targets=False)(image()).tolist() == answer.matched_idxs.tolist()
    with pytest.raises(UsageError, match="simota: this detector does not provide"):
        SimOTAAssigner()(image(geometry=None))


def test_strides__of_levels_with_one_cell():
    geometry = Geometry([(2, 2), (1, 2), (1, 1)], [(32, 32)], [1, 2, 1])
    centres = torch.tensor([[4.0, 8], [12, 8], [4, 24], [12, 24], [8, 16], [8, 16], [28, 16], [28, 16], [16, 16]])
    strides = geometry.strides(torch.cat([centres - 3, centres + 3], 1))
    assert strides.tolist() == [[8, 16]] * 4 + [[20, 32]] * 4 + [[40, 64]]
    shuffled = centres[[3, 0, 2, 1, 7, 4, 5, 6, 8]]  # within levels
    assert geometry.strides(torch.cat([shuffled - 3, shuffled + 3], 1)).tolist() == strides.tolist()


def test_paa__takes_the_candidates_of_lowest_loss():
    losses = torch.tensor([0.10, 0.12, 0.15, 0.20, 0.22, 0.60, 0.70, 0.75])
    anchors = BOXES[:1].expand(8, 4)
    seen = image((0,), losses=lambda rows, matched: losses[rows])
    object.__setattr__(seen, "anchors", anchors)
    assert PAAAssigner()(seen).tolist() == [0, 0, 0, 0, 0, -1, -1, -1]
    assert PAAAssigner(number=1)(seen).tolist() == [0] + [-1] * 7
    equal = image((0,), losses=lambda rows, matched: torch.ones(len(rows)))
    object.__setattr__(equal, "anchors", anchors)
    assert PAAAssigner()(equal).tolist() == [0] + [-1] * 7
    with pytest.raises(UsageError, match="paa: this detector does not provide the losses"):
        PAAAssigner()(image(losses=None))


def test_paa__sees_the_losses_of_the_criterion():
    model = small_retinanet()
    criterion = patch(model, loss="focal", box_loss="giou", assigner="paa")
    seen = []
    inner = criterion.assigner.forward

    def record(assign_input):
        rows = torch.arange(5)
        seen.append((assign_input, assign_input.losses(rows, torch.zeros_like(rows))))
        return inner(assign_input)

    criterion.assigner.forward = record
    step(model, (3,))
    assign_input, losses = seen[0]
    logits = assign_input.logits[:5].detach()
    values = criterion.loss(logits, assign_input.gt_labels[:1].expand(5))
    boxes = assign_input.boxes[:5]
    values = values + criterion.box_loss(boxes, assign_input.gt_boxes[:1].expand(5, 4))
    torch.testing.assert_close(losses, values)
    assert not losses.requires_grad


def test_check_detector__finds_predictions_that_are_not_given(monkeypatch):
    monkeypatch.setattr(OneStageAdapter, "_assigned", without_losses)
    failure = failure_of(check_detector, "fcos", small_fcos, skip=set(CHECKS) - {"offers"})
    assert "other losses" in str(failure)


def without_losses(self, assigner, index, target, outputs, anchors):
    number = len(anchors)
    return assigner(
        AssignInput(
            anchors,
            target["boxes"],
            logits=torch.zeros(number, 2),
            deltas=torch.zeros(number, 4),
            box_coder=Direct(),
            score_logits=lambda x: x,
        )
    )
