"""Set predictors of transformers with another class loss; skipped where the package is not installed."""

import copy
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from transformers.loss import loss_utils

from lit_dense import SwapLoss, patch, unpatch
from lit_dense.core.errors import UsageError
from lit_dense.detectors import attached, find_detector
from lit_dense.detectors.transformers_detr import FAMILIES, TransformersAdapter
from tests.builders import set_predictors as models
from tests.builders.detectors import random_batch
from tests.builders.lit_modules import Foreign
from tests.builders.samples import seen_by

CLASSES = models.CLASSES
UNTOUCHED = """
import sys
import lit_dense
from tests.builders.detectors import small_fcos
model = small_fcos()
lit_dense.patch(model)
assert not {"transformers", "rfdetr"} & set(sys.modules)
"""


def step(model, counts=(2, 0, 5), **more):
    """Loss, terms and gradients of a training step."""
    images, targets = random_batch(counts, CLASSES)
    targets = [{**target, **{k: torch.full((len(target["boxes"]),), v) for k, v in more.items()}} for target in targets]
    model.zero_grad()
    torch.manual_seed(0)
    output = model(pixel_values=torch.stack(images), labels=models.labels_of(copy.deepcopy(targets)))
    if output.loss.requires_grad:
        output.loss.backward()
    slopes = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return output.loss.detach(), output.loss_dict, slopes


def samples_of(model, counts=(2, 0, 5), **given):
    """What the criterion is given in a step."""
    criterion = patch(model, **given)
    seen = seen_by(criterion)
    step(model, counts)
    return seen[0], criterion


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (models.detr, {"auxiliary_loss": False}),
        (models.detr, {"eos_coefficient": 0.4, "num_queries": 3}),  # fewer queries than objects
        (models.deformable_detr, {"focal_alpha": 0.4}),
        (models.rt_detr, {"weight_loss_vfl": 2.5, "focal_loss_gamma": 1.5, "denoising": 6}),
    ],
)
def test_transformers_adapter__the_configuration_is_followed(make, arguments):
    torch.manual_seed(0)
    model = make(**arguments)
    stock, terms, slopes = step(model)
    patch(model)
    loss, own_terms, own_slopes = step(model)
    torch.testing.assert_close(loss, stock, rtol=1e-6, atol=0)
    largest = max(float(slope.abs().max()) for slope in slopes.values())
    for name, slope in slopes.items():
        assert (own_slopes[name] - slope).abs().max() <= 1e-5 * largest, name
    (classes,) = models.class_terms(own_terms)  # one in place of one for each layer
    torch.testing.assert_close(classes, sum(models.class_terms(terms)), rtol=1e-6, atol=0)
    others = {name for name in terms if not name.startswith(("loss_ce", "loss_vfl"))}
    assert others == set(own_terms) - {TransformersAdapter(model).family.term}


@pytest.mark.parametrize("make", [models.detr, models.rt_detr_denoising, models.lw_detr])
def test_transformers_adapter__the_loss_of_an_evaluation_is_the_stock_one_and_counts_no_step(make):
    model = make().eval()
    with torch.no_grad():
        stock, _, _ = step(model)
        criterion = patch(model)
        loss, _, _ = step(model)
    torch.testing.assert_close(loss, stock, rtol=1e-6, atol=0)
    assert criterion.step == 0


def test_samples__rows_are_the_queries_of_all_outputs_and_groups_are_images_of_a_layer():
    samples, _ = samples_of(models.rt_detr_denoising())
    # The last layer, the one before it, the encoder's proposals, and two denoising layers of 2 * 5 queries. In older
    # versions of transformers the last layer includes its denoising queries.
    last = int(samples.image_idxs.bincount()[0])
    assert last in (12, 22)
    queries = [last, 12, 12, 10, 10]
    assert samples.num_images == 3 * 5
    assert samples.image_idxs.bincount().tolist() == [n for n in queries for _ in range(3)]
    assert samples.gt_image_idxs.bincount(minlength=15).tolist() == [2, 0, 5] * 5
    own = samples.gt_image_idxs[samples.matched_idxs[samples.positives]]
    assert torch.equal(own, samples.image_idxs[samples.positives])
    assert samples.pos_per_image.tolist() == [2, 0, 5] * 5
    assert torch.equal(samples.gt_labels, samples.gt_labels[:7].repeat(5))
    assert samples.native.count == 7
    assert samples.native.factors.tolist() == [1.0] * 15


