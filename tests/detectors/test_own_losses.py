"""Subclasses of torchvision's detectors that compute something themselves are trained as asked, or refused."""

import warnings

import pytest
import torch
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.retinanet import RetinaNetClassificationHead

from lit_dense.core.errors import UsageError
from lit_dense.detectors import patch
from tests.builders.detectors import random_batch, small_fcos, small_retinanet, small_ssd


def of_class(model, kind):
    model.__class__ = kind
    return model


@pytest.mark.parametrize(("build", "base"), [(small_retinanet, RetinaNet), (small_fcos, FCOS)])
def test_patch__a_detector_that_passes_the_head_by_is_refused_in_training(build, base):
    class Own(base):
        def compute_loss(self, targets, head_outputs, anchors, *rest):
            return {"classification": head_outputs["cls_logits"].square().mean()}

    patch(model := of_class(build(), Own), "ghm")
    with pytest.raises(UsageError, match=r"Own computes its training loss without calling .*Head.compute_loss"):
        model(*random_batch((2, 1)))
    model.eval()(random_batch((2, 1))[0])


def test_patch__a_loss_of_a_subclass_is_replaced_with_a_warning_only_if_it_is_not_named():
    class Thrice(RetinaNetClassificationHead):
        def compute_loss(self, targets, head_outputs, matched_idxs):
            return 3 * super().compute_loss(targets, head_outputs, matched_idxs)

    for given, warned in (({}, True), ({"box_loss": "giou"}, True), ({"loss": "focal"}, False)):
        model = small_retinanet()
        model.head.classification_head.__class__ = Thrice
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            patch(model, **given)
        said = [str(w.message) for w in caught if "Thrice has its own compute_loss" in str(w.message)]
        assert bool(said) == warned
        assert all("torchvision's loss (focal)" in message for message in said)


def test_patch__a_regression_head_with_another_box_coder_is_refused():
    model = small_retinanet()
    model.head.regression_head.box_coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    with pytest.raises(UsageError, match=r"weights \(10.0, 10.0, 5.0, 5.0\) and that of the detector \(1.0"):
        patch(model)
    model.box_coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    batch, stock = random_batch((2, 1)), model(*random_batch((2, 1)))
    patch(model)
    torch.testing.assert_close(model(*batch), stock)


@pytest.mark.parametrize("build", [small_retinanet, small_fcos])
def test_patch__a_head_in_eval_mode_computes_the_same_loss(build):
    model = build()
    patch(model, calibrator={"class_path": "temperature", "init_args": {"temperature": 3.0}})
    whole = model(*random_batch((2, 1)))
    model.head.eval()
    torch.testing.assert_close(model(*random_batch((2, 1))), whole)


def test_patch__a_forward_with_other_arguments_is_not_checked_as_torchvisions():
    class Batched(RetinaNet):
        def forward(self, batch):
            images, targets = batch
            return super().forward(images, [{"boxes": t["bbox"], "labels": t["labels"]} for t in targets])

    images, targets = random_batch((2, 1))
    stock = small_retinanet()(images, targets)
    model = of_class(small_retinanet(), Batched)
    patch(model)
    renamed = [{"bbox": target["boxes"], "labels": target["labels"]} for target in targets]
    torch.testing.assert_close(model((images, renamed)), stock)
    with pytest.raises(UsageError, match="label"):
        model((images, [{"bbox": t["bbox"], "labels": t["labels"].float() + 0.5} for t in renamed]))


def test_patch__terms_have_the_order_of_torchvision():
    for build in (small_retinanet, small_fcos, small_ssd):
        batch = random_batch((2, 1), first_label=int(build is small_ssd))
        own = list(build()(*batch))
        patch(model := build())
        assert list(model(*batch)) == own
