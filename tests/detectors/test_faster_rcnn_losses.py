"""Faster R-CNN with other losses: what they are told, the scores that they train, and what is refused."""

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models.detection import MaskRCNN, roi_heads
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import MultiScaleRoIAlign

from lit_dense import SwapLoss
from lit_dense.box_losses import BOX_LOSSES
from lit_dense.core.errors import UsageError
from lit_dense.detectors import attached, find_detector, patch, unpatch
from lit_dense.losses import LOSSES, SoftmaxLoss
from lit_dense.weighters import WEIGHTERS
from tests.builders.detectors import COUNTS, NUM_CLASSES, gradients, random_batch, small_faster_rcnn
from tests.builders.lit_modules import Foreign


def batch(counts=(2, 0, 5)):
    images, targets = random_batch(counts, first_label=1)
    return images, [t | {"weight": torch.arange(len(t["boxes"])) + 0.5} for t in targets]


def test_scores__of_a_softmax_are_torchvisions_to_the_bit_where_they_are_computed_here():
    stock, model = small_faster_rcnn().eval(), small_faster_rcnn().eval()
    patch(model)
    assert "postprocess_detections" not in vars(model.roi_heads)
    images, _ = batch()
    attached(model).override(model.roi_heads, "postprocess_detections", "postprocess_detections")
    with torch.no_grad():
        for a, b in zip(stock(images), model(images), strict=True):
            assert len(a["boxes"])
            torch.testing.assert_close(b, a)


class Confident(SoftmaxLoss):
    """Somebody's loss with a softmax's columns and other scores."""

    def score_logits(self, logits):
        return super().score_logits(logits) + 1


@pytest.mark.parametrize("loss", ["softmax", "bce", "qfl", "ghm", Confident()], ids=str)
def test_scores__are_those_that_the_loss_trains(loss):
    model = small_faster_rcnn().eval()
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.zero_()
        model.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([2.0, -3.0, 1.0, -3.0, -3.0]))
    criterion = patch(model, loss)
    images, _ = batch()
    with torch.no_grad():
        found = model(images)
    own = [d for d in found if (d["labels"] == 2).any()]
    logits = torch.tensor([[-3.0, 1.0, -3.0, -3.0, 2.0]])[:, : NUM_CLASSES + criterion.loss.extra_logits]
    expected = criterion.loss.score_logits(logits).sigmoid()[0]
    assert own
    for d in own:
        assert set(d["labels"].tolist()) <= {1, 2, 3, 4}  # never background
        torch.testing.assert_close(d["scores"], expected[d["labels"] - 1])


def test_unpatch__of_a_loss_of_other_scores_warns_once_it_was_trained(recwarn):
    model = small_faster_rcnn()
    images, targets = batch()
    for loss, trained in (("focal", False), ("softmax", True), ("ghm", True)):
        patch(model, "focal" if loss == "softmax" else "softmax")
        patch(model, loss)  # in place of the one before, which is no matter
        patch(model, "bce", stage="rpn")
        if trained:
            model(images, targets)
        assert not recwarn.list
        if loss == "ghm":
            with pytest.warns(
                UserWarning, match=r"FasterRCNN was trained with GHMLoss.*computes scores with a softmax.*patch"
            ):
                unpatch(model)
        unpatch(model)


def bias_is_of_prior(adapter, stage, criterion, prior):
    bias = adapter.class_bias(stage)
    return torch.equal(bias, criterion.loss.prior_bias(criterion.num_classes, prior).expand_as(bias))


def test_prior__of_a_loss_without_a_column_of_background():
    model = small_faster_rcnn()
    criterion = patch(model, "focal", prior=0.01)
    assert bias_is_of_prior(attached(model), "roi", criterion, 0.01)
    layer = model.roi_heads.box_predictor.cls_score
    torch.testing.assert_close(layer.bias, torch.tensor([0.0] + [-4.59512] * NUM_CLASSES))
    assert not layer.weight[0].any()
    before = layer.weight.detach().clone()
    images, targets = batch()
    sum(model(images, targets).values()).backward()
    assert not layer.weight.grad[0].any()
    assert not layer.bias.grad[0].any()
    assert torch.equal(layer.weight, before)


