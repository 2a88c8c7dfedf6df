import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional.ohem import hard_negatives


def test_hard_negatives__worked_value():
    values = torch.tensor([0.5, 1, 0.1, 0.9, 0.3, 0.7, 0.2, 0.6, 0.05, 0.4])
    labels = torch.tensor([0, 0] + [-1] * 8)
    kept = hard_negatives(values, labels, torch.zeros(10, dtype=torch.long), 1)
    assert (kept * values).sum() / 2 == torch.tensor(2.3)


@given(
    seed=st.integers(0, 500),
    ratio=st.sampled_from([0.0, 1.0, 3.0, float("inf")]),
    k_min=st.integers(0, 2),
    mixed=st.booleans(),
)
def test_hard_negatives__each_image_keeps_its_hardest(seed, ratio, k_min, mixed):
    generator = torch.Generator().manual_seed(seed)
    values, labels = torch.rand(3, 20, generator=generator), torch.randint(-2, 2, (3, 20), generator=generator)
    labels[1].clamp_(max=-1)  # an image without positives
    images = torch.arange(3).repeat_interleave(20)
    order = torch.randperm(60, generator=generator) if mixed else torch.arange(60)
    flat = hard_negatives(values.flatten()[order], labels.flatten()[order], images[order], 3, ratio, k_min)
    kept = torch.empty_like(flat).scatter_(0, order, flat).view(3, 20).bool()
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


def test_hard_negatives__equal_values_are_kept_in_order_and_empty_input_works():
    nothing, one_image = torch.zeros(0, dtype=torch.long), torch.zeros(4, dtype=torch.long)
    assert hard_negatives(torch.ones(4), torch.full((4,), -1), one_image, 1, 2.0).tolist() == [1, 1, 0, 0]
    assert hard_negatives(torch.zeros(0), nothing, nothing, 0).shape == (0,)


def test_hard_negatives__images_have_different_numbers_of_anchors():
    values, labels = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.8, 0.7]), torch.tensor([-1, -1, 0, -1, 0, -1])
    images = torch.tensor([0, 0, 0, 1, 1, 2])
    assert hard_negatives(values, labels, images, 3, ratio=1).tolist() == [0, 1, 1, 1, 1, 1]


@given(seed=st.integers(0, 200), counts=st.lists(st.integers(0, 9), min_size=1, max_size=4), ties=st.booleans())
def test_hard_negatives__known_numbers_of_anchors_change_nothing(seed, counts, ties):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(sum(counts), generator=generator)
    values = values.round(decimals=1) if ties else values
    labels = torch.randint(-2, 2, (sum(counts),), generator=generator)
    images = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    for ratio in (1.0, 1.5, 3.0):
        arguments = values, labels, images, len(counts), ratio, 1
        assert torch.equal(hard_negatives(*arguments, counts), hard_negatives(*arguments))
    order = (-values).masked_fill(labels != -1, float("inf")).argsort(stable=True)  # the definition, image by image
    expected = (labels >= 0).float()
    for image in range(len(counts)):
        hardest = [row for row in order.tolist() if images[row] == image and labels[row] == -1]
        positives = int(((labels >= 0) & (images == image)).sum())
        expected[hardest[: 3 * max(positives, 1)]] = 1
    assert torch.equal(hard_negatives(values, labels, images, len(counts)), expected)
