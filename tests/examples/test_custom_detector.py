"""The package under examples/custom_detector, installed as anybody's is."""

import pytest

from tests.builders.example_packages import ran

SWAP = """
import torch
from lightning.pytorch import LightningModule, Trainer
from lit_dense import SwapLoss
from lit_dense.callbacks import LossPlots, WeightPlots
from grid_detector import GridDetector

class Foreign(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = GridDetector(num_classes=3)

    def training_step(self, batch, batch_idx):
        return sum(self.net(*batch).values())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)

target = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([2])}
data = torch.utils.data.DataLoader([(list(torch.rand(2, 3, 64, 64)), [target, target])], batch_size=None)
swap = SwapLoss("ghm", weighters="ohem")
quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
Trainer(max_steps=1, callbacks=[swap, LossPlots(1), WeightPlots(1)], **quiet).fit(Foreign(), data)
print(swap.criterion.step, type(swap.criterion.loss).__name__)
"""


@pytest.mark.slow
def test_custom_detector__trains_in_another_projects_module(installed, tmp_path):
    _, environment = installed("custom_detector")
    (tmp_path / "swap.py").write_text(SWAP)
    assert "1 GHMLoss" in ran(["swap"], tmp_path, environment)
    assert (tmp_path / "loss" / "step_000001.png").exists()
    assert not (tmp_path / "weights").exists()  # it has no anchors to draw
