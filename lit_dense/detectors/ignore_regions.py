"""Ignore regions in the targets of torchvision's detectors."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.transform import resize_boxes

from ..core.batch_format import IGNORE_BOXES
from ..functional.ignore_regions import without_ignored
from .base import DetectorAdapter


class ScaledIgnoreRegions(DetectorAdapter):
    """An adapter of a detector whose ``transform`` resizes images and boxes: it resizes the ignore regions too."""

    def install_ignore_regions(self) -> None:
        """Resize the ignore regions of the targets whenever the detector resizes its images."""
        self.hook(self.detector.transform, self._resize_regions, with_kwargs=True)

    def _resize_regions(self, transform: nn.Module, args: Any, kwargs: Any, outputs: Any) -> None:
        inputs = {**dict(zip(("images", "targets"), args, strict=False)), **kwargs}
        resized, targets = outputs
        if not targets or not any(IGNORE_BOXES in target for target in targets):
            return
        for image, size, target in zip(inputs["images"], resized.image_sizes, targets, strict=True):
            if IGNORE_BOXES in target:  # the transform has copied the targets
                before = [int(side) for side in image.shape[-2:]]
                target[IGNORE_BOXES] = resize_boxes(target[IGNORE_BOXES], before, list(size))


def regions_of(target: dict[str, Tensor]) -> Tensor | None:
    """Return the ignore regions of a target [M, 4]; None if it has none."""
    return target.get(IGNORE_BOXES)


def without_ignored_anchors(
    matched_idxs: Sequence[Tensor], anchors: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]
) -> Sequence[Tensor]:
    """Replace background by ignored for the anchors of all images that lie in ignore regions.

    Args:
        matched_idxs: For each image, the matched ground truth of each anchor; -1 background, -2 ignored [K].
        anchors: Anchors of each image [K, 4].
        targets: Target of each image.
    """
    if not any(IGNORE_BOXES in target for target in targets):
        return matched_idxs
    images = zip(matched_idxs, anchors, targets, strict=True)
    return [without_ignored(own, boxes, target.get(IGNORE_BOXES)) for own, boxes, target in images]
