import copy

import pytest
import torch
from torch import nn
from torchvision.models.detection import FCOS
from torchvision.models.detection._utils import BoxLinearCoder
from torchvision.models.detection.fcos import FCOSHead

from lit_dense.assigners import Assigner
from lit_dense.core.errors import UsageError
from lit_dense.detectors import attached, find_detector, patch, unpatch
from lit_dense.detectors.fcos import FCOSAdapter, LinearBoxCoder, centreness_of
from tests.builders.detectors import (
    COUNTS,
    TwoLevels,
    padded_batch,
    random_batch,
    small_fcos,
    terms_and_gradients,
)
from tests.builders.samples import seen_by


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ({"loss": "qfl"}, "QualityFocalLoss"),
        ({"loss": "vfl"}, "VarifocalLoss"),
        ({"loss": {"class_path": "federated", "init_args": {"loss": "qfl"}}, "class_counts": COUNTS}, "FederatedLoss"),
        ({"loss": "bce", "weighters": "cleanliness"}, "CleanlinessWeighter"),
    ],
)
def test_patch__warns_of_quality_that_counts_twice(parts, name):
    with pytest.warns(UserWarning, match=f"{name} trains class scores to be the quality of boxes, .* counts twice"):
        patch(small_fcos(), **parts)


@pytest.mark.parametrize("parts", [{}, {"loss": "ghm"}, {"loss": "softmax"}, {"weighters": "swn"}])
def test_patch__does_not_warn_of_other_losses(parts, recwarn):
    patch(small_fcos(), **parts)
    assert not recwarn.list


@pytest.mark.parametrize("counts", [(2, 0, 5), (0, 0), (1,), (9, 3)])
def test_fcos__the_stock_loss_is_reproduced(counts):
    stock, patched = small_fcos(), small_fcos()
    patch(patched)
    (expected, slopes), (terms, own) = (terms_and_gradients(model, random_batch(counts)) for model in (stock, patched))
    assert list(terms) == ["classification", "bbox_regression", "bbox_ctrness"]
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-6, atol=1e-9)
    assert (own - slopes).abs().max() <= 2e-6 * slopes.abs().max()


def test_fcos__gradients_at_the_outputs_of_the_head_are_the_stock_ones():
    slopes = {}
    for name in ("stock", "patched"):
        model = small_fcos()
        if name == "patched":
            patch(model)
        leaves = slopes.setdefault(name, {})

        def cut(head, args, outputs, leaves=leaves):
            leaves.update({key: output.detach().requires_grad_() for key, output in outputs.items()})
            return leaves

        model.head.register_forward_hook(cut)
        sum(model(*random_batch()).values()).backward()
    for key, expected in slopes["stock"].items():
        torch.testing.assert_close(slopes["patched"][key].grad, expected.grad, rtol=2e-6, atol=1e-9)


def test_linear_box_coder__codes_boxes_as_torchvision_does():
    coder, stock = LinearBoxCoder(BoxLinearCoder()), BoxLinearCoder()
    anchors = torch.tensor([[0.0, 0, 8, 8], [8, 16, 24, 32]])
    boxes = torch.tensor([[1.0, -2, 30, 7], [0, 20, 40, 44]])
    deltas = coder.encode_single(boxes, anchors)
    assert torch.equal(deltas, stock.encode(anchors, boxes))
    torch.testing.assert_close(coder.decode_single(deltas, anchors), boxes)


def test_centreness__worked_values():
    distances = torch.tensor([[1.0, 2, 1, 2], [1, 1, 3, 1], [1, 1, 4, 4], [-1, 2, 5, 2], [0, 2, 5, 2], [-1, -1, 5, 2]])
    expected = torch.tensor([1, (1 / 3) ** 0.5, 0.25, 0, 0, 0])
    torch.testing.assert_close(centreness_of(distances), expected)


class FarAway(Assigner):
    """Every 50th location is positive, wherever the objects are."""

    def forward(self, image):
        matched = torch.full((len(image.anchors),), -1)
        matched[::50] = 0
        return matched


def test_centreness__of_positives_outside_their_boxes_is_finite():
    model = small_fcos()
    seen = seen_by(patch(model, assigner=FarAway()))
    terms, slopes = terms_and_gradients(model, random_batch((2, 1)))
    assert (seen[0].pos_target_deltas < 0).any()
    assert all(term.isfinite() for term in terms.values())
    assert slopes.isfinite().all()


def test_centreness__is_weighted_and_divided_as_boxes_are():
    def terms(**parts):
        model = small_fcos()
        patch(model, **parts)
        images, targets = random_batch((2, 3))
        batch = images, [t | {"weight": torch.full((len(t["boxes"]),), 3.0)} for t in targets]
        return terms_and_gradients(model, batch)[0]

    plain = terms()["bbox_ctrness"]
    torch.testing.assert_close(terms(box_loss_weight=2.0)["bbox_ctrness"], 2 * plain)
    torch.testing.assert_close(terms(weighters=["target_weights"])["bbox_ctrness"], 3 * plain)
    torch.testing.assert_close(terms(loss="ghm")["bbox_ctrness"], plain)
    torch.testing.assert_close(terms(box_loss="ghm_r")["bbox_ctrness"], plain)  # which brings its own normalizer


