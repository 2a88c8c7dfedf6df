import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lit_dense.functional import focal_loss
from lit_dense.functional.loss_distribution import (
    VALUE_BINS,
    cumulative_shares,
    group_sums,
    hardest_share,
    logit_gradients,
    loss_over_norms,
    value_distribution,
)
from tests.builders.numpy_losses import one_hot


def batch(anchors=500, classes=3, dtype=torch.float32):
    logits = (torch.randn(anchors, classes) * 3).to(dtype).requires_grad_()
    labels = torch.randint(-2, classes, (anchors,))
    return logits, labels


def test_loss_over_norms__each_element_is_counted_where_its_norm_lies():
    logits, labels = batch()
    gradients = torch.randn_like(logits).masked_fill((labels == -2).unsqueeze(1), 0.0)
    spread = loss_over_norms(logits, labels, gradients, lambda x: x, bins=10)
    p, y = logits.detach().double().sigmoid().numpy(), one_hot(labels, 3)
    counted = np.broadcast_to((labels != -2).numpy()[:, None], p.shape)
    norms = np.abs(p - y)
    edges = np.linspace(0, 1, 11)
    for target, row in ((1, 0), (0, 1)):
        expected, _ = np.histogram(norms[counted & (y == target)], edges)
        np.testing.assert_array_equal(spread.counts[row].numpy(), expected)
    assert spread.counts.sum() == 3 * (labels != -2).sum()
    for values, found in ((norms, spread.before), (gradients.abs().numpy(), spread.after)):
        expected, _ = np.histogram(norms[counted], edges, weights=values[counted])
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    entropy = F.binary_cross_entropy_with_logits(logits.detach(), torch.from_numpy(y).float(), reduction="none").sum(1)
    torch.testing.assert_close(spread.entropies, entropy.masked_fill(labels == -2, 0.0))


def test_loss_over_norms__columns_beyond_the_classes_count_at_the_greatest_norm():
    logits = torch.tensor([[-4.0, 2.0, 0.0], [-4.0, -4.0, 0.0], [9.0, 9.0, 0.0]])
    gradients = torch.tensor([[0.0, 0.0, -7.0], [0.0, 0.0, 1.0], [0.0, 0.0, 100.0]])
    spread = loss_over_norms(logits, torch.tensor([-1, -1, -2]), gradients, lambda x: x[:, :2], bins=2)
    assert spread.after.tolist() == [1, 7]
    assert spread.counts.tolist() == [[0, 0], [3, 1]]


@pytest.mark.parametrize("anchors", [0, 5])
def test_loss_distribution__batches_without_positives_or_anchors(anchors):
    logits = torch.zeros(anchors, 2, requires_grad=True)
    labels = torch.full((anchors,), -1)
    gradient, factor = logit_gradients(logits, focal_loss(logits, labels), torch.ones(anchors))
    spread = loss_over_norms(logits, labels, gradient, lambda x: x, bins=2)
    assert factor == 1
    assert spread.counts.tolist() == [[0, 0], [0, 2 * anchors]]
    assert value_distribution(torch.zeros(anchors), labels, 2).sum() == 0
    assert group_sums(torch.ones(anchors), labels, 2).tolist() == [0, 0]


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_logit_gradients__of_half_precision_are_not_rounded_away(scale):
    wide, labels = batch()
    wide = (wide.detach() - 6).half().double().requires_grad_()  # easy negatives
    weights = scale * torch.rand(len(labels))
    half = wide.detach().half().requires_grad_()
    values = focal_loss(half, labels)
    gradient, factor = logit_gradients(half, values, weights)
    (weights.double() * focal_loss(wide, labels)).sum().backward()
    assert gradient.dtype == torch.float16
    torch.testing.assert_close(gradient.double() / factor, wide.grad, rtol=2e-3, atol=1e-8 * scale)
    values.sum().backward()  # the graph is still there


def test_logit_gradients__logits_that_need_no_gradient_have_none():
    logits = torch.randn(3, 2)
    assert not logit_gradients(logits, logits.sum(1), torch.ones(3))[0].any()


def test_value_distribution__values_are_sorted_by_magnitude_and_summed():
    values = torch.tensor([0.0, 1e-30, 1e-3, 2.0, 2.01, 1e9, 5.0])
    spread = value_distribution(values, torch.tensor([0, 0, 1, 0, 0, 1, -1]), 2)
    assert spread.shape == (2, 2, VALUE_BINS)
    assert spread[0].sum(1).tolist() == [4, 2]
    assert spread[0, 0, 0] == 2  # what is 0, and what is too small
    assert spread[0, 1, -1] == 1
    torch.testing.assert_close(spread[1].sum(1), torch.tensor([4.01, 1e9 + 1e-3], dtype=torch.float64))
    assert spread[0, 0].max() == 2  # 2.0 and 2.01 are neighbours


def test_hardest_share__the_hardest_percent_of_hundred_that_carries_half():
    values = torch.ones(100).index_fill(0, torch.tensor(7), 99.0)
    spread = value_distribution(values, torch.zeros(100, dtype=torch.long), 1)[:, 0].numpy()
    assert hardest_share(spread, 0.01) == pytest.approx(0.5)
    samples, carried = cumulative_shares(spread)
    np.testing.assert_allclose(samples, [0, 0.01, 1])
    np.testing.assert_allclose(carried, [0, 0.5, 1])


def test_cumulative_shares__are_those_of_sorted_values():
    values = torch.exp(2 * torch.randn(3000))
    spread = value_distribution(values, torch.zeros(3000, dtype=torch.long), 1)[:, 0].numpy()
    exact = values.double().sort(descending=True).values.cumsum(0).numpy() / values.double().sum().item()
    for share in (0.01, 0.1, 0.5):
        assert hardest_share(spread, share) == pytest.approx(exact[int(3000 * share) - 1], abs=3e-3)


def test_cumulative_shares__are_empty_without_loss():
    samples, carried = cumulative_shares(np.zeros((2, VALUE_BINS)))
    assert len(samples) == len(carried) == 0
    assert math.isnan(hardest_share(np.zeros((2, VALUE_BINS)), 0.5))
