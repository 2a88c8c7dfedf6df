"""A small detector that does not use lit_dense: each cell of a grid predicts one box."""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, generalized_box_iou_loss, sigmoid_focal_loss

Targets = list[dict[str, Any]]


class GridDetector(nn.Module):
    """Detector with torchvision's interface: loss terms in training, detections in evaluation.

    Args:
        num_classes: Object classes; labels are 0 to num_classes - 1.
        channels: Channels of the layers.
        stride: Pixels from one cell to the next.
        score_thresh: Lowest score of a detection.
    """

    def __init__(self, num_classes: int, channels: int = 16, stride: int = 8, score_thresh: float = 0.05) -> None:
        super().__init__()
        self.stride, self.score_thresh = stride, score_thresh
        self.body = nn.Sequential(
            nn.Conv2d(3, channels, stride, stride), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()
        )
        self.classes = nn.Conv2d(channels, num_classes, 1)
        self.sides = nn.Conv2d(channels, 4, 1)

    def forward(self, images: list[Tensor], targets: Targets | None = None) -> Any:
        """Compute loss terms or detections of images [3, H, W] of one size."""
        features = self.body(torch.stack(images))
        logits = self.classes(features).flatten(2).transpose(1, 2)  # [B, K, C]
        sides = self.sides(features).flatten(2).transpose(1, 2).float()
        centres = self.centres(features)
        reach = sides.clamp(max=6).exp() * self.stride  # distance from the cell's centre to each side of its box
        boxes = torch.cat([centres - reach[..., :2], centres + reach[..., 2:]], -1)  # [B, K, 4]
        if self.training:
            return self.compute_loss(logits, boxes, centres, targets or [])
        return self.detections(self.scores(logits), boxes)

    def centres(self, features: Tensor) -> Tensor:
        """Compute the centres of the cells in pixels [K, 2]."""
        height, width = features.shape[-2:]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        return (torch.stack([x, y], -1).reshape(-1, 2).to(features.device) + 0.5) * self.stride

    def match(self, centres: Tensor, boxes: Tensor) -> Tensor:
        """Match each cell with the object whose centre is less than a cell away; -1 for none [K]."""
        if not len(boxes):
            return torch.full((len(centres),), -1, device=centres.device)
        distance, index = (centres[:, None] - (boxes[:, :2] + boxes[:, 2:]) / 2).abs().amax(2).min(1)
        return torch.where(distance < self.stride, index, -1)

    def compute_loss(self, logits: Tensor, boxes: Tensor, centres: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Compute focal loss and GIoU loss, divided by the positives of the batch."""
        matched = torch.stack([self.match(centres, t["boxes"]) for t in targets])
        positive = matched >= 0
        wanted = torch.zeros_like(logits)
        objects = [t["boxes"][own[own >= 0]] for t, own in zip(targets, matched, strict=True)]
        labels = torch.cat([t["labels"][own[own >= 0]] for t, own in zip(targets, matched, strict=True)])
        wanted[positive] = nn.functional.one_hot(labels, logits.shape[-1]).to(logits.dtype)
        number = positive.sum().clamp(min=1)
        return {
            "loss_cls": sigmoid_focal_loss(logits, wanted, reduction="sum") / number,
            "loss_box": generalized_box_iou_loss(boxes[positive], torch.cat(objects), reduction="sum") / number,
        }

    def scores(self, logits: Tensor) -> Tensor:
        """Compute the score of each class [B, K, C]."""
        return logits.sigmoid()

    def detections(self, scores: Tensor, boxes: Tensor) -> list[dict[str, Tensor]]:
        """Select boxes, scores and labels of each image, best first."""
        found = []
        for score, box in zip(scores, boxes, strict=True):
            cell, label = (score > self.score_thresh).nonzero().unbind(1)
            keep = batched_nms(box[cell], score[cell, label].float(), label, 0.5)[:100]
            found.append({"boxes": box[cell][keep], "scores": score[cell, label][keep], "labels": label[keep]})
        return found
