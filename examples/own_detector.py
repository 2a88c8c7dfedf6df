"""A project that subclasses LitRetinaNet, with its own backbone, optimiser and batch format.

python examples/own_detector.py
"""

from collections import OrderedDict
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from lit_dense import LitRetinaNet


class Backbone(nn.Module):
    """Backbone with two levels of strides 8 and 16."""

    out_channels = 32

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 4, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.down = nn.Conv2d(32, 32, 3, 2, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.stem(images)
        return OrderedDict([("fine", fine), ("coarse", self.down(fine))])


class ShipDetector(LitRetinaNet):
    """LitRetinaNet with three methods overridden: network, batch format and optimiser.

    Args:
        momentum: Momentum of the optimiser.
        arguments: Arguments of LitRetinaNet, such as ``loss`` and ``weighters``.
    """

    def __init__(self, momentum: float = 0.9, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.momentum = momentum

    def build_model(self, num_classes: int) -> RetinaNet:
        anchors = AnchorGenerator(((16, 24), (32, 48)), ((0.5, 1.0, 2.0),) * 2)
        return RetinaNet(Backbone(), num_classes, anchor_generator=anchors, min_size=64, max_size=64)

    def unpack_batch(self, batch: dict[str, Any]) -> tuple[list[Tensor], list[dict[str, Any]]]:
        """Convert a batch: it has a tensor of images, and objects as rows of (image, class, x1, y1, x2, y2)."""
        images, objects = batch["image"], batch["objects"]
        rows = [objects[objects[:, 0] == index] for index in range(len(images))]
        return list(images), [{"boxes": r[:, 2:], "labels": r[:, 1].long()} for r in rows]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=self.momentum)


def ships(batches: int = 8) -> DataLoader[Any]:
    """Create batches in this project's format: bright ships on a dark sea; some images have none."""
    sea = []
    for seed in range(batches):
        generator = torch.Generator().manual_seed(seed)
        images = torch.rand(4, 3, 64, 64, generator=generator) * 0.3
        objects = []
        for image in range(seed % 4 + 1):
            x, y = (int(v) for v in torch.randint(0, 40, (2,), generator=generator))
            kind = int(torch.randint(2, (1,), generator=generator))
            width, height = (24, 12) if kind else (16, 16)
            images[image, :, y : y + height, x : x + width] = 1.0
            objects.append([image, kind, x, y, x + width, y + height])
        sea.append({"image": images, "objects": torch.tensor(objects, dtype=torch.float32)})
    return DataLoader(sea, batch_size=None)  # type: ignore[arg-type]  # a list is a data set


def main(loss: str = "focal", epochs: int = 5, **trainer: Any) -> dict[str, float]:
    """Train and validate, and return the logged metrics."""
    detector = ShipDetector(num_classes=2, loss=loss, normalizer="batch")
    run = Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, **trainer)
    run.fit(detector, ships(), ships(2))
    return {name: float(value) for name, value in run.callback_metrics.items()}


if __name__ == "__main__":
    metrics = main()
    print({name: round(value, 3) for name, value in metrics.items() if name.startswith("val_map")})
