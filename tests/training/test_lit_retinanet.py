import copy
import re
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.data import DataLoader

import lit_dense
from lit_dense import CocoDataModule, LitRetinaNet
from lit_dense.core.errors import UsageError
from lit_dense.core.nan_guard import NonFiniteLossError
from lit_dense.detectors import attached
from lit_dense.functional import matching
from lit_dense.losses import DenseLoss, FocalLoss
from lit_dense.metrics import DetectionMAP
from lit_dense.metrics.limits import too_many_objects
from lit_dense.testing.host_sync import host_reads
from tests.builders.coco_files import data_arguments, write_shape_splits, write_shapes
from tests.builders.detectors import random_batch
from tests.builders.lit_modules import SmallRetinaNet, TrainedBias
from tests.builders.trainers import trainer_in

NETWORK = {"backbone": "tiny", "fpn_channels": 16, "min_size": 64, "max_size": 64}


class InfiniteLoss(DenseLoss):
    def forward(self, logits, labels, samples):
        return logits.sum(1) * float("inf")


@pytest.fixture
def data(tmp_path):
    write_shape_splits(tmp_path)
    return CocoDataModule(**data_arguments(tmp_path), transforms=[])


def test_lit_retinanet__losses_and_detections_of_validation_come_from_one_forward(tmp_path, data):
    module = SmallRetinaNet(2)
    calls = []
    module.model.backbone.register_forward_hook(lambda *args: calls.append(1))
    run = trainer_in(tmp_path)
    (results,) = run.validate(module, data, verbose=False)
    assert len(calls) == 1  # one batch of four images
    assert {"val_loss", "val_classification", "val_bbox_regression", "val_map", "val_map_50"} <= set(results)
    assert {"val_map/bar", "val_map_50/square"} <= set(results)
    images, targets = next(iter(data.val_dataloader()))
    images = [image / 255 for image in images]
    detections = module.eval()(images)
    stock = module.model(images)
    for mine, theirs in zip(detections, stock, strict=True):
        keep = theirs["scores"] >= module.score_thresh
        assert torch.equal(mine["boxes"], theirs["boxes"][keep])
    with torch.no_grad():
        module.train()
        terms = module.model(images, targets)
    torch.testing.assert_close(results["val_classification"], terms["classification"].item())


@pytest.mark.parametrize("predicted", [2, 50])
@pytest.mark.parametrize("counted", [3, 40])
def test_lit_retinanet__predictions_and_evaluation_have_thresholds_and_numbers_of_their_own(
    tmp_path, data, predicted, counted
):
    class Counting(SmallRetinaNet):
        def validation_step(self, batch, batch_idx):
            output = super().validation_step(batch, batch_idx)
            self.counts = [len(d["boxes"]) for d in output["detections"]]
            return output

    module = Counting(
        2, score_thresh=0.0, detections_per_img=predicted, eval_score_thresh=0.0, eval_detections_per_img=counted
    )
    trainer_in(tmp_path).validate(module, data, verbose=False)
    assert module.counts == [counted] * 4
    images, _ = next(iter(data.val_dataloader()))
    assert [len(d["boxes"]) for d in module.eval()([i / 255 for i in images])] == [predicted] * 4
    module.score_thresh = 1.0  # of predictions alone
    trainer_in(tmp_path).validate(module, data, verbose=False)
    assert module.counts == [counted] * 4
    assert [len(d["boxes"]) for d in module.eval()([i / 255 for i in images])] == [0] * 4


def test_lit_retinanet__a_dense_scene_may_count_more_detections_than_coco(tmp_path, data):
    (results,) = trainer_in(tmp_path).validate(SmallRetinaNet(2, eval_max_detections=500), data, verbose=False)
    assert "val_mar_500" in results
    assert "val_mar_100" not in results


