"""Lets lit_dense compute the loss of a GridDetector."""

from typing import Any

import torch
from torch import Tensor

from lit_dense import DenseSamples
from lit_dense.detectors import Columns, CriterionArgs, DetectorAdapter

TERMS = {"classification": "loss_cls", "bbox_regression": "loss_box"}


class GridAdapter(DetectorAdapter):
    """Replaces ``compute_loss``, and ``scores`` where the loss has columns of its own."""

    detectors = ("grid_detector.GridDetector",)  # by name: importing the adapter does not import the detector
    offers = frozenset({"boxes", "box_loss"})  # neither anchors nor deltas, and it matches by itself

    def columns(self, stage: str) -> Columns:
        """One column for each class."""
        return Columns(self.detector.classes.out_channels)

    def defaults(self, stage: str) -> CriterionArgs:
        """The arguments with which terms and gradients are the detector's own."""
        return {"loss": "focal", "box_loss": "giou", "normalizer": "batch"}

    def term_name(self, stage: str, name: str) -> str:
        """The detector's names of the terms; those of weighters keep theirs."""
        return TERMS.get(name, name)

    def install(self) -> None:
        """Methods of the adapter are called in place of the detector's."""
        self.override(self.detector, "compute_loss", "compute_loss")
        self.override(self.detector, "scores", "scores")

    def compute_loss(
        self, logits: Tensor, boxes: Tensor, centres: Tensor, targets: list[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """The criterion's terms of the same cells and objects."""
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
        """The scores that the loss trains [B, K, C]."""
        return self.criteria[""].loss.score_logits(logits).sigmoid()

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """For ``prior``."""
        with torch.no_grad():
            self.detector.classes.bias.copy_(bias)

    def class_bias(self, stage: str) -> Tensor:
        """The bias of each column; one row, for a cell has one box [1, C + extra_logits]."""
        bias: Tensor = self.detector.classes.bias.detach()
        return bias.unsqueeze(0)
