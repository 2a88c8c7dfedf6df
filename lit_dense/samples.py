"""The one thing that travels from the detector to losses and weighters: what was decided for this batch, flattened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.ops import box_iou

from .class_counts import ClassCounts
from .errors import UsageError
from .functional.iou import paired_iou
from .functional.one_pass import IGNORED as IGNORED
from .reduce import Reduce

NEGATIVE = -1


class BoxCoder(Protocol):
    """Turns boxes into deltas of anchors and back, as torchvision's ``BoxCoder`` does."""

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Deltas [N, 4] that lead from the proposals to the boxes."""

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Boxes [N, 4] that the deltas lead to."""


def _as_they_are(logits: Tensor) -> Tensor:
    return logits


@dataclass(frozen=True)
class Geometry:
    """Sizes of a batch that the loss of torchvision's detectors is not told.

    Args:
        level_sizes: Height and width of each pyramid level, in cells.
        image_sizes: Height and width of each image in the padded batch, in pixels.
    """

    level_sizes: Sequence[tuple[int, int]]
    image_sizes: Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class DenseSamples:
    """A batch as its anchors: A anchors of all images and levels, G ground-truth boxes, P positive anchors, C classes.

    Args:
        logits: Class scores, with their graph [A, C], or wider where the loss has columns of its own.
        deltas: Predicted box deltas [A, 4], with their graph.
        anchors: Anchor boxes in pixels of the resized image, x1 y1 x2 y2 [A, 4].
        matched_idxs: Index of the matched ground truth, unique in the batch; -1 background, -2 ignored [A].
        gt_boxes: Ground-truth boxes in pixels of the resized image [G, 4].
        gt_labels: Their classes, 0 to C - 1 [G].
        gt_image_idxs: Their images, 0 to B - 1 [G].
        num_images: B, images on this process.
        box_coder: What encodes and decodes deltas.
        reduce: Sums over the processes of the run.
        geometry: Sizes of levels and images; None where the detector does not tell them.
        class_counts: Class frequencies of the training set, None if unknown.
        step: Training steps so far.
        epoch: Epochs so far.
        soft_targets: Target of each positive's own class in [0, 1], None for 1 [P].
        class_weights: What a loss of single logits multiplies the elements of each class by, None for 1 [C].
        extra_logits: Columns of the logits beyond one per class.
        score_logits: Turns logits into those whose sigmoid is the score, as the loss says.
        target_fields: What else the targets hold for each box, by name, such as weights [G].
    """

    logits: Tensor
    deltas: Tensor
    anchors: Tensor
    matched_idxs: Tensor
    gt_boxes: Tensor
    gt_labels: Tensor
    gt_image_idxs: Tensor
    num_images: int
    box_coder: BoxCoder
    reduce: Reduce
    geometry: Geometry | None = None
    class_counts: ClassCounts | None = None
    step: int = 0
    epoch: int = 0
    soft_targets: Tensor | None = None
    class_weights: Tensor | None = None
    extra_logits: int = 0
    score_logits: Callable[[Tensor], Tensor] = _as_they_are
    target_fields: dict[str, Tensor] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """C, the head's classes."""
        return self.logits.shape[1] - self.extra_logits

    @property
    def anchors_per_image(self) -> int:
        """Anchors of one image; images of a batch are padded to one size, so all have equally many."""
        return len(self.anchors) // max(1, self.num_images)

    @cached_property
    def image_idxs(self) -> Tensor:
        """Image of each anchor, 0 to B - 1 [A]."""
        images = torch.arange(self.num_images, device=self.anchors.device)
        return images.repeat_interleave(self.anchors_per_image)

    @cached_property
    def level_idxs(self) -> Tensor:
        """Pyramid level of each anchor, 0 the finest [A].

        Raises:
            UsageError: If the detector does not tell the sizes of its levels.
        """
        cells = [h * w for h, w in self._known_geometry.level_sizes]
        per_cell = self.anchors_per_image // max(1, sum(cells))
        counts = _on_device([n * per_cell for n in cells], self.anchors.device)
        levels = torch.arange(len(cells), device=self.anchors.device)
        return levels.repeat_interleave(counts, output_size=sum(cells) * per_cell).repeat(self.num_images)

    @property
    def num_levels(self) -> int:
        """Number of pyramid levels.

        Raises:
            UsageError: If the detector does not tell the sizes of its levels.
        """
        return len(self._known_geometry.level_sizes)

    @cached_property
    def in_padding(self) -> Tensor:
        """Whether the centre of an anchor lies outside its image, in the padding of the batch [A].

        Raises:
            UsageError: If the detector does not tell the sizes of its images.
        """
        sizes = _on_device(list(chain(*self._known_geometry.image_sizes)), self.anchors.device).view(-1, 2)
        height, width = sizes.repeat_interleave(self.anchors_per_image, dim=0).unbind(1)
        centre_x, centre_y = (self.anchors[:, :2] + self.anchors[:, 2:]).div(2).unbind(1)
        return (centre_x >= width) | (centre_y >= height)

    @property
    def _known_geometry(self) -> Geometry:
        if self.geometry is None:
            raise UsageError("This detector does not tell the sizes of its levels and images.")
        return self.geometry

    @cached_property
    def positives(self) -> Tensor:
        """Indices of the positive anchors [P]."""
        return (self.matched_idxs >= 0).nonzero().squeeze(1)

    @cached_property
    def valid(self) -> Tensor:
        """Whether an anchor counts: positive or negative, not ignored [A]."""
        return self.matched_idxs != IGNORED

    @cached_property
    def labels(self) -> Tensor:
        """Class of each anchor: 0 to C - 1 of the matched ground truth, -1 background, -2 ignored [A]."""
        labels = self.matched_idxs.clamp(max=NEGATIVE)
        return labels.index_put((self.positives,), self.gt_labels[self.pos_matched_idxs])

    def with_soft_targets(self, soft_targets: Tensor) -> "DenseSamples":
        """The same batch with targets of the positives [P]."""
        return self._twin(soft_targets=soft_targets)

    def with_class_weights(self, class_weights: Tensor) -> "DenseSamples":
        """The same batch with weights of the classes [C]."""
        return self._twin(class_weights=class_weights)

    def _twin(self, **changes: Any) -> "DenseSamples":
        """A copy that keeps what was derived already: some of it made the host wait for the device."""
        twin = replace(self, **changes)
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if name not in twin.__dict__})
        return twin

    def of_anchors(self, values: Tensor | None) -> Tensor | None:
        """Values of the positives [P] as values of all anchors, 0 elsewhere [A]; None stays None."""
        if values is None:
            return None
        return values.new_zeros(len(self.matched_idxs)).index_put((self.positives,), values)

    @cached_property
    def pos_matched_idxs(self) -> Tensor:
        """Matched ground truth of each positive [P]."""
        return self.matched_idxs[self.positives]

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
        counts = torch.zeros(self.num_images, dtype=torch.int64, device=self.anchors.device)
        return counts.scatter_add_(0, self.pos_image_idxs, torch.ones_like(self.pos_image_idxs))

    @cached_property
    def pos_gt_boxes(self) -> Tensor:
        """Matched ground-truth box of each positive [P, 4]."""
        return self.gt_boxes[self.pos_matched_idxs]

    @cached_property
    def pos_deltas(self) -> Tensor:
        """Predicted deltas of the positives in float32, with their graph [P, 4]."""
        return self.deltas[self.positives].float()

    @cached_property
    def pos_target_deltas(self) -> Tensor:
        """Deltas that lead from each positive anchor to its ground truth [P, 4]."""
        return self.box_coder.encode_single(self.pos_gt_boxes, self.anchors[self.positives])

    @cached_property
    def pos_boxes(self) -> Tensor:
        """Predicted boxes of the positives, in pixels, with their graph [P, 4]."""
        return self.box_coder.decode_single(self.pos_deltas, self.anchors[self.positives])

    @cached_property
    def pos_ious(self) -> Tensor:
        """IoU of each positive's predicted box with its ground truth, detached [P]."""
        return self.pos_live_ious.detach()

    @cached_property
    def pos_live_ious(self) -> Tensor:
        """IoU of each positive's predicted box with its ground truth, with its graph [P]."""
        return paired_iou(self.pos_boxes, self.pos_gt_boxes)

    @cached_property
    def pos_score_logits(self) -> Tensor:
        """Logit of the score that each positive gives its own class, with its graph [P]."""
        logits = self.score_logits(self.logits[self.positives].float())
        return logits.gather(1, self.pos_labels.unsqueeze(1)).squeeze(1)

    @cached_property
    def pos_scores(self) -> Tensor:
        """Score that each positive gives its own class, detached [P]."""
        return self.pos_score_logits.detach().sigmoid()

    @cached_property
    def best_scores(self) -> Tensor:
        """Largest score of each anchor, detached [A]."""
        return self.score_logits(self.logits.detach()).amax(1).float().sigmoid()

    def anchor_gt_iou(self, image: int) -> Tensor:
        """IoU of one image's ground truths with its anchors; rows in the order of the batch [G_image, A / B]."""
        rows = slice(image * self.anchors_per_image, (image + 1) * self.anchors_per_image)
        return torch.as_tensor(box_iou(self.gt_boxes[self.gt_image_idxs == image], self.anchors[rows]))


