"""A trained checkpoint on disk, for commands that start from one."""

import yaml

from lit_dense.cli.lightning_cli import run
from tests.builders.coco_files import data_arguments, write_shape_splits

NETWORK = {"backbone": "tiny", "fpn_channels": 16, "min_size": 64, "max_size": 64}


def one_step(folder, **trainer):
    """Train one step on shapes; returns the configuration and the checkpoint."""
    write_shape_splits(folder)
    options = {
        "accelerator": "cpu",
        "max_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "logger": False,
        "default_root_dir": str(folder / "runs"),
        **trainer,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"trainer": options, "model": NETWORK, "data": data_arguments(folder)}))
    run(["fit", f"--config={path}"]).trainer.save_checkpoint(folder / "plain.ckpt")
    return path, folder / "plain.ckpt"
