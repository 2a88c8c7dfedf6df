"""Weights of positives as positives and as negatives, which a weighter computes before the loss."""

from typing import NamedTuple

from torch import Tensor


class DualWeights(NamedTuple):
    """Separate weights of the positive and the negative term of the logits of positives, and further positives.

    The positives are then pairs of an anchor and an object: those of ``matched_idxs``, in the order of the anchors, and
    E further pairs of anchors that several objects share, P together.

    Args:
        anchors: Anchor of each further pair [E].
        matched_idxs: Object of each further pair [E].
        positive: Factor of the positive term of each pair's logit [P].
        negative: Factor of the negative term of each pair's logit [P]. The logits of ``samples.labels`` have no other
            negative term. All other logits have one with factor 1 already, so a further pair of another class has a
            factor minus 1. If several pairs share a logit, only the first has a factor other than 0.
        box: Weight of each pair's box loss [P].
        divisor: Divisor of the loss sum of each image, over all processes and divided by their number [B].
    """

    anchors: Tensor
    matched_idxs: Tensor
    positive: Tensor
    negative: Tensor
    box: Tensor
    divisor: Tensor
