"""torchvision's RetinaNet."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from ...criterion import CriterionArgs
from ..base import Terms
from .fast_methods import FastMethods


class RetinaNetAdapter(FastMethods):
    """torchvision's RetinaNet, of either version: focal loss over all anchors.

    While it is attached, matching, post-processing, anchors and the head's outputs are computed by faster functions
    with the same results, except where the detector has methods of its own.
    """

    detectors = ("torchvision.models.detection.retinanet.RetinaNet",)

    stock: ClassVar[Mapping[str, CriterionArgs]] = {"": {"loss": "focal", "box_loss": "l1", "normalizer": "image"}}

    def defaults(self, stage: str) -> CriterionArgs:
        """Focal loss, and ``l1`` or the second version's ``giou``, as mean over images."""
        box_loss: Any = getattr(self.detector.head.regression_head, "_loss_type", "l1")
        if box_loss == "smooth_l1":
            box_loss = {"class_path": "smooth_l1", "init_args": {"beta": 1.0}}
        return {**self.stock[stage], "box_loss": box_loss}

    def detector_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        per_level: list[int],
    ) -> Terms:
        """RetinaNet matches, and asks its head."""
        terms: Terms = self.detector.compute_loss(targets, head_outputs, anchors)
        return terms
