import warnings

import pytest
import torch
from torch import nn
from torchvision.models.detection.ssd import SSD

from lit_dense.assigners import Assigner, ATSSAssigner
from lit_dense.core.errors import UsageError
from lit_dense.detectors import find_detector, patch, unpatch
from tests.builders.assignment import atss_with_loops
from tests.builders.detectors import random_batch, small_fcos, small_ssd, small_ssdlite, terms_and_gradients
from tests.builders.samples import seen_by

MAKE = [small_ssd, small_ssdlite]


def batch_of(counts=(2, 0, 5)):
    return random_batch(counts, first_label=1)


def classifiers(model):
    """The layers that give the class logits of each level."""
    return [m if isinstance(m, nn.Conv2d) else m[-1] for m in model.head.classification_head.module_list]


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("counts", [(2, 0, 5), (0, 0), (1,), (9, 3)])
def test_ssd__the_stock_loss_is_reproduced(make, counts):
    stock, patched = make(), make()
    patch(patched)
    (expected, slopes), (terms, own) = (terms_and_gradients(model, batch_of(counts)) for model in (stock, patched))
    assert terms.keys() == {"classification", "bbox_regression"} == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-6, atol=1e-9)
    assert (own - slopes).abs().max() <= 2e-6 * slopes.abs().max()


@pytest.mark.parametrize("ratio", [1.0, 2.5])
def test_ssd__the_ratio_of_negatives_is_the_detectors(ratio):
    stock, patched = small_ssd(), small_ssd()
    for model in (stock, patched):
        model.neg_to_pos_ratio = ratio
    patch(patched)
    own, expected = (terms_and_gradients(model, batch_of()) for model in (patched, stock))
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-7)


def test_ssd__a_named_loss_comes_without_the_mining():
    model = small_ssd()
    assert not patch(model, "softmax").weighters
    assert len(patch(model).weighters) == 1


@pytest.mark.parametrize("make", MAKE)
def test_ssd__losses_of_single_logits_do_not_read_the_background_column(make):
    model = make()
    patch(model, "focal")
    terms_and_gradients(model, batch_of())
    for layer in classifiers(model):
        slopes = layer.weight.grad.view(-1, 5, *layer.weight.shape[1:])
        assert not slopes[:, 0].any()
        assert slopes[:, 1:].any(0).any()


def test_ssd__own_post_processing_gives_torchvisions_detections_of_the_same_scores():
    model = small_ssd().eval()
    images, _ = batch_of()
    expected = model(images)
    patch(model, "softmax")
    adapter = find_detector(model)
    assert "postprocess_detections" not in vars(model)
    adapter.override(model, "postprocess_detections", "postprocess_detections")
    found = model(images)
    assert sum(len(d["scores"]) for d in found) > 50
    for own, stock in zip(found, expected, strict=True):
        torch.testing.assert_close(own, stock)


@pytest.mark.parametrize("make", MAKE)
def test_ssd__scores_are_those_of_the_loss(make):
    model = make().eval()
    criterion = patch(model, "bce")
    raw = {}
    model.head.register_forward_hook(lambda head, args, out: raw.update(out))
    found = model(batch_of()[0])
    scores = raw["cls_logits"][..., 1:].sigmoid()
    assert (scores.sum(-1) > 1.2).any()  # which no softmax gives
    for image, detections in enumerate(found):
        assert len(detections["scores"]) > 20
        assert torch.equal(detections["scores"], detections["scores"].sort(descending=True).values)
        assert detections["labels"].min() >= 1
        assert detections["labels"].max() <= criterion.num_classes
        for score, label in zip(detections["scores"], detections["labels"], strict=True):
            assert (scores[image, :, label - 1] - score).abs().min() < 1e-6


def test_ssd__detections_obey_the_detectors_limits():
    model = small_ssd().eval()
    model.score_thresh, model.topk_candidates, model.detections_per_img = 0.6, 3, 7
    patch(model, "bce")
    for detections in model(batch_of()[0]):
        assert len(detections["scores"]) <= 7
        assert detections["scores"].min() > 0.6
        assert detections["labels"].bincount().max() <= 3
    model.score_thresh = 1.0
    assert [len(d["boxes"]) for d in model(batch_of()[0])] == [0, 0, 0]


@pytest.mark.parametrize("loss", [None, "softmax", "focal"])
def test_losses_and_detections__of_one_pass(loss):
    model, same = small_ssd(), small_ssd()
    for each in (model, same):
        patch(each, loss)
    expected, _ = terms_and_gradients(same, batch_of())
    with torch.no_grad():
        terms, found = find_detector(model.eval()).losses_and_detections(*batch_of())
        expected_detections = same.eval()(batch_of()[0])
    if loss is None:  # mining is left out of evaluation, as all weighters
        expected.pop("classification")
        terms.pop("classification")
    torch.testing.assert_close(terms, expected)
    for own, other in zip(found, expected_detections, strict=True):
        torch.testing.assert_close(own, other)


def test_ssd__two_columns_besides_the_classes_are_refused():
    model = small_ssd()
    with pytest.raises(UsageError, match=r"SeesawLoss needs 2 columns besides those of classes, but SSD has one"):
        patch(model, "seesaw")
    assert "compute_loss" not in vars(model)


