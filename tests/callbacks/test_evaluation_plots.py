import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_dense.callbacks import DetectionPlots, EvaluationPlots
from lit_dense.core.errors import UsageError
from lit_dense.metrics import DetectionMAP, DetectionTable
from lit_dense.visualization import figures
from tests.builders.detectors import NUM_CLASSES, random_batch
from tests.builders.lit_modules import SmallRetinaNet
from tests.builders.trainers import CollectiveTrainer, FakeTrainer, loader, trainer_in

FILES = ["confusion.png", "precision_recall.png"]


def logging_trainer(folder, *callbacks, **arguments):
    logger = TensorBoardLogger(folder, name="", version="run")
    return trainer_in(folder, *callbacks, logger=logger, **{"num_sanity_val_steps": 0, **arguments})


def files(folder):
    return sorted(path.name for path in folder.glob("run/*.[pn][np][gz]"))


def test_evaluation_plots__each_validation_writes_plots_to_the_folder_and_to_tensorboard(tmp_path):
    trainer = logging_trainer(tmp_path, EvaluationPlots(), DetectionPlots(num_images=2), max_epochs=2)
    trainer.fit(SmallRetinaNet(NUM_CLASSES), loader(0, 1), loader(2))
    assert files(tmp_path) == ["confusion.png", "detections.png", "precision_recall.png"]
    with Image.open(tmp_path / "run" / "precision_recall.png") as picture:
        assert picture.size == (1000, 600)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    tags = {"evaluation/precision_recall", "evaluation/confusion", "detections/picture"}
    assert set(events.Tags()["images"]) == tags
    for tag in tags:
        assert [event.step for event in events.Images(tag)] == [1, 3]  # as the numbers of the same validation
    assert [event.step for event in events.Scalars("val_map")] == [1, 3]


def test_evaluation_plots__save_rows_writes_the_table(tmp_path):
    trainer = logging_trainer(tmp_path, EvaluationPlots(save_rows=True))
    trainer.validate(SmallRetinaNet(NUM_CLASSES), loader(2), verbose=False)
    assert files(tmp_path) == ["confusion.png", "evaluation.npz", "precision_recall.png"]
    rows = DetectionTable.load(tmp_path / "run" / "evaluation.npz")
    assert rows.image_ids.tolist() == [1, 2, 3]
    _, targets = random_batch((2, 0, 3), seed=2)
    np.testing.assert_allclose(rows.boxes[rows.kinds == 1], torch.cat([t["boxes"] for t in targets]).numpy())


def test_evaluation_plots__images_without_objects_are_drawn_too(tmp_path):
    trainer = logging_trainer(tmp_path, EvaluationPlots())
    trainer.validate(SmallRetinaNet(NUM_CLASSES), loader(2, counts=(0, 0)), verbose=False)
    assert files(tmp_path) == FILES


def test_evaluation_plots__a_sanity_check_leaves_nothing(tmp_path):
    logging_trainer(tmp_path, EvaluationPlots(), num_sanity_val_steps=1, limit_train_batches=0, max_epochs=0).fit(
        SmallRetinaNet(NUM_CLASSES), loader(0), loader(2)
    )
    seen = []
    callback = EvaluationPlots()
    callback._draw = lambda *args: seen.append(args[0].sanity_checking)
    logging_trainer(tmp_path, callback, num_sanity_val_steps=1).fit(SmallRetinaNet(NUM_CLASSES), loader(0), loader(2))
    assert seen == [False]


class Foreign(LightningModule):
    """Validates with a metric of its own, deep inside."""

    def __init__(self, *metrics):
        super().__init__()
        self.inside = torch.nn.ModuleList(metrics)

    def validation_step(self, batch, batch_idx):
        targets = batch[1]
        found = [{**t, "scores": torch.ones(len(t["labels"]))} for t in targets]
        self.inside[-1].update(found, targets, [t["image_id"] for t in targets])

    def on_validation_epoch_end(self):
        self.inside[-1].compute()


def test_evaluation_plots__find_the_metric_of_any_module_and_do_not_draw_an_old_evaluation(tmp_path):
    names = [f"c{k}" for k in range(NUM_CLASSES)]
    old, new = DetectionMAP(class_names=["of another set"]), DetectionMAP(class_names=names)
    old.update([], [])
    old.compute()
    drawn = []
    callback = EvaluationPlots()
    callback._draw = lambda trainer, folder, evaluation: drawn.append(evaluation)
    logging_trainer(tmp_path, callback).validate(Foreign(old, new), loader(2), verbose=False)
    assert drawn == [new.evaluation]
    assert drawn[0].class_names == tuple(names)