@pytest.mark.parametrize("loss", ["focal", "softmax", "seesaw"])
def test_fcos__scores_are_multiplied_by_centreness(loss):
    model = small_fcos(6)
    criterion = patch(model, loss)
    images, _ = random_batch()
    outputs = {}
    model.head.register_forward_hook(lambda head, args, out: outputs.update(out))  # after the adapter's
    raw = {}
    model.head.classification_head.register_forward_hook(lambda head, args, out: raw.update(logits=out))
    found = model.eval()(images)
    scores = criterion.loss.score_logits(raw["logits"]).sigmoid()
    expected = (scores * outputs["bbox_ctrness"].sigmoid()).sqrt()
    assert scores.shape[-1] == criterion.num_classes
    assert sum(len(d["scores"]) for d in found) > 20
    for image, detections in enumerate(found):
        assert detections["labels"].max() < criterion.num_classes
        for score, label in zip(detections["scores"], detections["labels"], strict=True):
            assert (expected[image, :, label] - score).abs().min() < 1e-6


def test_fcos__a_loss_without_room_for_its_columns_is_refused():
    with pytest.raises(UsageError, match=r"SeesawLoss has 2 columns.*build the model with num_classes=4"):
        patch(small_fcos(2), "seesaw")


@pytest.mark.parametrize("loss", [None, "softmax"])
def test_losses_and_detections__of_one_pass(loss):
    model, same = small_fcos(), small_fcos()
    images, targets = random_batch(num_classes=3)
    for each in (model, same):
        patch(each, loss)
    expected, _ = terms_and_gradients(same, (images, targets))
    with torch.no_grad():
        terms, found = find_detector(model.eval()).losses_and_detections(images, copy.deepcopy(targets))
        detections = same.eval()(images)
    torch.testing.assert_close(terms, expected)
    for own, other in zip(found, detections, strict=True):
        torch.testing.assert_close(own, other)


class OneLevel(nn.Module):
    """A backbone that gives one tensor."""

    out_channels = 32

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, stride=8, padding=1)

    def forward(self, x):
        return self.conv(x)


def test_fcos__a_backbone_with_one_tensor():
    anchors = small_fcos().anchor_generator
    anchors.sizes, anchors.aspect_ratios = anchors.sizes[:1], anchors.aspect_ratios[:1]
    anchors.cell_anchors = anchors.cell_anchors[:1]
    model = FCOS(OneLevel(), 4, min_size=64, max_size=64, anchor_generator=anchors, head=FCOSHead(32, 1, 4, 1))
    stock = copy.deepcopy(model)
    patch(model)
    own, expected = (terms_and_gradients(each, random_batch()) for each in (model, stock))
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)
    terms, found = find_detector(model.eval()).losses_and_detections(*random_batch())
    assert terms.keys() == {"classification", "bbox_regression", "bbox_ctrness"}
    assert len(found) == 3


class OwnHead(FCOSHead):
    """A head of somebody's own, with a parameter."""

    def __init__(self):
        super().__init__(32, 1, 4, 1)
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return super().forward([self.gain * f for f in x])


def test_fcos__a_custom_head_stays():
    model = FCOS(
        TwoLevels(32), 4, min_size=64, max_size=64, anchor_generator=small_fcos().anchor_generator, head=OwnHead()
    )
    head, keys = model.head, list(model.state_dict())
    patch(model)
    terms_and_gradients(model, random_batch())
    assert model.head.gain.grad is not None
    unpatch(model)
    assert model.head is head
    assert list(model.state_dict()) == keys


def test_fcos__a_head_that_is_replaced_while_patched_leaves_a_model_that_can_be_copied_and_unpatched():
    model = small_fcos()
    patch(model)
    model.head = small_fcos().head
    unpatch(copy.deepcopy(model))
    unpatch(model)
    assert attached(model) is None


def test_fcos__locations_know_their_level_and_padding():
    model = small_fcos()
    seen = seen_by(patch(model))
    model(*padded_batch())
    assert seen[0].level_idxs.bincount().tolist() == [2 * 64, 2 * 16]
    padded = seen[0].in_padding
    assert not padded[seen[0].image_idxs == 0].any()
    assert padded[seen[0].image_idxs == 1].float().mean() == 0.5


def test_fcos__labels_from_1_are_an_error_that_says_they_start_at_0():
    model = small_fcos()
    patch(model)
    images, targets = random_batch((4,))
    targets[0]["labels"] = torch.tensor([1, 2, 3, 4])
    with pytest.raises(UsageError, match=r"from 1 to 4, but the head has 4 classes.*subtract 1"):
        model(images, targets)


def test_fcos__a_refused_assigner_is_named_with_the_weighter_that_brings_it(monkeypatch):
    monkeypatch.setattr(FCOSAdapter, "offers", FCOSAdapter.offers - {"assignment"})
    with pytest.raises(UsageError, match="TopNAssigner of CleanlinessWeighter cannot replace its matcher"):
        patch(small_fcos(), weighters=["cleanliness"])
    with pytest.raises(UsageError, match="ATSSAssigner cannot replace its matcher"):
        patch(small_fcos(), assigner="atss")
