"""RF-DETR's criterion with another class loss; skipped where the package is not installed."""

import copy

import pytest
import torch

pytest.importorskip("rfdetr")

from rfdetr.config import RFDETRNanoConfig, TrainConfig
from rfdetr.models.criterion import SetCriterion
from rfdetr.training import RFDETRModelModule
from rfdetr.utilities.tensors import nested_tensor_from_tensor_list

from lit_dense import patch, unpatch
from lit_dense.core.errors import UsageError
from lit_dense.detectors import find_detector
from lit_dense.testing import check_detector
from tests.builders import rfdetr_models as models
from tests.builders.kit import CHECKS
from tests.builders.samples import seen_by

COUNTS = (2, 0, 4)


def outputs(generator, images=3):
    """What three layers predict."""

    def layer():
        logits = torch.randn(images, models.GROUPS * models.QUERIES, models.CLASSES, generator=generator)
        boxes = torch.randn(images, models.GROUPS * models.QUERIES, 4, generator=generator).sigmoid() * 0.5 + 0.25
        return {"pred_logits": logits.requires_grad_(), "pred_boxes": boxes}

    return {**layer(), "aux_outputs": [layer()], "enc_outputs": layer()}


def batch(counts=COUNTS):
    """Outputs and targets of a batch."""
    generator = torch.Generator().manual_seed(3)
    targets = [
        {
            "labels": torch.randint(models.CLASSES, (n,), generator=generator),
            "boxes": 0.3 + 0.3 * torch.rand(n, 4, generator=generator),
        }
        for n in counts
    ]
    return outputs(generator, len(counts)), targets


def total(criterion, predicted, targets):
    """The weighted sum, and the gradients at all logits."""
    terms = criterion(predicted, targets)
    value = torch.stack([terms[name] * weight for name, weight in criterion.weight_dict.items() if name in terms]).sum()
    layers = [predicted, *predicted["aux_outputs"], predicted["enc_outputs"]]
    return value, torch.stack(torch.autograd.grad(value, [layer["pred_logits"] for layer in layers]))


@pytest.mark.ddp
def test_rfdetr__the_adapter_passes(two_processes):
    own = [models.losses_of, models.detections_of]
    check_detector("rfdetr", models.toy, *own, skip=["combinations"], of_process=["boxes"], two_processes=two_processes)


@pytest.mark.slow
def test_rfdetr__every_combination_of_parts_trains_or_is_refused():
    own = [models.losses_of, models.detections_of]
    check_detector("rfdetr", models.toy, *own, skip=set(CHECKS) - {"combinations"})


@pytest.mark.parametrize("make", [models.focal_toy, models.varifocal_toy])
def test_rfdetr__the_switches_of_the_host_choose_the_default_loss(make):
    skip = set(CHECKS) - {"own_loss", "removal"}
    check_detector("rfdetr", make, models.losses_of, models.detections_of, skip=skip)


@pytest.mark.parametrize("counts", [COUNTS, (0, 0), (3,), (30, 1)])
@pytest.mark.parametrize("training", [True, False])
def test_rfdetr__the_stock_loss_is_reproduced(counts, training):
    criterion = models.criterion().train(training)
    predicted, targets = batch(counts)
    if not training:
        predicted = {name: v[:, : models.QUERIES] if name.startswith("pred") else v for name, v in predicted.items()}
        predicted = {**predicted, "aux_outputs": [], "enc_outputs": dict(predicted)}
    stock, slopes = total(criterion, predicted, targets)
    patch(criterion)
    value, own = total(criterion, predicted, targets)
    torch.testing.assert_close(value, stock, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(own, slopes, rtol=1e-5, atol=1e-7)


def test_rfdetr__the_packages_own_module_trains_as_before(tmp_path):
    config = RFDETRNanoConfig(
        pretrain_weights=None,
        num_classes=4,
        num_queries=20,
        num_select=20,
        group_detr=3,
        resolution=64,
        positional_encoding_size=4,
        device="cpu",
    )
    module = RFDETRModelModule(config, TrainConfig(dataset_dir=str(tmp_path), output_dir=str(tmp_path))).train()
    targets = batch((3, 1))[1]
    images = nested_tensor_from_tensor_list([torch.rand(3, 64, 64), torch.rand(3, 64, 64)])
    keys = list(module.state_dict())

    def step():
        torch.manual_seed(0)
        module.zero_grad()
        terms, weights = module.criterion(module.model(images, targets), targets), module.criterion.weight_dict
        loss = torch.stack([terms[name] * weights[name] for name in terms if name in weights]).sum()
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])

    stock, slopes = step()
    criterion = patch(module)
    loss, own = step()
    torch.testing.assert_close(loss, stock, rtol=1e-6, atol=0)
    assert (own - slopes).abs().max() <= 1e-6 * slopes.abs().max()
    assert criterion.step == 1
    assert list(module.state_dict()) == keys


