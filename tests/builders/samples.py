"""Samples of small batches."""

import torch

from lit_dense.core.distributed import Reduce
from lit_dense.core.samples import DenseSamples
from lit_dense.core.step_context import StepContext
from lit_dense.criterion import Criterion
from lit_dense.detectors import patch

from .detectors import COUNTS, NUM_CLASSES, random_batch, small_retinanet


def samples_of(counts=(2, 0, 5), seed=1, **parts):
    """The samples that a small detector makes of a random batch."""
    model = small_retinanet(NUM_CLASSES + Criterion(**parts).loss.extra_logits)
    criterion = patch(model, class_counts=COUNTS, **{"loss": "focal", **parts})
    seen = []
    criterion.register_forward_pre_hook(lambda module, args: seen.append(module.in_this_step(args[0])))
    model(*random_batch(counts, seed=seed))
    return seen[0]


def seen_by(criterion):
    """The samples that a criterion will be given."""
    seen = []
    criterion.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    return seen


class Coder:
    def encode_single(self, reference_boxes, proposals):
        return reference_boxes - proposals

    def decode_single(self, rel_codes, boxes):
        return rel_codes + boxes


def images_with(sums, positives):
    """Samples whose images have these sums of losses and numbers of positives, on four anchors each."""
    sums = torch.tensor(sums)
    matched = torch.full((len(sums), 4), -1)
    for image, count in enumerate(positives):
        matched[image, :count] = image
    return DenseSamples(
        logits=(sums / 4).repeat_interleave(4)[:, None],
        deltas=torch.zeros(4 * len(sums), 4),
        anchors=torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(4 * len(sums), 1),
        matched_idxs=matched.flatten(),
        gt_boxes=torch.tensor([[0.0, 0.0, 8.0, 8.0]]).repeat(len(sums), 1),
        gt_labels=torch.zeros(len(sums), dtype=torch.long),
        gt_image_idxs=torch.arange(len(sums)),
        num_images=len(sums),
        image_idxs=torch.arange(len(sums)).repeat_interleave(4),
        box_coder=Coder(),
        context=StepContext(Reduce()),
    )
