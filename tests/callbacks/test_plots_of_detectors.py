"""Pictures of every detector's loss, with hooks that are called as a trainer calls them."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from lit_dense import DenseSamples, SwapLoss, patch
from lit_dense.callbacks import DetectionPlots, LossPlots, WeightPlots, weight_plots
from lit_dense.core.errors import UsageError
from lit_dense.criterion import Criterion
from lit_dense.detectors import Columns, DetectorAdapter
from lit_dense.visualization import figures
from tests.builders.detectors import (
    NUM_CLASSES,
    random_batch,
    small_faster_rcnn,
    small_fcos,
    small_retinanet,
    small_ssd,
    small_ssdlite,
)
from tests.builders.lit_modules import Foreign
from tests.builders.trainers import FakeTrainer

ONE_STAGE = {
    "retinanet": (small_retinanet, 0, 2),
    "fcos": (small_fcos, 0, 2),
    "ssd": (small_ssd, 1, 2),
    "ssdlite": (small_ssdlite, 1, 2),
}
TWO_STAGE = {f"faster_rcnn, {stage}": (small_faster_rcnn, 1, stage) for stage in ("roi", "rpn", None)}
SHARES = {"positive_share", "negative_share", "positive_loss_share", "negative_loss_share"}
SCALARS = {"positive_share", "hardest_percent_of_negatives", "easy_gradient", "hard_gradient"}


def run(folder, module, batch, *callbacks):
    """Show one training step; returns what was logged."""
    logged = {}
    logger = SimpleNamespace(log_metrics=lambda metrics, step: logged.update(metrics))
    trainer = FakeTrainer(folder, loggers=[logger])
    for callback in callbacks:
        callback.on_train_start(trainer, module)
        callback.on_train_batch_start(trainer, module, batch, 0)
    module(*batch)
    for callback in callbacks:
        callback.on_train_batch_end(trainer, module, None, batch, 0)
        callback.teardown(trainer, module, "fit")
    return logged


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*.png"))


@pytest.mark.parametrize(("build", "first_label", "levels"), ONE_STAGE.values(), ids=ONE_STAGE)
def test_plots__of_one_stage(build, first_label, levels, tmp_path):
    module = Foreign(build())
    SwapLoss("focal", weighters="pisa").setup(SimpleNamespace(), module, "fit")
    logged = run(tmp_path, module, random_batch((2, 0, 3), first_label=first_label), LossPlots(1), WeightPlots(1))
    assert files(tmp_path) == ["loss/step_000001.png", "weights/step_000001.png"]
    of_levels = {f"level_{level}_{share}" for level in range(levels) for share in ("share", "loss_share")}
    assert set(logged) == {f"loss_pictures/{n}" for n in SCALARS} | {f"weights/{n}" for n in SHARES | of_levels}
    assert all(math.isfinite(value) for value in logged.values())
    assert sum(logged[f"weights/level_{level}_share"] for level in range(levels)) == pytest.approx(1)
    for file in files(tmp_path):
        with Image.open(tmp_path / file) as picture:
            assert min(picture.size) > 400


@pytest.mark.parametrize(("build", "first_label", "stage"), TWO_STAGE.values(), ids=TWO_STAGE)
def test_plots__of_two_stages(build, first_label, stage, tmp_path):
    module = Foreign(build())
    SwapLoss("focal", weighters="ohem", stage=stage).setup(SimpleNamespace(), module, "fit")
    callbacks = LossPlots(1, stage=stage), WeightPlots(1, stage=stage)
    logged = run(tmp_path, module, random_batch((2, 0, 3), first_label=first_label), *callbacks)
    below = f"/{stage}" if stage else ""
    assert files(tmp_path) == [f"loss{below}/step_000001.png", f"weights{below}/step_000001.png"]
    assert set(logged) == {f"loss_pictures{below}/{n}" for n in SCALARS} | {f"weights{below}/{n}" for n in SHARES}


def test_loss_plots__show_stages_apart(tmp_path):
    module = Foreign(small_faster_rcnn())
    patch(module, "ghm", stage="rpn", weighters="ohem")  # attached first, and yet the second stage
    patch(module, "softmax")
    callbacks = [LossPlots(1), LossPlots(1, stage="rpn"), LossPlots(1, stage="roi")]
    seen = [[] for _ in callbacks]
    for callback, into in zip(callbacks, seen, strict=True):
        callback.observe = lambda samples, values, weights, into=into: into.append(samples.num_classes)
    run(tmp_path, module, random_batch((2, 1), first_label=1), *callbacks)
    assert seen == [[NUM_CLASSES], [1], [NUM_CLASSES]]


def test_loss_plots__a_stage_that_is_not_replaced_is_an_error(tmp_path):
    module = Foreign(small_faster_rcnn())
    patch(module, "focal", stage="rpn")
    batch = random_batch((2, 1), first_label=1)
    run(tmp_path, module, batch, LossPlots(1))  # the one that was replaced
    said = r"own loss in stage 'roi', which cannot be observed: add the callback SwapLoss with stage='roi'"
    with pytest.raises(UsageError, match=said):
        run(tmp_path, module, batch, LossPlots(1, stage="roi"))
    with pytest.raises(UsageError, match=r"FasterRCNN.*stage.*ropi"):
        run(tmp_path, module, batch, LossPlots(1, stage="ropi"))
    with pytest.raises(UsageError, match=r"RetinaNet has one loss and no stages: leave stage='roi' out"):
        run(tmp_path, Foreign(small_retinanet()), batch, LossPlots(1, stage="roi"))


def test_loss_plots__one_of_several_detectors_is_named(tmp_path):
    module = nn.ModuleDict({"student": small_retinanet(), "teacher": small_retinanet(seed=1)})
    module.forward = lambda images, targets: module["student"](images, targets)
    patch(module, "focal", module="student")
    patch(module, "focal", module="teacher")
    with pytest.raises(UsageError, match=r"several detectors: student, teacher\. Name one by module"):
        run(tmp_path, module, random_batch((2, 1)), LossPlots(1))
    run(tmp_path, module, random_batch((2, 1)), LossPlots(1, module="student"))
    assert files(tmp_path) == ["loss/step_000001.png"]


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        (None, ["1", "2", "3", "4"]),
        (["a", "b", "c", "d"], ["a", "b", "c", "d"]),
        (["background", "a", "b", "c", "d"], ["a", "b", "c", "d"]),
        (["a"], ["a", "2", "3", "4"]),
    ],
)
def test_loss_plots__classes_are_named_by_the_module_or_by_their_labels(categories, expected, tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(figures, "loss_figure", noted(figures.loss_figure, names))
    module = Foreign(small_ssd())
    module.categories = categories and [{"id": k, "name": name} for k, name in enumerate(categories)]
    patch(module)
    run(tmp_path, module, random_batch((2, 1), first_label=1), LossPlots(1))
    assert names == [expected]


def test_loss_plots__the_class_of_the_proposal_network_is_object(tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(figures, "loss_figure", noted(figures.loss_figure, names))
    module = Foreign(small_faster_rcnn())
    module.categories = [{"id": 1, "name": "cat"}] * NUM_CLASSES
    patch(module, stage="rpn")
    run(tmp_path, module, random_batch((2, 1), first_label=1), LossPlots(1, stage="rpn"))
    assert names == [["object"]]


def noted(method, into):
    def call(*args, class_names, **options):
        into.append(class_names)
        return method(*args, class_names=class_names, **options)

    return call


class Queries(nn.Module):
    """Predicts boxes of a few queries: no anchors, no levels, and images that are not resized."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Parameter(torch.linspace(-2, 2, 8 * NUM_CLASSES).view(8, NUM_CLASSES))
        self.boxes = nn.Parameter(torch.tensor([[2.0, 2, 40, 40]]).repeat(8, 1))

    def compute_loss(self, images, targets):
        raise NotImplementedError

    def forward(self, images, targets):
        return self.compute_loss(images, targets)


