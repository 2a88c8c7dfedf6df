"""IoU-aware BCE beside the authors' formula."""

import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.functional import ia_bce_loss
from lit_dense.losses import LOSSES, IoUAwareBCELoss
from tests.builders.numpy_losses import random_anchors, value_and_gradient
from tests.builders.samples import samples_of


def of_lw_detr(logits, labels, ious, alpha=0.25, gamma=2):
    """``LwDetrImageLoss.loss_labels`` of transformers, which rfdetr's ``ia_bce_loss`` is too, before its sum."""
    prob = logits.sigmoid()
    pos_weights, neg_weights = torch.zeros_like(logits), prob.pow(gamma)
    rows = (labels >= 0).nonzero().squeeze(1)
    own = rows, labels[rows]
    quality = (prob[own].pow(alpha) * ious[rows].pow(1 - alpha)).clamp(min=0.01).detach()
    pos_weights = pos_weights.index_put(own, quality)
    neg_weights = neg_weights.index_put(own, 1 - quality)
    values = -pos_weights * prob.log() - neg_weights * (1 - prob).log()
    return (values * (labels != -2).unsqueeze(1)).sum(1)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.0, 1.0), (1.0, 3.0)])
@pytest.mark.parametrize("missed", [False, True])
def test_ia_bce_loss__is_that_of_lw_detr(alpha, gamma, missed):
    logits, labels, ious = random_anchors(4, anchors=40)
    ious = ious * (not missed)
    expected = value_and_gradient(lambda x: of_lw_detr(x, labels, ious, alpha, gamma), logits)
    own = value_and_gradient(lambda x: ia_bce_loss(x, labels, alpha, gamma, ious), logits)
    torch.testing.assert_close(own, expected)


def test_ia_bce_loss__ious_are_1_by_default():
    logits, labels, ious = random_anchors(4)
    torch.testing.assert_close(ia_bce_loss(logits, labels), ia_bce_loss(logits, labels, ious=torch.ones_like(ious)))


def test_iou_aware_bce_loss__reads_scores_and_ious_of_the_samples():
    samples = samples_of((3,), loss="ia_bce")
    ious = samples.scatter_to_anchors(samples.pos_ious)
    expected = of_lw_detr(samples.logits, samples.labels, ious)
    torch.testing.assert_close(IoUAwareBCELoss()(samples.logits, samples.labels, samples), expected)


def test_iou_aware_bce_loss__soft_targets_replace_ious():
    samples = samples_of((3,), loss="ia_bce")
    given = torch.full_like(samples.pos_ious, 0.3)
    expected = of_lw_detr(samples.logits, samples.labels, samples.scatter_to_anchors(given))
    own = IoUAwareBCELoss()(samples.logits, samples.labels, samples.with_soft_targets(given))
    torch.testing.assert_close(own, expected)


def test_iou_aware_bce_loss__alpha_is_a_share():
    with pytest.raises(UsageError, match=r"ia_bce: alpha must be in \[0, 1\], not 1.5"):
        LOSSES.build({"class_path": "ia_bce", "init_args": {"alpha": 1.5}})
