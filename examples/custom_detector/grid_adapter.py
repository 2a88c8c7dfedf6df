"""Adapter that lets lit_dense compute the loss of a GridDetector."""

from typing import Any

import torch
from torch import Tensor

from lit_dense import DenseSamples
from lit_dense.detectors import Columns, CriterionArgs, DetectorAdapter

TERMS = {"classification": "loss_cls", "bbox_regression": "loss_box"}


class GridAdapter(DetectorAdapter):
    """Adapter of GridDetector: replaces ``compute_loss``, and ``scores`` for losses with extra columns."""

    detectors = ("grid_detector.GridDetector",)  # by name: importing the adapter does not import the detector
    offers = frozenset({"boxes", "box_loss"})  # the detector has no anchors and deltas, and matches by itself

    def columns(self, stage: str) -> Columns:
        """Describe the columns: one for each class."""
        return Columns(self.detector.classes.out_channels)

    def defaults(self, stage: str) -> CriterionArgs:
        """Return the arguments that reproduce the detector's own terms and gradients."""
        return {"loss": "focal", "box_loss": "giou", "normalizer": "batch"}

    def term_name(self, stage: str, name: str) -> str:
        """Return the detector's name of a term; terms of weighters keep their names."""
        return TERMS.get(name, name)

    def install(self) -> None:
        """Replace methods of the detector by methods of the adapter."""
        self.override(self.detector, "compute_loss", "compute_loss")
        self.override(self.detector, "scores", "scores")

    def compute_loss(
        self, logits: Tensor, boxes: Tensor, centres: Tensor, targets: list[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """Compute the criterion's terms for the arguments of the detector's method."""
        offset, matched = 0, []
        for target in targets:  # objects are counted through the batch
            index = self.detector.match(centres, target["boxes"])
            matched.append(torch.where(index >= 0, index + offset, -1))
            offset += len(target["boxes"])
        matched_idxs = torch.stack(matched)
        gt_labels = torch.cat([t["labels"] for t in targets])
        labels = matched_idxs.clone()
        labels[matched_idxs >= 0] = gt_labels[matched_idxs[matched_idxs >= 0]]
        fields = {"weight": torch.cat([t["weight"] for t in targets])} if all("weight" in t for t in targets) else {}
        samples = DenseSamples.of(
            logits,
            labels,
            boxes=boxes,
            gt_boxes=torch.cat([t["boxes"] for t in targets]),
            matched_idxs=matched_idxs,
            target_fields=fields,  # for the weighter target_weights
        )
        return self.terms("", samples, targets)

    def scores(self, logits: Tensor) -> Tensor:
        """Compute the scores that the loss trains [B, K, C]."""
        return self.criteria[""].loss.score_logits(logits).sigmoid()

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """Set the bias of the class layer, for the argument ``prior``."""
        with torch.no_grad():
            self.detector.classes.bias.copy_(bias)

    def class_bias(self, stage: str) -> Tensor:
        """Return the bias of each column [1, C + extra_logits]; there is one row, because a cell has one box."""
        bias: Tensor = self.detector.classes.bias.detach()
        return bias.unsqueeze(0)
