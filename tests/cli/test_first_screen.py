"""What ``lit-dense fit`` shows before the first step and at its end."""

import logging
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lit_dense import LitRetinaNet
from lit_dense.cli import first_screen
from lit_dense.cli.first_screen import FirstScreen, checkpoint_lines, class_table, quiet
from lit_dense.core.class_counts import ClassCounts
from tests.builders.trainers import FakeTrainer


@pytest.fixture
def lines(monkeypatch):
    shown = []
    monkeypatch.setattr(first_screen, "rank_zero_info", lambda text: shown.extend(text.splitlines()))
    return shown


def evaluation(names, ap):
    return SimpleNamespace(
        class_names=names, ap=np.array(ap), ap_50=np.array(ap) * 1.5, numbers={"map": 0.3, "map_50": 0.45}
    )


def test_first_screen__is_about_data_model_and_places(tmp_path, lines):
    data = SimpleNamespace(offsets=np.array([0, 2, 2, 5]))
    counts = ClassCounts(instances=torch.tensor([4, 1]), images=torch.tensor([2, 1]), num_images=3)
    module = LitRetinaNet(2, "tiny", fpn_channels=16, loss="ghm")
    data_module = SimpleNamespace(
        data={"train": data}, categories=[{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], class_counts=counts
    )
    trainer = FakeTrainer(
        tmp_path, datamodule=data_module, estimated_stepping_batches=1200, world_size=2, precision="32-true"
    )
    FirstScreen().on_train_start(trainer, module)
    assert lines[:2] == ["train: 3 images, 5 boxes, 1 images without boxes", "classes: 2, 1 (b) to 4 (a) boxes"]
    assert lines[2].startswith("model: retinanet, 0.")
    assert lines[2].endswith("million parameters; losses ghm, l1; 2 processes, cpu, precision 32-true; 1,200 steps")
    assert lines[3:] == [f"results: {tmp_path}"]


def test_first_screen__of_another_data_module_has_no_data_lines(tmp_path, lines):
    trainer = FakeTrainer(
        tmp_path, datamodule=object(), estimated_stepping_batches=1, world_size=1, precision="32-true"
    )
    FirstScreen().on_train_start(trainer, LitRetinaNet(2, "tiny", fpn_channels=16))
    assert [line.split(":")[0] for line in lines] == ["model", "results"]


def test_last_screen__has_the_classes_and_the_places(tmp_path, lines):
    module = SimpleNamespace(val_map=SimpleNamespace(evaluation=evaluation(["good", "bad", "none"], [0.5, 0.1, -1])))
    FirstScreen().on_fit_end(FakeTrainer(tmp_path, checkpoint_callbacks=[]), module)
    assert lines == [
        "class      AP    AP50",
        "bad     0.100   0.150",
        "good    0.500   0.750",
        "all     0.300   0.450",
        f"Logs and plots: {tmp_path}",
    ]


def test_last_screen__of_many_classes_has_the_lowest():
    table = class_table(evaluation([f"c{i}" for i in range(50)], np.linspace(0, 1, 50)))
    assert len(table) == 33
    assert table[31] == "and 20 classes of higher AP"
    assert class_table(None) == []


def test_quiet__hides_what_does_not_concern_the_user(caplog):
    with quiet(), caplog.at_level(logging.INFO), warnings.catch_warnings(record=True) as seen:
        rank_zero_info("💡 Tip: install something")
        rank_zero_info("`Trainer.fit` stopped")
        for module in (
            "lightning.pytorch.utilities._pytree",
            "torch.utils",
            "mylocal",
            "lit_dense._moved",
            "torchlike",
        ):
            warnings.warn_explicit("is deprecated", DeprecationWarning, "file.py", 1, module)
            warnings.warn_explicit("mind this", UserWarning, "file.py", 1, module)
        warnings.warn("Be aware that when using `ckpt_path`, callbacks used to create the checkpoint", stacklevel=1)
        warnings.warn("Starting from v1.9.0, `tensorboardX` has been removed as a dependency", stacklevel=1)
        warnings.warn("Checkpoint directory /a/b exists and is not empty.", stacklevel=1)
    assert [record.getMessage() for record in caplog.records] == ["`Trainer.fit` stopped"]
    messages = [str(w.message) for w in seen]
    assert len(messages) == 8
    assert messages.count("mind this") == 5
    assert messages.count("is deprecated") == 3
    with caplog.at_level(logging.INFO):
        rank_zero_info("💡 Tip: outside")
    assert caplog.records[-1].getMessage() == "💡 Tip: outside"


def test_checkpoint_lines__name_the_checkpoints_of_an_earlier_run(tmp_path):
    callbacks = [ModelCheckpoint(tmp_path), ModelCheckpoint(), object()]
    trainer = FakeTrainer(tmp_path, checkpoint_callbacks=callbacks, ckpt_path=None)
    (tmp_path / "lightning_logs").mkdir()
    assert checkpoint_lines(trainer) == []
    for name in ("last.ckpt", "best.ckpt"):
        (tmp_path / name).touch()
    assert checkpoint_lines(trainer) == [f"checkpoints of an earlier run: best.ckpt, last.ckpt in {tmp_path}"]
    trainer.ckpt_path = "last.ckpt"
    assert checkpoint_lines(trainer) == []


def test_first_screen__the_sanity_check_is_no_result(lines):
    metric = SimpleNamespace(evaluation=object())
    module = SimpleNamespace(val_map=metric, more_val_maps=[])
    trainer = FakeTrainer("log", enable_validation=True, global_step=2)
    screen = FirstScreen()
    screen.on_sanity_check_end(trainer, module)
    assert metric.evaluation is None
    screen.on_fit_end(trainer, module)
    assert lines[0].startswith("No validation ran in 2 steps: there is no AP")
