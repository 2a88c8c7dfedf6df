"""The base of assigners."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..core.component import Component
from ..core.errors import UsageError
from ..core.geometry import Geometry
from ..core.samples import BoxCoder


@dataclass(frozen=True, eq=False)
class AssignInput:
    """What is known of an image before its anchors are matched: K anchors, G ground truths, C classes.

    ``scores`` and ``boxes`` are computed when an assigner reads them, without gradients.

    Args:
        anchors: Anchors of the image, x1 y1 x2 y2 in pixels [K, 4].
        gt_boxes: Ground-truth boxes of the image, at least one [G, 4].
        gt_labels: Their classes, 0 to C - 1 [G].
        logits: Class scores of the anchors [K, L].
        deltas: Predicted box deltas of the anchors [K, 4].
        box_coder: What decodes deltas.
        score_logits: Turns logits into those whose sigmoid is the score.
        geometry: Sizes of levels and images, None where the detector does not tell them.
    """

    anchors: Tensor
    gt_boxes: Tensor
    gt_labels: Tensor | None = None
    logits: Tensor | None = None
    deltas: Tensor | None = None
    box_coder: BoxCoder | None = None
    score_logits: Callable[[Tensor], Tensor] | None = None
    geometry: Geometry | None = None

    @cached_property
    @torch.no_grad()
    def scores(self) -> Tensor:
        """Predicted score of each class, detached, float32 [K, C]."""
        if self.logits is None or self.score_logits is None:
            raise UsageError("This detector does not tell its scores before it matches anchors: take another assigner.")
        return self.score_logits(self.logits.detach().float()).sigmoid()

    @cached_property
    @torch.no_grad()
    def boxes(self) -> Tensor:
        """Predicted boxes, detached, float32 [K, 4]."""
        if self.deltas is None or self.box_coder is None:
            raise UsageError("This detector does not tell its boxes before it matches anchors: take another assigner.")
        return self.box_coder.decode_single(self.deltas.detach().float(), self.anchors)


class Assigner(Component):
    """Matches the anchors of an image with its ground truths."""

    exclusive = frozenset({"assignment"})

    def forward(self, image: AssignInput) -> Tensor:
        """Index of the matched ground truth of each anchor; -1 background, -2 ignored [K].

        Args:
            image: One image: anchors, ground truths and predictions.
        """
        raise NotImplementedError
