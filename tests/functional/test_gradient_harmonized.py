"""GHM's histogram, its moving average, and what becomes of the elements."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.box_losses import GHMRLoss
from lit_dense.functional import gradient_histogram
from lit_dense.functional.fused.anchor_loss import compiled_formulas, plain_path
from lit_dense.functional.fused.sigmoid_terms import rows_as_on_a_gpu, sum_over_classes
from lit_dense.functional.gradient_harmonized import (
    harmonize,
    harmonize_levels,
    harmonized_cross_entropy,
    harmonized_terms,
)
from lit_dense.functional.gradient_histogram import classification_histogram, norm_histogram
from lit_dense.functional.unknown_classes import hide_unknown
from tests.builders.numpy_losses import cross_entropy, one_hot, random_anchors, sigmoid

NORMS = np.array([0.05, 0.05, 0.05, 0.15, 0.95])
LABELS = torch.tensor([-1, -1, -1, -1, 0])
LOGITS = torch.tensor(np.log(NORMS / (1 - NORMS)) * np.array([1, 1, 1, 1, -1]))[:, None]


def steps(update, number, momentum=0.75):
    """The loss at each of so many steps over the same five elements."""
    history, losses = torch.zeros(10, dtype=torch.float64), []
    for step in range(number):
        counts = classification_histogram(LOGITS, LABELS, bins=10)
        weights, history = harmonize(counts, history, torch.tensor(float(step)), momentum, update)
        losses.append(sum_over_classes(LOGITS, LABELS, harmonized_terms(weights)).sum().item())
    return losses


def test_harmonize__worked_values():
    assert classification_histogram(LOGITS, LABELS, bins=10).tolist() == [3, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert steps("reference", 1, momentum=0) == pytest.approx([1.069848], abs=1e-6)
    assert steps("paper", 1, momentum=0) == pytest.approx([0.320954], abs=1e-6)
    assert steps("reference", 3) == pytest.approx([4.279393, 2.445367, 1.850548], abs=1e-6)
    assert steps("corrected", 3) == pytest.approx([1.069848] * 3, abs=1e-6)


def test_harmonize__a_bin_without_elements_keeps_its_average_in_the_reference_alone():
    history, nothing = torch.tensor([8.0, 4.0]), torch.tensor([0.0, 2.0])
    assert harmonize(nothing, history, torch.tensor(3.0), 0.5, "reference")[1].tolist() == [8, 3]
    weights, average = harmonize(nothing, history, torch.tensor(3.0), 0.5, "paper")
    assert average.tolist() == [4, 3]
    assert weights.tolist() == [0, pytest.approx(1 / 6)]


@given(seed=st.integers(0, 1000), bins=st.sampled_from([1, 5, 30]), scale=st.floats(0.1, 8))
def test_harmonize__without_momentum_is_the_mean_over_bins_of_mean_cross_entropy(seed, bins, scale):
    logits, labels, _ = random_anchors(seed, anchors=20, scale=scale)
    counted = labels.numpy() != -2
    targets = one_hot(labels, 4)
    norms = np.abs(sigmoid(logits) - targets)[counted].ravel().astype(np.float32)
    entropy = cross_entropy(logits, targets)[counted].ravel()
    index = np.minimum((norms * np.float32(bins)).astype(int), bins - 1)
    expected = np.mean([entropy[index == b].mean() for b in np.unique(index)]) if len(index) else 0.0
    counts = classification_histogram(logits, labels, bins)
    assert counts.tolist() == np.bincount(index, minlength=bins).tolist()
    weights, _ = harmonize(counts, torch.zeros(bins), torch.zeros(()), 0.0, "corrected")
    loss = sum_over_classes(logits, labels, harmonized_terms(weights)).sum().item()
    assert loss == pytest.approx(expected, rel=1e-6)
    twice = classification_histogram(logits.repeat(2, 1), labels.repeat(2), bins)
    weights, _ = harmonize(twice, torch.zeros(bins), torch.zeros(()), 0.0, "corrected")
    doubled = sum_over_classes(logits.repeat(2, 1), labels.repeat(2), harmonized_terms(weights)).sum().item()
    assert doubled == pytest.approx(expected, rel=1e-6)


@given(seed=st.integers(0, 1000), power=st.floats(0, 1), bins=st.sampled_from([1, 5, 30]))
def test_harmonize__power_weights_follow_the_formula_and_add_up_to_one_over_all_elements(seed, power, bins):
    counts = np.random.default_rng(seed).integers(0, 4, bins) * np.random.default_rng(seed + 1).integers(1, 10**5, bins)
    weights, _ = harmonize(torch.tensor(counts).double(), torch.zeros(bins), torch.zeros(()), 0.0, "corrected", power)
    filled = counts > 0
    expected = np.zeros(bins)
    if filled.any():
        expected[filled] = counts[filled] ** -power / (counts[filled] ** (1 - power)).sum()
        assert (weights * torch.tensor(counts)).sum().item() == pytest.approx(1)
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("update", ["corrected", "paper", "reference"])
def test_harmonize__power_one_is_ghm_c_to_the_last_bit(update):
    generator = torch.Generator().manual_seed(0)
    history = torch.zeros(30, dtype=torch.float64)
    for step in range(4):
        counts = (
            (torch.rand(30, generator=generator) * 1e6 * (torch.rand(30, generator=generator) > 0.3)).long().double()
        )
        weights, average = harmonize(counts, history, torch.tensor(float(step)), 0.75, update, 1.0)
        filled, history = counts > 0, 0.75 * history + 0.25 * counts
        if update == "reference":
            history = torch.where(filled, average, history)
        density = average / (1 - 0.75 ** torch.tensor(step + 1.0)) if update == "corrected" else average
        divisor = 30 if update == "paper" else filled.sum()
        assert torch.equal(weights, torch.where(filled, 1 / (density * divisor), 0.0))


def test_harmonize__power_zero_is_the_mean_of_cross_entropy():
    logits, labels, _ = random_anchors(0)
    weights, _ = harmonize(
        classification_histogram(logits, labels), torch.zeros(30), torch.zeros(()), 0.0, "corrected", power=0.0
    )
    counted = labels.numpy() != -2
    expected = cross_entropy(logits, one_hot(labels, 4))[counted].mean()
    assert harmonized_cross_entropy(logits, labels, weights).sum().item() == pytest.approx(expected, rel=1e-6)


class PerLevelGHM:
    """The authors' loop: the loss is called for each level, all calls share ``acc``, the results are added up."""

    def __init__(self, bins, momentum):
        self.bins, self.momentum, self.acc = bins, momentum, np.zeros(bins)

    def __call__(self, logits, labels, levels):
        total = 0.0
        for level in np.unique(levels):
            rows = (levels == level) & (labels.numpy() != -2)
            targets = one_hot(labels, logits.shape[1])[rows]
            norms = np.abs(sigmoid(logits)[rows] - targets).astype(np.float32).ravel()
            entropy = cross_entropy(logits, one_hot(labels, logits.shape[1]))[rows].ravel()
            index = np.minimum((norms * np.float32(self.bins)).astype(int), self.bins - 1)
            filled = np.unique(index)
            for place in filled:
                inside = index == place
                self.acc[place] = self.momentum * self.acc[place] + (1 - self.momentum) * inside.sum()
                total += entropy[inside].sum() / self.acc[place] / len(filled)
        return total


