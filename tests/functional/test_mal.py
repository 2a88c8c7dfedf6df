import torch

from lit_dense.functional import mal_loss
from lit_dense.losses import LOSSES
from tests.builders.numpy_losses import value_and_gradient
from tests.builders.samples import samples_of

LOGITS = torch.tensor([[0.5, -1, -3], [-2, 1.5, -4], [-1, -2, 0.2], [-3, -0.5, -2]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, -1, -1])
IOUS = torch.tensor([0.8, 0.4, 0.0, 0.0], dtype=torch.float64)


def test_mal_loss__worked_values_of_the_authors_code():
    values, gradient = value_and_gradient(lambda x: mal_loss(x, LABELS, soft_targets=IOUS), LOGITS)
    expected = torch.tensor([0.660499, 1.327208, 0.374321, 0.115701], dtype=torch.float64)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-6)
    own = gradient[[0, 1], [0, 1]]
    torch.testing.assert_close(own, torch.tensor([-0.093082, 0.564592]).double(), rtol=0, atol=1e-6)
    p = LOGITS[0, 1].sigmoid()
    torch.testing.assert_close(gradient[0, 1], p**2.5)  # the focal factor is detached


def test_mal_loss__is_least_where_the_score_is_the_power_of_the_iou():
    p = torch.tensor([0.8**1.5], dtype=torch.float64)
    _, gradient = value_and_gradient(lambda x: mal_loss(x, LABELS[:1], soft_targets=IOUS[:1]), p.logit()[:, None])
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_mal__targets_are_ious_or_the_soft_targets_of_a_weighter():
    samples, loss = samples_of((3, 2)), LOSSES.build("mal")
    ious = samples.scatter_to_anchors(samples.pos_ious)
    expected = mal_loss(samples.logits, samples.labels, soft_targets=ious)
    torch.testing.assert_close(loss(samples.logits, samples.labels, samples), expected)
    ones = samples.with_soft_targets(torch.ones_like(samples.pos_ious))
    torch.testing.assert_close(loss(samples.logits, samples.labels, ones), mal_loss(samples.logits, samples.labels))
