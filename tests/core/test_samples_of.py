"""Losses and samples of heads that no adapter knows."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torchvision.models.detection._utils import BoxCoder

from lit_dense import Criterion, DenseSamples
from lit_dense.box_losses import BOX_LOSSES
from lit_dense.core.errors import UsageError
from lit_dense.core.missing_field import MissingField
from lit_dense.losses import LOSSES, BCELoss, FocalLoss, GHMLoss
from lit_dense.weighters import WEIGHTERS

LABELS = torch.tensor([[0, -1, 2, -2, 1], [-1, -1, 0, 2, -2]])
LOGITS = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)) * 2
BOXES = torch.tensor([[10.0, 10, 40, 50]]).repeat(10, 1) + torch.arange(10)[:, None]


def test_dense_samples_of__loss_of_logits_and_labels_alone_is_that_of_a_criterion():
    plain = FocalLoss(gamma=1.5)(LOGITS, LABELS)
    terms = Criterion(FocalLoss(gamma=1.5), box_loss=None, normalizer="none")(DenseSamples.of(LOGITS, LABELS))
    assert plain.shape == (10,)
    assert (plain[LABELS.flatten() == -2] == 0).all()
    torch.testing.assert_close(plain.sum(), terms["classification"])
    assert list(terms) == ["classification"]


@pytest.mark.parametrize("name", sorted(LOSSES.points))
def test_losses__take_logits_and_labels_or_name_what_is_missing(name):
    loss = LOSSES.build(name)
    logits = torch.cat([LOGITS, LOGITS[..., : loss.extra_logits]], -1).requires_grad_()
    if name in ("alrp", "ia_bce", "mal", "qfl", "rs", "vfl"):
        with pytest.raises(UsageError, match=r"no predicted boxes or deltas: give boxes=\[A, 4\]"):
            loss(logits, LABELS)
    elif name in ("ecm", "eql", "federated"):
        with pytest.raises(UsageError, match="needs to know how often each class occurs"):
            loss(logits, LABELS)
    else:
        loss(logits, LABELS).sum().backward()
        assert logits.grad.isfinite().all()
        assert logits.grad.any()


@pytest.mark.parametrize("name", sorted(BOX_LOSSES.points))
def test_box_losses__take_predictions_and_targets(name):
    predicted, target = BOXES.clone().requires_grad_(), BOXES + 1
    if name == "mpdiou":
        with pytest.raises(UsageError, match="do not tell the sizes of their images"):
            BOX_LOSSES.build(name)(predicted, target)
        return
    loss = BOX_LOSSES.build(name)
    if loss.box_coder is not None:
        predicted = torch.randn(10, loss.box_outputs, requires_grad=True)
    values = loss(predicted, target)
    assert len(values) == 10
    values.sum().backward()
    assert predicted.grad.any()


def test_losses__state_without_a_criterion_is_committed_by_hand():
    loss = GHMLoss()
    loss(LOGITS, LABELS)
    assert loss.steps == 0
    loss.commit()
    assert loss.steps == 1


def test_dense_samples_of__missing_fields_say_how_they_are_given():
    samples = DenseSamples.of(LOGITS, LABELS)
    for name, words in (
        ("anchors", "no anchors: give anchors"),
        ("gt_boxes", "no ground-truth boxes: give gt_boxes"),
        ("deltas", "no predicted boxes or deltas"),
        ("pos_ious", "no predicted boxes or deltas"),
    ):
        with pytest.raises(UsageError, match=words):
            torch.as_tensor(getattr(samples, name) + 1)
    with pytest.raises(UsageError, match="no anchors"):
        torch.cat([torch.zeros(1, 4), samples.anchors])
    with pytest.raises(UsageError, match="does not tell the sizes of its levels"):
        samples.level_idxs  # noqa: B018  # reading it is what raises
    missing = MissingField("anchors", "give anchors=[A, 4]")
    for copied in (copy.deepcopy(missing), pickle.loads(pickle.dumps(missing))):
        with pytest.raises(UsageError, match="no anchors"):
            len(copied)


def test_dense_samples_of__boxes_serve_box_losses_soft_targets_and_weighters():
    samples = DenseSamples.of(LOGITS, LABELS, boxes=BOXES, gt_boxes=BOXES + 2)
    assert (samples.pos_ious > 0.5).all()
    terms = Criterion("vfl", "giou", ["pisa"])(samples)
    assert set(terms) == {"classification", "bbox_regression", "carl"}
    assert all(term.isfinite() for term in terms.values())
    with pytest.raises(UsageError, match="no predicted boxes or deltas"):
        Criterion("focal", "l1")(samples)


def test_dense_samples_of__deltas_anchors_and_a_coder_serve_box_losses_of_deltas():
    coder = BoxCoder((1.0, 1.0, 1.0, 1.0))
    deltas = torch.zeros(2, 5, 4, requires_grad=True)
    samples = DenseSamples.of(LOGITS, LABELS, deltas=deltas, anchors=BOXES, box_coder=coder, gt_boxes=BOXES + 2)
    expected = coder.encode_single((BOXES + 2)[samples.positives], BOXES[samples.positives]).abs().sum()
    terms = Criterion("focal", "l1", normalizer="none")(samples)
    torch.testing.assert_close(terms["bbox_regression"], expected)
    terms["bbox_regression"].backward()
    assert deltas.grad.any()


def test_dense_samples_of__rows_that_share_an_object():
    matched = torch.tensor([0, -1, 1, -1, 1, -1, -1, 2, 2, -1])
    labels = torch.tensor([2, -1, 0, -1, 0, -1, -1, 1, 1, -1])
    images = torch.tensor([0] * 6 + [1] * 4)
    samples = DenseSamples.of(LOGITS.flatten(0, 1), labels, matched_idxs=matched, images=images, gt_boxes=BOXES[:3])
    assert samples.gt_labels.tolist() == [2, 0, 1]
    assert samples.gt_image_idxs.tolist() == [0, 0, 1]
    assert samples.pos_per_image.tolist() == [3, 2]
    assert torch.equal(samples.labels, labels)
    with pytest.raises(UsageError, match="different numbers of anchors: use image_idxs"):
        samples.anchors_per_image  # noqa: B018  # reading it is what raises


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"boxes": torch.zeros(3, 4)}, "boxes has 3 rows, but the logits have 10"),
        ({"boxes": torch.zeros(10, 5)}, r"boxes must be \[A, 4\], not \[10, 5\]"),
        ({"images": 3}, "10 rows cannot be shared equally by 3 images"),
        ({"images": torch.zeros(4)}, "images has 4 rows"),
    ],
)
def test_dense_samples_of__shapes_that_do_not_fit_are_named(arguments, words):
    with pytest.raises(UsageError, match=words):
        DenseSamples.of(LOGITS, LABELS, **arguments)


def test_dense_samples_of__probabilities_are_not_taken_for_logits():
    with pytest.raises(UsageError, match="seem to be probabilities"):
        DenseSamples.of(LOGITS.sigmoid(), LABELS)


def test_dense_samples_of__logits_of_an_untrained_head_are_only_warned_of():
    logits = torch.linspace(0.05, 0.2, LOGITS.numel()).view_as(LOGITS)
    with pytest.warns(UserWarning, match=r"All logits lie between 0 and 1.*An untrained head can have such logits"):
        samples = DenseSamples.of(logits, LABELS)
    assert torch.equal(samples.logits, logits.flatten(0, 1))


@pytest.mark.parametrize("name", ["ohem", "pisa", "cleanliness", "swn", "class_balanced"])
def test_dense_samples_of__weighters_of_images_with_different_numbers_of_rows(name):
    """Each image alone gives what it gives in the batch, where nothing is compared across images."""
    counts = [7, 3, 0, 10]
    images = torch.arange(4).repeat_interleave(torch.tensor(counts))
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(20, 3, generator=generator)
    labels = torch.randint(-2, 3, (20,), generator=generator)
    boxes = BOXES.repeat(2, 1)
    arguments = {"negatives": True, "score_thresh": 0.0} if name == "pisa" else {}

    def terms(rows, images):
        weighter = WEIGHTERS.build({"class_path": name, "init_args": arguments})
        criterion = Criterion(BCELoss(), "giou", [weighter], "none", class_counts=[5, 3, 1])
        samples = DenseSamples.of(
            logits[rows], labels[rows], boxes=boxes[rows] + 1, gt_boxes=boxes[rows], images=images
        )
        return criterion(samples)

    together = terms(torch.arange(20), images)
    assert all(term.isfinite() for term in together.values())
    if name in ("ohem", "class_balanced"):
        alone = [terms((images == i).nonzero().squeeze(1), 1) for i in range(4) if counts[i]]
        torch.testing.assert_close(sum(t["classification"] for t in alone), together["classification"])
    shuffled = torch.randperm(20, generator=generator)
    again = terms(shuffled, images[shuffled])
    torch.testing.assert_close(again["classification"], together["classification"])


def test_dense_samples_of__a_custom_head_is_trained():
    """What examples/own_head shows: a linear head, a criterion, an optimiser."""
    torch.manual_seed(0)
    head, features = nn.Linear(4, 3), torch.randn(2, 5, 4)
    criterion = Criterion("ghm", box_loss=None)
    optimizer = torch.optim.SGD(head.parameters(), lr=1.0)
    values = []
    for _ in range(20):
        loss = criterion(DenseSamples.of(head(features), LABELS))["classification"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]
    assert criterion.loss.steps == criterion.step == 20


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [0, -100],
            r"Labels run from -100 to 0, but the logits have 3 columns: .* To ignore an anchor, give it the label -2",
        ),
        ([-3, 1], r"Labels run from -3 to 1"),
        ([1, 3], r"Labels run from 1 to 3, .* If they start at 1, subtract 1 from those of objects; background is -1"),
        ([0, 7], r"Labels run from 0 to 7, but the logits have 3 columns: labels must be 0 to 2"),
        ([0.0, 1.0], "labels must be integers, not float32"),
        ([True, False], "labels must be integers, not bool"),
    ],
)
@pytest.mark.parametrize("loss", ["focal", "softmax"])
def test_labels__invalid_ones_are_refused_by_losses_and_criteria(loss, labels, message):
    logits, labels = torch.randn(2, 3), torch.tensor(labels)
    with pytest.raises(UsageError, match=message):
        LOSSES.build(loss)(logits, labels)
    with pytest.raises(UsageError, match=message):
        Criterion(loss, box_loss=None)(DenseSamples.of(logits, labels))


def test_labels__as_a_list_are_refused():
    with pytest.raises(UsageError, match=r"labels must be a tensor, not a list: use torch\.as_tensor"):
        DenseSamples.of(torch.randn(2, 3), [0, 1])


@pytest.mark.parametrize(("loss", "extra"), [("softmax", 1), ("seesaw", 2)])
def test_labels__of_a_column_that_the_loss_uses_are_refused(loss, extra):
    logits, labels = torch.randn(2, 3 + extra), torch.tensor([0, 3])
    message = (
        rf"uses {extra} of the logits' {3 + extra} columns for itself, so labels go up to 2, .* {4 + extra} columns"
    )
    with pytest.raises(UsageError, match=message):
        LOSSES.build(loss)(logits, labels)
    with pytest.raises(UsageError, match=message):
        Criterion(loss, box_loss=None)(DenseSamples.of(logits, labels))
    LOSSES.build(loss)(logits, torch.tensor([2, -1]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"matched_idxs": [-1, 0]}, r"has the index -1 in matched_idxs: give that of its ground truth"),
        (
            {"matched_idxs": [0, 2], "gt_boxes": [[0.0, 0, 4, 4]] * 2},
            r"has the index 2, but gt_boxes has 2 boxes, 0 to 1",
        ),
        ({"matched_idxs": [0, 0], "gt_boxes": [[0.0, 0, 4, 4]], "images": [0, -1]}, r"images has the index -1"),
    ],
)
def test_dense_samples_of__indices_out_of_range_are_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        DenseSamples.of(torch.randn(2, 3), torch.tensor([0, 1]), **{k: torch.tensor(v) for k, v in arguments.items()})


def test_of__target_fields_are_of_rows_or_of_objects():
    labels = torch.tensor([-1, -1, 0, -1, 1, 2])
    of_objects, of_rows = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0, 1, 0, 2, 3])
    logits = torch.randn(6, 3)
    for given in (of_objects, of_rows):
        samples = DenseSamples.of(logits, labels, target_fields={"weight": given})
        assert samples.target_fields["weight"].tolist() == [1, 2, 3]
    with pytest.raises(
        UsageError, match="'weight' has 2 values: give one for each of the 3 objects or one for each of"
    ):
        DenseSamples.of(logits, labels, target_fields={"weight": of_objects[:2]})


@pytest.mark.parametrize("box", [[30.0, 30, 10, 10], [0.0, 0, float("nan"), 5]])
def test_of__boxes_of_objects_are_corners(box):
    boxes = torch.tensor([[0.0, 0, 5, 5], box, [9.0, 9, 1, 1]])
    with pytest.raises(UsageError, match=r"gt_boxes of an object is .*x1, y1, x2, y2 are expected.*box_convert"):
        DenseSamples.of(torch.randn(3, 2), torch.tensor([0, 1, -1]), boxes=boxes.abs(), gt_boxes=boxes)
