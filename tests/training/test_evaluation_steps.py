"""Evaluation of LitRetinaNet: several loaders, groups of classes in checkpoints, the evaluator."""

from types import SimpleNamespace

import pytest
import torch

from lit_dense.metrics import DetectionMAP
from lit_dense.metrics.map_logging import log_maps
from tests.builders.detectors import NUM_CLASSES, random_batch
from tests.builders.lit_modules import SmallRetinaNet
from tests.builders.trainers import loader, trainer_in

CATEGORIES = [{"id": 10 + label, "name": f"c{label}"} for label in range(NUM_CLASSES)]


def module_of(stage="val", loaders=1, **arguments):
    """A module that is about to evaluate, and what it logs."""
    module = SmallRetinaNet(NUM_CLASSES, **arguments)
    module.categories = CATEGORIES
    module.trainer = SimpleNamespace(num_val_batches=[1] * loaders, num_test_batches=[2] * loaders, world_size=1)
    module.logged = {}

    def log_dict(values, **options):
        assert module.logged.keys().isdisjoint(values)
        module.logged.update(values)

    module.log_dict = log_dict
    module.eval()._make_metrics()
    {"val": module.on_validation_start, "test": module.on_test_start}[stage]()
    return module


# Several loaders


@pytest.mark.parametrize("stage", ["val", "test"])
def test_evaluation__each_loader_has_numbers_of_its_own(stage):
    module = module_of(stage, loaders=2)
    step = {"val": module.validation_step, "test": module.test_step}[stage]
    end = {"val": module.on_validation_epoch_end, "test": module.on_test_epoch_end}[stage]
    batches = [random_batch((2, 3), seed=1), random_batch((2, 0, 1), seed=2)]
    expected = {}
    with torch.no_grad():
        for index, batch in enumerate(batches):
            module.logged = {}
            found = step(batch, 0, dataloader_idx=index)["detections"]
            metric = DetectionMAP([c["name"] for c in CATEGORIES])
            metric.update(found, batch[1], [t["image_id"] for t in batch[1]])
            ends = f"/dataloader_idx_{index}"
            expected |= {f"{stage}_{name}{ends}": value.item() for name, value in metric.compute().items()}
    module.logged = {}
    end()
    assert {name: value.item() for name, value in module.logged.items()} == pytest.approx(expected)
    assert expected[f"{stage}_map/c0/dataloader_idx_0"] != expected[f"{stage}_map/c0/dataloader_idx_1"]
    assert all(metric.images == [] for metric in module._maps(stage))  # the next evaluation starts anew


def test_evaluation__one_loader_has_names_without_a_suffix():
    module = module_of()
    with torch.no_grad():
        module.validation_step(random_batch(), 0)
    module.logged = {}
    module.on_validation_epoch_end()
    assert {"val_map", "val_map_50", "val_map/c0"} <= module.logged.keys()


def test_log_maps__the_numbers_shown_are_those_of_every_loader():
    shown, named = [], []

    def log_dict(values, prog_bar=False, add_dataloader_idx=True):
        assert not add_dataloader_idx  # the end is there already
        (shown if prog_bar else named).extend(values)

    log_maps(SimpleNamespace(log_dict=log_dict), "val", [metric_of_nothing(), metric_of_nothing()])
    assert shown == [f"{name}/dataloader_idx_{k}" for k in (0, 1) for name in ("val_map", "val_map_50")]
    assert len(named) == 2 * 10


def metric_of_nothing():
    metric = DetectionMAP()
    metric.update([], [])
    return metric


def test_evaluation__fewer_loaders_than_before_leave_none_behind():
    module = module_of(loaders=3)
    assert len(module._maps("val")) == 3
    module.trainer.num_val_batches = [5]
    module.on_validation_start()
    assert module._maps("val") == [module.val_map]


def test_evaluation__a_trainer_evaluates_several_loaders_as_it_does_each(tmp_path):
    module, trainer = SmallRetinaNet(NUM_CLASSES), trainer_in(tmp_path)
    loaders = [loader(1, 2), loader(3, counts=(1, 4))]
    both = trainer.validate(module, loaders, verbose=False)
    for index, found in enumerate(both):
        (alone,) = trainer.validate(module, loaders[index], verbose=False)
        # Lightning gives the numbers of the epoch's end to the first loader's dictionary or to all, by its version
        found = {**both[0], **found}
        assert {name: found[f"{name}/dataloader_idx_{index}"] for name in alone} == pytest.approx(alone)
    assert both[0]["val_map/dataloader_idx_0"] != {**both[0], **both[1]}["val_map/dataloader_idx_1"]


def test_evaluation__a_trainer_tests_and_predicts_on_several_loaders(tmp_path):
    module, trainer = SmallRetinaNet(NUM_CLASSES), trainer_in(tmp_path)
    loaders = [loader(1), loader(3, counts=(1, 4))]
    assert "test_map/dataloader_idx_1" in {
        **trainer.test(module, loaders, verbose=False)[0],
        **trainer.callback_metrics,
    }
    found = trainer.predict(module, loaders)
    assert [len(batch) for batches in found for batch in batches] == [3, 2]


def test_evaluation__a_callback_can_follow_one_of_several_loaders_through_training(tmp_path):
    trainer = trainer_in(tmp_path, max_epochs=2)
    trainer.fit(SmallRetinaNet(NUM_CLASSES, warmup_steps=0), loader(0), [loader(1), loader(2)])
    assert {f"val_map/dataloader_idx_{k}" for k in (0, 1)} <= trainer.callback_metrics.keys()
    assert {f"val_loss/dataloader_idx_{k}" for k in (0, 1)} <= trainer.callback_metrics.keys()


# Groups of classes


def test_evaluation__a_checkpoint_keeps_how_many_images_had_each_class():
    module = module_of(frequency_bounds=(1, 20))
    module.class_images = [1, 5, 50, 0]
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["lit_dense"]["class_images"] == [1, 5, 50, 0]
    assert checkpoint["lit_dense"]["categories"] == CATEGORIES
    later = module_of(frequency_bounds=(1, 20))
    assert "val_map_rare" not in later.val_map.compute()
    later.on_load_checkpoint(checkpoint)
    assert later.val_map.groups == later.test_map.groups == {"rare": [0, 3], "common": [1], "frequent": [2]}
    assert {"map_rare", "map_common", "map_frequent"} <= later.val_map.compute().keys()


def test_evaluation__groups_of_another_number_of_classes_are_left_out():
    module = module_of()
    module.class_images = [1, 2]
    module._make_metrics()
    assert module.val_map.groups == {}


def test_evaluation__arguments_reach_every_metric():
    arguments = {"eval_backend": "pycocotools", "eval_protocol": "lvis", "eval_max_detections": 50}
    module = module_of(loaders=2, **arguments)
    for metric in (*module._maps("val"), *module._maps("test")):
        assert (metric.backend, metric.protocol, metric.limits) == ("pycocotools", "lvis", (50,))
        assert metric.class_names == tuple(c["name"] for c in CATEGORIES)
    assert module.hparams["eval_backend"] == "pycocotools"