def collect_samples(
    targets: Sequence[dict[str, Tensor]],
    head_outputs: dict[str, Tensor],
    anchors: Sequence[Tensor],
    matched_idxs: Sequence[Tensor],
    **context: Any,
) -> DenseSamples:
    """Flatten what torchvision hands to a head's ``compute_loss``.

    Args:
        targets: Per image ``boxes`` [G_b, 4] and ``labels`` [G_b]; other tensors with G_b rows become target fields.
        head_outputs: ``cls_logits`` [B, K, C] and ``bbox_regression`` [B, K, 4].
        anchors: Per image [K, 4].
        matched_idxs: Per image, index into its boxes, -1 background, -2 ignored [K].
        context: The other fields of :class:`DenseSamples`.

    Raises:
        UsageError: If a label is negative or has no column in the logits.
    """
    logits, deltas = head_outputs["cls_logits"], head_outputs["bbox_regression"]
    counts = [len(t["boxes"]) for t in targets]
    offsets = [sum(counts[:image]) for image in range(len(counts))]
    unique = [torch.where(m >= 0, m + offset, m) for m, offset in zip(matched_idxs, offsets, strict=True)]
    gt_labels = torch.cat([t["labels"].reshape(-1) for t in targets]).long()
    _check_labels(gt_labels, logits.shape[-1] - context.get("extra_logits", 0))
    return DenseSamples(
        logits=logits.flatten(0, 1),
        deltas=deltas.flatten(0, 1),
        anchors=torch.cat(list(anchors)),
        matched_idxs=torch.cat(unique),
        gt_boxes=torch.cat([t["boxes"].reshape(-1, 4) for t in targets]).to(deltas.device, torch.float32),
        gt_labels=gt_labels,
        gt_image_idxs=torch.arange(len(counts), device=logits.device).repeat_interleave(
            _on_device(counts, logits.device),
            output_size=sum(counts),  # else the device would be asked
        ),
        num_images=len(targets),
        target_fields=_fields(targets, counts),
        **context,
    )