def test_lit_retinanet__candidates_limit_what_can_be_found():
    few, many = (SmallRetinaNet(2, topk_candidates=number, score_thresh=0.0).eval() for number in (7, 1000))
    images, _ = random_batch((1,))
    assert len(few(images)[0]["boxes"]) <= 2 * 7 < len(many(images)[0]["boxes"])
    with pytest.raises(UsageError, match="topk_candidates must be at least 1"):
        SmallRetinaNet(2, topk_candidates=0)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"eval_detections_per_img": 20},
            r"30 objects, but evaluation counts 20 .* Raise eval_detections_per_img, and",
        ),
        ({"eval_max_detections": 14}, r"(1[5-9]|2\d) objects of one class, but evaluation counts 14 detections of one"),
        ({"eval_detections_per_img": 30, "eval_max_detections": 30}, None),
    ],
)
def test_lit_retinanet__warns_once_of_objects_that_evaluation_cannot_find(tmp_path, limits, message):
    write_shapes(tmp_path, "train")
    write_shapes(tmp_path, "val", counts=(30, 0, 30))
    data = CocoDataModule(**{**data_arguments(tmp_path), "batch_size": 1}, transforms=[])
    module = SmallRetinaNet(2, **limits)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer_in(tmp_path).validate(module, data, verbose=False)
    told = [str(w.message) for w in caught if "evaluation counts" in str(w.message)]
    assert len(told) == (message is not None)
    if message:
        assert re.search(message, told[0])


def test_too_many_objects__the_limit_of_lvis_is_that_of_an_image():
    metric = DetectionMAP(protocol="lvis", max_detections=14)
    told = too_many_objects([{"labels": torch.arange(30) % 5}], metric, detections_per_img=300)
    assert "30 objects, but evaluation counts 14 detections at most" in told


def test_lit_retinanet__the_number_of_classes_comes_from_the_data_and_is_saved(tmp_path, data):
    module = LitRetinaNet(**NETWORK, loss=FocalLoss(gamma=1.5), normalizer="ema")
    trainer_in(tmp_path, max_steps=1).fit(module, data)
    assert module.num_classes == 2
    assert module.model.head.classification_head.num_classes == 2
    assert module.criterion.class_counts.num_images == 4
    module.trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["num_classes"] == 2
    assert saved["hyper_parameters"]["loss"]["init_args"] == {"alpha": 0.25, "gamma": 1.5, "pos_weight": 1.0}
    loaded = LitRetinaNet.load_from_checkpoint(tmp_path / "a.ckpt")
    assert loaded.criterion.loss.gamma == 1.5
    torch.testing.assert_close(loaded.state_dict(), module.state_dict())


def test_lit_retinanet__a_subclass_that_saves_objects_loads_back(tmp_path, data):
    module = Preset(2, loss=FocalLoss(gamma=0.5))
    trainer_in(tmp_path, max_steps=1).fit(module, data)
    module.trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = Preset.load_from_checkpoint(tmp_path / "a.ckpt")
    assert loaded.criterion.loss.gamma == 0.5
    assert loaded.width == 3


def test_on_load_checkpoint__an_argument_that_the_checkpoint_lacks_has_the_value_of_its_time(recwarn):
    module = LitRetinaNet(2, **NETWORK, loss="ghm", weighters=["pisa"])
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    del checkpoint["lit_dense"]["criterion"]["loss"]["init_args"]["power"]
    later = LitRetinaNet(2, **NETWORK, loss="ghm", weighters=["pisa"])
    assert later.criterion.loss.power != 1
    later.on_load_checkpoint(checkpoint)
    assert later.criterion.loss.power == 1
    assert not [w for w in recwarn if "was trained with" in str(w.message)]
    checkpoint["lit_dense"]["criterion"]["loss"]["init_args"]["bins"] = 7
    with pytest.warns(UserWarning, match="was trained with loss"):
        later.on_load_checkpoint(checkpoint)


class Preset(SmallRetinaNet):
    def __init__(self, num_classes, loss="bce", width=3):
        super().__init__(num_classes, loss=loss)
        self.width = width