def test_prior__of_a_softmax_and_of_the_proposal_network():
    model = small_faster_rcnn()
    layer = model.roi_heads.box_predictor.cls_score
    weight = layer.weight.detach().clone()
    patch(model, prior=0.04)
    torch.testing.assert_close(layer.bias.softmax(0), torch.tensor([0.96] + [0.01] * NUM_CLASSES))
    assert torch.equal(layer.weight, weight)
    assert bias_is_of_prior(attached(model), "roi", attached(model).criteria["roi"], 0.04)
    criterion = patch(model, "focal", stage="rpn", prior=0.1)
    assert bias_is_of_prior(attached(model), "rpn", criterion, 0.1)
    torch.testing.assert_close(model.rpn.head.cls_logits.bias.sigmoid(), torch.full((4,), 0.1))
    model.roi_heads.box_predictor.cls_score.bias = None
    with pytest.raises(UsageError, match="the bias of its classifier cannot be set"):
        patch(model, prior=0.04)
    with pytest.raises(UsageError, match="the bias of its classifier cannot be read"):
        attached(model).class_bias("roi")


class Cascade(nn.Module):
    """RoI heads of another kind."""


class WithoutSampling(RoIHeads):
    def select_training_samples(self, *args):
        raise AssertionError

    def forward(self, *args):
        return [], {"loss_classifier": torch.zeros(()), "loss_box_reg": torch.zeros(())}


class OtherTerms(RoIHeads):
    def forward(self, *args):
        found, terms = super().forward(*args)
        return found, {f"cascade_{name}": term for name, term in terms.items()}


class OwnLoss(RegionProposalNetwork):
    def forward(self, *args):
        training, self.training = self.training, False
        proposals, terms = super().forward(*args)
        self.training = training
        return proposals, {**terms, "loss_objectness": torch.zeros(())}


def refused_predictor(model):
    model.roi_heads.box_predictor = nn.Linear(16, 5)


def refused_heads(model):
    model.roi_heads = Cascade()


class OwnDetections(RoIHeads):
    def postprocess_detections(self, *args):
        return super().postprocess_detections(*args)


def own_detections(model):
    model.roi_heads.__class__ = OwnDetections


def test_patch__heads_with_detections_of_their_own_keep_them_with_a_softmax():
    model = small_faster_rcnn().eval()
    own_detections(model)
    patch(model)
    assert "postprocess_detections" not in vars(model.roi_heads)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (None, {"loss": "seesaw"}, "SeesawLoss needs 2 columns besides those of classes, but FasterRCNN has one"),
        (None, {"loss": "softmax", "stage": "rpn"}, "SoftmaxLoss needs columns.*objectness only.*such as bce"),
        (None, {"assigner": "atss"}, r"FasterRCNN matches .* itself \(stage 'roi'\), and ATSSAssigner"),
        (
            None,
            {"weighters": ["cleanliness"], "loss": "focal", "stage": "rpn"},
            "TopNAssigner of CleanlinessWeighter cannot",
        ),
        (None, {"loss": "eql"}, "counts"),
        (None, {"loss": "eql", "class_counts": COUNTS, "stage": "rpn"}, "class_counts has 4 classes.*head has 1"),
        (None, {"stage": "box"}, "roi.*rpn"),
        (refused_predictor, {}, "Linear has no layer cls_score with out_features"),
        (
            own_detections,
            {"loss": "ghm"},
            r"OwnDetections has its own postprocess_detections.*GHMLoss trains other scores",
        ),
        (refused_heads, {}, r"FasterRCNN.roi_heads is a Cascade without select_training_samples.*stage 'roi'"),
    ],
)
def test_patch__what_does_not_fit_is_refused_and_changes_nothing(change, arguments, message):
    model = small_faster_rcnn()
    if change is not None:
        change(model)
    with pytest.raises(UsageError, match=message):
        patch(model, **arguments)
    assert attached(model) is None
    assert not any(name in vars(model.rpn) for name in ("compute_loss", "assign_targets_to_anchors"))