def test_samples__denoising_is_divided_by_its_groups():
    samples, criterion = samples_of(models.rt_detr(denoising=20), (2, 1))
    assert samples.native.factors.tolist() == [1.0] * 6 + [10.0] * 4  # 20 // 2 groups
    divisors = criterion.normalizer(criterion.in_this_step(samples))
    assert divisors.tolist() == [3.0] * 6 + [30.0] * 4


@pytest.mark.parametrize("counts", [(2, 0, 5), (0, 0)])
def test_samples__the_divisor_of_each_kind(counts):
    objects, images = sum(counts), len(counts)
    detr, _ = samples_of(models.detr(eos_coefficient=0.25), counts)
    torch.testing.assert_close(detr.native.count, torch.tensor(objects + 0.25 * (12 * images - objects)))
    assert detr.native.least < 1e-6
    chosen, _ = samples_of(models.detr(), counts, loss={"class_path": "softmax"})
    assert chosen.native.count == 12 * images
    lw_detr, criterion = samples_of(models.lw_detr(), counts)
    assert lw_detr.native.count == 3 * objects
    assert criterion.normalizer(criterion.in_this_step(lw_detr)).unique().tolist() == [max(1, 3 * objects)]


def test_samples__boxes_are_in_pixels_of_a_nominal_image_where_small_ones_have_an_iou():
    samples, _ = samples_of(models.deformable_detr())
    _, targets = random_batch((2, 0, 5), CLASSES)
    expected = torch.cat([target["boxes"] for target in targets]) * 1024 / models.SIZE
    torch.testing.assert_close(samples.gt_boxes, expected.repeat(2, 1), rtol=1e-5, atol=1e-3)
    assert samples.boxes.shape == (len(samples.image_idxs), 4)
    assert samples.boxes.requires_grad


@pytest.mark.parametrize("field", ["anchors", "deltas", "pos_deltas", "pos_target_deltas", "level_idxs", "in_padding"])
def test_samples__fields_without_a_meaning_are_an_error(field):
    samples, _ = samples_of(models.deformable_detr())
    with pytest.raises(UsageError, match=r"of queries, not deltas of anchors|does not tell the sizes of its levels"):
        _ = getattr(samples, field) + 0


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (models.detr, {"loss": "focal"}, r"by a softmax over classes and 'no object'.*FocalLoss trains: name softmax"),
        (models.detr, {"loss": "seesaw"}, "by a softmax over classes.*SeesawLoss trains: name softmax"),
        (
            models.deformable_detr,
            {"loss": "softmax"},
            "by a sigmoid of each class.*SoftmaxLoss trains: name a loss",
        ),
        (models.rt_detr, {"box_loss": "giou"}, "keeps its own loss of boxes, and GIoULoss cannot.*leave box_loss out"),
        (models.rt_detr, {"box_loss": "l1"}, "keeps its own loss of boxes, and L1Loss cannot"),
        (models.rt_detr, {"box_loss_weight": 2.0}, "box_loss_weight=2.0 has no effect"),
        (models.rt_detr, {"assigner": "max_iou"}, "matches predictions and ground truths itself, and MaxIoUAssigner"),
        (models.rt_detr, {"weighters": ["cleanliness"]}, "TopNAssigner of CleanlinessWeighter"),
        (models.rt_detr, {"loss": "focal", "weighters": ["dw"]}, "has no anchors, and DWWeighter"),
        (models.rt_detr, {"loss": "ghm", "normalizer": "batch"}, "GHMLoss brings its own normalizer"),
        (models.rt_detr, {"stage": "roi"}, "has one loss and no stages"),
    ],
)
def test_transformers_adapter__parts_without_a_meaning_are_refused(make, given, message):
    model = make()
    with pytest.raises(UsageError, match=message):
        patch(model, **given)
    assert attached(model) is None
    assert "_loss_function" not in vars(model)


