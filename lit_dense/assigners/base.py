"""Base class of assigners, ``Assigner``, with its input ``AssignInput`` and its output ``Assignment``."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

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
        deltas: Predicted box deltas of the anchors [K, 4]; with more columns for a box loss with outputs of its own.
        box_coder: Decoder of the deltas.
        score_logits: Converts logits to those whose sigmoid is the score [K, L] -> [K, C].
        geometry: Sizes of levels and images; None if the detector does not provide them.
        losses: Computes the losses of some anchors if they are matched with some ground truths, classification plus
            box, without gradients: takes anchors [N] and ground truths [N], returns losses [N].
        step: Number of training steps so far.
        references: Boxes from which deltas are decoded; None for the anchors [K, 4].
    """

    anchors: Tensor
    gt_boxes: Tensor
    gt_labels: Tensor | None = None
    logits: Tensor | None = None
    deltas: Tensor | None = None
    box_coder: BoxCoder | None = None
    score_logits: Callable[[Tensor], Tensor] | None = None
    geometry: Geometry | None = None
    losses: Callable[[Tensor, Tensor], Tensor] | None = None
    step: int = 0
    references: Tensor | None = None

    @property
    def centres(self) -> Tensor:
        """Centres of the anchors, x y, float32 [K, 2]."""
        anchors = self.anchors.float()  # in half precision, neighbouring centres would coincide
        return (anchors[:, :2] + anchors[:, 2:]) / 2

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
        references = self.anchors if self.references is None else self.references
        return self.box_coder.decode_single(self.deltas.detach().float(), references)


class Assignment(NamedTuple):
    """Matches of the anchors of an image, with the quality of the positives.

    Args:
        matched_idxs: Index of each anchor's ground truth, -1 background, -2 ignored [K].
        quality: Soft target of the ground-truth class of each positive, in [0, 1]; other entries are not read [K].
    """

    matched_idxs: Tensor
    quality: Tensor


class Assigner(Component):
    """Base class of assigners: matches the anchors of an image with its ground-truth boxes.

    Attributes:
        needs_predictions: Whether the assigner reads scores, boxes or losses of the anchors.
        weighs_boxes: Whether the box loss of a positive is multiplied by its quality.
        default_normalizer: Name of the normalizer that is used if none is given; None for the detector's own.
    """

    exclusive = frozenset({"assignment"})
    needs_predictions: ClassVar[bool] = False
    weighs_boxes: ClassVar[bool] = False
    default_normalizer: str | None = None

    def forward(self, image: AssignInput) -> Tensor | Assignment:
        """Match anchors: the index of each anchor's ground truth, -1 background, -2 ignored [K].

        An assigner that also rates the positives returns an :class:`Assignment` and has ``soft_targets`` in
        ``exclusive``.

        Args:
            image: Anchors, ground truths and predictions of one image.
        """
        raise NotImplementedError
