"""The adapter of RF-DETR from the package ``rfdetr``."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.batch_format import CLASS_LISTS, IGNORE_BOXES
from ..core.errors import UsageError
from ..criterion import Criterion, CriterionArgs
from ..normalizers.native_normalizer import NativeNormalizer
from .base import Terms
from .columns import Columns
from .set_prediction import Output, SetPredictionAdapter

TERM = "loss_ce"
PER_IMAGE = (IGNORE_BOXES, *CLASS_LISTS)
"""Keys of targets that do not have one row per object."""


class RFDETRAdapter(SetPredictionAdapter):
    """Adapter of RF-DETR's ``SetCriterion``, which its LightningModule has as ``criterion``.

    RF-DETR keeps its matcher, its box and mask losses and its weights. The class losses of all layers become one term,
    ``loss_ce``. It includes the terms that weighters add, because RF-DETR sums only terms with names that it knows.
    """

    detectors = ("rfdetr.models.criterion.SetCriterion",)

    def __init__(self, detector: Any) -> None:
        super().__init__(detector)
        self._outputs: list[Output] | None = None  # None outside a step

    def columns(self, stage: str) -> Columns:
        """Return one column for each class."""
        return Columns(self.detector.num_classes)

    def defaults(self, stage: str) -> CriterionArgs:
        """Return the loss that the switches of RF-DETR's criterion choose.

        Raises:
            UsageError: If they choose the position-supervised loss, which lit_dense does not have.
        """
        detector = self.detector
        if detector.ia_bce_loss:
            name, alpha = "ia_bce", detector.focal_alpha
        elif detector.use_position_supervised_loss:
            raise UsageError(
                f"{type(detector).__name__} has use_position_supervised_loss=True, a loss that lit_dense does not "
                "have: build it with ia_bce_loss=True."
            )
        elif detector.use_varifocal_loss:
            name, alpha = "vfl", 1 - detector.focal_alpha  # RF-DETR weights negatives by this
        else:
            name, alpha = "focal", detector.focal_alpha
        loss = {"class_path": name, "init_args": {"alpha": alpha}}
        return {"loss": loss, "box_loss": None, "normalizer": NativeNormalizer()}

    def check(self, stage: str, criterion: Criterion) -> None:
        """Reject a criterion that does not fit, keypoint models, and weights that differ between layers.

        Raises:
            UsageError: If the criterion or the model does not fit.
        """
        detector = self.detector
        if "keypoints" in detector.losses:
            raise UsageError(
                f"{type(detector).__name__} trains keypoints, and RF-DETR then divides its losses itself over several "
                "batches: the loss of a keypoint model cannot be replaced."
            )
        layer_weights = {name: weight for name, weight in detector.weight_dict.items() if name.startswith(TERM)}
        if len(set(layer_weights.values())) > 1:
            raise UsageError(
                f"{type(detector).__name__}: weight_dict has different weights for class losses, {layer_weights}, "
                f"which become one term, {TERM}: give all of them the same."
            )
        super().check(stage, criterion)

    def install(self) -> None:
        """Record the inputs of the class losses, and replace these losses by the criterion's."""
        self.override(self.detector, "get_loss", "get_loss")
        self.override(self.detector, "forward", "forward")
        if hasattr(self.detector, "_can_batch_detection_losses"):  # a compiled path that does not call get_loss
            self.override(self.detector, "_can_batch_detection_losses", "refuse_batching")

    def refuse_batching(self, *args: Any, **kwargs: Any) -> bool:
        """Disable RF-DETR's compiled path, so that it computes its losses layer by layer."""
        return False

    def get_loss(
        self,
        loss: str,
        outputs: Mapping[str, Tensor],
        targets: Sequence[Mapping[str, Tensor]],
        indices: Sequence[tuple[Tensor, Tensor]],
        num_boxes: Any,
        **kwargs: Any,
    ) -> Any:
        """Compute one of RF-DETR's losses; for the class loss, only record its inputs.

        Args:
            loss: Name of the loss.
            outputs: Predictions of a layer.
            targets: For each image ``boxes`` and ``labels``.
            indices: For each image the indices of queries and of the objects that they are matched with.
            num_boxes: Divisor of RF-DETR's losses.
            kwargs: Other arguments of RF-DETR.
        """
        if loss != "labels" or self._outputs is None:
            return type(self.detector).get_loss(self.detector, loss, outputs, targets, indices, num_boxes, **kwargs)
        if "valid" in targets[0]:
            indices = [_without_padding(pair, target["valid"]) for pair, target in zip(indices, targets, strict=True)]
        self._outputs.append(Output(outputs["pred_logits"], outputs["pred_boxes"], indices))
        return {}

    def forward(self, outputs: Any, targets: Sequence[Mapping[str, Tensor]], num_boxes: Any = None) -> Terms:
        """Compute RF-DETR's losses, with the class losses replaced by the criterion's.

        Args:
            outputs: Predictions of the model.
            targets: For each image ``boxes`` and ``labels``.
            num_boxes: Divisor of the losses; only None, RF-DETR's own divisor, is supported.

        Raises:
            UsageError: If ``num_boxes`` is given, or a label has no column.
            NonFiniteLossError: If a term is NaN or infinite.
        """
        detector = self.detector
        if num_boxes is not None:
            raise UsageError(
                f"{type(detector).__name__}: num_boxes was given, but lit_dense divides by the objects itself: leave "
                "it out."
            )
        self._outputs = []
        try:
            terms: Terms = type(detector).forward(detector, outputs, targets)
            recorded = self._outputs
        finally:
            self._outputs = None
        if not recorded:
            raise UsageError(
                f"{type(detector).__name__} has not asked get_loss for its class loss, which this release of lit_dense "
                "replaces. Take another release of rfdetr."
            )
        if "valid" in targets[0]:  # targets of a fixed size are padded
            targets = [
                {name: value if name in PER_IMAGE else _valid_rows(value, t["valid"]) for name, value in t.items()}
                for t in targets
            ]
        objects = sum(len(target["labels"]) for target in targets)
        groups = detector.group_detr if detector.training and not detector.sum_group_losses else 1
        count = torch.full((), float(objects * groups), device=recorded[0].logits.device)
        own = self.terms("", self.samples(recorded, targets, (count, 1.0)), targets)
        return {**terms, TERM: torch.stack(list(own.values())).sum()}


def _without_padding(pair: tuple[Tensor, Tensor], valid: Tensor) -> tuple[Tensor, Tensor]:
    """Drop matches with padding, and number the objects without the padded rows of the targets."""
    source, target = pair
    valid = valid.bool()
    rank = valid.cumsum(0) - 1
    target = target.to(valid.device)
    kept = valid[target]
    return source.to(valid.device)[kept], rank[target[kept]]


def _valid_rows(value: Any, valid: Tensor) -> Any:
    """Drop the padded rows of a tensor with one row per object; other values stay."""
    has_rows = isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(valid)
    return value[valid.bool()] if has_rows else value