def test_harmonize_levels__are_the_authors_calls_with_one_average():
    reference, history, steps = PerLevelGHM(10, 0.75), torch.zeros(10, dtype=torch.float64), torch.zeros(())
    for seed in range(3):
        logits, labels, _ = random_anchors(seed, anchors=60, scale=3)
        levels = torch.arange(3).repeat_interleave(20)
        counts = classification_histogram(logits, labels, 10, levels=levels, num_levels=3)
        assert torch.equal(counts.sum(0), classification_histogram(logits, labels, 10))
        weights, history = harmonize_levels(counts, history, steps, 0.75, "reference", power=1.0)
        loss = harmonized_cross_entropy(logits, labels, weights, levels=levels)
        assert loss.sum().item() == pytest.approx(reference(logits, labels, levels.numpy()), rel=1e-6)
        np.testing.assert_allclose(history.numpy(), reference.acc, rtol=1e-12)
        steps = steps + 3


def test_harmonize_levels__have_the_gradient_of_autograd():
    logits, labels, _ = random_anchors(1, anchors=60, scale=3)
    levels, weights = torch.arange(60) % 3, torch.rand(3, 10, generator=torch.Generator().manual_seed(0)).double()
    logits = logits.double().requires_grad_()
    loss = harmonized_cross_entropy(logits, labels, weights, torch.tensor([1.0, 2.0, 0.0, 0.5]), levels)
    fast = torch.autograd.grad(loss.sum(), logits)[0]
    with plain_path():
        plain = harmonized_cross_entropy(logits, labels, weights, torch.tensor([1.0, 2.0, 0.0, 0.5]), levels)
        torch.testing.assert_close(fast, torch.autograd.grad(plain.sum(), logits)[0])
    assert not fast[labels == -2].any()
    assert not fast[:, 2].any()