class QueriesAdapter(DetectorAdapter):
    offers = frozenset({"boxes", "box_loss"})

    def columns(self, stage):
        return Columns(NUM_CLASSES)

    def defaults(self, stage):
        return {"loss": "focal", "box_loss": "giou", "normalizer": "batch"}

    def install(self):
        self.override(self.detector, "compute_loss", "compute_loss")

    def compute_loss(self, images, targets):
        labels, boxes = torch.full((8,), -1), torch.zeros(8, 4)
        for row, (box, label) in enumerate(zip(targets[0]["boxes"], targets[0]["labels"], strict=True)):
            labels[row], boxes[row] = label, box
        net = self.detector
        return self.terms("", DenseSamples.of(net.scores, labels, boxes=net.boxes, gt_boxes=boxes), targets)


@pytest.mark.parametrize("offers", [{"boxes", "box_loss"}, {"boxes", "box_loss", "anchors"}])
def test_plots__of_a_detector_without_anchors_and_levels(offers, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(weight_plots, "rank_zero_info", lines.append)
    module = Foreign(Queries())
    criterion = Criterion("focal", "giou", weighters="ohem")
    adapter = QueriesAdapter(module.net)
    adapter.offers = frozenset(offers)
    adapter.attach({"": criterion})
    logged = run(tmp_path, module, random_batch((2,)), LossPlots(1), WeightPlots(1))
    assert files(tmp_path) == ["loss/step_000001.png"]
    assert {f"weights/{name}" for name in SHARES} <= set(logged)
    assert not any("level" in name for name in logged)
    lacks = "no torchvision transform, which provides the images" if "anchors" in offers else "no anchors"
    assert lines == [f"WeightPlots: Queries has {lacks}, so numbers are logged and nothing is drawn."]


def test_detection_plots__take_batches_with_more_than_images_and_targets(tmp_path):
    images, targets = random_batch((1, 1), first_label=1)
    trainer = FakeTrainer(tmp_path)
    found = [{**target, "scores": torch.tensor([0.9])} for target in targets]
    for target in found:
        del target["image_id"]
    callback, module = DetectionPlots(), nn.Identity()
    callback.on_validation_batch_end(trainer, module, {"detections": found}, (images, targets, ["a", "b"]), 0)
    callback.on_validation_epoch_end(trainer, module)
    assert files(tmp_path) == ["detections.png"]
    for batch in ({"image": images, "boxes": targets}, [images], (images, targets[:1]), torch.stack(images)):
        with pytest.raises(UsageError, match=r"a batch of Identity is a .* method unpack_batch\(batch\)"):
            callback.on_validation_batch_end(trainer, module, {"detections": found}, batch, 0)