def test_rfdetr__targets_of_a_fixed_size_are_those_without_their_filling():
    predicted, targets = batch()
    filled = []
    for target in targets:
        n, more = len(target["labels"]), 6 - len(target["labels"])
        filled.append(
            {
                "labels": torch.cat([target["labels"], torch.zeros(more, dtype=torch.long)]),
                "boxes": torch.cat([target["boxes"], torch.full((more, 4), 0.5)]),
                "valid": torch.arange(6) < n,
            }
        )
    criterion = models.criterion()
    stock, slopes = total(criterion, predicted, copy.deepcopy(filled))
    seen = seen_by(patch(criterion))
    value, own = total(criterion, predicted, copy.deepcopy(filled))
    torch.testing.assert_close(value, stock, rtol=1e-6, atol=0)
    torch.testing.assert_close(own, slopes, rtol=1e-5, atol=1e-8)
    assert len(seen[0].gt_labels) == 6 * 3  # the objects of three layers
    assert len(seen[0].positives) == 6 * 3 * models.GROUPS
    unfilled, _ = total(criterion, predicted, targets)
    torch.testing.assert_close(value, unfilled)


def test_rfdetr__the_compiled_path_of_the_host_is_not_taken(monkeypatch):
    criterion = models.criterion()
    criterion.enable_compiled_detection_losses()
    monkeypatch.setattr(SetCriterion, "_can_batch_detection_losses", lambda self, *args: True)
    monkeypatch.setattr(SetCriterion, "_get_batched_detection_losses", lambda self, *args: 1 / 0)
    patch(criterion, "focal")
    assert criterion(*batch())["loss_ce"].isfinite()
    unpatch(criterion)
    assert criterion._compile_batched_detection_losses
    with pytest.raises(ZeroDivisionError):
        criterion(*batch())


def test_rfdetr__terms_that_the_host_does_not_know_enter_the_one_that_it_sums():
    criterion = models.criterion()
    patch(criterion, weighters=["swn"])
    seen = []
    find_detector(criterion).criteria[""].register_forward_hook(lambda module, args, terms: seen.append(terms))
    terms = criterion(*batch())
    assert set(seen[0]) == {"classification", "swn_classification"}
    torch.testing.assert_close(terms["loss_ce"], sum(seen[0].values()))
    assert "loss_bbox_enc" in terms
    assert not {"loss_ce_0", "loss_ce_enc"} & set(terms)


def test_rfdetr__an_error_in_a_step_leaves_get_loss_the_hosts():
    criterion = models.criterion()
    patch(criterion)
    predicted, targets = batch()
    with pytest.raises(KeyError):
        criterion({**predicted, "enc_outputs": {}}, targets)
    matches = [(torch.arange(len(t["labels"])), torch.arange(len(t["labels"]))) for t in targets]
    assert "loss_ce" in criterion.get_loss("labels", predicted, targets, matches, torch.tensor(6.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: setattr(c, "losses", ["labels", "keypoints"]), "trains keypoints"),
        (lambda c: c.weight_dict.update(loss_ce_0=0.5), r"different weights for class losses.*'loss_ce_0': 0.5"),
        (
            lambda c: vars(c).update(ia_bce_loss=False, use_position_supervised_loss=True),
            "use_position_supervised_loss",
        ),
    ],
)
def test_rfdetr__hosts_that_cannot_be_served_are_refused(change, message):
    criterion = models.criterion()
    change(criterion)
    with pytest.raises(UsageError, match=message):
        patch(criterion)
    assert not {"get_loss", "forward", "_lit_dense"} & set(vars(criterion))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"loss": "softmax"},
            "matches and detects by a sigmoid of each class.*SoftmaxLoss trains: name a loss of single",
        ),
        ({"box_loss": "giou"}, "keeps its own loss of boxes, and GIoULoss cannot replace it"),
        ({"assigner": "atss"}, "ATSSAssigner"),
        ({"prior": 0.01}, "the bias of its classifiers cannot be set. Leave prior out"),
    ],
)
def test_rfdetr__parts_without_a_meaning_are_refused(given, message):
    with pytest.raises(UsageError, match=message):
        patch(models.criterion(), **given)


def test_rfdetr__a_number_to_divide_by_and_labels_without_a_column_are_refused():
    criterion = models.criterion()
    patch(criterion)
    with pytest.raises(UsageError, match="num_boxes was given"):
        criterion(*batch(), num_boxes=1.0)
    predicted, targets = batch()
    patch(criterion, "focal")
    targets[0]["labels"][0] = -1  # the host would take the last column
    with pytest.raises(UsageError, match=r"Labels of this batch run from -1 to \d, but the head has 5 classes"):
        criterion(predicted, targets)


def test_rfdetr__a_release_whose_criterion_does_not_ask_is_an_error(monkeypatch):
    criterion = models.criterion()
    patch(criterion)
    monkeypatch.setattr(SetCriterion, "forward", lambda self, outputs, targets, num_boxes=None: {})
    with pytest.raises(UsageError, match=r"has not asked get_loss for its class loss.*another release of rfdetr"):
        criterion(*batch())
