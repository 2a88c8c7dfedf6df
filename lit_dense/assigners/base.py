"""Base class of assigners, ``Assigner``, and its input ``AssignInput``."""

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
    """Anchors, ground truths and predictions of an image: K anchors, G ground-truth boxes, C classes.

    ``scores`` and ``boxes`` are computed on first access, without gradients.

    Args:
        anchors: Anchors of the image, x1 y1 x2 y2 in pixels [K, 4].
        gt_boxes: Ground-truth boxes of the image, at least one [G, 4].
        gt_labels: Classes of the ground-truth boxes, 0 to C - 1 [G].
        logits: Class logits of the anchors [K, L].
        deltas: Predicted box deltas of the anchors [K, 4].
        box_coder: Decoder of the deltas.
        score_logits: Converts logits to those whose sigmoid is the score [K, L] -> [K, C].
        geometry: Sizes of levels and images; None if the detector does not provide them.
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
            raise UsageError(
                "This detector does not provide its scores before it matches anchors: choose another assigner."
            )
        return self.score_logits(self.logits.detach().float()).sigmoid()

    @cached_property
    @torch.no_grad()
    def boxes(self) -> Tensor:
        """Predicted boxes, detached, float32 [K, 4]."""
        if self.deltas is None or self.box_coder is None:
            raise UsageError(
                "This detector does not provide its boxes before it matches anchors: choose another assigner."
            )
        return self.box_coder.decode_single(self.deltas.detach().float(), self.anchors)


class Assigner(Component):
    """Base class of assigners: matches the anchors of an image with its ground-truth boxes."""

    exclusive = frozenset({"assignment"})

    def forward(self, image: AssignInput) -> Tensor:
        """Match anchors: the index of each anchor's ground truth, -1 background, -2 ignored [K].

        Args:
            image: Anchors, ground truths and predictions of one image.
        """
        raise NotImplementedError