def test_classification_histogram__classes_without_weight_are_not_counted():
    logits, labels, _ = random_anchors(0)
    mask = torch.tensor([1.0, 0, 1, 0])
    assert classification_histogram(logits, labels, 6, mask).sum() == 2 * (labels != -2).sum()


def test_harmonize__nothing_to_count():
    assert classification_histogram(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).sum() == 0
    assert classification_histogram(torch.zeros(2, 3), torch.tensor([-2, -2])).sum() == 0
    weights, _ = harmonize(torch.zeros(4), torch.zeros(4), torch.zeros(()), 0.5, "corrected")
    assert weights.tolist() == [0, 0, 0, 0]


def test_norm_histogram__norms_at_the_ends_are_counted():
    assert norm_histogram(torch.tensor([0.0, 1.0, 0.5]), 2).tolist() == [1, 2]


class OneProcess:
    class reduce:  # noqa: N801 (stands for samples.reduce)
        @staticmethod
        def sum(tensor):
            return tensor


@pytest.mark.parametrize(
    ("update", "expected"), [("reference", 0.135434), ("paper", 0.054174), ("corrected", 0.135434)]
)
def test_ghm_r_loss__worked_values(update, expected):
    deltas = torch.tensor([[0.0, 0.01, 0.02, 0.1], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)[:, :]
    flat = torch.cat([deltas[0], deltas[1, :1]])[:, None]  # five coordinates
    loss = GHMRLoss(momentum=0.0, update=update, power=1.0).forward(flat, torch.zeros_like(flat), OneProcess)
    assert loss.sum().item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("columns", "rows"), [(1, 64), (7, 2), (511, 64), (2**15 - 1, 1)])
@pytest.mark.parametrize("bins", [1, 5, 30, 64])
def test_block_counts__hold_all_counts_of_a_block(columns, rows, bins):
    generator = torch.Generator().manual_seed(columns)
    index = torch.randint(bins, (3 * rows, columns), generator=generator, dtype=torch.int32)
    index[:rows] = bins - 1  # all logits of a block in one bin: the largest count
    counted = torch.rand(3 * rows, columns, generator=generator) < 0.9
    counted[:rows] = True
    counts = gradient_histogram._sum_of_blocks(gradient_histogram._block_counts(index, counted, bins, rows), bins)
    assert torch.equal(counts, torch.bincount(index[counted], minlength=bins).double())


@pytest.mark.parametrize("anchors", [0, 1, 63, 64, 200])
@pytest.mark.parametrize("columns", [3, 1203])
@pytest.mark.parametrize("known", [False, True])
def test_classification_histogram__compiled_blocks_count_the_same(anchors, columns, known, traced):
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(anchors, columns, generator=generator)
    labels = torch.randint(-2, 3, (anchors,), generator=generator)
    logits = hide_unknown(logits, torch.rand(anchors, columns, generator=generator) < 0.1)
    weights = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]).repeat(1, columns // 3)
    positives = (labels >= 0).nonzero().squeeze(1) if known else None
    for more in ({}, {"class_weights": weights, "has_unknown": True, "positives": positives, "bins": 7}):
        expected = classification_histogram(logits, labels, **more)
        with compiled_formulas(), rows_as_on_a_gpu(), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            found = classification_histogram(logits, labels, **more)
        assert torch.equal(found, expected)


def test_classification_histogram__is_not_compiled_again_for_another_number_of_anchors(traced):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with compiled_formulas(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for anchors in (200, 130, 1000):
            assert classification_histogram(torch.zeros(anchors, 3), torch.full((anchors,), -1)).sum() == 3 * anchors
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
