"""One callback replaces the loss of a LightningModule that does not use lit_dense.

python examples/swap_loss.py
"""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.models.detection import retinanet_resnet50_fpn

from lit_dense import SwapLoss


class SomebodysDetector(LightningModule):
    """LightningModule written only for torchvision: it sums the loss terms that its model returns."""

    def __init__(self, num_classes: int = 3, size: int = 128) -> None:
        super().__init__()
        self.model = retinanet_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=num_classes, min_size=size, max_size=size
        )

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, targets = batch
        terms = self.model(images, targets)
        self.log_dict(terms, batch_size=len(images))
        return torch.stack(list(terms.values())).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def squares(batches: int = 2) -> DataLoader[Any]:
    """Create batches in torchvision's format: an image with one bright square, and an image without objects."""
    made = []
    for seed in range(batches):
        images = list(torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(seed)) * 0.3)
        images[0][:, 32:80, 40:88] = 1.0
        square = {"boxes": torch.tensor([[40.0, 32.0, 88.0, 80.0]]), "labels": torch.tensor([1])}
        nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
        made.append((images, [square, nothing]))
    return DataLoader(made, batch_size=None)  # type: ignore[arg-type]  # a list is a data set


def main(loss: str = "bce", **trainer: Any) -> dict[str, float]:
    """Train with another loss, and return the logged metrics."""
    swap = SwapLoss(loss, box_loss="giou", normalizer="batch")
    run = Trainer(max_epochs=1, accelerator="cpu", logger=False, callbacks=[swap], log_every_n_steps=1, **trainer)
    run.fit(SomebodysDetector(), squares())
    return {name: float(value) for name, value in run.callback_metrics.items()}


if __name__ == "__main__":
    print(main(enable_checkpointing=False))
