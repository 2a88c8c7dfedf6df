"""Lightning's callbacks that average weights copy the module before its setup."""

import pytest
import torch
from lightning.pytorch import callbacks

from lit_dense import LitDetector
from tests.builders.coco_files import write_noise
from tests.builders.data_modules import data_module
from tests.builders.trainers import trainer_in

pytestmark = pytest.mark.skipif(not hasattr(callbacks, "EMAWeightAveraging"), reason="this lightning has no averages")


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "ecm"},
        {"loss": "federated", "class_weights": "balanced", "num_classes": 3},
        {"loss": "focal", "calibrator": {"class_path": "logit_adjustment", "init_args": {"tau": 1.0}}},
    ],
    ids=["ecm", "federated", "calibrator"],
)
@pytest.mark.parametrize("start", [1, 100])
def test_lit_detector__averages_know_the_class_counts_from_the_first_validation_on(options, start, tmp_path):
    write_noise(tmp_path, 9)
    write_noise(tmp_path, 3, "val")
    torch.manual_seed(0)
    sizes = {"fpn_channels": 32, "head_convs": 1, "min_size": 64, "max_size": 64, "optimizer": "sgd"}
    module = LitDetector(backbone="tiny", **sizes, **options)
    data, averages = data_module(tmp_path, "train", "val"), callbacks.EMAWeightAveraging(update_starting_at_step=start)
    trainer = trainer_in(tmp_path, averages, num_sanity_val_steps=2, max_epochs=1)
    trainer.fit(module, data)
    assert torch.isfinite(trainer.callback_metrics["val_loss"])
    plain = LitDetector(backbone="tiny", **sizes, **options)
    trainer_in(tmp_path, max_epochs=1).fit(plain, data)
    tables = {name: value for name, value in plain.state_dict().items() if name.endswith(".values")}
    assert all(torch.equal(module.state_dict()[name], value) for name, value in tables.items())