def test_transformers_adapter__a_default_normalizer_gives_way_to_a_loss_that_brings_its_own():
    model = models.deformable_detr()
    patch(model, "ghm")
    loss, terms, _ = step(model)
    assert loss.isfinite()
    assert terms["loss_ce"] > 0


def test_transformers_adapter__terms_of_weighters_are_added_and_those_about_boxes_left_out():
    model = models.deformable_detr()
    criterion = patch(model, weighters=["swn", "pisa"])
    _, stock, _ = step(models.deformable_detr())
    loss, terms, _ = step(model)
    assert set(terms) - set(stock) == {"swn_classification"}  # no swn_box, no carl: no box loss is the criterion's
    assert all(p.grad is not None for name, p in criterion.named_parameters() if "predictor" in name)
    assert loss.isfinite()


def test_samples__fields_of_the_targets_are_those_of_each_layers_objects():
    torch.manual_seed(0)
    model = models.deformable_detr()
    plain, _ = samples_of(model, (2, 1))
    unpatch(model)
    patch(model, weighters=["target_weights"])
    _, once, _ = step(model, (2, 1), weight=1.0)
    _, thrice, _ = step(model, (2, 1), weight=3.0)
    assert thrice["loss_ce"] > once["loss_ce"]
    with pytest.raises(UsageError, match="the targets have no field 'weight'"):
        step(model, (2, 1))
    assert "class_labels" not in plain.target_fields


def test_prior__sets_every_classifier():
    model = models.rt_detr()
    patch(model, "focal", prior=0.02)
    biases = find_detector(model).class_bias("")
    assert biases.shape == (3, CLASSES)  # of two decoder layers and the encoder
    torch.testing.assert_close(biases.sigmoid(), torch.full_like(biases, 0.02))
    samples, _ = samples_of(models.lw_detr(), prior=0.5)
    assert len(samples.labels)


def test_prior__is_refused_where_classifiers_are_no_linear_layers():
    model = models.detr()
    model.class_labels_classifier = nn.Sequential(nn.Linear(16, 8), nn.Linear(8, CLASSES + 2))
    with pytest.raises(UsageError, match="DetrForObjectDetection: the bias of its classifiers cannot be set"):
        find_detector(model).class_bias("")


def test_transformers_adapter__labels_without_a_column_are_named():
    model = models.detr()
    patch(model)
    images, targets = random_batch((2, 1), CLASSES)
    targets[0]["labels"][0] = -1  # the stock loss takes the last column
    with pytest.raises(UsageError, match=r"Labels of this batch run from -1 to \d, but the head has 5 classes"):
        model(pixel_values=torch.stack(images), labels=models.labels_of(targets))


def test_transformers_adapter__a_custom_loss_function_is_not_replaced():
    model = models.detr()
    model.loss_function = print
    with pytest.raises(UsageError, match="_loss_function has been replaced already, by <built-in function print>"):
        patch(model)
    assert model.loss_function is print


def other_loss(logits, labels, device, pred_boxes, config, *args, **kwargs):
    return logits.sum(), {}, None


def silent_loss(logits, labels, device, pred_boxes, config, *args, **kwargs):
    _ = ImageLoss  # noqa: F821  # named and never asked
    return logits.sum(), {}, None


