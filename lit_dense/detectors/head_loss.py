"""The seam that torchvision's RetinaNet and FCOS share: the head computes the loss of all its outputs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from ..assigners import AssignInput
from ..batch_format import check_format
from ..flat_levels import records_graph
from ..samples import BoxCoder, DenseSamples, Geometry
from .base import Columns, DetectorAdapter, Terms
from .torchvision_batch import collect_samples


class HeadLossAdapter(DetectorAdapter):
    """An adapter of a detector whose head has ``compute_loss(targets, head_outputs, anchors, matched_idxs)``."""

    offers = frozenset({"boxes", "deltas", "anchors", "geometry", "assignment", "box_loss"})

    def __init__(self, detector: nn.Module) -> None:
        super().__init__(detector)
        self._geometry: Geometry | None = None

    def columns(self, stage: str) -> Columns:
        """One column for each class."""
        return Columns(self.detector.head.classification_head.num_classes)

    @property
    def box_coder(self) -> BoxCoder:
        """The detector's box coder."""
        coder: BoxCoder = self.detector.box_coder
        return coder

    def install(self) -> None:
        """Take the head's loss over; in evaluation its scores are those that the loss trains."""
        self.override(self.detector.head, "compute_loss", "compute_loss")
        self.hook(self.detector, self._check_inputs, pre=True, with_kwargs=True)
        self.hook(self.detector.head, self._give_scores)
        self.hook(self.detector.anchor_generator, self._note_geometry, pre=True)

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> Terms:
        """The criterion's loss terms, in place of the head's.

        Raises:
            UsageError: If a label has no column.
            NonFiniteLossError: If a term is NaN or infinite.
        """
        samples = self.samples(
            targets, head_outputs, anchors, self.matched(targets, head_outputs, anchors, matched_idxs)
        )
        return self.terms("", samples, targets)

    def matched(
        self,
        targets: Sequence[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: Sequence[Tensor],
        matched_idxs: Sequence[Tensor],
    ) -> Sequence[Tensor]:
        """Per image the ground truth of each anchor: the criterion's assignment, or else the detector's [K]."""
        criterion = self.criteria[""]
        if criterion.matcher is None:
            return matched_idxs
        assigner, score_logits = criterion.matcher, criterion.loss.score_logits
        outputs = zip(head_outputs["cls_logits"], head_outputs["bbox_regression"], strict=True)
        return [
            assigner(AssignInput(a, t["boxes"], t["labels"], x, d, self.box_coder, score_logits, self._geometry))
            if len(t["boxes"])
            else torch.full_like(m, -1)
            for a, t, m, (x, d) in zip(anchors, targets, matched_idxs, outputs, strict=True)
        ]

    def samples(
        self,
        targets: Sequence[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: Sequence[Tensor],
        matched_idxs: Sequence[Tensor],
    ) -> DenseSamples:
        """The batch."""
        logits, deltas = head_outputs["cls_logits"], head_outputs["bbox_regression"]
        num_classes = logits.shape[-1] - self.criteria[""].loss.extra_logits
        coder, geometry = self.box_coder, self._geometry
        flat = logits.flatten(0, 1), deltas.flatten(0, 1)
        return collect_samples(targets, *flat, anchors, matched_idxs, num_classes, box_coder=coder, geometry=geometry)

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """Set the classifier's bias, whose channels are anchors times columns."""
        tower = self.detector.head.classification_head
        with torch.no_grad():
            tower.cls_logits.bias.copy_(bias.repeat(tower.num_anchors))

    def class_bias(self, stage: str) -> Tensor:
        """The classifier's bias, a row for each anchor of a cell [N, C + extra_logits]."""
        tower = self.detector.head.classification_head
        bias: Tensor = tower.cls_logits.bias.detach().view(tower.num_anchors, -1)
        return bias

    def with_scores(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs with one logit for each class, whose sigmoid is its score, whatever columns the loss needs."""
        return {**outputs, "cls_logits": self.criteria[""].loss.score_logits(outputs["cls_logits"])}

    def _check_inputs(self, detector: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Name batches in another format before torchvision fails on them."""
        if records_graph():
            return
        given = {**dict(zip(("images", "targets"), args, strict=False)), **kwargs}
        check_format(detector, list(given["images"]), given.get("targets") if detector.training else None)

    def _give_scores(self, head: nn.Module, args: Any, outputs: dict[str, Tensor]) -> dict[str, Tensor] | None:
        return None if head.training else self.with_scores(outputs)

    def _note_geometry(self, generator: nn.Module, inputs: tuple[ImageList, Sequence[Tensor]]) -> None:
        images, features = inputs
        self._geometry = Geometry([(f.shape[-2], f.shape[-1]) for f in features], list(images.image_sizes))
