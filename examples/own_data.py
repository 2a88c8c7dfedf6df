"""Training on data of one's own: any map-style Dataset, in any LightningDataModule.

python examples/own_data.py
"""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_dense import ClassCounts, LitRetinaNet

NAMES = ("square", "bar")
SIDES = ((24, 24), (32, 12))  # width and height of an object of each class, pixels
Sample = tuple[Tensor, dict[str, Any]]


class Shapes(Dataset[Sample]):
    """Images with one bright rectangle each; the second class is four times as rare as the first.

    Args:
        length: Number of images.
        seed: Seed of all images.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed

    def __len__(self) -> int:
        return self.length

    def label(self, index: int) -> int:
        return int(index % 5 == 4)

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(self.seed * self.length + index)
        image = torch.randint(0, 90, (3, 64, 64), dtype=torch.uint8, generator=generator)
        width, height = SIDES[self.label(index)]
        x, y = torch.randint(0, 64 - 32, (2,), generator=generator).tolist()
        image[:, y : y + height, x : x + width] = 230
        target = {
            "boxes": torch.tensor([[x, y, x + width, y + height]], dtype=torch.float32),  # x1, y1, x2, y2 in pixels
            "labels": torch.tensor([self.label(index)]),  # from 0; there is no label for background
            "image_id": index + 1,  # for predictions, and for the evaluation on several processes
        }
        return image, target


def collate(samples: list[Sample]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Return a batch: a list of images, which may have different sizes, and a list of targets."""
    return [image for image, _ in samples], [target for _, target in samples]


class ShapesModule(LightningDataModule):
    """A data module without any class of lit_dense; the two attributes are optional.

    Attributes:
        categories: ``id`` and ``name`` of each label, for the number of classes, names in plots and checkpoints.
        class_counts: Class frequencies of the training set, for losses and weighters that need them.
    """

    def __init__(self, length: int = 40) -> None:
        super().__init__()
        self.train, self.val = Shapes(length, seed=0), Shapes(10, seed=1)
        self.categories = [{"id": label, "name": name} for label, name in enumerate(NAMES)]
        labels = torch.tensor([self.train.label(index) for index in range(length)])
        counts = labels.bincount(minlength=len(NAMES))  # one box in each image, so images are counted alike
        self.class_counts = ClassCounts(counts, counts, length, length)

    @property
    def num_classes(self) -> int:
        return len(self.categories)

    def train_dataloader(self) -> DataLoader[Sample]:
        return DataLoader(self.train, batch_size=4, shuffle=True, collate_fn=collate)

    def val_dataloader(self) -> DataLoader[Sample]:
        return DataLoader(self.val, batch_size=4, collate_fn=collate)


def main(epochs: int = 3, **options: Any) -> dict[str, float]:
    """Train with a loss that needs class counts, and return the last metrics."""
    torch.manual_seed(0)
    model = LitRetinaNet(
        backbone="tiny", fpn_channels=16, min_size=64, max_size=64, loss="eql", weighters=["class_balanced"], lr=0.01
    )
    defaults = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "log_every_n_steps": 1}
    trainer = Trainer(max_epochs=epochs, **defaults | options)
    trainer.fit(model, ShapesModule())
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    print(main())
