"""Seesaw loss beside its formula in numpy."""

import numpy as np
import pytest
import torch

from lit_dense.functional import seesaw_loss
from tests.builders.numpy_losses import cross_entropy


def ranking(logits, own, counts, p=0.8, q=2.0, eps=0.01):
    """The softmax over the classes of one positive, with both factors as ratios."""
    scores = np.exp(logits - logits.max())
    scores /= scores.sum()
    counts = np.maximum(counts, 1)
    mitigation = np.minimum(counts / counts[own], 1) ** p
    ratio = scores / max(scores[own], eps)
    factor = mitigation * np.where(ratio > 1, ratio**q, 1)
    factor[own] = 1
    terms = factor * np.exp(logits - logits.max())
    return -np.log(terms[own] / terms.sum())


@pytest.mark.parametrize("classes", [3, 80, 1203])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_seesaw_loss__positives_with_few_and_with_many_classes(classes, scale):
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, scale, (6, classes + 2))
    labels, counts = rng.integers(0, classes, 6), rng.integers(0, 1000, classes).astype(float)
    objectness = cross_entropy(logits[:, -2] - logits[:, -1], 1)
    expected = [ranking(row[:-2], label, counts) for row, label in zip(logits, labels, strict=True)] + objectness
    got = seesaw_loss(torch.tensor(logits), torch.tensor(labels), torch.tensor(counts), torch.arange(6))
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6)
