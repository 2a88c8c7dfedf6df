"""The adapter of torchvision's FCOS."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.fcos import FCOSRegressionHead

from ..core.component import Component
from ..core.samples import BoxCoder, DenseSamples
from ..criterion import Criterion, CriterionArgs
from .base import Terms
from .one_stage import OneStageAdapter


class FCOSAdapter(OneStageAdapter):
    """Adapter of torchvision's FCOS: focal loss over all locations, ``giou`` and the centre-ness of positives.

    Scores are still the square root of class score times centre-ness. The term ``bbox_ctrness`` is summed with the box
    weights (including ``box_loss_weight``) and divided by the normalizer.
    """

    detectors = ("torchvision.models.detection.fcos.FCOS",)

    box_head = FCOSRegressionHead

    other_score = "centre-ness"
    stock: ClassVar[Mapping[str, CriterionArgs]] = {"": {"loss": "focal", "box_loss": "giou", "normalizer": "batch"}}

    def defaults(self, stage: str) -> CriterionArgs:
        """Return focal loss and ``giou``, divided by the number of positives of the batch."""
        return self.stock[stage]

    def attach(self, criteria: Mapping[str, Criterion]) -> None:
        """Replace the detector's loss; warns if the class scores already contain the quality of the boxes."""
        super().attach(criteria)
        for criterion in criteria.values():
            giving = [*criterion.weighters, criterion.assigner]
            soft = [part for part in giving if isinstance(part, Component) and "soft_targets" in part.exclusive]
            if soft or criterion.loss.quality_scores:
                name = type(soft[0] if soft else criterion.loss).__name__
                warnings.warn(
                    f"{name} trains class scores to be the quality of boxes, and FCOS multiplies them by centre-ness, "
                    "so quality counts twice: take a loss with targets of 0 and 1, such as focal, or a detector "
                    "without centre-ness, such as RetinaNet.",
                    stacklevel=2,
                )

    def install(self) -> None:
        """Replace the head's loss; and its regression head for a box loss with outputs of its own."""
        super().install()
        if self.box_loss_coder is not None:
            self.override(self.detector.head.regression_head, "forward", "regression_outputs")

    def regression_outputs(self, x: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Replace ``FCOSRegressionHead.forward``, whose ReLU is for distances: logits can be negative.

        Args:
            x: Features of each level [B, channels, H, W].

        Returns:
            Box outputs [B, K, n] and centre-ness [B, K, 1].
        """
        tower, number = self.detector.head.regression_head, self._anchors_of_cell
        features = [tower.conv(level) for level in x]
        boxes, centreness = (
            torch.cat([_per_anchor(layer(level), number) for level in features], 1)
            for layer in (tower.bbox_reg, tower.bbox_ctrness)
        )
        return boxes, centreness

    @property
    def own_box_coder(self) -> BoxCoder:
        """The box coder of the head."""
        return LinearBoxCoder(self.detector.head.box_coder)

    def class_scores(self, outputs: dict[str, Tensor]) -> Tensor:
        """Return the square root of class score times centre-ness [B, K, C]."""
        return (super().class_scores(outputs) * outputs["bbox_ctrness"].float().sigmoid()).sqrt()

    def samples(
        self,
        targets: Sequence[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: Sequence[Tensor],
        matched_idxs: Sequence[Tensor],
    ) -> DenseSamples:
        """Build the samples of a batch, with the centre-ness loss as an auxiliary loss."""
        samples = super().samples(targets, head_outputs, anchors, matched_idxs)
        logits = head_outputs["bbox_ctrness"].flatten()[samples.positives].float()
        distances = samples.pos_target_deltas
        if self.box_loss_coder is not None:  # whose deltas need not be distances
            distances = self.own_box_coder.encode_single(samples.pos_gt_boxes, samples.anchors[samples.positives])
        centreness = centreness_of(distances.float())
        values = F.binary_cross_entropy_with_logits(logits, centreness, reduction="none")
        return samples.with_auxiliary({"bbox_ctrness": values})

    def detector_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        per_level: list[int],
    ) -> Terms:
        """Compute the loss terms; FCOS needs the number of anchors of each level for matching."""
        terms: Terms = self.detector.compute_loss(targets, head_outputs, anchors, per_level)
        return terms


class LinearBoxCoder:
    """FCOS's box coder with the methods of torchvision's ``BoxCoder``.

    Args:
        coder: torchvision's ``BoxLinearCoder``.
    """

    def __init__(self, coder: Any) -> None:
        self.coder = coder

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Return the distances from the centres of proposals to the sides of boxes [N, 4]."""
        return torch.as_tensor(self.coder.encode(proposals, reference_boxes))

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Return the boxes with sides at these distances from the centres of ``boxes`` [N, 4]."""
        return torch.as_tensor(self.coder.decode(rel_codes, boxes))


def _per_anchor(output: Tensor, number: int) -> Tensor:
    """Rearrange the output of a level with ``number`` anchors of a cell [B, number * n, H, W] -> [B, K, n]."""
    return output.permute(0, 2, 3, 1).reshape(len(output), -1, output.shape[1] // number)


def centreness_of(distances: Tensor) -> Tensor:
    """Compute the centre-ness of locations from their distances to the sides of a box (FCOS).

    Paper: https://arxiv.org/abs/2006.09214.

    Args:
        distances: Left, top, right, bottom. A location with a negative distance lies outside: its centre-ness is 0
            [N, 4].
    """
    inside = distances.clamp(min=0)  # FCOS matches only locations inside boxes; other assigners may match others
    left_right, top_bottom = inside[:, [0, 2]], inside[:, [1, 3]]
    ratio = (left_right.amin(1) / left_right.amax(1)) * (top_bottom.amin(1) / top_bottom.amax(1))
    return ratio.sqrt()
