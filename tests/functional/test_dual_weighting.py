import pytest
import torch

from lit_dense.functional import sum_over_classes
from lit_dense.functional.asymmetric import asymmetric_terms
from lit_dense.functional.dual_weighting import (
    centre_prior,
    dual_neg_weights,
    dual_pos_weights,
    first_of_elements,
)
from lit_dense.functional.focal import focal_terms
from lit_dense.functional.fused.anchor_loss import plain_path
from lit_dense.functional.fused.dual_terms import sum_with_dual_weights

SCORES = torch.tensor([[0.7, 0.1], [0.5, 0.2], [0.3, 0.1], [0.6, 0.3]], dtype=torch.float64)
OBJECTNESS = torch.tensor([[0.9], [0.8], [0.7], [0.2]], dtype=torch.float64)
IOUS = torch.tensor([0.85, 0.7, 0.55, 0.3], dtype=torch.float64)
PRIORS = torch.tensor([1.0, 0.8, 0.5, 0.3], dtype=torch.float64)
ONE = torch.zeros(4, dtype=torch.long)


def close(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), rtol=0, atol=1e-6)


def test_dual_weights__worked_values_of_the_authors_code():
    joint = SCORES * OBJECTNESS
    pos_weights = dual_pos_weights(joint[:, 0], 1 - IOUS, PRIORS, ONE, 1)
    neg_weights = dual_neg_weights(IOUS, ONE, 1)
    close(pos_weights, [1.582047, 0.133939, 0.014842, 0.001329])
    close(neg_weights, [0.0, 0.492063, 0.888889, 1.0])
    close((1 - neg_weights).sum(), 1.619048)
    close(0.25 * (pos_weights * 5 * (1 - IOUS)).sum(), 0.356372)
    terms = asymmetric_terms(gamma_pos=0, gamma_neg=2, margin=0)
    given = torch.logit(joint), ONE, terms, torch.arange(4), ONE
    close(sum_with_dual_weights(*given, 0.25 * pos_weights, neg_weights).sum(), 0.219917 + 0.057104)


def test_dual_weights__of_one_object_do_not_depend_on_those_of_others():
    generator = torch.Generator().manual_seed(0)
    scores, costs, priors = torch.rand(3, 12, generator=generator, dtype=torch.float64)
    objects = torch.randint(3, (12,), generator=generator)
    pos_weights = dual_pos_weights(scores, costs, priors, objects, 4)
    neg_weights = dual_neg_weights(1 - costs, objects, 4)
    for own in (objects == index for index in range(3)):
        alone = dual_pos_weights(scores[own], costs[own], priors[own], 0 * objects[own], 1)
        torch.testing.assert_close(pos_weights[own], alone)
        torch.testing.assert_close(neg_weights[own], dual_neg_weights(1 - costs[own], 0 * objects[own], 1))


def test_dual_neg_weights__of_equal_candidates():
    zeros = torch.zeros(2, dtype=torch.long)
    close(dual_neg_weights(torch.tensor([0.8]), zeros[:1], 1), [0.0])
    close(dual_neg_weights(torch.tensor([0.8, 0.8]), zeros, 1), [0.0, 0.0])
    close(dual_neg_weights(torch.tensor([0.4, 0.4]), zeros, 1), [1.0, 1.0])
    close(dual_neg_weights(torch.tensor([0.4, 0.5]), zeros, 1), [1.0, 0.0])
    assert dual_neg_weights(torch.zeros(0), zeros[:0], 3).shape == (0,)


def test_dual_pos_weights__of_scores_without_any_evidence_are_finite():
    zeros = torch.zeros(2)
    close(dual_pos_weights(zeros, zeros + 2, zeros + 1, zeros.long(), 1), [0.0, 0.0])
    tiny = dual_pos_weights(zeros + 1e-9, zeros + 2, zeros + 1e-6, zeros.long(), 1)
    close(tiny, [0.5, 0.5])
    assert dual_pos_weights(zeros[:0], zeros[:0], zeros[:0], zeros[:0].long(), 0).shape == (0,)


