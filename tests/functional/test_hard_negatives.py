import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional.hard_negatives import hard_negatives


def test_worked_value():
    values = torch.tensor([0.5, 1, 0.1, 0.9, 0.3, 0.7, 0.2, 0.6, 0.05, 0.4])
    labels = torch.tensor([0, 0] + [-1] * 8)
    kept = hard_negatives(values, labels, 1)
    assert (kept * values).sum() / 2 == torch.tensor(2.3)


@given(seed=st.integers(0, 500), ratio=st.sampled_from([0.0, 1.0, 3.0, float("inf")]), k_min=st.integers(0, 2))
def test_each_image_keeps_its_hardest(seed, ratio, k_min):
    generator = torch.Generator().manual_seed(seed)
    values, labels = torch.rand(3, 20, generator=generator), torch.randint(-2, 2, (3, 20), generator=generator)
    labels[1].clamp_(max=-1)  # an image without positives
    kept = hard_negatives(values.flatten(), labels.flatten(), 3, ratio, k_min).view(3, 20).bool()
    for image in range(3):
        background = labels[image] == -1
        assert kept[image][labels[image] >= 0].all()
        assert not kept[image][labels[image] == -2].any()
        wanted = ratio * max(int((labels[image] >= 0).sum()), k_min)
        wanted = float("inf") if np.isnan(wanted) else wanted
        assert kept[image][background].sum() == min(wanted, int(background.sum()))
        left = values[image][background & ~kept[image]]
        if len(left) and kept[image][background].any():
            assert values[image][background & kept[image]].min() >= left.max()


def test_equal_values_are_kept_in_order_and_nothing_is_fine():
    assert hard_negatives(torch.ones(4), torch.full((4,), -1), 1, 2.0).tolist() == [1, 1, 0, 0]
    assert hard_negatives(torch.zeros(0), torch.zeros(0, dtype=torch.long), 0).shape == (0,)
