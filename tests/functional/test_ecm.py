import torch

from lit_dense.core.class_counts import ClassCounts
from lit_dense.functional import bce_loss, ecm_loss
from lit_dense.functional.ecm import ecm_margins
from lit_dense.losses import LOSSES
from tests.builders.numpy_losses import cross_entropy, random_anchors

COUNTS = torch.tensor([1000.0, 50.0, 5.0])


def close(actual, expected):
    torch.testing.assert_close(actual.double(), torch.tensor(expected).double(), rtol=0, atol=1e-6)


def test_ecm_margins__worked_values_of_the_authors_code():
    margins, weights = ecm_margins(COUNTS)
    close(margins, [-0.476812, -1.258735, -1.835841])
    close(weights, [0.932373, 0.996761, 0.999677])
    equal, _ = ecm_margins(torch.full((4,), 7.0))
    assert (equal == equal[0]).all()
    assert ecm_margins(torch.tensor([0.0, 10.0]))[0].isfinite().all()
    assert ecm_margins(torch.tensor([10.0]))[0].isfinite().all()


def test_ecm_loss__is_weighted_cross_entropy_of_the_affine_logit():
    margins, weights = (t.double() for t in ecm_margins(COUNTS))
    logits, labels = torch.tensor([[1.0, -1, 0], [-1, 0, -2]]).double(), torch.tensor([0, -1])
    targets = torch.tensor([[1, 0, 0], [0, 0, 0]])
    expected = (weights * torch.tensor(cross_entropy(2 * logits + margins, targets))).sum(1)
    torch.testing.assert_close(ecm_loss(logits, labels, margins, weights), expected)
    logits, labels, soft = random_anchors(1, classes=3)
    plain = ecm_loss(logits, labels, torch.zeros(3), torch.ones(3), soft)
    torch.testing.assert_close(plain, 2 * bce_loss(2 * logits, labels, soft_targets=soft))


def test_ecm__counts_are_those_of_images_and_scores_have_no_margin():
    loss = LOSSES.build("ecm")
    loss.prepare(3)
    loss.image_counts.prepare(3)
    loss.image_counts.receive_class_counts(ClassCounts(torch.tensor([9, 9, 9]), COUNTS, 2000))
    logits, labels, _ = random_anchors(1, classes=3)
    torch.testing.assert_close(loss.forward(logits, labels, Batch()), ecm_loss(logits, labels, *ecm_margins(COUNTS)))
    torch.testing.assert_close(loss.score_logits(logits), logits)
    start = (2 * loss.prior_bias(3, loss.prior) + ecm_margins(COUNTS)[0]).sigmoid()
    assert ((start > 0.001) & (start < 0.02)).all()


class Batch:
    labels = class_weights = soft_targets = dual_weights = unknown = None

    def scatter_to_anchors(self, values):
        return values
