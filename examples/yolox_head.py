"""A detection head without an adapter that trains with any loss by name.

Its structure is that of YOLOX (https://arxiv.org/abs/2107.08430): no anchors, one branch for classes, and one for boxes
and objectness. Classes are trained only at positive cells, objectness at all cells.

python examples/yolox_head.py
"""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.ops import batched_nms

from lit_dense import Criterion, DenseSamples
from lit_dense.metrics import DetectionMAP

STRIDES = (8, 16)
SIZES = (0.0, 28.0, float("inf"))  # limits of the larger side of the objects of each level, in pixels


def block(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.GroupNorm(4, out), nn.SiLU(inplace=True)
    )


class Head(nn.Module):
    """Head that predicts class logits, objectness and a box for each cell of each level, with shared layers.

    Args:
        channels: Channels of each level.
        columns: Columns of class logits.
    """

    def __init__(self, channels: int, columns: int) -> None:
        super().__init__()
        self.class_branch = nn.Sequential(block(channels, channels), block(channels, channels))
        self.box_branch = nn.Sequential(block(channels, channels), block(channels, channels))
        self.classes = nn.Conv2d(channels, columns, 1)
        self.objectness = nn.Conv2d(channels, 1, 1)
        self.boxes = nn.Conv2d(channels, 4, 1)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Predict logits [B, K, L], objectness [B, K, 1] and boxes [B, K, 4]; also return the cells [K, 3]."""
        outputs = []
        for level, stride in zip(levels, STRIDES, strict=True):
            cells = cells_of(level.shape[-2], level.shape[-1], stride, level.device)
            of_boxes = self.box_branch(level)
            shift, size = rows(self.boxes(of_boxes)).split(2, -1)
            centre, half = cells[:, :2] + shift * stride, size.clamp(max=6).exp() * stride / 2
            outputs.append(
                (
                    rows(self.classes(self.class_branch(level))),
                    rows(self.objectness(of_boxes)),
                    torch.cat([centre - half, centre + half], -1),
                    cells,
                )
            )
        logits, objectness, boxes, cells_of_levels = zip(*outputs, strict=True)
        return torch.cat(logits, 1), torch.cat(objectness, 1), torch.cat(boxes, 1), torch.cat(cells_of_levels)


def rows(maps: Tensor) -> Tensor:
    """Reshape [B, n, H, W] to [B, H W, n]."""
    return maps.flatten(2).transpose(1, 2)


def cells_of(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Compute centre x, centre y and stride of each cell, in pixels [H W, 3]."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    centres = (torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride
    return torch.cat([centres, centres.new_full((len(centres), 1), stride)], 1)


def assign(cells: Tensor, boxes: Tensor) -> Tensor:
    """Match the cells of an image with objects: cells near an object's centre, on the level of its size.

    Args:
        cells: Centre and stride of each cell [K, 3].
        boxes: The image's objects [G, 4].

    Returns:
        Index of the object, -1 for background [K].
    """
    if not len(boxes):
        return torch.full((len(cells),), -1, device=cells.device)
    distance = (cells[:, None, :2] - (boxes[:, :2] + boxes[:, 2:]) / 2).abs().amax(2) / cells[:, 2:]  # in cells [K, G]
    side = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    level = torch.bucketize(side, side.new_tensor(SIZES[1:-1]))
    same_level = cells[:, 2:] == side.new_tensor(STRIDES)[level]
    distance, index = distance.masked_fill(~same_level, float("inf")).min(1)
    return torch.where(distance <= 1.0, index, -1)


class Detector(LightningModule):
    """LightningModule with its own network, and two criteria instead of loss functions.

    Args:
        num_classes: Object classes.
        class_loss: Loss of the classes at positive cells, as a name or as in YAML.
        objectness_loss: Loss of objectness at all cells.
        box_loss: Loss of the boxes at positive cells.
        channels: Channels of the network.
    """

    def __init__(
        self,
        num_classes: int = 2,
        class_loss: Any = "bce",
        objectness_loss: Any = "focal",
        box_loss: Any = "giou",
        channels: int = 32,
    ) -> None:
        super().__init__()
        # as submodules, so that checkpoints contain the state of the losses
        self.class_criterion = Criterion(class_loss, box_loss)
        self.object_criterion = Criterion(objectness_loss, box_loss=None)
        for criterion in (self.class_criterion, self.object_criterion):
            criterion.set_default_normalizer("batch")  # ignored by losses with their own normalizer, such as ghm
        self.stem = nn.Sequential(block(3, 16, 2), block(16, channels, 2), block(channels, channels, 2))
        self.down = block(channels, channels, 2)
        self.head = Head(channels, num_classes + self.class_criterion.loss.extra_logits)
        for layer, criterion, columns in (
            (self.head.classes, self.class_criterion, num_classes),
            (self.head.objectness, self.object_criterion, 1),
        ):
            if layer.bias is not None:
                layer.bias.data = criterion.loss.prior_bias(columns, prior=0.05)
        self.metric = DetectionMAP(class_names=[str(k) for k in range(num_classes)])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        fine = self.stem(images)
        outputs: tuple[Tensor, Tensor, Tensor, Tensor] = self.head([fine, self.down(fine)])
        return outputs

    def losses(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute the loss terms of a batch."""
        logits, objectness, boxes, cells = self(images)
        offset, matched = 0, []
        for target in targets:  # objects are counted through the batch
            index = assign(cells, target["boxes"])
            matched.append(torch.where(index >= 0, index + offset, -1))
            offset += len(target["boxes"])
        matched_idxs = torch.stack(matched)  # [B, K]
        gt_boxes = torch.cat([t["boxes"] for t in targets])
        gt_labels = torch.cat([t["labels"] for t in targets])
        positive = matched_idxs >= 0
        labels = torch.full_like(matched_idxs, -2)  # ignored: only positive cells train the classes
        labels[positive] = gt_labels[matched_idxs[positive]]
        samples = DenseSamples.of(logits, labels, boxes=boxes, gt_boxes=gt_boxes, matched_idxs=matched_idxs)
        if self.class_criterion.loss.accepts_soft_targets:  # as in YOLOX: the better the box, the higher the score
            samples = samples.with_soft_targets(samples.pos_ious)
        of_classes = self.class_criterion(samples)
        of_objects = self.object_criterion(DenseSamples.of(objectness, torch.where(positive, 0, -1)))
        return {**of_classes, "objectness": of_objects["classification"]}

    @torch.no_grad()
    def detect(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Detect boxes, scores and labels of each image, best first."""
        logits, objectness, boxes, _ = self(images)
        scores = self.class_criterion.loss.score_logits(logits).sigmoid() * objectness.sigmoid()
        found = []
        for box, score in zip(boxes, scores, strict=True):
            best, label = score.max(1)
            keep = batched_nms(box, best, label, 0.5)[:20]
            found.append({"boxes": box[keep], "scores": best[keep], "labels": label[keep]})
        return found

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        terms = self.losses(*batch)
        self.log_dict(terms, batch_size=len(batch[0]))
        return torch.stack(list(terms.values())).sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        images, targets = batch
        self.metric.update(self.detect(images), targets)

    def on_validation_epoch_end(self) -> None:
        self.log_dict({name: value for name, value in self.metric.compute().items() if "/" not in name})
        self.metric.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def shapes(batches: int, seed: int = 0) -> DataLoader[Any]:
    """Create batches of bright squares and bars on a dark background; some images have none."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(batches):
        images, targets = torch.rand(4, 3, 64, 64, generator=generator) * 0.3, []
        for image in images:
            boxes, labels = [], []
            for half in range(int(torch.randint(3, (1,), generator=generator))):  # at most one in each half
                kind, scale = torch.randint(2, (2,), generator=generator).tolist()
                width, height = ((12, 12), (20, 8))[kind] if scale == 0 else ((24, 24), (32, 14))[kind]
                x = int(torch.randint(64 - width, (1,), generator=generator))
                y = int(torch.randint(32 - height, (1,), generator=generator)) + 32 * half
                image[:, y : y + height, x : x + width] = 1.0
                boxes.append([x, y, x + width, y + height])
                labels.append(kind)
            targets.append({"boxes": torch.tensor(boxes).float().reshape(-1, 4), "labels": torch.tensor(labels).long()})
        made.append((images, targets))
    return DataLoader(made, batch_size=None)  # type: ignore[arg-type]  # a list is a data set


def main(class_loss: Any = "bce", objectness_loss: Any = "focal", epochs: int = 8, **trainer: Any) -> dict[str, float]:
    """Train and validate, and return the logged metrics."""
    torch.manual_seed(0)
    run = Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, **trainer)
    run.fit(Detector(class_loss=class_loss, objectness_loss=objectness_loss), shapes(40), shapes(5, seed=1))
    return {name: float(value) for name, value in run.callback_metrics.items()}


if __name__ == "__main__":
    for losses in (("bce", "focal"), ("eql_v2", "ghm")):
        metrics = main(*losses, enable_progress_bar=False, enable_model_summary=False)
        print(losses, {name: round(value, 3) for name, value in metrics.items() if name in ("map", "map_50")})
