"""The loss of the box head of torchvision's RoI heads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from ..core.errors import UsageError
from ..core.samples import DenseSamples
from .base import DetectorAdapter, Terms, loss_columns, own_scores
from .torchvision_batch import check_labels, collect_samples

TERMS = {"classification": "loss_classifier", "bbox_regression": "loss_box_reg"}
"""The box head's names of the criterion's terms."""


class _Drawn(NamedTuple):
    """The proposals of a batch that were drawn for training."""

    targets: Sequence[dict[str, Tensor]]
    proposals: list[Tensor]
    matched_idxs: list[Tensor]
    labels: list[Tensor]


class RoIStage(DetectorAdapter):
    """The stage ``roi`` of an adapter: classes and boxes of the proposals that ``detector.roi_heads`` draws.

    The heads compute their own loss, a function of torchvision's module, with at most 512 rows an image; its terms are
    replaced afterwards. Losses of masks and keypoints are left alone.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__(detector)
        self._drawn: _Drawn | None = None
        self._outputs: tuple[Tensor, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:  # nothing of a batch is copied
        return {**super().__getstate__(), "_drawn": None, "_outputs": None}

    def install_roi(self) -> None:
        """Take the loss of the box head over, and its scores where the loss trains others."""
        heads = self.detector.roi_heads
        self.hook(heads, self._begin_roi, pre=True)
        self.override(heads, "select_training_samples", "select_training_samples")
        self.hook(heads.box_predictor, self._note_outputs)
        self.hook(heads, self._replace_terms)
        if not own_scores(self.columns("roi"), self.criteria["roi"].loss):
            self.override(heads, "postprocess_detections", "postprocess_detections")

    @property
    def classifier(self) -> Any:
        """The layer that gives the class logits, background first.

        Raises:
            UsageError: If the box predictor has no layer of this name and kind.
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
        """Proposals drawn for training as the heads draw them; they are noted for the loss.

        Raises:
            UsageError: If a label has no column.
        """
        heads = self.detector.roi_heads
        heads.check_targets(targets)
        if not self.batch_is_checked:
            labels = torch.cat([t["labels"].reshape(-1) for t in targets])
            check_labels(labels - 1, self.columns("roi").classes, first_label=1)  # the heads' own loss does not
        drawn = type(heads).select_training_samples(heads, proposals, targets)
        self._drawn = _Drawn(targets, *drawn[:3])
        return drawn

    def postprocess_detections(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: list[Tensor],
        image_shapes: Sequence[tuple[int, int]],
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Boxes, scores and labels of each image, with the scores that the loss trains in place of a softmax's.

        Args:
            class_logits: Of all proposals, background first [N, C + 1].
            box_regression: Box deltas for each column, or one for all [N, 4 (C + 1)] or [N, 4].
            proposals: Per image [N_b, 4].
            image_shapes: Height and width of each image.
        """
        heads, loss = self.detector.roi_heads, self.criteria["roi"].loss
        counts = [len(p) for p in proposals]
        scores = loss.score_logits(loss_columns(class_logits.float(), loss.extra_logits)).sigmoid()
        decoded = heads.box_coder.decode_single(box_regression, torch.cat(proposals)).unflatten(1, (-1, 4))
        boxes = (decoded[:, 1:] if decoded.shape[1] > 1 else decoded).expand(-1, scores.shape[1], -1)
        labels = torch.arange(1, scores.shape[1] + 1, device=scores.device).expand_as(scores)
        found: tuple[list[Tensor], list[Tensor], list[Tensor]] = [], [], []
        split = zip(boxes.split(counts), scores.split(counts), labels.split(counts), image_shapes, strict=True)
        for *of_image, shape in split:
            box, score, label = (x.flatten(0, 1) for x in of_image)
            box = clip_boxes_to_image(box, shape)
            keep = (score > heads.score_thresh).nonzero().squeeze(1)
            keep = keep[remove_small_boxes(box[keep], min_size=1e-2)]
            keep = keep[batched_nms(box[keep], score[keep], label[keep], heads.nms_thresh)]
            for values, x in zip(found, (box, score, label), strict=True):
                values.append(x[keep[: heads.detections_per_img]])
        return found

    def _begin_roi(self, heads: nn.Module, inputs: Any) -> None:
        self._drawn = self._outputs = None  # an exception may have left them

    def _note_outputs(self, predictor: nn.Module, inputs: Any, outputs: tuple[Tensor, Tensor]) -> None:
        if self._drawn is not None:
            self._outputs = outputs

    def _replace_terms(self, heads: nn.Module, inputs: Any, outputs: tuple[Any, Terms]) -> tuple[Any, Terms] | None:
        if not heads.training:
            return None
        drawn, predicted, self._drawn, self._outputs = self._drawn, self._outputs, None, None
        found, terms = outputs
        if drawn is None or predicted is None or not terms.keys() >= set(TERMS.values()):
            raise UsageError(self._why_not(drawn, predicted, terms))
        return found, {**terms, **self.terms("roi", self._roi_samples(drawn, *predicted), drawn.targets)}

    def _roi_samples(self, drawn: _Drawn, logits: Tensor, deltas: Tensor) -> DenseSamples:
        labels = torch.cat(drawn.labels)
        own = deltas.unflatten(1, (-1, 4))  # [N, C + 1, 4]; [N, 1, 4] where all classes share the deltas
        if own.shape[1] > 1:  # a negative's are those of its best class: nothing trains the deltas of background
            column = torch.where(labels > 0, labels, logits[:, 1:].detach().argmax(1) + 1)
            own = own[torch.arange(len(labels), device=labels.device), column]
        return collect_samples(
            drawn.targets,
            loss_columns(logits, self.criteria["roi"].loss.extra_logits),
            own.reshape(-1, 4),
            drawn.proposals,
            # label 0 is background, -1 is ignored
            [torch.where(n > 0, m, n - 1) for m, n in zip(drawn.matched_idxs, drawn.labels, strict=True)],
            first_label=1,
            box_coder=self.detector.roi_heads.box_coder,
        )

    def _why_not(self, drawn: _Drawn | None, predicted: Any, terms: Terms) -> str:
        heads = self.detector.roi_heads
        if drawn is None:
            return f"{type(heads).__name__} does not call select_training_samples: its loss cannot be replaced."
        if predicted is None:
            return (
                f"{type(heads.box_predictor).__name__} took the place of another box predictor after the loss was "
                "replaced: patch the model again."
            )
        found, replaced = ", ".join(terms), " and ".join(sorted(TERMS.values()))
        return f"{type(heads).__name__} has the loss terms {found}, without {replaced}, which are to be replaced."
