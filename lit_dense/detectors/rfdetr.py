"""RF-DETR of the package ``rfdetr``."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UsageError
from ..criterion import Criterion, CriterionArgs
from ..normalizers.native_normalizer import NativeNormalizer
from .base import Columns, Terms
from .set_prediction import Output, SetPredictionAdapter

TERM = "loss_ce"


class RFDETRAdapter(SetPredictionAdapter):
    """``SetCriterion`` of RF-DETR, which its LightningModule has as ``criterion``.

    Its matcher, its losses of boxes and masks and its weights stay. Class losses of all layers become one, ``loss_ce``,
    with everything that weighters add: the host sums only terms whose names it knows.
    """

    detectors = ("rfdetr.models.criterion.SetCriterion",)

    def __init__(self, detector: Any) -> None:
        super().__init__(detector)
        self._outputs: list[Output] | None = None  # None outside of a step

    def columns(self, stage: str) -> Columns:
        """A column for each class."""
        return Columns(self.detector.num_classes)

    def defaults(self, stage: str) -> CriterionArgs:
        """The loss that the host's switches choose.

        Raises:
            UsageError: If they choose the position-supervised loss, which has no counterpart.
        """
        host = self.detector
        if host.ia_bce_loss:
            name, alpha = "ia_bce", host.focal_alpha
        elif host.use_position_supervised_loss:
            raise UsageError(
                f"{type(host).__name__} has use_position_supervised_loss=True, a loss that lit_dense does not have: "
                "build it with ia_bce_loss=True."
            )
        elif host.use_varifocal_loss:
            name, alpha = "vfl", 1 - host.focal_alpha  # which is the share of negatives there
        else:
            name, alpha = "focal", host.focal_alpha
        loss = {"class_path": name, "init_args": {"alpha": alpha}}
        return {"loss": loss, "box_loss": None, "normalizer": NativeNormalizer()}

    def check(self, stage: str, criterion: Criterion) -> None:
        """Refuse a criterion that does not fit, keypoints, and weights that differ between layers.

        Raises:
            UsageError: If it does not fit.
        """
        host = self.detector
        if "keypoints" in host.losses:
            raise UsageError(
                f"{type(host).__name__} trains keypoints, and RF-DETR then divides its losses by itself over several "
                "batches: the loss of a keypoint model cannot be replaced."
            )
        of_layers = {name: weight for name, weight in host.weight_dict.items() if name.startswith(TERM)}
        if len(set(of_layers.values())) > 1:
            raise UsageError(
                f"{type(host).__name__}: weight_dict has different weights for class losses, {of_layers}, which become "
                f"one term, {TERM}: give all of them the same."
            )
        super().check(stage, criterion)

    def install(self) -> None:
        """Listen to the class losses, and put the criterion's in their place."""
        self.override(self.detector, "get_loss", "get_loss")
        self.override(self.detector, "forward", "forward")
        if hasattr(self.detector, "_can_batch_detection_losses"):  # a compiled path that does not ask get_loss
            self.override(self.detector, "_can_batch_detection_losses", "refuse_batching")

    def refuse_batching(self, *args: Any, **kwargs: Any) -> bool:
        """Take the host's path layer by layer, whether its compiled one is switched on or not."""
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
        """The host's losses but for that of classes, which is noted.

        Args:
            loss: Name of the loss.
            outputs: What a layer predicts.
            targets: Per image ``boxes`` and ``labels``.
            indices: Per image indices of queries and of the objects that they are matched with.
            num_boxes: What the host divides by.
            kwargs: What else the host passes on.
        """
        if loss != "labels" or self._outputs is None:
            return type(self.detector).get_loss(self.detector, loss, outputs, targets, indices, num_boxes, **kwargs)
        if "valid" in targets[0]:
            indices = [_real(pair, target["valid"]) for pair, target in zip(indices, targets, strict=True)]
        self._outputs.append(Output(outputs["pred_logits"], outputs["pred_boxes"], indices))
        return {}

    def forward(self, outputs: Any, targets: Sequence[Mapping[str, Tensor]], num_boxes: Any = None) -> Terms:
        """The host's losses, with the criterion's in place of those of classes.

        Args:
            outputs: What the model predicts.
            targets: Per image ``boxes`` and ``labels``.
            num_boxes: What to divide by; only the host's own number, None, is known here.

        Raises:
            UsageError: If a number to divide by is given, or a label has no column.
            NonFiniteLossError: If a term is NaN or infinite.
        """
        host = self.detector
        if num_boxes is not None:
            raise UsageError(
                f"{type(host).__name__}: num_boxes was given, but lit_dense divides by the objects itself: leave it "
                "out."
            )
        self._outputs = []
        try:
            terms: Terms = type(host).forward(host, outputs, targets)
            seen = self._outputs
        finally:
            self._outputs = None
        if not seen:
            raise UsageError(
                f"{type(host).__name__} has not asked get_loss for its class loss, which this release of lit_dense "
                "replaces. Take another release of rfdetr."
            )
        if "valid" in targets[0]:  # targets of a fixed size are filled up
            targets = [{name: _rows(value, target["valid"]) for name, value in target.items()} for target in targets]
        objects = sum(len(target["labels"]) for target in targets)
        groups = host.group_detr if host.training and not host.sum_group_losses else 1
        count = torch.full((), float(objects * groups), device=seen[0].logits.device)
        own = self.terms("", self.samples(seen, targets, (count, 1.0)), targets)
        return {**terms, TERM: torch.stack(list(own.values())).sum()}


def _real(pair: tuple[Tensor, Tensor], valid: Tensor) -> tuple[Tensor, Tensor]:
    """Matches with real objects alone, numbered without the rows that fill targets up; the other queries have none."""
    source, target = pair
    valid = valid.bool()
    rank = valid.cumsum(0) - 1
    target = target.to(valid.device)
    kept = valid[target]
    return source.to(valid.device)[kept], rank[target[kept]]


def _rows(value: Any, valid: Tensor) -> Any:
    """Rows of real objects, where a value has a row for each."""
    of_objects = isinstance(value, Tensor) and value.dim() > 0 and len(value) == len(valid)
    return value[valid.bool()] if of_objects else value
