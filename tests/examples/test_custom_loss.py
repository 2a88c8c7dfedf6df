"""The package under examples/custom_loss, installed as anybody's is."""

import pytest
import yaml

from tests.builders.coco_files import data_arguments, write_shapes
from tests.builders.example_packages import install, ran


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return install("custom_loss", tmp_path_factory.mktemp("custom_loss"))


@pytest.mark.ddp
def test_custom_loss__its_own_tests_pass(package):
    source, environment = package
    said = ran(["pytest", "-q", "-p", "no:cacheprovider", "tests"], source, environment)
    assert "4 passed" in said


def test_custom_loss__is_listed_and_trained_by_name(package, tmp_path):
    _, environment = package
    assert "hinge" in ran(["lit_dense", "list"], tmp_path, environment)
    write_shapes(tmp_path, "train")
    write_shapes(tmp_path, "val", seed=1)
    trainer = {"accelerator": "cpu", "max_steps": 1, "limit_val_batches": 1, "enable_progress_bar": False}
    config = {
        "trainer": {**trainer, "default_root_dir": str(tmp_path / "runs")},
        "model": {"backbone": "tiny", "fpn_channels": 16, "min_size": 64, "max_size": 64},
        "data": data_arguments(tmp_path),
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    words = ["fit", "--config=config.yaml", "--model.loss=hinge", "--model.loss.margin=0.5"]
    ran(["lit_dense", *words], tmp_path, environment)
    (saved,) = (tmp_path / "runs").rglob("config.yaml")
    assert "margin: 0.5" in saved.read_text()
