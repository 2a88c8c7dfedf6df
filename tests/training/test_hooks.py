"""Hooks of LitRetinaNet called as a trainer calls them, without one."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torchvision.models.detection.retinanet import RetinaNetHead

from lit_dense import LitRetinaNet
from lit_dense.core.errors import UsageError
from lit_dense.detectors import find_detector
from lit_dense.training.evaluation_settings import EvaluationSettings
from lit_dense.training.optimization import Optimization
from tests.builders.detectors import COUNTS, random_batch
from tests.builders.lit_modules import SmallRetinaNet


class LoggedRetinaNet(SmallRetinaNet):
    """Keeps its log."""

    def __init__(self, *args, **arguments):
        super().__init__(*args, **arguments)
        self.logged = []

    def log(self, name, value, **options):
        self.logged.append((name, float(value), options))

    def log_dict(self, dictionary, **options):
        for name, value in dictionary.items():
            self.log(name, value, **options)


def attached(module, **trainer):
    """A module that believes to have a trainer."""
    defaults = {"precision": "32-true", "datamodule": None, "optimizers": [], "estimated_stepping_batches": 100}
    module._trainer = SimpleNamespace(**{**defaults, **trainer})
    return module


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_setup__refuses_precisions_that_round_boxes(precision, stage):
    with pytest.raises(UsageError, match=f"must be one of 32-true, bf16-mixed, 16-mixed, not {precision}"):
        attached(SmallRetinaNet(2), precision=precision).setup(stage)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed", "transformer-engine"])
def test_setup__other_precisions_are_left_to_the_trainer(precision):
    attached(SmallRetinaNet(2), precision=precision).setup("predict")


def test_on_train_batch_start__the_epoch_reaches_the_criterion(monkeypatch):
    module = LoggedRetinaNet(4)
    monkeypatch.setattr(LitRetinaNet, "current_epoch", 3)
    module.on_train_batch_start(None, 0)
    seen = []
    module.criterion.observers.append(lambda samples, values, weights: seen.append(samples.epoch))
    module.training_step(random_batch((2, 1)), 0)
    assert seen == [3]


def test_training_step__logs_the_sum_and_its_terms():
    module = LoggedRetinaNet(4)
    loss = module.training_step(random_batch((2, 1, 0)), 0)
    (name, total, options), *terms = module.logged
    assert (name, options) == ("train_loss", {"prog_bar": True, "batch_size": 3})
    assert total == pytest.approx(loss.item())
    assert [term[0] for term in terms] == ["train_classification", "train_bbox_regression"]
    assert sum(term[1] for term in terms) == pytest.approx(total)
    assert all(term[2] == {"batch_size": 3} for term in terms)


class FakeMetric(torch.nn.Module):
    """A metric that notes what it is given."""

    max_detections, protocol = 100, "coco"

    def __init__(self):
        super().__init__()
        self.given = []

    def update(self, detections, targets, ids):
        self.given.append((detections, targets, ids))

    def compute(self):
        return {"map": torch.tensor(0.5), "map_50": torch.tensor(0.7), "map/ship": torch.tensor(-1.0)}

    def reset(self):
        self.given = []


class TooFewColumns(LoggedRetinaNet):
    """A network that has not the columns it was asked for."""

    def build_model(self, num_classes):
        return super().build_model(2)


def test_training_step__a_network_with_too_few_columns_names_the_labels():
    module = TooFewColumns(4).train()
    images, targets = random_batch((1, 0))
    targets[0]["labels"] = torch.tensor([1])
    module.training_step((images, targets), 0)  # labels that fit are trained
    targets[0]["labels"] = torch.tensor([3])
    with pytest.raises(UsageError, match=r"Labels of this batch run from 3 to 3, but the head has 2 classes"):
        module.training_step((images, targets), 0)


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_evaluation_step__logs_losses_and_counts_detections(stage):
    module = LoggedRetinaNet(4, eval_detections_per_img=5, eval_score_thresh=0.01).eval()
    metric = FakeMetric()
    module.val_map = module.test_map = metric
    prefix = {"validation": "val", "test": "test"}[stage]
    images, targets = random_batch((2, 1))
    targets[0]["iscrowd"] = torch.tensor([0, 1])
    answer = getattr(module, f"{stage}_step")((images, targets), 0)
    assert [name for name, *_ in module.logged] == [
        f"{prefix}_{n}" for n in ("classification", "bbox_regression", "loss")
    ]
    assert module.logged[2][1] == pytest.approx(module.logged[0][1] + module.logged[1][1])
    options = {"on_epoch": True, "on_step": False, "sync_dist": True, "batch_size": 2}
    assert all(given == options for *_, given in module.logged)
    ((detections, counted, ids),) = metric.given
    assert ids == [1, 2]
    assert len(counted[0]["boxes"]) == 2  # the crowd is the metric's to know
    assert all(len(d["scores"]) == 5 for d in detections)
    assert answer == {"detections": detections}
    getattr(module, f"{stage}_step")(
        (images, [targets[0], {k: v for k, v in targets[1].items() if k != "image_id"}]), 0
    )
    assert metric.given[1][2] is None


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_evaluation_step__logs_map_exactly_and_leaves_warning_filters(stage):
    module = LoggedRetinaNet(4)
    module.val_map = module.test_map = metric = FakeMetric()
    metric.given = ["something"]
    filters = list(warnings.filters)
    getattr(module, f"on_{stage}_epoch_end")()
    assert warnings.filters == filters
    assert metric.given == []
    prefix = {"validation": "val", "test": "test"}[stage]
    own = {"add_dataloader_idx": False}  # and no sync_dist: every process has the numbers of all
    assert [(name, options) for name, _, options in module.logged] == [
        (f"{prefix}_map", {"prog_bar": True, **own}),
        (f"{prefix}_map_50", {"prog_bar": True, **own}),
        (f"{prefix}_map/ship", own),
    ]


def test_predict_step__predictions_keep_the_ids_of_targets():
    module = LoggedRetinaNet(4, score_thresh=0.0, detections_per_img=7).eval()
    images, _ = random_batch((2, 1))
    found = module.predict_step((images, [{"file_name": "a.png"}, {"image_id": 3}]), 0)
    assert [(f.get("file_name"), f.get("image_id")) for f in found] == [("a.png", None), (None, 3)]
    assert all(len(f["boxes"]) == len(f["labels"]) == len(f["scores"]) == 7 for f in found)
    assert all(f["scores"].tolist() == sorted(f["scores"].tolist(), reverse=True) for f in found)


def test_forward__bytes_and_floats_give_the_same():
    module = LoggedRetinaNet(4).eval()
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    for a, b in zip(module([image]), module([image / 255]), strict=True):
        torch.testing.assert_close(a, b)


def test_training_step__the_range_of_images_is_checked_once():
    module = LoggedRetinaNet(4)
    images, targets = random_batch((2,))
    batch = ([images[0] * 255], targets)
    with pytest.warns(UserWarning, match=r"Float images must lie in \[0, 1\]"):
        module.training_step(batch, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.training_step(batch, 1)


def test_on_train_start__warns_of_an_ended_schedule_on_resume(monkeypatch):
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.0}, {"lr": 0.0}])
    for step, rates, told in ((5, (0.0, 0.0), True), (0, (0.0, 0.0), False), (5, (0.0, 0.1), False), (5, (), False)):
        monkeypatch.setattr(LitRetinaNet, "global_step", step)
        optimizer.param_groups = [{"lr": rate} for rate in rates]
        module = attached(SmallRetinaNet(4), optimizers=[optimizer])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            module.on_train_start()
        assert any("schedule has ended" in str(w.message) for w in caught) is told


@pytest.mark.parametrize("ended", [False, True])
def test_on_train_start__rates_are_settled_where_training_goes_on(monkeypatch, ended):
    module, settled = attached(SmallRetinaNet(4)), []
    monkeypatch.setattr("lit_dense.training.lit_detector.warn_of_ended_schedule", lambda module: ended)
    module.on_train_start()  # of an optimiser that is a subclass's own
    module._rates = SimpleNamespace(start=settled.append)
    module.on_train_start()
    assert settled == ([] if ended else [module])


@pytest.mark.parametrize("hook", ["on_train_end", "on_save_checkpoint"])
def test_lit_retinanet__checks_the_loss_of_the_last_step(hook):
    module, looked = LoggedRetinaNet(4), []
    find_detector(module).nan_guard.flush = lambda: looked.append(1)
    getattr(module, hook)(*([{}] if hook == "on_save_checkpoint" else []))
    assert looked == [1]


def test_setup__class_counts_are_taken_for_training_alone():
    data = SimpleNamespace(class_counts=COUNTS)
    for stage, expected in (("fit", COUNTS), ("validate", None)):
        module = attached(SmallRetinaNet(4), datamodule=data)
        module.setup(stage)
        assert module.criterion.class_counts is expected
        assert module.class_images == (None if expected is None else COUNTS.images.tolist())
    with pytest.raises(UsageError, match="'federated' needs to know"):
        attached(SmallRetinaNet(4, loss="federated")).setup("fit")
    attached(SmallRetinaNet(4, loss="federated")).setup("validate")


def test_setup__metrics_are_made_where_something_is_evaluated():
    for stage, made in (("fit", True), ("validate", True), ("test", True), ("predict", False)):
        module = attached(SmallRetinaNet(4))
        module.setup(stage)
        assert hasattr(module, "val_map") is hasattr(module, "test_map") is made


def test_configure_optimizers__has_the_rates_and_decays_that_are_asked_for():
    module = attached(SmallRetinaNet(4, lr=0.1, weight_decay=0.3, optimizer="sgd", warmup_steps=4, weighters="swn"))
    made = module.configure_optimizers()
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]
    assert type(optimizer) is torch.optim.SGD
    assert {(g["initial_lr"], g["weight_decay"]) for g in optimizer.param_groups[:2]} == {(0.1, 0.3), (0.1, 0.0)}
    held = [p for g in optimizer.param_groups for p in g["params"]]
    assert {id(p) for p in held} == {id(p) for p in module.parameters()}
    assert len(held) == len(set(map(id, held)))
    assert (schedule["interval"], schedule["frequency"]) == ("step", 1)
    assert schedule["scheduler"].get_last_lr()[0] == pytest.approx(0.1 / 5)


def test_on_fit_start__an_optimiser_without_the_network_of_a_weighter_is_refused():
    module = SmallRetinaNet(4, weighters="swn")
    detector = torch.optim.SGD(module.model.parameters(), lr=0.1)
    whole = torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises(UsageError, match="leaves out the parameters of a weighter's network"):
        attached(module, optimizers=[detector]).on_fit_start()
    attached(module, optimizers=[whole]).on_fit_start()
    module.criterion.requires_grad_(False)
    attached(module, optimizers=[detector]).on_fit_start()
    attached(SmallRetinaNet(4), optimizers=[]).on_fit_start()


def test_configure_model__a_network_that_exists_is_not_built_again():
    module = LoggedRetinaNet(4)
    model = module.model
    module.configure_model()
    assert module.model is model
    waiting = attached(SmallRetinaNet(), datamodule=SimpleNamespace(num_classes=3))
    assert "model" not in dict(waiting.named_children())
    waiting.configure_model()
    assert waiting.model.head.classification_head.num_classes == 3
    nothing = attached(SmallRetinaNet(), datamodule=SimpleNamespace(num_classes=0))
    nothing.configure_model()
    with pytest.raises(UsageError, match="LitRetinaNet needs num_classes"):
        nothing.check_num_classes()
    assert isinstance(model.head, RetinaNetHead)


def test_lit_retinanet__the_network_has_the_limits_that_prediction_and_evaluation_need_together():
    limits = {"detections_per_img": 4, "eval_detections_per_img": 9, "score_thresh": 0.3, "eval_score_thresh": 0.2}
    model = LoggedRetinaNet(4, nms_thresh=0.6, topk_candidates=77, **limits).model
    assert (model.detections_per_img, model.score_thresh) == (9, 0.2)
    assert (model.nms_thresh, model.topk_candidates) == (0.6, 77)


def test_on_load_checkpoint__warns_of_other_parts_and_not_of_the_same():
    module = LoggedRetinaNet(4)
    same = {"lit_dense": {"criterion": module.criterion.spec}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.on_load_checkpoint(same)
        module.on_load_checkpoint({})
    other = {
        "lit_dense": {
            "criterion": {**module.criterion.spec, "loss": LoggedRetinaNet(4, loss="bce").criterion.spec["loss"]}
        }
    }
    with pytest.warns(UserWarning, match="The checkpoint was trained with loss .*'bce'.*; this model has .*'focal'"):
        module.on_load_checkpoint(other)


@pytest.mark.parametrize(
    ("backbone", "given", "expected"),
    [
        ("resnet50", None, "L1Loss"),
        ("retinanet_resnet50_fpn", None, "L1Loss"),
        ("retinanet_resnet50_fpn_v2", None, "GIoULoss"),
        ("retinanet_resnet50_fpn_v2", "l1", "L1Loss"),
    ],
)
def test_lit_retinanet__the_box_loss_is_that_of_torchvisions_detector(backbone, given, expected):
    assert type(LitRetinaNet(backbone=backbone, box_loss=given).criterion.box_loss).__name__ == expected


@pytest.mark.parametrize(("loss", "kept"), [("focal", True), ("softmax", False)])
def test_configure_model__a_trained_classifier_is_kept_where_its_columns_keep_their_meaning(loss, kept):
    whole = {"backbone": "retinanet_resnet50_fpn", "weights": "COCO_V1"}
    module = LoggedRetinaNet(91, loss=loss, **whole)
    assert module.network_options["keep_classifier"] is kept
    assert (module.categories is not None) is kept
    assert LoggedRetinaNet(5, loss=loss, **whole).categories is None
    if kept:
        assert module.categories[1] == {"id": 1, "name": "person"}


def test_lit_retinanet__has_the_usual_defaults():
    module = LitRetinaNet()
    assert module.network_options["min_size"] == 800
    assert module.network_options["max_size"] == 1333
    assert module.evaluation == EvaluationSettings(0.001, 300, None, "coco", None, (10, 100))
    assert module.optimization == Optimization("adamw", 1e-4, 1.0, 0.05, "cosine", 500, (0.67, 0.89))
    assert module.lr == 1e-4
    assert (module.score_thresh, module.nms_thresh, module.topk_candidates, module.detections_per_img) == (
        0.05,
        0.5,
        1000,
        300,
    )
