"""The batch that losses and weighters get: all anchors with predictions, matches and ground-truth boxes."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from ..functional.fused.anchor_loss import IGNORED as IGNORED
from ..functional.iou import paired_iou
from ..functional.unknown_classes import unknown_negatives
from .box_coder import BoxCoder as BoxCoder
from .class_counts import ClassCounts
from .distributed import Reduce
from .dual_weights import DualWeights
from .errors import UsageError
from .geometry import Geometry
from .native_divisor import NativeDivisor
from .sample_fields import checked_unknown, fields_of_rows, on_device, repeated_images, with_target_fields
from .step_context import StepContext

NEGATIVE = -1


def _identity(logits: Tensor) -> Tensor:
    return logits


@dataclass(frozen=True, eq=False)
class DenseSamples:
    """A batch as A anchors of all images and levels, with G ground-truth boxes, P positive anchors and C classes.

    Images may have different numbers of anchors, in any order. A field that a detector does not have (anchors and
    deltas of a set predictor, boxes of a classifier) is a :class:`~lit_dense.core.missing_field.MissingField`, which
    raises a ``UsageError`` when it is used. :meth:`of` builds the samples of a custom head.

    Args:
        logits: Class logits, with their graph [A, C]; with more columns if the loss has extra columns.
        deltas: Predicted box deltas [A, 4], with their graph; with more columns for a box loss with outputs of its own.
        anchors: Anchor boxes in pixels of the resized image, x1 y1 x2 y2 [A, 4].
        matched_idxs: Index of the matched ground truth in ``gt_boxes``; -1 background, -2 ignored [A].
        gt_boxes: Ground-truth boxes in pixels of the resized image [G, 4].
        gt_labels: Class of each ground truth, 0 to C - 1 [G].
        gt_image_idxs: Image of each ground truth, 0 to B - 1 [G].
        num_images: B, number of images on this process.
        image_idxs: Image of each anchor, 0 to B - 1 [A].
        box_coder: Encodes and decodes deltas.
        boxes: Predicted boxes in pixels, with their graph, if the detector predicts boxes and no deltas [A, 4].
        geometry: Sizes of levels and images; None if the detector does not provide them.
        known_image_sizes: Height and width of each resized image in pixels, if there is no geometry.
        context: Step, epoch, class counts and sums over processes; by default the criterion sets it.
        soft_targets: Target in [0, 1] of the ground-truth class of each positive; None for 1 [P].
        quality: Soft target that the assigner gave each positive; None if it gave none [P].
        class_weights: Factor of the logits of each class, for losses of single logits; None for 1 [C]. With two rows,
            the first is for logits with target 0 and the second for logits with target 1 [2, C].
        dual_weights: Separate weights of positives as positives and as negatives, and further positives; None for none.
        extra_logits: Number of columns of the logits besides one per class.
        score_logits: Function of the loss that converts logits into logits whose sigmoid is the score.
        auxiliary: Other losses of the positives by name, such as FCOS's centre-ness, with their graph [P].
        target_fields: Other fields that the targets have for each box, by name, such as weights [G].
        native: Divisor of the detector's own loss, if it is not a number of positives or anchors.
        unknown: Whether an image is not annotated for a class, so that its anchors are no negatives of the class; None
            if all images are annotated for all classes; bool [B, C], or [B, C + extra_logits] with False for the extra
            columns.
        largest_label: Largest label of samples that :meth:`of` has built, to check it against the columns of a loss.
        references: Boxes from which deltas are decoded, in pixels; None for the anchors [A, 4].
    """

    logits: Tensor
    deltas: Tensor
    anchors: Tensor
    matched_idxs: Tensor
    gt_boxes: Tensor
    gt_labels: Tensor
    gt_image_idxs: Tensor
    num_images: int
    image_idxs: Tensor
    box_coder: BoxCoder
    boxes: Tensor | None = None
    geometry: Geometry | None = None
    known_image_sizes: Sequence[tuple[int, int]] | None = None
    context: StepContext | None = None
    soft_targets: Tensor | None = None
    quality: Tensor | None = None
    class_weights: Tensor | None = None
    dual_weights: DualWeights | None = None
    extra_logits: int = 0
    score_logits: Callable[[Tensor], Tensor] = _identity
    auxiliary: Mapping[str, Tensor] = field(default_factory=dict)
    target_fields: Mapping[str, Tensor] = field(default_factory=dict)
    native: NativeDivisor | None = None
    unknown: Tensor | None = None
    largest_label: int | None = None
    references: Tensor | None = None

    @classmethod
    def of(
        cls,
        logits: Tensor,
        labels: Tensor,
        *,
        boxes: Tensor | None = None,
        gt_boxes: Tensor | None = None,
        matched_idxs: Tensor | None = None,
        deltas: Tensor | None = None,
        anchors: Tensor | None = None,
        box_coder: BoxCoder | None = None,
        images: Tensor | int | None = None,
        **more: Any,
    ) -> "DenseSamples":
        """Build the samples of a custom head whose labels are assigned already.

        Args:
            logits: Class logits, with their graph [A, C]; or [B, K, C], which also defines the images.
            labels: Class of each row, 0 to C - 1; -1 background, -2 ignored [A] or [B, K].
            boxes: Predicted boxes, x1 y1 x2 y2 in pixels [A, 4]; or give ``deltas``, ``anchors`` and ``box_coder``.
            gt_boxes: Target box of each row; only those of positives are read [A, 4]. With ``matched_idxs``, the
                ground-truth boxes of the batch [G, 4].
            matched_idxs: Index of the ground truth of each row in the batch; by default each positive has its own
                ground truth [A].
            deltas: Predicted box deltas [A, 4], or the outputs [A, box_outputs] of a box loss with outputs of its own.
            anchors: Anchor boxes in pixels [A, 4]; for such a box loss, squares with the side of the stride.
            box_coder: Encodes and decodes deltas, as torchvision's ``BoxCoder``.
            images: Image of each row [A], or the number of images if all have the same number of rows; by default B of
                [B, K, C], otherwise 1.
            more: Other fields, such as ``geometry``; each of ``target_fields`` has a value for each row or object.

        Raises:
            UsageError: If shapes do not fit together, a label or an index is out of range, or the logits seem to be
                probabilities.

        Example:
            >>> samples = DenseSamples.of(torch.randn(2, 5, 3), torch.tensor([[0, -1, -1, -2, 2]] * 2))
            >>> samples.num_images, len(samples.positives)
            (2, 4)
        """
        given = logits, labels, boxes, gt_boxes, matched_idxs, deltas, anchors, box_coder, images
        return cls(**with_target_fields(fields_of_rows(*given), matched_idxs is None, more))

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.logits.device

    @property
    def reduce(self) -> Reduce:
        """Sums over the processes of the run."""
        return self._context.reduce

    @property
    def step(self) -> int:
        """Number of training steps so far."""
        return self._context.step

    @property
    def epoch(self) -> int:
        """Number of epochs so far."""
        return self._context.epoch

    @property
    def class_counts(self) -> ClassCounts | None:
        """Class counts of the training set; None if unknown."""
        return self._context.class_counts

    @property
    def _context(self) -> StepContext:
        return self.context or StepContext()

    @property
    def num_classes(self) -> int:
        """C, number of classes."""
        return self.logits.shape[1] - self.extra_logits

    def rows_of(self, image: int) -> Tensor:
        """Return the indices of the anchors of one image, in ascending order."""
        return (self.image_idxs == image).nonzero().squeeze(1)

    @cached_property
    def counts_of_images(self) -> Sequence[int] | None:
        """Number of anchors of each image, if the anchors are known to be in the order of images; otherwise None."""
        return None  # no field: a copy of the samples with other fields can have other anchors

    @property
    def anchors_per_image(self) -> int:
        """Number of anchors of an image, if all images have the same number and are in order.

        Raises:
            UsageError: If they are not: use ``image_idxs``.
        """
        number = len(self.image_idxs) // max(1, self.num_images)
        if not torch.equal(self.image_idxs, repeated_images(self.num_images, number, self.device)):
            raise UsageError("The images of these samples have different numbers of anchors: use image_idxs.")
        return number

    @cached_property
    def level_idxs(self) -> Tensor:
        """Pyramid level of each anchor, 0 the finest [A].

        Raises:
            UsageError: If the detector does not provide the sizes of its levels.
        """
        numbers = self.required_geometry.anchors_of_levels(len(self.matched_idxs) // max(1, self.num_images))
        levels = torch.arange(len(numbers), device=self.device)
        counts = on_device(numbers, self.device)
        return levels.repeat_interleave(counts, output_size=sum(numbers)).repeat(self.num_images)

    @property
    def num_levels(self) -> int:
        """Number of pyramid levels.

        Raises:
            UsageError: If the detector does not provide the sizes of its levels.
        """
        return len(self.required_geometry.level_sizes)

    @cached_property
    def image_sizes(self) -> Tensor:
        """Height and width of each resized image in pixels, without padding [B, 2].

        Raises:
            UsageError: If the detector does not provide the sizes of its images.
        """
        sizes = self.known_image_sizes if self.geometry is None else self.geometry.image_sizes
        if sizes is None:
            raise UsageError(
                "These samples do not tell the sizes of their images: give known_image_sizes=[(height, width), ...] or "
                "geometry to DenseSamples.of."
            )
        return on_device(list(chain(*sizes)), self.device).view(-1, 2)

    @cached_property
    def in_padding(self) -> Tensor:
        """Whether the centre of an anchor lies outside its image, in the padding of the batch [A].

        Raises:
            UsageError: If the detector does not provide the sizes of its images.
        """
        sizes = on_device(list(chain(*self.required_geometry.image_sizes)), self.device).view(-1, 2)
        height, width = sizes[self.image_idxs].unbind(1)
        centre_x, centre_y = (self.anchors[:, :2] + self.anchors[:, 2:]).div(2).unbind(1)
        return (centre_x >= width) | (centre_y >= height)

    @property
    def required_geometry(self) -> Geometry:
        """Sizes of levels and images.

        Raises:
            UsageError: If the detector does not provide them.
        """
        if self.geometry is None:
            raise UsageError("This detector does not tell the sizes of its levels and images.")
        return self.geometry

    @cached_property
    def _matched(self) -> Tensor:
        """Indices of the matched anchors, in ascending order."""
        return (self.matched_idxs >= 0).nonzero().squeeze(1)

    @cached_property
    def _gt_of_matched(self) -> Tensor:
        return self.matched_idxs[self._matched]

    @cached_property
    def positives(self) -> Tensor:
        """Indices of the positive anchors; with dual weights, anchors inside several objects are there again [P]."""
        return self._matched if self.dual_weights is None else torch.cat([self._matched, self.dual_weights.anchors])

    @cached_property
    def valid(self) -> Tensor:
        """Whether an anchor is positive or negative, and not ignored [A]."""
        return self.matched_idxs != IGNORED

    @cached_property
    def labels(self) -> Tensor:
        """Class of each anchor: 0 to C - 1 of the matched ground truth, -1 background, -2 ignored [A]."""
        labels = self.matched_idxs.clamp(max=NEGATIVE)
        return labels.index_put_((self._matched,), self.gt_labels[self._gt_of_matched])

    @property
    def unknown_negatives(self) -> Tensor:
        """Whether a logit has no target: its class is ``unknown`` and not that of the anchor [A, C + extra_logits]."""
        if self.unknown is None:
            return torch.zeros_like(self.logits, dtype=torch.bool)
        unknown = checked_unknown(self.unknown, self.num_images, self.num_classes, self.logits.shape[1])
        return unknown_negatives(self.labels, unknown, self.image_idxs)

    def with_logits(self, logits: Tensor) -> "DenseSamples":
        """Return the same batch with other logits [A, C + extra_logits]."""
        changed = self._replaced(logits=logits)
        for name in ("pos_score_logits", "pos_scores", "best_scores"):
            changed.__dict__.pop(name, None)
        return changed

    def with_soft_targets(self, soft_targets: Tensor) -> "DenseSamples":
        """Return the same batch with soft targets of the positives [P]."""
        return self._replaced(soft_targets=soft_targets)

    def with_quality(self, quality: Tensor) -> "DenseSamples":
        """Return the same batch with the soft targets that the assigner gave the positives [P]."""
        return self._replaced(quality=quality)

    def with_auxiliary(self, auxiliary: Mapping[str, Tensor]) -> "DenseSamples":
        """Return the same batch with other losses of the positives by name [P]."""
        return self._replaced(auxiliary=auxiliary)

    def of_step(
        self, context: StepContext, extra_logits: int, score_logits: Callable[[Tensor], Tensor]
    ) -> "DenseSamples":
        """Return the same batch with the context of a step and the meaning of the columns for the criterion's loss.

        Raises:
            UsageError: If the loss uses a column that a label names.
        """
        width = self.logits.shape[1]
        if self.largest_label is not None and self.largest_label >= width - extra_logits:
            raise UsageError(
                f"The loss uses {extra_logits} of the logits' {width} columns for itself, so labels go up to "
                f"{width - extra_logits - 1}, but the largest is {self.largest_label}: give logits with "
                f"{self.largest_label + 1 + extra_logits} columns, those of the loss last."
            )
        return self._replaced(context=context, extra_logits=extra_logits, score_logits=score_logits)

    def with_class_weights(self, class_weights: Tensor) -> "DenseSamples":
        """Return the same batch with weights of the classes [C] or [2, C]."""
        return self._replaced(class_weights=class_weights)

    def with_dual_weights(self, dual_weights: DualWeights) -> "DenseSamples":
        """Return the same batch with dual weights and their further positives."""
        samples = self._replaced(dual_weights=dual_weights)
        for name in [name for name in vars(samples) if name.startswith("pos")]:  # cached for fewer positives
            del samples.__dict__[name]
        return samples

    def _replaced(self, **changes: Any) -> "DenseSamples":
        """Copy the samples with other fields; cached properties are kept, because some synchronise the device."""
        copied = copy(self)
        vars(copied).update(changes)
        return copied

    def scatter_to_anchors(self, values: Tensor | None) -> Tensor | None:
        """Expand values of the positives [P] to all anchors, with 0 for the others [A]; None stays None."""
        if values is None:
            return None
        return values.new_zeros(len(self.matched_idxs)).index_put((self.positives,), values)

    def of_anchors(self, values: Tensor | None) -> Tensor | None:
        """Deprecated: the name of :meth:`scatter_to_anchors` in version 0.1.0."""
        warnings.warn("of_anchors is now called scatter_to_anchors.", DeprecationWarning, stacklevel=2)
        return self.scatter_to_anchors(values)

    @property
    def pos_live_ious(self) -> Tensor:
        """Deprecated: the name of :attr:`pos_ious_with_grad` in version 0.1.0."""
        warnings.warn("pos_live_ious is now called pos_ious_with_grad.", DeprecationWarning, stacklevel=2)
        return self.pos_ious_with_grad

    @cached_property
    def pos_matched_idxs(self) -> Tensor:
        """Matched ground truth of each positive [P]."""
        matched, dual = self._gt_of_matched, self.dual_weights
        return matched if dual is None else torch.cat([matched, dual.matched_idxs])

    @cached_property
    def pos_labels(self) -> Tensor:
        """Class of each positive [P]."""
        return self.gt_labels[self.pos_matched_idxs]

    @cached_property
    def pos_image_idxs(self) -> Tensor:
        """Image of each positive [P]."""
        return self.gt_image_idxs[self.pos_matched_idxs]

    @cached_property
    def pos_per_image(self) -> Tensor:
        """Number of positives of each image [B]."""
        counts = torch.zeros(self.num_images, dtype=torch.int64, device=self.device)
        return counts.scatter_add_(0, self.pos_image_idxs, torch.ones_like(self.pos_image_idxs))

    @cached_property
    def pos_gt_boxes(self) -> Tensor:
        """Matched ground-truth box of each positive [P, 4]."""
        return self.gt_boxes[self.pos_matched_idxs]

    @cached_property
    def pos_deltas(self) -> Tensor:
        """Predicted deltas, or all box outputs, of the positives in float32, with their graph [P, 4]."""
        return self.deltas[self.positives].float()

    @cached_property
    def pos_target_deltas(self) -> Tensor:
        """Target deltas from each positive anchor to its ground truth [P, 4]."""
        return self.box_coder.encode_single(self.pos_gt_boxes, self._references[self.positives])

    @cached_property
    def pos_boxes(self) -> Tensor:
        """Predicted boxes of the positives, in pixels, with their graph [P, 4]."""
        return self.decoded(self.positives)

    @cached_property
    def pos_ious(self) -> Tensor:
        """IoU of each positive's predicted box with its ground truth, detached [P]."""
        return self.pos_ious_with_grad.detach()

    @cached_property
    def pos_ious_with_grad(self) -> Tensor:
        """IoU of each positive's predicted box with its ground truth, with its graph [P]."""
        return paired_iou(self.pos_boxes, self.pos_gt_boxes)

    @cached_property
    def pos_score_logits(self) -> Tensor:
        """Logit of the score of the ground-truth class of each positive, with its graph [P]."""
        logits = self.score_logits(self.logits[self.positives].float())
        return logits.gather(1, self.pos_labels.unsqueeze(1)).squeeze(1)

    @cached_property
    def pos_scores(self) -> Tensor:
        """Score of the ground-truth class of each positive, detached [P]."""
        return self.pos_score_logits.detach().sigmoid()

    @cached_property
    def best_scores(self) -> Tensor:
        """Largest score of each anchor, detached [A]."""
        return self.score_logits(self.logits.detach()).amax(1).float().sigmoid()

    def anchor_gt_iou(self, image: int) -> Tensor:
        """Return the IoU of one image's ground truths and anchors, in the order of the batch [G_image, A_image]."""
        gt_boxes = self.gt_boxes[self.gt_image_idxs == image]
        return torch.as_tensor(box_iou(gt_boxes, self.anchors[self.rows_of(image)]))

    def decoded(self, rows: Tensor) -> Tensor:
        """Return the predicted boxes of some anchors, in pixels, with their graph [N, 4].

        Args:
            rows: Indices of the anchors [N].
        """
        if self.boxes is not None:
            return self.boxes[rows].float()
        deltas = self.deltas[rows].float()  # first, so that a message about missing boxes names them
        return self.box_coder.decode_single(deltas, self._references[rows])

    @property
    def _references(self) -> Tensor:
        return self.anchors if self.references is None else self.references
