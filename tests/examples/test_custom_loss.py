"""The package under examples/custom_loss, installed as anybody's is."""

import yaml

from tests.builders.coco_files import data_arguments, write_shape_splits
from tests.builders.example_packages import ran


def test_custom_loss__is_listed_and_trained_by_name(installed, tmp_path):
    _, environment = installed("custom_loss")
    assert "hinge" in ran(["lit_dense", "list"], tmp_path, environment)
    write_shape_splits(tmp_path)
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
