"""Dual weighting as a weighter, beside the formulas of its authors over all anchors and objects."""

import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.core.samples import DenseSamples
from lit_dense.criterion import Criterion
from lit_dense.detectors import patch
from lit_dense.functional.giou import giou_loss
from lit_dense.functional.iou import paired_iou
from lit_dense.functional.loss_distribution import logit_gradients
from lit_dense.weighters import DWWeighter
from tests.builders.detectors import (
    COUNTS,
    random_batch,
    small_faster_rcnn,
    small_fcos,
    small_retinanet,
    small_ssd,
)
from tests.builders.samples import seen_by

AUTHORS = {"loss": {"class_path": "asl", "init_args": {"gamma_pos": 0, "gamma_neg": 2, "margin": 0}}}
AUTHORS |= {"box_loss": "giou", "box_loss_weight": 1.25}


def crowded(labels):
    """An image with three objects inside each other, one elsewhere, and an image without objects."""
    images = [torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(image)) for image in range(2)]
    boxes = torch.tensor([[4.0, 4, 60, 60], [8, 6, 50, 46], [10, 10, 40, 44], [44, 40, 63, 63]])
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    return images, [{"boxes": boxes, "labels": torch.tensor(labels)}, none]


def authors_terms(samples, stride=(8, 16), per_cell=4):
    """The terms of the authors' head without objectness, with the whole matrix of anchors and objects."""
    number = len(samples.anchors) // 2
    p, labels = samples.logits[:number].sigmoid(), samples.gt_labels
    boxes, gt = samples.decoded(torch.arange(number)), samples.gt_boxes
    pairs = boxes.repeat_interleave(len(gt), 0), gt.repeat(number, 1)
    costs, ious = (f(*pairs).view(number, len(gt)) for f in (giou_loss, paired_iou))
    centres, middles = ((b[:, :2] + b[:, 2:]) / 2 for b in (samples.anchors[:number], gt))
    inside = ((centres[:, None] > gt[:, :2]) & (centres[:, None] < gt[:, 2:])).all(2)
    strides = torch.cat([torch.full((per_cell * (64 // s) ** 2,), float(s)) for s in stride])
    prior = torch.exp(-((centres[:, None] - middles) / strides[:, None, None]).square().sum(2) / (2 * 1.11**2)) * inside
    own, local = p[:, labels], torch.exp(-5 * costs)
    t = own * local
    weights = (torch.exp(5 * t) * t * prior / (torch.exp(3 * t) * t * prior).sum(0)).detach()
    negative = torch.ones_like(p)
    for index, label in enumerate(labels):
        rows = inside[:, index].nonzero().squeeze(1)
        metric = (1 - ious[rows, index] ** 2) / 0.75
        low, high = metric.min(), metric.max().clamp(max=1)
        relative = torch.where(ious[rows, index] < 0.5, 1.0, (metric - low) / (high - low))
        negative[rows, label] = negative[rows, label].minimum(relative).detach()
    positives = 0.25 * (weights * -own.log()).sum() / 4
    boxes = 0.25 * (weights * -local.log()).sum() / 4
    background = samples.logits[number:].sigmoid()
    sums = [(w * q**2 * -torch.log1p(-q)).sum() for w, q in ((negative, p), (1, background))]
    return positives + sum(sums) / (1 - negative).sum().clamp(min=1), boxes, inside.sum()


@pytest.mark.parametrize("labels", [[1, 2, 3, 1], [1, 1, 3, 2], [2, 2, 2, 2]])
def test_dw__is_the_head_of_its_authors_with_all_pairs(labels):
    model = small_retinanet()
    with torch.no_grad():  # good boxes, so that candidates differ as negatives
        model.head.regression_head.bbox_reg.weight.mul_(0.2)
    weighter = {"class_path": "dw", "init_args": {"pos_weight": 0.25}}
    criterion = patch(model, weighters=[weighter], **AUTHORS)
    seen, answers = seen_by(criterion), []
    criterion.observers.append(lambda samples, values, weights: answers.append(samples))
    found = model(*crowded(labels))
    leaves = [seen[0].logits, seen[0].deltas]
    classification, boxes, pairs = authors_terms(seen[0])
    torch.testing.assert_close(found["classification"], classification)
    torch.testing.assert_close(found["bbox_regression"], boxes)
    for value, expected in ((found["classification"], classification), (found["bbox_regression"], boxes)):
        for leaf in leaves:
            gradients = (torch.autograd.grad(v, leaf, retain_graph=True, allow_unused=True) for v in (value, expected))
            torch.testing.assert_close(*(torch.zeros_like(leaf) if g is None else g for (g,) in gradients))
    assert (answers[0].dual_weights.negative < 0).any() == (len(set(labels)) > 1)
    assert len(answers[0].positives) == pairs > (answers[0].labels >= 0).sum()


@pytest.mark.parametrize("make", [small_retinanet, small_fcos, small_ssd])
@pytest.mark.parametrize("loss", ["focal", "bce"])
def test_dw__trains_detectors_with_anchors(make, loss):
    model = make()
    criterion = patch(model, loss, "giou", weighters="dw")
    for counts in ((2, 0, 5), (0, 0)):
        terms = model(*random_batch(counts, first_label=int(make is small_ssd)))
        assert set(terms) >= {"classification", "bbox_regression"}
        sum(terms.values()).backward()
        assert all(term.isfinite() for term in terms.values())
    assert criterion.step == 2
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_dw__auxiliary_losses_have_the_weights_of_the_matched_objects():
    model = small_fcos()
    criterion = patch(model, weighters="dw")
    seen = []
    criterion.observers.append(lambda samples, values, weights: seen.append(samples))
    terms = model(*crowded([1, 2, 3, 1]))
    values, dual = seen[0].auxiliary["bbox_ctrness"], seen[0].dual_weights
    assert len(values) < len(dual.box) == len(seen[0].positives)
    expected = (values * dual.box[: len(values)]).sum() / dual.divisor[0]
    torch.testing.assert_close(terms["bbox_ctrness"], expected)


def test_dw__plots_find_the_gradients_of_logits():
    model = small_retinanet()
    criterion = patch(model, weighters="dw")
    found = []

    def observe(samples, values, weights):
        costs = values.classification
        found.append((samples, costs, logit_gradients(samples.logits, costs, torch.ones_like(costs))[0]))

    criterion.observers.append(observe)
    model(*crowded([1, 2, 3, 1]))
    samples, costs, gradients = found[0]
    (expected,) = torch.autograd.grad(costs.sum(), samples.logits)
    torch.testing.assert_close(gradients, expected)


def test_dw__an_ignored_anchor_is_no_candidate():
    model = small_retinanet()
    criterion = patch(model, weighters="dw")
    seen = seen_by(criterion)
    model(*crowded([1, 2, 3, 1]))
    samples = seen[0]
    ignored = samples.positives[::2]
    matched = samples.matched_idxs.index_fill(0, ignored, -2)
    fewer = criterion.in_this_step(DenseSamples(**{**vars_of(samples), "matched_idxs": matched}))
    pairs = fewer.with_dual_weights(criterion.weighters[0].dual_weights(fewer)).positives
    assert len(pairs)
    assert not torch.isin(pairs, ignored).any()


def vars_of(samples):
    return {name: getattr(samples, name) for name in DenseSamples.__dataclass_fields__}


def test_dw__is_off_in_evaluation_and_the_assignment_stays():
    model = small_retinanet()
    criterion = patch(model, weighters="dw", box_loss="giou")
    seen = seen_by(criterion)
    with torch.no_grad():
        terms = model(*crowded([1, 2, 3, 1]))
        expected = Criterion("focal", "giou")(seen[0])
    torch.testing.assert_close(terms, expected)
    areas = (seen[0].gt_boxes[:, 2:] - seen[0].gt_boxes[:, :2]).prod(1)
    assert areas.argmin() == 3
    nested = seen[0].matched_idxs[(seen[0].anchors[:, :2] + seen[0].anchors[:, 2:]).eq(40).all(1)]
    assert (nested == 2).all()  # the smallest of three around the centre (20, 20)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"loss": "softmax"},
            "DWWeighter gives the positive and the negative term of a logit separate weights, .* loss",
        ),
        (
            {"loss": "qfl"},
            "the loss QualityFocalLoss does not use: take a loss of single logits that does, such as focal",
        ),
        ({"loss": {"class_path": "bce", "init_args": {"label_smoothing": 0.1}}}, "the loss BCELoss does not use"),
        ({"loss": "ghm"}, "GHMLoss and DWWeighter both decide the normalizer"),
        ({"loss": "rs"}, "RankSortLoss and DWWeighter both decide"),
        ({"box_loss": "ghm_r"}, "GHMRLoss and DWWeighter both decide the box normalizer"),
        ({"assigner": "tal"}, "DWWeighter and TaskAlignedAssigner both decide the assignment"),
        ({"normalizer": "batch"}, "DWWeighter brings its own normalizer .* BatchNormalizer has nothing to divide"),
        ({"weighters": ["dw", "pisa"]}, "DWWeighter and PISAWeighter both decide the weights"),
        ({"weighters": ["pisa", "dw"]}, "DWWeighter and PISAWeighter both decide the weights"),
        ({"weighters": {"class_path": "dw", "init_args": {"pos_weight": -1}}}, "dw: pos_weight must be at least 0"),
    ],
)
def test_dw__what_does_not_fit_is_refused(parts, words):
    with pytest.raises(UsageError, match=words):
        Criterion(**{"weighters": "dw", **parts})


@pytest.mark.parametrize("stage", ["roi", "rpn"])
def test_dw__a_detector_that_matches_by_itself_is_refused(stage):
    with pytest.raises(UsageError, match="InsideAssigner of DWWeighter cannot replace its matcher"):
        patch(small_faster_rcnn(), "focal", weighters="dw", stage=stage)


def test_dw__class_weights_of_the_criterion_count():
    model = small_retinanet()
    seen = seen_by(patch(model, weighters="dw"))
    model(*crowded([1, 2, 3, 1]))
    plain = Criterion(weighters=[DWWeighter()])(seen[0])["classification"]
    weighted = Criterion(weighters=["dw"], class_weights=[1, 3, 1, 1], class_counts=COUNTS)(seen[0])["classification"]
    assert weighted != plain


def test_dw__a_head_without_levels_is_told():
    samples = DenseSamples.of(torch.randn(4, 3), torch.tensor([0, -1, 2, -1]), anchors=torch.rand(4, 4))
    with pytest.raises(UsageError, match=r"give gt_boxes|does not tell the sizes"):
        Criterion(box_loss=None, weighters="dw")(samples)
