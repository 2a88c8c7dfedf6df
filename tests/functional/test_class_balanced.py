import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional.class_balanced import effective_number_weights


def test_effective_number_weights__worked_values():
    weights = effective_number_weights(torch.tensor([1000.0, 100, 10]))
    assert weights.tolist() == pytest.approx([0.028362, 0.271255, 2.700382], abs=1e-5)


@given(st.lists(st.integers(0, 100000), min_size=1, max_size=8), st.sampled_from([0.0, 0.9, 0.999, 0.999999]))
def test_effective_number_weights__are_finite_and_unseen_classes_do_not_count(counts, beta):
    weights = effective_number_weights(torch.tensor(counts, dtype=torch.float64), beta)
    assert weights.isfinite().all()
    seen = torch.tensor(counts) > 0
    assert (weights[~seen] == 1).all()
    if seen.any():
        assert weights[seen].mean() == pytest.approx(1)
    if beta == 0:
        assert weights.tolist() == pytest.approx([1.0] * len(counts))
    order = torch.tensor(counts)[seen].argsort(stable=True)
    assert (weights[seen][order].diff() <= 1e-9).all()
