"""Box losses with outputs of their own: heads of another width, and what reads their boxes."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetRegressionHead
from torchvision.ops import clip_boxes_to_image

from lit_dense.box_losses import BoxLoss
from lit_dense.box_losses.dfl_loss import DFLLoss
from lit_dense.core.errors import UsageError
from lit_dense.detectors import attached, find_detector, patch, set_box_outputs, unpatch
from tests.builders.data_parallel import SPLITS, assert_equal_training, share_of, train_three_steps, weighted
from tests.builders.detectors import (
    COUNTS,
    Boxes,
    padded_batch,
    random_batch,
    small_faster_rcnn,
    small_fcos,
    small_retinanet,
    small_ssd,
    terms_and_gradients,
)
from tests.builders.samples import seen_by

MODELS = {"retinanet": small_retinanet, "fcos": small_fcos}
of_both = pytest.mark.parametrize("name", MODELS)


def patched(name, **parts):
    model = MODELS[name](**({"num_classes": 6} if parts.get("loss") == "seesaw" else {}))
    set_box_outputs(model, "dfl")
    for module in model.head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.2)  # scores and boxes of all sizes
    layer = model.head.regression_head.bbox_reg
    layer.bias.data = -0.5 * torch.arange(17.0).repeat(layer.out_channels // 17)  # small distances: boxes in the image
    patch(model, **{"box_loss": "dfl", "class_counts": COUNTS, **parts})
    return model


def predicting(name, distances):
    """A model that predicts the same distances in strides at every anchor."""
    model = patched(name, loss="bce")
    layer, coder = model.head.regression_head.bbox_reg, DFLLoss().box_coder
    bias = coder.outputs_of(torch.tensor([distances]))
    nn.init.zeros_(layer.weight)
    layer.bias.data = bias.repeat(1, layer.out_channels // 68).flatten()
    return model


def boxes_at(model, distances, shape=(64, 64)):
    """The clipped boxes at these distances from the anchors' centres, in strides of 8 and 16 [K, 4]."""
    adapter = attached(model)
    images, _ = model.transform([torch.zeros(3, *shape)])
    anchors = model.anchor_generator(images, adapter.features(images.tensors))[0]
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    per_cell = len(anchors) // 80
    strides = torch.tensor([8.0] * 64 + [16.0] * 16).repeat_interleave(per_cell).unsqueeze(1)
    left_top, right_bottom = (torch.tensor(distances[at]) * strides for at in (slice(2), slice(2, 4)))
    return clip_boxes_to_image(torch.cat([centres - left_top, centres + right_bottom], 1), shape)


@of_both
def test_box_outputs__boxes_of_training_evaluation_and_prediction_are_those_of_the_expected_distances(name):
    distances = [1.0, 0.5, 2.25, 1.5]
    model = predicting(name, distances)
    expected = boxes_at(model, distances)
    images, targets = random_batch((2, 0))
    seen = seen_by(attached(model).criteria[""])
    model.train()(images, targets)
    samples = seen[0]
    positives = samples.positives % len(expected)
    clipped = clip_boxes_to_image(samples.pos_boxes, (64, 64))
    torch.testing.assert_close(clipped, expected[positives], rtol=0, atol=1e-4)
    assert samples.deltas.shape == (2 * len(expected), 68)
    model.score_thresh, model.detections_per_img, model.nms_thresh = 0.0, 10**6, 1.0
    with torch.no_grad():
        found = model.eval()(images)
        _, again = attached(model).losses_and_detections(images, targets)
    for detections in (found, again):
        for of_image in detections:
            assert len(of_image["boxes"]) > 40
            apart = (of_image["boxes"][:, None] - expected).abs().amax(2).amin(1)
            assert apart.max() < 1e-3


@of_both
def test_box_outputs__evaluation_and_prediction_agree(name):
    model = patched(name, loss="bce")
    images, targets = padded_batch()
    model.score_thresh, model.nms_thresh = 0.0, 0.9
    with torch.no_grad():
        found = model.eval()(images)
        _, again = attached(model).losses_and_detections(images, targets)
    assert min(len(d["boxes"]) for d in found) > 10
    torch.testing.assert_close(found, again)