def test_evaluation_plots__a_module_without_the_metric_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="Foreign has no DetectionMAP"):
        logging_trainer(tmp_path, EvaluationPlots()).validate(Foreign(), loader(2), verbose=False)


def _validate(rank, folder):
    module = torch.nn.Sequential(DetectionMAP(class_names=["a", "b", "c", "d"]))
    trainer = CollectiveTrainer(folder, rank)
    callback = EvaluationPlots(save_rows=True)
    callback.on_validation_start(trainer, module)
    if rank == 0:  # the other process holds no image
        _, targets = random_batch((2, 1))
        module[0].update([{**t, "scores": torch.ones(len(t["labels"]))} for t in targets], targets, [1, 2])
    module[0].compute()
    callback.on_validation_end(trainer, module)
    return module[0].evaluation.rows is None


@pytest.mark.ddp
def test_evaluation_plots__the_first_of_two_processes_draws(two_processes, tmp_path):
    assert two_processes(_validate, str(tmp_path)) == [False, True]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "confusion.png",
        "evaluation.npz",
        "precision_recall.png",
    ]


def _first_images(rank, folder):
    """The images that two validations draw, each process having its share in order, as Lightning's sampler gives it."""
    trainer = CollectiveTrainer(folder, rank)
    callback, ids = DetectionPlots(num_images=2), []
    for _ in range(2):
        callback.on_validation_epoch_start(trainer, None)
        for index in torch.utils.data.DistributedSampler(range(6), 2, rank, shuffle=False):
            batch = ([torch.zeros(3, 8, 8)], [{"image_id": index}])
            callback.on_validation_batch_end(trainer, None, {"detections": [{}]}, batch, index)
        ids.append([target["image_id"] for _, target, _ in callback._seen])
    return ids


@pytest.mark.ddp
def test_detection_plots__two_processes_draw_the_same_images_each_time(two_processes, tmp_path):
    assert two_processes(_first_images, str(tmp_path)) == [[[0, 2], [0, 2]], [[], []]]


def evaluated_with(scores, confusion_score=0.3):
    metric = DetectionMAP(class_names=["a"], confusion_score=confusion_score)
    box, labels = torch.tensor([[1.0, 1, 9, 9]]), torch.zeros(1, dtype=torch.int64)
    found = {
        "boxes": box.expand(len(scores), 4), "labels": labels.expand(len(scores)), "scores": torch.tensor(scores)
    }  # fmt: skip
    metric.update([found], [{"boxes": box, "labels": labels}], [1])
    metric.compute()
    return metric


@pytest.mark.parametrize(
    ("scores", "note"), [([0.31, 0.1], "0 of 2 detections score 0.5 or more; the best is 0.31"), ([0.6], ""), ([], "")]
)
def test_evaluation_plots__a_confusion_matrix_without_detections_says_so(tmp_path, monkeypatch, scores, note):
    module, trainer = torch.nn.Sequential(), FakeTrainer(tmp_path)
    callback, notes = EvaluationPlots(), []
    real = figures.confusion_figure
    monkeypatch.setattr(figures, "confusion_figure", lambda *args: notes.append(args[3]) or real(*args))
    module.append(DetectionMAP())
    callback.on_validation_start(trainer, module)
    module[0] = evaluated_with(scores, 0.5)
    callback.on_validation_end(trainer, module)
    assert notes == [note]
    titles = real(*module[0].evaluation.confusion[None], ["a"], 0.5, note).axes[0].get_title()
    assert titles == "Confusion, IoU 0.5, score from 0.5" + (f"\n{note}" if note else "")


def test_evaluation_plots__the_first_of_several_new_evaluations_is_drawn(tmp_path):
    module, trainer = torch.nn.Sequential(), FakeTrainer(tmp_path)
    callback, drawn = EvaluationPlots(), []
    callback._draw = lambda trainer, folder, evaluation: drawn.append((folder, evaluation))
    module.extend([DetectionMAP(), DetectionMAP(), DetectionMAP()])
    callback.on_validation_start(trainer, module)
    module[1], module[2] = evaluated_with([0.9]), evaluated_with([0.8])
    callback.on_validation_end(trainer, module)
    assert drawn == [(tmp_path, module[1].evaluation)]
