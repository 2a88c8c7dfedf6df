"""The stage ``roi`` of Faster R-CNN: the loss of the box head in torchvision's RoI heads."""

from collections.abc import Sequence
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from ..core.errors import UsageError
from ..core.samples import DenseSamples
from .base import DetectorAdapter, Terms
from .columns import loss_columns, own_scores
from .ignore_regions import regions_of
from .rebinding import rebound
from .rpn import negatives_left_out
from .torchvision_batch import all_labels, check_labels, collect_samples

TERMS = {"classification": "loss_classifier", "bbox_regression": "loss_box_reg"}
"""torchvision's names of the criterion's terms."""
LOSS = "fastrcnn_loss"
"""Name of torchvision's function that computes the loss of the box head."""


class _Sampled(NamedTuple):
    """The proposals of a batch that were sampled for training."""

    targets: Sequence[dict[str, Tensor]]
    proposals: list[Tensor]
    matched_idxs: list[Tensor]
    labels: list[Tensor]
    target_deltas: list[Tensor]


class RoIStage(DetectorAdapter):
    """The stage ``roi`` of an adapter: classes and boxes of the proposals that ``detector.roi_heads`` samples.

    torchvision computes its own loss in a module-level function. In the heads of this detector it does nothing, unless
    their class has a ``forward`` of its own, and the terms are replaced afterwards. The losses of masks and
    keypoints do not change.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__(detector)
        self._sampled: _Sampled | None = None
        self._outputs: tuple[Tensor, Tensor] | None = None
        self._roi_image_sizes: Sequence[tuple[int, int]] | None = None
        self._regions: list[Tensor | None] | None = None

    def __getstate__(self) -> dict[str, Any]:  # a copy contains no batch
        return {**super().__getstate__(), "_sampled": None, "_outputs": None, "_regions": None}

    def assign_targets_to_proposals(
        self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Match proposals as the heads do; negatives in ignore regions get the label -1 and are not sampled."""
        heads = self.detector.roi_heads
        regions = self._regions or [None] * len(proposals)
        matched_idxs, labels = type(heads).assign_targets_to_proposals(heads, proposals, gt_boxes, gt_labels)
        images = zip(labels, proposals, regions, strict=True)
        return matched_idxs, [negatives_left_out(own, of_image, areas) for own, of_image, areas in images]

    def install_roi(self) -> None:
        """Replace the loss of the box head, and its scores if the loss trains other scores."""
        heads = self.detector.roi_heads
        self.hook(heads, self._begin_roi, pre=True)
        self.override(heads, "select_training_samples", "select_training_samples")
        if hasattr(heads, "assign_targets_to_proposals"):
            self.override(heads, "assign_targets_to_proposals", "assign_targets_to_proposals")
        if type(heads).forward is RoIHeads.forward and "forward" not in vars(heads):
            self.override(heads, "forward", "roi_forward")
        self.hook(heads.box_predictor, self._note_outputs)
        self.hook(heads, self._replace_terms)
        if self.criteria["roi"].calibrator or not own_scores(self.columns("roi"), self.criteria["roi"].loss):
            self.override(heads, "postprocess_detections", "postprocess_detections")

    def roi_forward(self, *args: Any, **kwargs: Any) -> Any:
        """Replace ``RoIHeads.forward``: skip torchvision's loss of the box head.

        Args:
            args: Positional arguments of ``RoIHeads.forward``.
            kwargs: Keyword arguments of ``RoIHeads.forward``.
        """
        heads = self.detector.roi_heads
        forward = type(heads).forward
        if forward is RoIHeads.forward and isinstance(forward, FunctionType) and LOSS in forward.__code__.co_names:
            forward = _without_loss(forward)
        return forward(heads, *args, **kwargs)

    @property
    def classifier(self) -> Any:
        """The layer that computes the class logits, background first.

        Raises:
            UsageError: If the box predictor has no layer ``cls_score`` with ``out_features``.
        """
        predictor = self.detector.roi_heads.box_predictor
        layer = getattr(predictor, "cls_score", None)
        if not isinstance(getattr(layer, "out_features", None), int):
            raise UsageError(
                f"{type(predictor).__name__} has no layer cls_score with out_features, which says how many classes "
                "there are: name its classifier so, as torchvision's FastRCNNPredictor."
            )
        return layer

    def select_training_samples(self, proposals: list[Tensor], targets: Sequence[dict[str, Tensor]]) -> Any:
        """Sample proposals as the RoI heads do, and record them for the loss.

        Raises:
            UsageError: If a label has no column.
        """
        heads = self.detector.roi_heads
        heads.check_targets(targets)
        if not self.batch_is_checked:
            labels = all_labels(targets) - 1  # torchvision does not check them
            check_labels(labels, self.columns("roi").classes, first_label=1)
        self._regions = [regions_of(target) for target in targets]
        sampled = type(heads).select_training_samples(heads, proposals, targets)
        self._sampled = _Sampled(targets, *sampled)
        return sampled

    def postprocess_detections(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: list[Tensor],
        image_shapes: Sequence[tuple[int, int]],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Return boxes, scores and labels of each image, with the scores that the loss trains instead of a softmax's.

        Args:
            class_logits: Class logits of all proposals, background first [N, C + 1].
            box_regression: Box deltas of each column [N, 4 (C + 1)], or shared by all columns [N, 4].
            proposals: Proposals of each image [N_b, 4].
            image_shapes: Height and width of each image in pixels.
        """
        heads, criterion = self.detector.roi_heads, self.criteria["roi"]
        counts = [len(p) for p in proposals]
        scores = criterion.score_logits(loss_columns(class_logits.float(), criterion.loss.extra_logits)).sigmoid()
        decoded = heads.box_coder.decode_single(box_regression, torch.cat(proposals)).unflatten(1, (-1, 4))
        boxes = (decoded[:, 1:] if decoded.shape[1] > 1 else decoded).expand(-1, scores.shape[1], -1)
        labels = torch.arange(1, scores.shape[1] + 1, device=scores.device).expand_as(scores)
        detections: tuple[list[Tensor], list[Tensor], list[Tensor]] = [], [], []
        split = zip(boxes.split(counts), scores.split(counts), labels.split(counts), image_shapes, strict=True)
        for *of_image, shape in split:
            box, score, label = (x.flatten(0, 1) for x in of_image)
            box = clip_boxes_to_image(box, shape)
            keep = (score > heads.score_thresh).nonzero().squeeze(1)
            keep = keep[remove_small_boxes(box[keep], min_size=1e-2)]
            keep = keep[batched_nms(box[keep], score[keep], label[keep], heads.nms_thresh)]
            for values, x in zip(detections, (box, score, label), strict=True):
                values.append(x[keep[: heads.detections_per_img]])
        return detections

    def _begin_roi(self, heads: nn.Module, inputs: Any) -> None:
        self._sampled = self._outputs = self._regions = None  # an exception may have left old ones
        self._roi_image_sizes = inputs[2] if len(inputs) > 2 else None

    def _note_outputs(self, predictor: nn.Module, inputs: Any, outputs: tuple[Tensor, Tensor]) -> None:
        if self._sampled is not None:
            self._outputs = outputs

    def _replace_terms(self, heads: nn.Module, inputs: Any, outputs: tuple[Any, Terms]) -> tuple[Any, Terms] | None:
        if not heads.training:
            return None
        sampled, predicted, self._sampled, self._outputs = self._sampled, self._outputs, None, None
        detections, terms = outputs
        if sampled is None or predicted is None or not terms.keys() >= set(TERMS.values()):
            raise UsageError(self._reason(sampled, predicted, terms))
        return detections, {**terms, **self.terms("roi", self._roi_samples(sampled, *predicted), sampled.targets)}

    def _roi_samples(self, sampled: _Sampled, logits: Tensor, deltas: Tensor) -> DenseSamples:
        labels = torch.cat(sampled.labels)
        own = deltas.unflatten(1, (-1, 4))  # [N, C + 1, 4]; [N, 1, 4] where all classes share the deltas
        if own.shape[1] > 1:  # deltas of background are not trained: a negative uses those of its best class
            column = torch.where(labels > 0, labels, logits[:, 1:].detach().max(1).indices + 1)
            own = own.gather(1, column[:, None, None].expand(-1, 1, 4))
        samples = collect_samples(
            sampled.targets,
            loss_columns(logits, self.criteria["roi"].loss.extra_logits),
            own.reshape(-1, 4),
            sampled.proposals,
            # label 0 is background, -1 is ignored
            [torch.where(n > 0, m, n - 1) for m, n in zip(sampled.matched_idxs, sampled.labels, strict=True)],
            first_label=1,
            box_coder=self.detector.roi_heads.box_coder,
            known_image_sizes=self._roi_image_sizes,
        )
        # the heads have encoded them already
        vars(samples)["pos_target_deltas"] = torch.cat(sampled.target_deltas)[samples.positives]
        return samples

    def _reason(self, sampled: _Sampled | None, predicted: Any, terms: Terms) -> str:
        """Explain why the terms cannot be replaced."""
        heads = self.detector.roi_heads
        if sampled is None:
            return f"{type(heads).__name__} does not call select_training_samples: its loss cannot be replaced."
        if predicted is None:
            return (
                f"{type(heads.box_predictor).__name__} replaced another box predictor after the loss was "
                "replaced: patch the model again."
            )
        listed, replaced = ", ".join(terms), " and ".join(sorted(TERMS.values()))
        return f"{type(heads).__name__} has the loss terms {listed}, without {replaced}, which are to be replaced."


@cache
def _without_loss(forward: FunctionType) -> FunctionType:
    """Return a copy of ``RoIHeads.forward`` without torchvision's loss, the same in each step."""
    return rebound(forward, LOSS, _no_loss)


def _no_loss(logits: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    """Return terms that will be replaced, in place of torchvision's loss of the box head."""
    zero = logits.new_zeros(())
    return zero, zero