@pytest.mark.fast_paths
def test_retinanet__fast_methods_give_the_results_of_the_slow_ones(monkeypatch):
    fast = patched("retinanet", loss="bce")
    monkeypatch.setattr("lit_dense.detectors.retinanet.RetinaNetAdapter.accelerate", lambda adapter: None)
    monkeypatch.setattr("lit_dense.detectors.retinanet.fast_methods.records_graph", lambda: True)
    slow = patched("retinanet", loss="bce")
    (expected, slopes), (terms, own) = (terms_and_gradients(model, random_batch()) for model in (slow, fast))
    torch.testing.assert_close(terms, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(own, slopes, rtol=1e-4, atol=1e-6)
    slow.nms_thresh = fast.nms_thresh = 0.9
    slow.score_thresh = fast.score_thresh = 0.0
    with torch.no_grad():
        theirs = slow.eval()(padded_batch()[0])
        monkeypatch.undo()
        mine = fast.eval()(padded_batch()[0])
    assert min(len(d["boxes"]) for d in mine) > 10
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)


@of_both
def test_box_outputs__a_traced_detector_decodes_them(name):
    model = patched(name, loss="bce").eval()
    model.score_thresh, model.nms_thresh = 0.0, 0.9
    image, other = random_batch((0, 0))[0]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Boxes(model), (image,), check_trace=False)(other)
        expected = Boxes(model)(other)
    assert len(expected[0]) > 10
    torch.testing.assert_close(traced, expected, rtol=1e-4, atol=1e-3)


class Reversed(RetinaNet):
    """A detector with post-processing of its own, which reads deltas."""

    def postprocess_detections(self, head_outputs, anchors, image_shapes):
        assert all(level.shape[-1] == 4 for level in head_outputs["bbox_regression"])
        found = super().postprocess_detections(head_outputs, anchors, image_shapes)
        return [{name: values.flip(0) for name, values in d.items()} for d in found]


def test_retinanet__post_processing_of_a_subclass_gets_deltas():
    model, own = patched("retinanet", loss="bce"), small_retinanet()
    own.__class__ = Reversed
    set_box_outputs(own, "dfl")
    own.load_state_dict(model.state_dict())
    patch(own, "bce", "dfl")
    with torch.no_grad():
        expected, found = model.eval()(padded_batch()[0]), own.eval()(padded_batch()[0])
    flipped = [{name: values.flip(0) for name, values in d.items()} for d in found]
    torch.testing.assert_close(flipped, expected, rtol=1e-4, atol=1e-3)