def test_centre_prior__is_a_gaussian_of_the_distance_in_cells():
    close(centre_prior(torch.tensor([[0.0, 0.0], [1.11, 0.0], [1.11, -1.11]])), [1.0, 0.606531, 0.367879])


def test_first_of_elements__the_smallest_weight_of_the_same_logit():
    first, least = first_of_elements(torch.tensor([7, 3, 7, 9, 3]), torch.tensor([0.5, 1.0, 0.2, 0.7, 0.9]))
    assert first.tolist() == [1, 0, 3]
    close(least, [0.9, 0.2, 0.7])


def case(dtype=torch.float64):
    """Logits of five anchors; anchor 0 is in three pairs, two of them with the same logit; 4 is ignored."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, 3, generator=generator, dtype=dtype)
    labels, anchors = torch.tensor([2, -1, 0, 1, -2]), torch.tensor([0, 2, 3, 0, 0])
    columns = torch.tensor([2, 0, 1, 2, 1])
    positive = torch.rand(5, generator=generator, dtype=dtype)
    negative = torch.tensor([0.3, 0.9, 0.0, 0.0, -0.4], dtype=dtype)  # the last: 0.6, counted as 1 already
    return logits, labels, anchors, columns, positive, negative


TERMS = {"focal": focal_terms(), "asl": asymmetric_terms(0, 2, 0)}


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("class_weights", [None, torch.tensor([[1.0, 2.0, 0.5], [3.0, 1.0, 0.2]]).double()])
def test_sum_with_dual_weights__is_the_sum_of_weighted_terms(name, class_weights):
    logits, labels, anchors, columns, positive, negative = case()
    terms = TERMS[name]
    pos_factor, neg_factor = torch.zeros(5, 3).double(), torch.ones(5, 3).double()
    neg_factor[[0, 2, 3], [2, 0, 1]] = torch.tensor([0.3, 0.9, 0.0]).double()
    neg_factor[0, 1] = 0.6
    for row, column, weight in zip(anchors, columns, positive, strict=True):
        pos_factor[row, column] += weight
    if class_weights is not None:
        neg_factor, pos_factor = neg_factor * class_weights[0], pos_factor * class_weights[1]
    flat, no = logits.flatten(), torch.zeros(15, dtype=torch.long)
    value = terms.positive(flat, no, None)[0].view(5, 3) * pos_factor
    value = value + terms.negative(logits, labels)[0] * neg_factor
    expected = value.sum(1) * (labels != -2)
    found = sum_with_dual_weights(logits, labels, terms, anchors, columns, positive, negative, class_weights)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", TERMS)
def test_sum_with_dual_weights__gradients(name):
    logits, *rest = case()
    labels, anchors, columns, positive, negative = rest
    given = labels, TERMS[name], anchors, columns, positive, negative

    def function(x):
        return sum_with_dual_weights(x, *given)

    assert torch.autograd.gradcheck(function, logits.requires_grad_())
    (fast,) = torch.autograd.grad(function(logits).sum(), logits)
    with plain_path():
        (plain,) = torch.autograd.grad(function(logits).sum(), logits)
    torch.testing.assert_close(fast, plain)


def test_sum_with_dual_weights__of_one_and_zero_is_the_loss():
    logits, labels, *_ = case(torch.float32)
    rows = (labels >= 0).nonzero().squeeze(1)
    ones = torch.ones(len(rows))
    found = sum_with_dual_weights(logits, labels, focal_terms(), rows, labels[rows], ones, 0 * ones)
    torch.testing.assert_close(found, sum_over_classes(logits, labels, focal_terms()))
    none = sum_with_dual_weights(logits, labels, focal_terms(), rows[:0], rows[:0], ones[:0], ones[:0])
    background = torch.where(labels >= 0, -1, labels)
    assert (none <= sum_over_classes(logits, background, focal_terms())).all()