@pytest.mark.parametrize(
    ("part", "kind", "message"),
    [
        ("roi_heads", WithoutSampling, "WithoutSampling does not call select_training_samples"),
        ("roi_heads", OtherTerms, "OtherTerms has the loss terms cascade_loss_classifier.*without loss_box_reg and"),
        ("rpn", OwnLoss, "OwnLoss does not call compute_loss"),
    ],
)
def test_faster_rcnn__a_loss_that_could_not_be_replaced_is_an_error(part, kind, message):
    model = small_faster_rcnn()
    getattr(model, part).__class__ = kind
    for stage in ("roi", "rpn"):
        patch(model, stage=stage)
    with pytest.raises(UsageError, match=message):
        model(*batch())


def test_faster_rcnn__a_predictor_that_comes_later_is_an_error_until_the_model_is_patched_again():
    model = small_faster_rcnn()
    patch(model)
    model.roi_heads.box_predictor = FastRCNNPredictor(16, 7)
    images, targets = batch()
    with pytest.raises(UsageError, match=r"FastRCNNPredictor replaced another.*patch the model again"):
        model(images, targets)
    assert patch(model).num_classes == 6
    assert model(images, targets)["loss_classifier"].isfinite()


@pytest.mark.parametrize("swapped", [(), ("roi",), ("rpn",), ("roi", "rpn")], ids=str)
def test_losses_and_detections__of_an_evaluation(swapped):
    model = small_faster_rcnn(MaskRCNN, mask_roi_pool=MultiScaleRoIAlign(["a", "b"], 4, 2))
    for stage in swapped:
        patch(model, "ghm", stage=stage)
    images, targets = batch()
    for target in targets:
        target["masks"] = torch.ones(len(target["boxes"]), 64, 64, dtype=torch.uint8)
    model.eval()
    passes = []
    model.backbone.register_forward_hook(lambda *args: passes.append("backbone"))
    model.rpn.register_forward_hook(lambda *args: passes.append("rpn"))
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    adapter = find_detector(model)
    with torch.no_grad():
        expected = model(images)
        passes.clear()
        terms, found = adapter.losses_and_detections(images, targets)
        assert passes == ["backbone", "rpn"]
        torch.manual_seed(7)
        again, _ = adapter.losses_and_detections(images, targets)
    own = ["loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"]
    assert list(terms) == own
    assert all(term.isfinite() for term in terms.values())
    assert terms == again
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert not any(m.training for m in model.modules())
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before


def test_losses_and_detections__losses_are_those_of_training_where_nothing_is_drawn_by_chance():
    model = small_faster_rcnn(drawn=(10**6, 10**6), proposals=30, rpn_post_nms_top_n_test=30)
    for stage in ("roi", "rpn"):
        patch(model, stage=stage)
    images, targets = batch()
    with torch.no_grad():
        expected = model(images, targets)
        terms, _ = attached(model.eval()).losses_and_detections(images, targets)
    torch.testing.assert_close(terms, expected)


def test_losses_and_detections__draw_nothing_from_the_random_stream_of_training():
    model = small_faster_rcnn().eval()
    patch(model)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    attached(model).losses_and_detections(*batch())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stage", ["roi", "rpn"])
@pytest.mark.parametrize("loss", LOSSES.points)
def test_losses__train_a_stage_or_are_refused(loss, stage):
    model = small_faster_rcnn()
    counts = COUNTS if stage == "roi" else [7.0]
    fits = {"roi": 1, "rpn": 0}[stage]
    if LOSSES.load(loss).extra_logits > fits:
        with pytest.raises(UsageError):
            patch(model, loss, stage=stage)
        return
    criterion = patch(model, loss, stage=stage, class_counts=counts)
    for objects in ((2, 0, 5), (0, 0)):
        images, targets = batch(objects)
        terms = model(images, targets)
        sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert gradients(model).isfinite().all()
    assert criterion.step == 2