@of_both
@pytest.mark.parametrize(
    "parts",
    [
        {"loss": "qfl"},
        {"loss": "vfl", "assigner": "atss"},
        {"loss": "qfl", "assigner": "tal"},
        {"loss": "qfl", "assigner": "simota"},
        {"loss": "focal", "assigner": "paa"},
        {"loss": "bce", "weighters": "pisa"},
        {"loss": "bce", "weighters": ["harmonic", "iou_balanced"]},
        {"loss": "bce", "weighters": "cleanliness"},
        {"loss": "seesaw", "weighters": "swn"},
        {"loss": "rs"},
        {"loss": "alrp"},
        {"loss": "focal", "box_loss": {"class_path": "dfl", "init_args": {"iou_loss": "wiou"}}},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*counts twice")
def test_box_outputs__parts_that_see_boxes_train(name, parts):
    model = patched(name, **parts)
    for counts in ((2, 0, 5), (0, 0)):
        terms, slopes = terms_and_gradients(model, random_batch(counts))
        assert all(term.isfinite() for term in terms.values())
        assert slopes.isfinite().all()
        assert (terms["bbox_regression"] > 0) == (counts == (2, 0, 5))
    assert model.head.regression_head.bbox_reg.weight.grad.shape[0] % 68 == 0


@of_both
def test_box_outputs__copies_and_pickles_have_their_own_adapter(name):
    model = patched(name)
    expected = terms_and_gradients(model, random_batch())[0]
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        patched_criterion = attached(copied).criteria[""]
        assert patched_criterion is not attached(model).criteria[""]
        torch.testing.assert_close(terms_and_gradients(copied, random_batch())[0], expected)


@of_both
def test_unpatch__warns_that_the_head_keeps_its_outputs(name):
    model = patched(name)
    with pytest.warns(UserWarning, match=r"The head of \w+ gives 68 outputs for a box, which only DFLLoss reads"):
        unpatch(model)
    assert "postprocess_detections" not in vars(model)
    assert "forward" not in vars(model.head.regression_head)
    with pytest.raises(
        UsageError, match=r"Loss needs 4 outputs .* but the head of \w+ gives 68: call .*set_box_outputs"
    ):
        patch(model)
    set_box_outputs(model, "giou")
    patch(model)
    terms_and_gradients(model, random_batch())


@of_both
def test_patch__a_head_of_four_outputs_is_refused_with_the_cure(name):
    model = MODELS[name]()
    with pytest.raises(
        UsageError, match=r"DFLLoss needs 68 outputs for the box of an anchor, but .* gives 4: call lit_dense"
    ):
        patch(model, box_loss="dfl")
    patch(model)
    with pytest.raises(UsageError, match=r"is patched with a box loss of 4 outputs: call lit_dense.unpatch\(model\)"):
        set_box_outputs(model, "dfl")
    unpatch(model)
    before = model.head.regression_head.bbox_reg
    set_box_outputs(model, "ciou")
    assert model.head.regression_head.bbox_reg is before
    keys = model.state_dict().keys()
    set_box_outputs(model, {"class_path": "dfl", "init_args": {"reg_max": 7}})
    assert model.state_dict().keys() == keys
    assert find_detector(model).box_outputs("") == 32


def test_patch__scripting_is_refused_with_the_reason():
    with pytest.raises(UsageError, match="DFLLoss has box outputs that only a patched model reads, so use"):
        torch.jit.script(patched("retinanet"))


class OwnTower(RetinaNetRegressionHead):
    """A regression head with a forward of its own."""

    def forward(self, x):
        return super().forward(x) * 1


@pytest.mark.parametrize(
    ("make", "stage"),
    [
        (small_ssd, None),
        (small_faster_rcnn, "roi"),
        (small_faster_rcnn, "rpn"),
        (lambda: own_tower(), None),
    ],
)
def test_box_outputs__other_heads_refuse(make, stage):
    model = make()
    said = r"DFLLoss needs 68 outputs .* but the head of \w+( \(stage '\w+'\))? gives 4: take another box loss"
    with pytest.raises(UsageError, match=said):
        patch(model, box_loss="dfl", stage=stage)
    with pytest.raises(UsageError, match="the outputs of its regression head cannot be changed"):
        set_box_outputs(model, "dfl", stage)


def own_tower():
    model = small_retinanet()
    model.head.regression_head = OwnTower(8, 4)
    return model


class Shifted(BoxLoss):
    """Six outputs: four deltas from the cell in units of its side, and two that are not used."""

    box_outputs = 6

    class Coder:
        def encode_single(self, reference_boxes, proposals):
            return (reference_boxes - proposals) / (proposals[:, 2:] - proposals[:, :2]).repeat(1, 2)

        def decode_single(self, rel_codes, boxes):
            return boxes + rel_codes[:, :4] * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)

        def outputs_of(self, deltas):
            return torch.cat([deltas, deltas[:, :2]], 1)

    box_coder = Coder()

    def forward(self, predicted, target, samples):
        return (predicted[:, :4] - target).abs() + 0 * predicted[:, 4:].sum()


@of_both
def test_box_outputs__a_box_loss_of_somebody_else(name):
    model = MODELS[name]()
    set_box_outputs(model, Shifted())
    assert model.head.regression_head.bbox_reg.out_channels % 6 == 0
    patch(model, "focal", Shifted())
    terms_and_gradients(model, random_batch())
    with torch.no_grad():
        model.eval()(random_batch()[0])


class Relative(Shifted):
    """Four outputs that are no deltas of the detector."""

    box_outputs = 4


def test_box_outputs__a_coder_of_its_own_is_refused_where_it_would_not_be_used():
    for make in (small_ssd, small_faster_rcnn, own_tower):
        with pytest.raises(UsageError, match=r"Relative needs 4 outputs .* gives 4, which are deltas: take another"):
            patch(make(), box_loss=Relative())
    model = small_fcos()
    patch(model, box_loss=Relative())
    terms_and_gradients(model, random_batch())


def _train(name, share):
    model = patched(
        name, loss="bce", weighters="pisa", box_loss={"class_path": "dfl", "init_args": {"iou_loss": "wiou"}}
    )
    return train_three_steps(model, share, attached(model).criteria[""])


def _share_of(rank, name, split):
    return _train(name, share_of(rank, SPLITS[split], *weighted(*random_batch(sum(SPLITS[split], ())))))


@pytest.mark.ddp
@pytest.mark.parametrize("split", SPLITS)
@of_both
def test_box_outputs__gradients_of_two_processes_are_those_of_one(two_processes, name, split):
    expected, state = _train(name, weighted(*random_batch(sum(SPLITS[split], ()))))
    assert_equal_training(two_processes(_share_of, name, split), expected, state, norm=math.inf)