def _on_device(numbers: Sequence[int], device: torch.device) -> Tensor:
    """Whole numbers as a tensor that the device writes: the host would wait for a copy."""
    return torch.stack([torch.full((), number, device=device) for number in numbers])


def _check_labels(labels: Tensor, num_classes: int) -> None:
    if labels.numel() == 0:
        return
    low, high = torch.stack(labels.aminmax()).tolist()  # one transfer for both
    if low < 0 or high >= num_classes:
        hint = ""
        if low == 1 and high == num_classes:
            hint = " They seem to start at 1: column 0 is a class here, not background, so subtract 1 from each label."
        raise UsageError(
            f"Labels of this batch run from {low} to {high}, but the head has {num_classes} classes, which take "
            f"labels 0 to {num_classes - 1}.{hint}"
        )


def _fields(targets: Sequence[dict[str, Tensor]], counts: Sequence[int]) -> dict[str, Tensor]:
    """What every target holds besides boxes and labels with one row per box."""
    names = set.intersection(*(set(t) for t in targets)) - {"boxes", "labels"} if targets else set()
    found = {}
    for name in sorted(names):
        rows = [t[name] for t in targets]
        if all(isinstance(r, Tensor) and r.dim() > 0 and len(r) == n for r, n in zip(rows, counts, strict=True)):
            found[name] = torch.cat(rows)
    return found