@pytest.mark.parametrize("stage", ["roi", "rpn"])
@pytest.mark.parametrize(
    "parts",
    [
        *((box_loss, ()) for box_loss in BOX_LOSSES.points if box_loss != "dfl"),
        *(("l1", (weighter,)) for weighter in WEIGHTERS.points if weighter != "dw"),
    ],
    ids=str,
)
def test_box_losses_and_weighters__train_a_stage(parts, stage):
    box_loss, weighters = parts
    if weighters == ("cleanliness",):
        weighters = [{"class_path": "cleanliness", "init_args": {"candidates": 0}}]  # matching is the detector's
    model = small_faster_rcnn()
    counts = COUNTS if stage == "roi" else [7.0]
    patch(model, "focal", box_loss, weighters, stage=stage, class_counts=counts)
    for objects in ((2, 0, 5), (0, 0)):
        terms = model(*batch(objects))
        sum(terms.values()).backward()
        assert all(term.isfinite() for term in terms.values())
    assert gradients(model).isfinite().all()


def test_swap_loss__callbacks_of_both_stages_join_and_keep_their_states_apart():
    module, images, targets = Foreign(small_faster_rcnn()), *batch()
    callbacks = [SwapLoss("eql_v2"), SwapLoss("ghm", stage="rpn")]
    trainer = SimpleNamespace(datamodule=SimpleNamespace(class_counts=COUNTS))
    for callback in callbacks:
        callback.setup(trainer, module, "fit")
    roi, rpn = (callback.criterion for callback in callbacks)
    assert attached(module).criteria == {"roi": roi, "rpn": rpn}
    assert rpn.class_counts is None  # the network has one class
    assert roi.class_counts is COUNTS
    module.net(images, targets)
    assert [roi.step, rpn.step] == [1, 1]
    states = {callback.state_key: copy.deepcopy(callback.state_dict()) for callback in callbacks}
    assert len(states) == 2
    with pytest.warns(UserWarning, match="EqualizationLossV2"):
        callbacks[0].teardown(trainer, module, "fit")
    callbacks[1].teardown(trainer, module, "fit")
    assert attached(module) is None

    later = Foreign(small_faster_rcnn())
    resumed = [SwapLoss("ghm", stage="rpn"), SwapLoss("eql_v2")]  # in another order
    for callback in resumed:
        callback.load_state_dict(states[callback.state_key])
        callback.setup(trainer, later, "fit")
    assert [c.criterion.step for c in resumed] == [1, 1]
    for callback in resumed:
        torch.testing.assert_close(callback.state_dict()["criterion"], states[callback.state_key]["criterion"])
    for callback in callbacks:  # the same callbacks in another run, as of trainer.test
        callback.setup(trainer, module, "test")
    assert attached(module).criteria == {"roi": roi, "rpn": rpn}


def test_roi_forward__skips_torchvisions_loss_in_this_model_only(monkeypatch):
    calls = []
    own = roi_heads.fastrcnn_loss
    monkeypatch.setattr(roi_heads, "fastrcnn_loss", lambda *args: calls.append(args) or own(*args))
    images, targets = random_batch(first_label=1)
    patched, stock = small_faster_rcnn(), small_faster_rcnn()
    patch(patched, stage="roi")
    copied = pickle.loads(pickle.dumps(copy.deepcopy(patched)))
    for model in (patched, copied):
        terms = model(images, copy.deepcopy(targets))
        assert terms["loss_classifier"] > 0
        assert not calls
    stock(images, copy.deepcopy(targets))
    assert len(calls) == 1
    unpatch(patched)
    assert "forward" not in vars(patched.roi_heads)
    patched(images, copy.deepcopy(targets))
    assert len(calls) == 2


class OwnForward(RoIHeads):
    def forward(self, *args):
        return super().forward(*args)


def test_roi_forward__heads_with_a_forward_of_their_own_keep_it():
    images, targets = random_batch(first_label=1)
    results = []
    for own in (False, True):
        model = small_faster_rcnn()
        if own:
            model.roi_heads.__class__ = OwnForward
        patch(model, stage="roi")
        assert ("forward" in vars(model.roi_heads)) is not own
        torch.manual_seed(5)
        results.append(model(images, copy.deepcopy(targets)))
    torch.testing.assert_close(results[1], results[0])
