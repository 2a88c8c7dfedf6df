"""The examples run, and do what they say."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lit_dense.core.errors import UsageError
from tests.builders.coco_files import data_arguments, write_shape_splits
from tests.builders.example_packages import ran
from tests.builders.project_files import EXAMPLES

QUIET = {"enable_progress_bar": False, "enable_model_summary": False}


def example(name):
    specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_own_detector__learns():
    metrics = example("own_detector").main(epochs=3, **QUIET)
    assert metrics["val_map_50"] >= 0
    assert metrics["train_loss"] < 3


def test_own_data__trains_with_names_and_class_counts_of_its_own_data_module():
    metrics = example("own_data").main(epochs=1, **QUIET)
    assert metrics["val_map_50"] >= 0
    assert {"val_map_50", "train_loss"} <= set(metrics)


def test_swap_loss__changes_the_training_of_another_project():
    main = example("swap_loss").main
    bce, focal = (main(loss, enable_checkpointing=False, **QUIET) for loss in ("bce", "focal"))
    assert set(bce) == {"classification", "bbox_regression"}
    assert bce["classification"] > 2 * focal["classification"]


def test_yolox_head__learns():
    metrics = example("yolox_head").main(epochs=4, **QUIET)
    assert {"classification", "bbox_regression", "objectness"} <= set(metrics)
    assert metrics["map_50"] > 0.5


@pytest.mark.parametrize(
    ("class_loss", "objectness_loss"), [("softmax", "bce"), ("qfl", "ghm"), ("ghm", "focal"), ("eql_v2", "asl")]
)
def test_yolox_head__takes_losses_by_name(class_loss, objectness_loss):
    module = example("yolox_head")
    detector = module.Detector(class_loss=class_loss, objectness_loss=objectness_loss)
    images, targets = next(iter(module.shapes(1)))
    empty = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}] * len(images)
    for batch in ((images, targets), (images, empty)):
        terms = detector.losses(*batch)
        sum(terms.values()).backward()
        assert set(terms) == {"classification", "bbox_regression", "objectness"}
        assert all(term.isfinite() for term in terms.values())
        assert all(p.grad is not None and p.grad.isfinite().all() for p in detector.parameters())
    assert detector.class_criterion.step == detector.object_criterion.step == 2
    assert any("criterion" in name for name in detector.state_dict())
    assert {"boxes", "scores", "labels"} == set(detector.eval().detect(images)[0])


def test_yolox_head__an_error_names_what_a_loss_lacks():
    module = example("yolox_head")
    detector = module.Detector(objectness_loss="vfl")  # objectness is given without boxes, and so without an IoU
    with pytest.raises(UsageError, match=r"These samples have no predicted boxes or deltas: give boxes=\[A, 4\]"):
        detector.losses(*next(iter(module.shapes(1))))


def test_own_cli__takes_its_own_loss(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shape_splits(tmp_path)
    module = example("own_cli")
    monkeypatch.setitem(__import__("sys").modules, "own_cli", module)
    config = {
        "model": {"backbone": "tiny", "fpn_channels": 16, "min_size": 64, "max_size": 64},
        "data": data_arguments(tmp_path),
        "trainer": {"max_steps": 1, "accelerator": "cpu", "logger": False, **QUIET},
    }
    Path("config.yaml").write_text(yaml.safe_dump(config))
    cli = module.main(["fit", "--config=config.yaml", "--model.loss=LogitHinge", "--model.loss.margin=0.5"])
    assert cli.model.criterion.loss.margin == 0.5


@pytest.mark.slow
def test_ddp__script_runs(tmp_path):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # also of an environment not active
    arguments = ["--trainer.max_steps=2", "--trainer.limit_val_batches=1", f"--trainer.default_root_dir={tmp_path}"]
    command = ["bash", EXAMPLES / "ddp.sh", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stderr
    assert "MEMBER: 2/2" in done.stderr


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [("custom_detector", 2), ("custom_loss", 4)])
def test_example_packages__their_own_tests_pass(installed, name, number):
    source, environment = installed(name)
    assert f"{number} passed" in ran(["pytest", "-q", "-p", "no:cacheprovider", "tests"], source, environment)
