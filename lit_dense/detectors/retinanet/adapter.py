"""The adapter of torchvision's RetinaNet."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torchvision.models.detection.retinanet import RetinaNetRegressionHead

from ...core.errors import UsageError
from ...criterion import Criterion, CriterionArgs
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

    def check(self, stage: str, criterion: Criterion) -> None:
        """Reject a criterion that does not fit, or a regression head with another box coder than the detector.

        Raises:
            UsageError: If the criterion does not fit.
        """
        super().check(stage, criterion)
        trained = getattr(getattr(self.detector.head.regression_head, "box_coder", None), "weights", None)
        decoded = getattr(self.detector.box_coder, "weights", None)
        if trained is not None and trained != decoded:
            raise UsageError(
                f"{type(self.detector).__name__}: the box_coder of head.regression_head has weights {trained} and that "
                f"of the detector {decoded}, so predictions would not be what was trained: give both the same."
            )

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
