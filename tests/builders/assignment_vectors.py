"""An image with eight anchors and two objects, and what assigners that see predictions must answer."""

import torch

from lit_dense.assigners import AssignInput
from lit_dense.core.geometry import Geometry

CENTRES = torch.tensor([[12.0, 12], [20, 12], [28, 12], [36, 12], [12, 20], [20, 20], [28, 20], [36, 20]])
GT_BOXES = torch.tensor([[8.0, 8, 32, 24], [24, 8, 44, 26]])
GT_LABELS = torch.tensor([0, 2])
BOXES = torch.tensor(
    [
        [9.0, 7, 30, 25],
        [8, 9, 33, 24],
        [11, 8, 35, 22],
        [25, 9, 45, 24],
        [2, 6, 30, 26],
        [10, 8, 31, 24],
        [22, 7, 42, 27],
        [26, 10, 43, 27],
    ]
)
SCORES = torch.tensor(
    [
        [0.6, 0.1, 0.2],
        [0.5, 0.2, 0.1],
        [0.3, 0.1, 0.4],
        [0.1, 0.1, 0.7],
        [0.2, 0.3, 0.1],
        [0.8, 0.1, 0.1],
        [0.2, 0.1, 0.5],
        [0.1, 0.2, 0.6],
    ]
)
GEOMETRY = Geometry([(2, 4)], [(32, 48)])


class Direct:
    """A box coder whose deltas are the boxes."""

    def encode_single(self, reference_boxes, proposals):
        return reference_boxes

    def decode_single(self, rel_codes, boxes):
        return rel_codes


def image(gt=(0, 1), **fields):
    """The image, with the objects of these indices, in this order."""
    own = list(gt)
    anchors = torch.cat([CENTRES - 4, CENTRES + 4], 1)
    given = {
        "gt_labels": GT_LABELS[own],
        "logits": SCORES.logit(),
        "deltas": BOXES,
        "box_coder": Direct(),
        "score_logits": lambda x: x,
        "geometry": GEOMETRY,
        **fields,
    }
    return AssignInput(anchors, GT_BOXES[own].view(-1, 4), **given)
