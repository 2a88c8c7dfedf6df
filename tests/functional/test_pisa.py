import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional.pisa import (
    carl_values,
    carl_weights,
    hierarchical_local_rank,
    match_by_nms,
    rank_weights,
)

LABELS, GROUPS = torch.tensor([0, 0, 0, 0, 0, 1]), torch.tensor([0, 0, 0, 1, 1, 2])
IOUS = torch.tensor([0.9, 0.7, 0.6, 0.8, 0.5, 0.95])


def ranks_in_python(labels, groups, quality):
    """The definition, with loops."""
    rank = np.zeros(len(labels), int)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        local = {}
        for group in np.unique(groups[members]):
            own = members[groups[members] == group]
            local |= {index: place for place, index in enumerate(own[np.argsort(-quality[own], kind="stable")])}
        for place, index in enumerate(sorted(members, key=lambda i: (local[i], -quality[i], i))):
            rank[index] = place
    return rank


@given(seed=st.integers(0, 500), number=st.integers(0, 40), ties=st.booleans())
def test_hierarchical_local_rank__is_that_of_the_definition(seed, number, ties):
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randint(0, 8, (number,), generator=generator)
    labels = groups % 3
    quality = torch.rand(number, generator=generator)
    quality = (quality * 4).round() / 4 if ties else quality
    expected = ranks_in_python(labels.numpy(), groups.numpy(), quality.numpy())
    assert hierarchical_local_rank(labels, groups, quality).tolist() == expected.tolist()


@given(seed=st.integers(0, 200))
def test_hierarchical_local_rank__does_not_depend_on_the_order(seed):
    generator = torch.Generator().manual_seed(seed)
    groups, quality = torch.randint(0, 8, (30,), generator=generator), torch.rand(30, generator=generator)
    order = torch.randperm(30, generator=generator)
    ranks = hierarchical_local_rank(groups % 3, groups, quality)
    assert torch.equal(hierarchical_local_rank((groups % 3)[order], groups[order], quality[order]), ranks[order])


def test_rank_weights__worked_values():
    ranks = hierarchical_local_rank(LABELS, GROUPS, IOUS)
    assert ranks.tolist() == [0, 2, 4, 1, 3, 0]
    weights = rank_weights(ranks, ranks.max() + 1, 2.0, 0.0)
    costs = torch.tensor([0.2, 0.1, 0.5, 0.4, 0.3, 0.6])
    kept = weights * costs.sum() / (weights * costs).sum()
    torch.testing.assert_close(
        kept, torch.tensor([1.810345, 0.651724, 0.072414, 1.158621, 0.289655, 1.810345]), rtol=1e-5, atol=0
    )
    scores, groups = torch.tensor([0.9, 0.8, 0.3, 0.6, 0.5]), torch.tensor([0, 0, 0, 1, 1])
    ranks = hierarchical_local_rank(torch.zeros(5, dtype=torch.long), groups, scores)
    weights, costs = rank_weights(ranks, torch.tensor(5), 0.5, 0.0), torch.tensor([1, 0.5, 0.1, 0.4, 0.2])
    kept = weights * costs.sum() / (weights * costs).sum()
    torch.testing.assert_close(
        kept, torch.tensor([1.148057, 0.889281, 0.513427, 1.026853, 0.726095]), rtol=1e-5, atol=0
    )


def test_carl__worked_values():
    p = torch.tensor([0.9, 0.6, 0.3], requires_grad=True)
    values = carl_values(p, 1.0, 0.2)
    weights = carl_weights(p, values.sum(), torch.tensor(3.0), 1.0, 0.2)
    torch.testing.assert_close(weights, torch.tensor([1.352941, 1, 0.647059]), rtol=1e-5, atol=0)
    loss = (weights * torch.tensor([0.1, 0.2, 0.4])).sum() / 3
    assert loss.item() == pytest.approx(0.198039, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, p)
    torch.testing.assert_close(gradient, torch.tensor([-0.038447, 0.000769, 0.079200]), rtol=0, atol=1e-6)


@given(p=st.floats(0.01, 0.99), cost=st.floats(0.1, 5))
def test_carl__of_equals(p, cost):
    scores = torch.full((4,), p, dtype=torch.float64, requires_grad=True)
    weights = carl_weights(scores, carl_values(scores, 1.0, 0.2).sum(), torch.tensor(4.0), 1.0, 0.2)
    torch.testing.assert_close(weights, torch.ones(4, dtype=torch.float64))
    (gradient,) = torch.autograd.grad((weights * cost).sum(), scores)
    torch.testing.assert_close(gradient, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-9)


def test_match_by_nms__groups_overlapping_boxes():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60], [0, 0, 9, 10], [51, 50, 61, 60]])
    groups = match_by_nms(boxes, torch.tensor([0.5, 0.9, 0.3, 0.4, 0.8]), 0.5)
    assert groups.tolist() == [0, 0, 1, 0, 1]
    assert match_by_nms(torch.zeros(0, 4), torch.zeros(0), 0.5).shape == (0,)
