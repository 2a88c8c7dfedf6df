"""Dual weighting, DW (https://arxiv.org/abs/2203.09730), as a weighter."""

import torch
from torch import Tensor

from ..assigners.inside_assigner import InsideAssigner
from ..core.dual_weights import DualWeights
from ..core.errors import check_range
from ..core.samples import DenseSamples
from ..functional.dual_weighting import centre_prior, dual_neg_weights, dual_pos_weights, first_of_elements
from ..functional.giou import giou_loss
from ..functional.iou import paired_iou
from ..functional.matching import gt_chunks
from ..functional.task_alignment import centres_inside
from .base import LossValues, Weighter, Weights


class DWWeighter(Weighter):
    """Dual weighting, DW (https://arxiv.org/abs/2203.09730): each anchor counts as a positive and as a negative.

    The candidates of an object are all anchors with their centre inside it. As a positive, a candidate weighs more with
    a higher score, a more accurate box and a centre nearer to the object's. As a negative of the object's class, it
    weighs 0 if its box is the best, and 1 if its IoU is below 0.5. All other logits are negatives. An anchor inside
    several objects is a candidate of each.

    Positives are divided by the number of objects of all processes, and negatives by the sum of what the candidates
    lack to full negatives; both are at least 1. Weights are detached. There is no schedule, because the candidates have
    no meaning without their weights.

    Args:
        pos_weight: Additional factor of the positive terms of the classification loss, at least 0.

    Raises:
        UsageError: If an argument is out of range.
    """

    exclusive = frozenset({"assignment", "weights", "normalizer", "box_normalizer"})
    reads_anchors = True

    def __init__(self, pos_weight: float = 1.0) -> None:
        super().__init__()
        self.pos_weight = check_range("dw", "pos_weight", pos_weight, 0)
        self.assigner = InsideAssigner()

    @torch.no_grad()
    def dual_weights(self, samples: DenseSamples) -> DualWeights:
        """Compute the weights of all pairs of an object and one of its candidates."""
        more, more_objects = _further_pairs(samples)
        anchors = torch.cat([samples.positives, more])
        objects = torch.cat([samples.pos_matched_idxs, more_objects])
        number = len(samples.gt_labels)
        labels, gt_boxes, boxes = samples.gt_labels[objects], samples.gt_boxes[objects], samples.decoded(anchors)
        scores = samples.score_logits(samples.logits.detach())[anchors, labels].float().sigmoid()
        offsets = _centres(samples.anchors[anchors]) - _centres(gt_boxes)
        priors = centre_prior(offsets / _strides(samples)[anchors])
        pos_weights = dual_pos_weights(scores, giou_loss(boxes, gt_boxes), priors, objects, number)
        neg_weights = dual_neg_weights(paired_iou(boxes, gt_boxes), objects, number)

        first, least = first_of_elements(anchors * samples.num_classes + labels, neg_weights)
        further = first >= len(samples.positives)  # the loss counts these logits as negatives already
        negative = torch.zeros_like(neg_weights).index_put((first,), least - further.to(least.dtype))
        sums = torch.stack([least.new_full((), float(number)), (1 - least).sum()])
        num_objects, num_lacking = samples.reduce.sum(sums).clamp(min=1)
        pos_weights = pos_weights * num_lacking / num_objects
        divisor = (num_lacking / samples.reduce.world_size).expand(samples.num_images)
        return DualWeights(more, more_objects, self.pos_weight * pos_weights, negative, pos_weights, divisor)

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Return the weights of the box losses; those of the logits are part of the classification loss."""
        return Weights(box=None if samples.dual_weights is None else samples.dual_weights.box)


def _centres(boxes: Tensor) -> Tensor:
    """Return the centres of boxes, x y, float32 [N, 2]."""
    boxes = boxes.float()  # in half precision, neighbouring centres would coincide
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _further_pairs(samples: DenseSamples) -> tuple[Tensor, Tensor]:
    """Find the objects around positives, beside those that they are matched with: anchors [E], objects [E]."""
    anchors, objects = [samples.positives[:0]], [samples.positives[:0]]
    for image in range(samples.num_images):
        own = samples.pos_image_idxs == image
        rows, matched = samples.positives[own], samples.pos_matched_idxs[own]
        centres, around = _centres(samples.anchors[rows]), (samples.gt_image_idxs == image).nonzero().squeeze(1)
        for chunk in gt_chunks(len(rows), len(around)):
            inside = centres_inside(centres, samples.gt_boxes[around[chunk]])
            inside &= around[chunk].unsqueeze(1) != matched
            index, row = inside.nonzero().unbind(1)
            anchors.append(rows[row])
            objects.append(around[chunk][index])
    return torch.cat(anchors), torch.cat(objects)


def _strides(samples: DenseSamples) -> Tensor:
    """Return the size of the cell of each anchor in pixels, x y [A, 2]."""
    strides = samples.anchors.new_ones(len(samples.anchors), 2, dtype=torch.float32)
    for image in range(samples.num_images):
        rows = samples.rows_of(image)
        if len(rows):
            strides[rows] = samples.required_geometry.strides(samples.anchors[rows].float())
    return strides
