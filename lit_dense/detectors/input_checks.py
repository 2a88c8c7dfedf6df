"""Checks of the inputs of torchvision's detectors, before torchvision fails on them or computes wrong numbers."""

from typing import Any

import torch
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ..core.batch_format import check_format
from ..core.batch_values import normalised_error, seem_normalised, warn_of_range
from ..core.errors import UsageError
from ..functional.tracing import records_graph
from .base import DetectorAdapter


class InputChecks(DetectorAdapter):
    """An adapter that checks the format of each batch, and the values of the first, because that synchronises.

    The first batch with boxes may come after evaluations without targets, such as a sanity check.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__(detector)
        self._range_is_checked = self._boxes_are_checked = False

    def hook_inputs(self) -> None:
        """Check the inputs of each batch."""
        # another forward may take another format; what its transform gets is torchvision's
        own_forward = not type(self.detector).forward.__module__.startswith("torchvision.")
        checked = self.detector.transform if own_forward else self.detector
        self.hook(checked, self._check_inputs, pre=True, with_kwargs=True)

    def _check_inputs(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.batch_is_checked or records_graph():
            return
        inputs = {**dict(zip(("images", "targets"), args, strict=False)), **kwargs}
        detector, images, targets = self.detector, list(inputs["images"]), inputs.get("targets")
        check_format(detector, images, targets, objects=detector.training)
        if type(detector.transform) is GeneralizedRCNNTransform and any(i.dtype is torch.uint8 for i in images):
            raise UsageError(
                f"{type(detector).__name__} takes float images in [0, 1], and the batch has uint8: give it "
                "[image.float() / 255 for image in images]."
            )
        if not self._range_is_checked:
            self._range_is_checked = True
            warn_of_range(images)
        if self._boxes_are_checked:
            return
        boxes = [target["boxes"].float() for target in targets or () if "boxes" in target and len(target["boxes"])]
        if boxes and bool(seem_normalised(torch.cat(boxes))):
            raise normalised_error(torch.cat(boxes))
        self._boxes_are_checked = bool(boxes)  # an evaluation before training has none
