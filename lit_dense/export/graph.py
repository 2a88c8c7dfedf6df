"""``DetectionGraph``: a detector as one traceable function, from a uint8 image of fixed size to its detections."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, nms

from ..core.errors import UsageError
from ..detectors.base import DetectorAdapter
from ..detectors.one_stage import OneStageAdapter

MOST_CANDIDATES = 5000
"""Largest number of candidates of an image that are compared in non-maximum suppression."""


class DetectionGraph(nn.Module):
    """A one-stage detector without control flow that depends on data, for ``torch.export``, ONNX and tracing.

    It contains resizing, normalisation, constant anchors, decoding, the scores of the loss, the best candidates of each
    level, and non-maximum suppression. The output has a fixed number of rows. Rows without a detection have score 0 and
    label -1.

    Args:
        adapter: The adapter that is attached to the detector; RetinaNet, FCOS, SSD or SSDlite.
        size: Height and width of the images in pixels.
        score_thresh: Smallest score of a detection.
        detections_per_img: Number of rows of the output for each image.
        suppress: Whether to apply non-maximum suppression. Without it the graph takes batches of any size, and returns
            the best candidates.

    Raises:
        UsageError: If the detector cannot be exported, or its calibrator lacks numbers.

    Example:
        >>> from lit_dense import LitDetector
        >>> module = LitDetector("retinanet", num_classes=2, backbone="tiny", min_size=64, max_size=64)
        >>> graph = module.export_graph(size=(64, 64))
        >>> boxes, scores, labels = graph(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        >>> boxes.shape, scores.shape
        (torch.Size([1, 300, 4]), torch.Size([1, 300]))
    """

    anchors: Tensor
    mean: Tensor
    std: Tensor
    scale: Tensor

    def __init__(
        self,
        adapter: DetectorAdapter,
        size: tuple[int, int],
        score_thresh: float = 0.05,
        detections_per_img: int = 100,
        suppress: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(adapter, OneStageAdapter):
            raise UsageError(
                f"{type(adapter.detector).__name__} cannot be exported: its second stage crops a number of regions "
                "that depends on the image. Export RetinaNet, FCOS, SSD or SSDlite; for a detector of another library "
                "use that library's export."
            )
        for criterion in adapter.criteria.values():
            if criterion.calibrator is not None:
                criterion.calibrator.check_ready_once()
        self.size, self.score_thresh, self.suppress = size, score_thresh, suppress
        self.detections_per_img = detections_per_img
        self.detector: Any = adapter.detector.eval()
        self._side = math.ceil(math.sqrt(adapter.columns(adapter.stages[0]).classes))
        self._adapter = [adapter]  # in a list, so that it is not treated as a part of the module
        transform = self.detector.transform
        device = next(self.detector.parameters()).device
        with torch.no_grad():
            images, _ = transform([torch.zeros(3, *size, device=device)])
            features = adapter.features(images.tensors)
            generator = self.detector.anchor_generator
            anchors = type(generator).forward(generator, images, features)[0]
            geometry = adapter._geometry_of(features, images)
            self.per_level = geometry.anchors_of_levels(len(anchors))
        self.resized, self.padded = tuple(images.image_sizes[0]), tuple(images.tensors.shape[-2:])
        self.register_buffer("anchors", adapter.references(anchors, geometry))
        self.register_buffer("mean", torch.tensor(transform.image_mean, device=device).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(transform.image_std, device=device).view(-1, 1, 1))
        height, width = (given / used for given, used in zip(size, self.resized, strict=True))
        self.register_buffer("scale", torch.tensor([width, height, width, height], device=device))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes [N, D, 4] in pixels of the images, scores [N, D] and labels [N, D]; best first.

        Args:
            images: RGB images, uint8 [N, 3, H, W]; N is 1 with non-maximum suppression.
        """
        x = (images.float() / 255 - self.mean) / self.std
        if self.resized != self.size:
            x = F.interpolate(x, size=self.resized, mode="bilinear", align_corners=False)
        right, below = self.padded[1] - self.resized[1], self.padded[0] - self.resized[0]
        features = self._adapter[0].features(F.pad(x, (0, right, 0, below)))
        outputs = self._adapter[0].outputs_of(features)
        boxes, scores, labels = self._candidates(outputs)
        if not self.suppress:
            return boxes, scores, labels
        boxes, scores, labels = self._suppressed(boxes[0], scores[0], labels[0])
        return boxes.unsqueeze(0), scores.unsqueeze(0), labels.unsqueeze(0)

    def _candidates(self, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Select the candidates of all images, and decode their boxes [N, M, 4], [N, M], [N, M]; best first."""
        adapter = self._adapter[0]
        scores = adapter.class_scores(outputs)
        number, classes = self.detector.topk_candidates, scores.shape[-1]
        chosen, positions = [], []  # position: anchor * classes + class
        if adapter.candidates_per_class:
            best, rows = scores.transpose(1, 2).topk(min(number, scores.shape[1]), dim=2)
            columns = torch.arange(classes, device=scores.device).view(1, -1, 1)
            chosen, positions = [best.flatten(1)], [(rows * classes + columns).flatten(1)]
        else:
            first = 0
            for level in scores.split(self.per_level, dim=1):
                best, index = level.flatten(1).topk(min(number, level.shape[1] * classes), dim=1)
                chosen.append(best)
                positions.append(index + first * classes)
                first += level.shape[1]
        scores, order = torch.cat(chosen, 1).topk(min(MOST_CANDIDATES, sum(c.shape[1] for c in chosen)), dim=1)
        position = torch.cat(positions, 1).gather(1, order)
        rows, labels = position.div(classes, rounding_mode="floor"), position % classes
        deltas = outputs["bbox_regression"]
        deltas = deltas.gather(1, rows.unsqueeze(2).expand(-1, -1, deltas.shape[2]))
        boxes = adapter.box_coder.decode_single(deltas.flatten(0, 1), self.anchors[rows.flatten()])
        boxes = clip_boxes_to_image(boxes, self.resized).unflatten(0, rows.shape) * self.scale
        return boxes, scores, labels

    def _suppressed(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Suppress boxes of one image within their class; the output has a fixed number of rows."""
        # each class in its own cell of a grid: in one row, coordinates of many classes would be too large for float32
        longest, side = float(max(self.size)) + 1, self._side
        cells = torch.stack([labels % side, labels.div(side, rounding_mode="floor")] * 2, 1)
        kept = nms(boxes + cells * longest, scores, self.detector.nms_thresh)
        rows = self.detections_per_img
        # rows of padding, so that the number of rows does not depend on the data
        scores = torch.cat([scores[kept], scores.new_zeros(rows)])[:rows]
        boxes = torch.cat([boxes[kept], boxes.new_zeros(rows, 4)])[:rows]
        labels = torch.cat([labels[kept], labels.new_zeros(rows)])[:rows]
        found = scores > self.score_thresh
        return boxes * found.unsqueeze(1), scores * found, torch.where(found, labels, -1)