class Kill(Callback):
    """The machine is switched off in the middle of the second epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 3:
            raise SystemError


def test_lit_retinanet__a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path, data):
    def run(checkpoint=None, **arguments):
        torch.manual_seed(0)
        module = SmallRetinaNet(2, normalizer="ema", lr=1e-2)
        data = CocoDataModule(**data_arguments(tmp_path), batch_size=2, seed=5)
        trainer_in(tmp_path, max_epochs=3, limit_val_batches=0, **arguments).fit(module, data, ckpt_path=checkpoint)
        return module

    whole = run()
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=3)
    with pytest.raises(SystemError):
        run(callbacks=[saver, Kill()], enable_checkpointing=True)
    resumed = run(checkpoint=saver.best_model_path)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert a == b if isinstance(a, dict) else torch.equal(a, b), name


def test_lit_retinanet__a_loss_that_is_not_finite_stops_the_run(tmp_path, data):
    module = SmallRetinaNet(2, loss=InfiniteLoss())
    with pytest.raises(
        NonFiniteLossError, match=r"classification = .*InfiniteLoss, L1Loss.*images .*10.*learning rate"
    ):
        trainer_in(tmp_path, num_sanity_val_steps=0).fit(module, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": torch.tensor([0, 2])},
            "image 3 has label 2, but the head takes labels 0 to 1. Column 0 is a class",
        ),
        (
            {"boxes": torch.tensor([[1.0, 1, 5, 5], [2, 2, 2, 9]])},
            "image 3 has a box without area: .2.0, 2.0, 2.0, 9.0",
        ),
        ({"boxes": torch.tensor([[1.0, 1, 5, 5], [2, 2, float("nan"), 9]])}, "image 3 has a box without area"),
        ({"boxes": torch.zeros(2, 5)}, r"image 3 has boxes of shape \[2, 5\] and labels of shape \[2\]; expected"),
        ({"boxes": None}, "image 3 has no boxes; it has labels, image_id"),
    ],
)
def test_lit_retinanet__targets_that_cannot_be_trained_on_are_named(change, message):
    target = {"boxes": torch.tensor([[1.0, 1, 5, 5], [2, 2, 9, 9]]), "labels": torch.tensor([0, 1]), "image_id": 3}
    target = {k: v for k, v in {**target, **change}.items() if v is not None}
    with pytest.raises(UsageError, match=message):
        SmallRetinaNet(2).training_step(([torch.rand(3, 64, 64)], [target]), 0)


def test_lit_retinanet__crowd_boxes_are_not_trained_on_and_not_counted_as_misses(tmp_path):
    module = SmallRetinaNet(2)
    (image,), (target,) = random_batch((2,), num_classes=2)
    crowd = {**target, "boxes": torch.cat([target["boxes"], torch.tensor([[0.0, 0, 60, 60]])])}
    crowd |= {"labels": torch.cat([target["labels"], torch.tensor([1])]), "iscrowd": torch.tensor([0, 0, 1])}
    ignored = target | {"ignore_boxes": torch.tensor([[0.0, 0, 60, 60]])}
    losses = [module.training_step(([image], [t]), 0) for t in (crowd, ignored, target)]
    assert losses[0] == losses[1] < losses[2]  # its anchors are neither objects nor background


class Labelled(LightningDataModule):
    num_classes = 3

    def __init__(self, names):
        super().__init__()
        self.categories = [{"id": i + 1, "name": name} for i, name in enumerate(names)]

    def val_dataloader(self):
        target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
        return DataLoader([([torch.rand(3, 64, 64)], [target])], batch_size=None)


def test_lit_retinanet__classes_that_do_not_fit_the_head_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"The data has 3 classes, but num_classes=2: .* no column for 'c'"):
        trainer_in(tmp_path).validate(SmallRetinaNet(2), Labelled("abc"))
    module = SmallRetinaNet(3)
    module.categories = [{"id": i, "name": n} for i, n in enumerate(("N/A", "a", "b"))]
    with pytest.raises(
        UsageError, match=r"does not know 'c' \(id 3\).* The model has 0 N/A, 1 a, 2 b. The data has 1 a"
    ):
        trainer_in(tmp_path).validate(module, Labelled("abc"))
    with pytest.raises(UsageError, match="needs num_classes"):
        trainer_in(tmp_path).validate(LitRetinaNet(), Labelled("abc").val_dataloader())


def test_lit_retinanet__norms_and_biases_have_no_weight_decay_and_the_backbone_its_own_rate(tmp_path, data):
    module = LitRetinaNet(2, "mobilenet_v3_small", fpn_channels=16, lr=1e-2, backbone_lr_factor=0.1, min_size=64)
    with pytest.warns(UserWarning, match="mobilenet_v3_small starts from random weights"):
        trainer_in(tmp_path, max_steps=1, limit_val_batches=0).fit(module, data)
    groups = module.optimizers().param_groups
    assert sorted({(round(g["initial_lr"], 6), g["weight_decay"]) for g in groups}) == [
        (0.001, 0.0),
        (0.001, 0.05),
        (0.01, 0.0),
        (0.01, 0.05),
    ]
    for group in groups:
        assert all((p.dim() > 1) == (group["weight_decay"] > 0) for p in group["params"])
    assert sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in module.parameters())


def told_of_random_weights(module, data, tmp_path, **fit):
    run = trainer_in(tmp_path, max_steps=1, limit_val_batches=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(module, data, **fit)
    run.save_checkpoint(tmp_path / "a.ckpt")
    return [str(w.message) for w in caught if "random weights" in str(w.message)]


def test_random_weights__a_backbone_without_weights_is_warned_of_once_where_training_starts(tmp_path, data):
    network = {**NETWORK, "backbone": "mobilenet_v3_small"}
    module = LitRetinaNet(2, **network)
    (told,) = told_of_random_weights(module, data, tmp_path)
    assert "set --model.weights_backbone=DEFAULT" in told
    assert not told_of_random_weights(module, data, tmp_path)
    assert not told_of_random_weights(LitRetinaNet.load_from_checkpoint(tmp_path / "a.ckpt"), data, tmp_path)
    assert not told_of_random_weights(LitRetinaNet(2, **network), data, tmp_path, ckpt_path=tmp_path / "a.ckpt")


@pytest.mark.parametrize("make", [lambda: LitRetinaNet(2, **NETWORK), lambda: SmallRetinaNet(2)])
def test_random_weights__networks_that_have_no_weights_are_not_warned_of(tmp_path, data, make):
    assert not told_of_random_weights(make(), data, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": "SGD"}, r"optimizer must be one of adamw, sgd, not 'SGD'\. Did you mean 'sgd'\?"),
        ({"schedule": "step"}, "schedule must be one of cosine, multistep, constant, not 'step'"),
        ({"milestones": [8, 11]}, "divide epochs by max_epochs"),
        ({"lr": -1e-4}, "lr must be at least 0, not -0.0001"),
        ({"lr": float("nan")}, "lr must be at least 0, not nan"),
        ({"backbone_lr_factor": -1}, "backbone_lr_factor must be at least 0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0"),
        ({"score_thresh": 1.5}, r"LitDetector: score_thresh must be in \[0, 1\], not 1.5"),
        ({"eval_score_thresh": -0.1}, r"eval_score_thresh must be in \[0, 1\]"),
        ({"nms_thresh": 50}, r"nms_thresh must be in \[0, 1\]"),
        ({"topk_candidates": 0}, "topk_candidates must be at least 1"),
        ({"detections_per_img": 0}, "LitDetector: detections_per_img must be at least 1"),
        ({"eval_detections_per_img": 0}, "eval_detections_per_img must be at least 1"),
        ({"eval_max_detections": 10}, "eval_max_detections must be at least 11, not 10"),
        ({"frequency_bounds": (100, 10)}, r"frequency_bounds must be two ascending numbers .* not \(100, 10\)"),
        ({"frequency_bounds": [10]}, "frequency_bounds must be two ascending numbers"),
    ],
)
def test_lit_retinanet__impossible_arguments_are_refused_before_anything_is_built(arguments, message):
    with pytest.raises(UsageError, match=message):
        LitRetinaNet(**NETWORK, **arguments)


def test_lit_retinanet__deepcopies_are_independent():
    module = SmallRetinaNet(2, normalizer="ema")
    clone = copy.deepcopy(module)
    assert attached(clone.model).criteria[""] is clone.criterion
    clone.training_step(random_batch((3,), num_classes=2), 0)
    assert (module.criterion.step, clone.criterion.step) == (0, 1)


@pytest.mark.parametrize(("loss", "extra"), [("softmax", 1), ("seesaw", 2)])
def test_lit_retinanet__a_loss_with_columns_of_its_own(tmp_path, data, loss, extra):
    module = LitRetinaNet(**NETWORK, loss=loss, eval_score_thresh=0.0, score_thresh=0.0)
    run = trainer_in(tmp_path, max_steps=2)
    run.fit(module, data)
    assert module.num_classes == 2
    assert module.model.head.classification_head.num_classes == 2 + extra
    run.save_checkpoint(tmp_path / "a.ckpt")
    loaded = LitRetinaNet.load_from_checkpoint(tmp_path / "a.ckpt").eval()
    torch.testing.assert_close(loaded.state_dict(), module.state_dict())
    images, _ = next(iter(data.val_dataloader()))
    features = [torch.randn(1, 16, size, size) for size in (8, 4)]
    raw = loaded.train().model.head(features)["cls_logits"]
    scores = loaded.eval().model.head(features)["cls_logits"].sigmoid()
    classes = raw[..., :2].softmax(-1) * raw[..., 2:].softmax(-1)[..., :1]
    expected = raw.softmax(-1)[..., :2] if loss == "softmax" else classes
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-6)
    traced = torch.jit.trace(loaded.model.head, (features,), strict=False)
    torch.testing.assert_close(traced(features)["cls_logits"].sigmoid(), scores)
    detections = loaded(images)
    assert all(set(d["labels"].tolist()) <= {0, 1} for d in detections)
    (results,) = run.validate(module, data, verbose=False)
    assert 0 <= results["val_map"] <= 1


@pytest.mark.parametrize(
    ("arguments", "score"),
    [
        ({}, 0.01),
        ({"loss": "eql"}, 0.001),
        ({"loss": "eql_v2"}, 0.001),
        ({"loss": "efl"}, 0.001),
        ({"loss": {"class_path": "federated", "init_args": {"loss": "eql_v2"}}}, 0.001),
        ({"prior": 0.1}, 0.1),
        ({"loss": "softmax"}, 0.005),
    ],
)
def test_lit_retinanet__the_head_starts_at_the_prior(arguments, score):
    module = LitRetinaNet(2, **NETWORK, **arguments).eval()
    head = module.model.head
    torch.nn.init.zeros_(head.classification_head.cls_logits.weight)
    scores = head([torch.zeros(1, 16, 4, 4)])["cls_logits"].sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, score), rtol=1e-3, atol=0)


def test_lit_retinanet__a_trained_bias_is_not_reset():
    class Trained(TrainedBias, SmallRetinaNet):
        pass

    bias = Trained(2, prior=0.5).model.head.classification_head.cls_logits.bias
    assert bias.std() > 0


def test_lit_retinanet__class_counts_come_from_the_data_module_or_are_asked_for(tmp_path, data):
    module = LitRetinaNet(**NETWORK, loss="eql")
    run = trainer_in(tmp_path, max_steps=1)
    run.fit(module, data)
    told = module.criterion.loss.frequencies.values
    torch.testing.assert_close(told, data.class_counts.frequencies.to(told))
    run.save_checkpoint(tmp_path / "a.ckpt")
    torch.testing.assert_close(
        LitRetinaNet.load_from_checkpoint(tmp_path / "a.ckpt").criterion.loss.frequencies.values, told
    )
    with pytest.raises(UsageError, match="'eql' needs to know how often each class occurs"):
        trainer_in(tmp_path).fit(LitRetinaNet(2, **NETWORK, loss="eql"), data.train_dataloader())


@pytest.mark.fast_paths
def test_lit_retinanet__a_step_synchronises_equally_often_whatever_the_batch(monkeypatch):
    monkeypatch.setattr(matching, "FEW_PAIRS", 2**40)  # the way of a device
    module, waits = SmallRetinaNet(4), []
    module.training_step(random_batch((1,)), 0)  # of the first batch the range of images is looked at
    for counts in ((2, 1), (2, 1, 3, 0, 4)):
        images, targets = random_batch(counts)
        batch = (images, [t | {"iscrowd": torch.zeros_like(t["labels"])} for t in targets])
        reads = host_reads(lambda batch=batch: module.training_step(batch, 0).backward())
        waits.append([line for line in reads if str(Path(lit_dense.__file__).parent) in line])
    assert waits[0] == waits[1]
    assert len(waits[0]) == 4  # crowds, boxes with labels, positives, and on a CPU whether the loss is finite
