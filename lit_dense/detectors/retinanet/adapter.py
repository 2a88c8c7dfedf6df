"""The adapter of torchvision's RetinaNet."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torchvision.models.detection.retinanet import RetinaNetRegressionHead

from ...criterion import CriterionArgs
from ..base import Terms
from .fast_methods import FastMethods


class RetinaNetAdapter(FastMethods):
    """Adapter of torchvision's RetinaNet (both versions): focal loss over all anchors.

    While the adapter is attached, faster functions with the same results compute the matching, the post-processing, the
    anchors and the outputs of the head. Methods that a subclass of RetinaNet has overridden are not replaced.
    """

    detectors = ("torchvision.models.detection.retinanet.RetinaNet",)

    box_head = RetinaNetRegressionHead

    stock: ClassVar[Mapping[str, CriterionArgs]] = {"": {"loss": "focal", "box_loss": "l1", "normalizer": "image"}}

    def defaults(self, stage: str) -> CriterionArgs:
        """Return focal loss and ``l1``, or ``giou`` for the second version, averaged over images."""
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
        """Compute the loss terms; ``RetinaNet.compute_loss`` does the matching."""
        terms: Terms = self.detector.compute_loss(targets, head_outputs, anchors)
        return terms