def test_transformers_adapter__a_release_with_another_loss_is_an_error(monkeypatch):
    model = models.detr()
    monkeypatch.setitem(loss_utils.LOSS_MAPPING, "ForObjectDetection", other_loss)
    with pytest.raises(UsageError, match=r"the loss ForObjectDetection of \S+ \S+ does not make the ImageLoss"):
        patch(model)
    monkeypatch.setitem(silent_loss.__globals__, "ImageLoss", object)
    monkeypatch.setitem(loss_utils.LOSS_MAPPING, "ForObjectDetection", silent_loss)
    patch(model)
    with pytest.raises(UsageError, match=r"has not asked ImageLoss for its class loss.*Take another release"):
        step(model)


def test_transformers_adapter__nothing_of_the_library_is_changed_for_other_models():
    before = dict(loss_utils.LOSS_MAPPING)
    kinds = {kind: FAMILIES[kind].criterion for kind in FAMILIES if kind in before}
    classes = {kind: before[kind].__globals__[name] for kind, name in kinds.items()}
    stock, _, _ = step(models.detr())
    model = models.detr()
    patch(model, {"class_path": "softmax"}, loss_weight=3.0)
    step(model)
    assert before == loss_utils.LOSS_MAPPING
    assert classes == {kind: before[kind].__globals__[name] for kind, name in kinds.items()}
    assert len(stock.shape) == 0


def test_transformers_adapter__detectors_of_another_kind_with_the_same_loss_type_are_not_taken():
    other = nn.Module()  # as OWL-ViT, whose name ends alike
    other.loss_type, other.config = "ForObjectDetection", SimpleNamespace(num_labels=2)
    assert not TransformersAdapter.accepts(other)
    other.loss_type = None
    assert not TransformersAdapter.accepts(other)
    assert TransformersAdapter.accepts(models.detr())


@pytest.mark.parametrize("given", [{}, {"loss": "softmax"}])
def test_transformers_adapter__models_of_masks_are_refused_and_the_detector_inside_is_not_taken(given):
    model = models.detr_with_masks()
    with pytest.raises(UsageError, match=r"DetrForSegmentation trains masks together with boxes \(its loss is ForSegm"):
        patch(model, **given)
    assert not any("_loss_function" in vars(module) for module in model.modules())


def test_swap_loss__reaches_a_model_inside_a_module():
    module, swap, trainer = Foreign(models.deformable_detr()), SwapLoss("ghm"), SimpleNamespace(datamodule=None)
    swap.setup(trainer, module, "fit")
    step(module.net)
    assert swap.criterion.step == 1
    assert "criterion" in swap.state_dict()
    swap.teardown(trainer, module, "fit")
    assert attached(module) is None
    assert "_loss_function" not in vars(module.net)


def test_patch__of_other_detectors_does_not_import_the_libraries():
    subprocess.run([sys.executable, "-c", UNTOUCHED], check=True)


def test_class_weights__of_a_set_predictor_weight_the_positives_of_the_class():
    weights = [1.0] * (CLASSES - 1) + [9.0]
    plain, weighted = models.deformable_detr(), models.deformable_detr()
    weighted.load_state_dict(plain.state_dict())
    patch(plain)
    patch(weighted, class_weights=weights)
    assert step(weighted)[1]["loss_ce"] != step(plain)[1]["loss_ce"]


@pytest.mark.slow
@pytest.mark.parametrize("make", [models.detr, models.rt_detr])
def test_transformers_adapter__compiled_training_gives_the_loss_of_each_step(make):
    model = make()
    patch(model)
    compiled = torch.compile(model, backend="eager")
    plain = step(model)[0].item()
    assert [step(compiled)[0].item() for _ in range(3)] == pytest.approx([plain] * 3, rel=1e-5)


def test_transformers_adapter__a_loss_with_other_scores_is_refused_before_its_columns_are_counted():
    with pytest.raises(UsageError, match="detects by a sigmoid of each class, which is not what SoftmaxLoss trains"):
        patch(models.deformable_detr(), "softmax", class_counts=[1] * CLASSES)
