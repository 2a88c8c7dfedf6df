"""Values of each loss, computed in numpy from its paper; some are worked by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense import functional as L
from lit_dense.functional.equalization_v2 import equalization_v2_weights, gradient_ratio
from tests.builders.numpy_losses import cross_entropy, logit, one_hot, per_anchor, random_anchors, sigmoid

seeds = st.integers(0, 1000)


def close(values, expected, atol=2e-6):
    np.testing.assert_allclose(torch.as_tensor(values).numpy(), expected, rtol=1e-5, atol=atol)


YES, NO = torch.tensor([0]), torch.tensor([-1])


def test_focal_star_loss__worked_values():
    close(L.focal_star_loss(logit(0.5), YES), [0.156631])
    close(L.focal_star_loss(torch.tensor([[2.0]]), YES), [0.003358])
    close(L.focal_star_loss(torch.tensor([[-2.0]]), NO), [0.003358])
    close(L.focal_star_loss(logit(0.5), YES, gamma=4, beta=0), [0.173287])


def test_bce_loss__worked_values():
    close(L.bce_loss(logit(0.9), YES, alpha=0.75), [0.079020])
    close(L.bce_loss(logit(0.1), NO, alpha=0.75), [0.026340])
    close(L.bce_loss(logit(0.9), YES, alpha=0.75, pos_weight=3.0), [0.237061])
    close(L.bce_loss(logit(0.1), NO, alpha=0.75, pos_weight=3.0), [0.026340])
    soft = L.bce_loss(logit(0.6), YES, soft_targets=torch.tensor([0.8], dtype=torch.float64))
    close(soft, [0.591919 / 2])


def test_soft_focal_loss__worked_values():
    target = torch.tensor([0.8], dtype=torch.float64)
    close(L.focal_loss(logit(0.5), YES, alpha=0.5, soft_targets=target), [0.086643])
    close(L.focal_loss(logit(0.8), YES, alpha=0.5, soft_targets=target), [0.106574])


def test_quality_and_varifocal_loss__worked_values():
    target = torch.tensor([0.8], dtype=torch.float64)
    close(L.quality_focal_loss(logit(0.6), YES, soft_targets=target), [0.023677])
    close(L.quality_focal_loss(logit(0.1), NO), [0.001054])
    close(L.quality_focal_loss(logit(0.8), YES, soft_targets=target), [0.0])
    close(L.varifocal_loss(logit(0.6), YES, soft_targets=target), [0.473535])
    close(L.varifocal_loss(logit(0.1), NO), [0.000790])


def test_poly_focal_loss__worked_values():
    close(L.poly_focal_loss(logit(0.9), YES, epsilon=1.0, balanced=False), [0.001263])
    close(L.poly_focal_loss(logit(0.9), YES, epsilon=1.0), [0.25 * (0.01 * 0.105361 + 0.001)])


@given(seed=seeds, epsilon=st.floats(-1, 2))
def test_poly_focal_loss__is_focal_and_a_term(seed, epsilon):
    logits, labels, _ = random_anchors(seed)
    targets = one_hot(labels, 4)
    p_t = np.where(targets == 1, sigmoid(logits), 1 - sigmoid(logits))
    term = per_anchor((1 - p_t) ** 3, labels)
    focal = L.focal_loss(logits, labels)
    close(L.poly_focal_loss(logits, labels, epsilon=epsilon, balanced=False), focal.numpy() + epsilon * term)
    assert (L.poly_focal_loss(logits, labels) >= 0).all()


@given(seed=seeds, margin=st.sampled_from([0.0, 0.05, 0.2]), gamma_neg=st.sampled_from([0.0, 1.0, 4.0]))
def test_asymmetric_loss__equals_the_formula(seed, margin, gamma_neg):
    logits, labels, _ = random_anchors(seed)
    p, targets = sigmoid(logits), one_hot(labels, 4)
    shifted = np.maximum(p - margin, 0)
    expected = np.where(targets == 1, -(1 - p) * np.log(p), -(shifted**gamma_neg) * np.log(1 - shifted))
    close(L.asymmetric_loss(logits, labels, 1.0, gamma_neg, margin), per_anchor(expected, labels))


def test_asymmetric_loss__with_detached_weight():
    logits = torch.tensor([[0.3], [0.3]], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, -1])
    (gradient,) = torch.autograd.grad(L.asymmetric_loss(logits, labels, 2.0, 4.0, 0.0, True).sum(), logits)
    p = sigmoid(0.3)
    close(gradient.flatten(), [-((1 - p) ** 2) * (1 - p), p**4 * p])


def test_equalization_loss__equals_the_formula():
    logits = torch.tensor([[1.0, 0, -1], [0, 0, 0], [1, 0, -1]], dtype=torch.float64)
    rare = torch.tensor([0.1, 0.001, 0.0005]) < 0.00177
    values = L.equalization_loss(logits, torch.tensor([0, -1, 1]), rare)
    assert values.sum().item() == pytest.approx(4.399112, abs=1e-6)
    weights = np.array([[1, 0, 0], [1, 1, 1], [1, 1, 0]])
    close(values, (weights * cross_entropy(logits, one_hot([0, -1, 1], 3))).sum(1))


def test_equalization_v2_weights__worked_values():
    pos, neg = equalization_v2_weights(torch.tensor([0.0, 0.5, 0.8, 1.0], dtype=torch.float64))
    close(neg, [6.772415e-5, 0.026597, 0.5, 0.916827])
    close(pos, [4.999729, 4.893612, 3.0, 1.332691])
    ratio = gradient_ratio(torch.tensor([0.5, 0.0, 0.0]), torch.tensor([0.5, 1.380797, 0.0]), 100.0)
    close(ratio, [1, 0, 100])


@given(seed=seeds)
def test_equalized_focal_loss__equals_the_formula(seed):
    logits, labels, _ = random_anchors(seed)
    ratio = torch.rand(4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    p, targets = sigmoid(logits), one_hot(labels, 4)
    p_t, alpha_t = np.where(targets == 1, p, 1 - p), np.where(targets == 1, 0.25, 0.75)
    gammas = 2 + 8 * (1 - ratio.numpy())
    expected = -alpha_t * gammas / 2 * (1 - p_t) ** gammas * np.log(p_t)
    close(L.equalized_focal_loss(logits, labels, ratio), per_anchor(expected, labels), atol=1e-8)
    close(L.equalized_focal_loss(logits, labels, torch.ones(4)), L.focal_loss(logits, labels).numpy())


def test_equalized_focal_loss__worked_values():
    half = torch.tensor([0.5], dtype=torch.float64)
    close(L.equalized_focal_loss(logit(0.5), YES, half), [0.008123])
    close(L.equalized_focal_loss(logit(0.1), NO, half), [2.370612e-7], atol=1e-12)
    close(L.equalized_focal_loss(logit(0.1), NO, torch.zeros(1)), [3.951019e-11], atol=1e-15)
    x = logit(0.5).repeat(2, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(L.equalized_focal_loss(x, torch.tensor([0, -1]), half).sum(), x)
    close(gradient.flatten(), [-0.030228, 0.090683])


def test_softmax_loss__worked_values():
    logits = torch.tensor([[1.0, 2.0, 0.0]], dtype=torch.float64)
    close(L.softmax_loss(logits, YES), [1.407606])
    close(L.softmax_loss(logits, NO, background_weight=0.5), [2.407606 / 2])


def test_seesaw_loss__worked_values():
    logits = torch.tensor([[1.0, 2.0, 0.0, 0.0, 0.0]])
    value = L.seesaw_loss(logits, YES, torch.tensor([100.0, 10.0, 50.0]), torch.tensor([0]))
    close(value, [1.480384 + np.log(2)])
    plain = L.seesaw_loss(logits, YES, torch.tensor([100.0, 10.0, 50.0]), torch.tensor([0]), p=0, q=0)
    close(plain, [1.407606 + np.log(2)])


@given(seed=seeds)
def test_losses__equalities_between_them(seed):
    logits, labels, _ = random_anchors(seed)
    ones, classes = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.bool)
    bce = 2 * L.bce_loss(logits, labels)
    close(L.focal_loss(logits, labels, 0.5, 0.0), bce / 2)
    close(L.equalization_loss(logits, labels, classes), bce)
    close(L.equalization_v2_loss(logits, labels, *equalization_v2_weights(100 * ones)), bce, atol=1e-5)
    hard = torch.ones(len(labels), dtype=torch.float64)
    close(L.quality_focal_loss(logits, labels, soft_targets=hard), 2 * L.focal_loss(logits, labels, 0.5))
    close(L.asymmetric_loss(logits, labels, 2.0, 2.0, 0.0), 2 * L.focal_loss(logits, labels, 0.5))
    positive = labels >= 0
    own = logits[positive, labels[positive]]
    varifocal = L.varifocal_loss(own[:, None], torch.zeros(len(own), dtype=torch.long))
    close(varifocal, cross_entropy(own, np.ones(len(own))))