@pytest.mark.parametrize("make", MAKE)
def test_prior__goes_to_the_right_columns(make):
    model = make()
    patch(model, "focal", prior=0.1)
    for layer in classifiers(model):
        bias = layer.bias.view(-1, 5)
        torch.testing.assert_close(bias, torch.tensor([0.0] + [-2.19722] * 4).expand_as(bias))
        weight = layer.weight.view(-1, 5, *layer.weight.shape[1:])
        assert not weight[:, 0].any()
        assert weight[:, 1:].any()
    model = make()
    patch(model, "softmax", prior=0.1)
    for layer in classifiers(model):
        scores = layer.bias.view(-1, 5).softmax(1)
        torch.testing.assert_close(scores[:, 1:].sum(1), torch.full((len(scores),), 0.1))
        assert layer.weight.view(-1, 5, *layer.weight.shape[1:])[:, 0].any()


@pytest.mark.parametrize("make", [small_ssd, small_fcos])
def test_prior__a_classifier_without_bias_is_an_error(make):
    model = make()
    head = model.head.classification_head
    for layer in [head.cls_logits] if make is small_fcos else head.module_list:
        layer.bias = None
    with pytest.raises(UsageError, match="the bias of its classifier cannot be set"):
        patch(model, "focal", prior=0.1)


def test_prior__without_one_biases_stay():
    stock, model = small_ssd(), small_ssd()
    patch(model, "focal")
    torch.testing.assert_close(model.state_dict(), stock.state_dict(), rtol=0, atol=0)


def test_unpatch__of_a_trained_loss_warns_where_scores_change():
    model = small_ssd()
    patch(model, "focal")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unpatch(model)  # nothing was trained
        patch(model)
        terms_and_gradients(model, batch_of())
        unpatch(model)  # softmax is what the detector scores by
        patch(model, "focal")
        terms_and_gradients(model, batch_of())
        patch(model, "bce")  # another loss, but none was taken away
    patch(model, "focal")
    terms_and_gradients(model, batch_of())
    message = "SSD was trained with FocalLoss, but its own inference computes scores with a softmax"
    with pytest.warns(UserWarning, match=message):
        unpatch(model)


class OwnDetections(SSD):
    """Somebody's SSD with another suppression."""

    def postprocess_detections(self, head_outputs, image_anchors, image_shapes):
        return super().postprocess_detections(head_outputs, image_anchors, image_shapes)[::-1]


def test_ssd__custom_post_processing_is_kept_or_the_loss_refused():
    model = small_ssd()
    model.__class__ = OwnDetections
    patch(model)
    assert "postprocess_detections" not in vars(model)
    with pytest.raises(UsageError, match=r"OwnDetections has its own postprocess_detections.*FocalLoss"):
        patch(model, "focal")


def test_ssd__a_head_whose_columns_are_unknown_is_named():
    model = small_ssd()
    model.head.classification_head = nn.Identity()
    with pytest.raises(UsageError, match="Identity has no attribute num_columns"):
        patch(model)


@pytest.mark.parametrize(
    ("labels", "hint"), [([0, 1, 2], r"from 0 to 2.*add 1 to each label"), ([1, 2, 5], "labels 1 to 4")]
)
def test_ssd__labels_without_a_class_are_named(labels, hint):
    model = small_ssd()
    patch(model)
    images, targets = batch_of((3,))
    targets[0]["labels"] = torch.tensor(labels)
    with pytest.raises(UsageError, match=hint):
        model(images, targets)


def test_ssd__levels_may_have_different_numbers_of_anchors():
    model = small_ssd()
    found = seen_by(patch(model))
    model(*batch_of())
    samples = found[0]
    assert samples.geometry.anchors_per_cell == [4, 6]
    assert samples.level_idxs.bincount().tolist() == [3 * 64 * 4, 3 * 16 * 6]
    widths = (samples.anchors[:, 2] - samples.anchors[:, 0]).log2()
    assert widths[samples.level_idxs == 1].mean() > widths[samples.level_idxs == 0].mean() + 0.5


class Note(ATSSAssigner):
    """Notes what it is given."""

    def forward(self, image):
        self.seen = image
        return super().forward(image)


def test_assigner__has_classes_from_0_and_scores_of_the_loss():
    model = small_ssd()
    criterion = patch(model, "bce", assigner=Note(number=1))
    samples = seen_by(criterion)
    images, targets = batch_of((4,))
    model(images, targets)
    seen = criterion.assigner.seen
    assert torch.equal(seen.gt_labels, targets[0]["labels"] - 1)
    torch.testing.assert_close(seen.scores, samples[0].logits.sigmoid())
    assert seen.scores.shape == (64 * 4 + 16 * 6, 4)
    nearest_cells = [(0, 256, 4), (256, 352, 6)]  # the candidates are the anchors of the nearest cell of each level
    assert samples[0].matched_idxs.tolist() == atss_with_loops(seen.anchors, seen.gt_boxes, nearest_cells)


class Nothing(Assigner):
    """Matches nothing."""

    def forward(self, image):
        return torch.full((len(image.anchors),), -1)


def test_assigner__takes_the_place_of_the_matcher():
    model = small_ssd()
    patch(model, "bce", assigner=Nothing())
    terms, _ = terms_and_gradients(model, batch_of())
    assert terms["bbox_regression"] == 0
    assert terms["classification"] > 0
