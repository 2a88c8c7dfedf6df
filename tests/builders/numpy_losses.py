"""Losses of single logits in numpy, written from the papers and apart from the package: what its values are held to."""

import numpy as np
import torch


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def logit(p):
    """Logits of one anchor and one class whose score is p."""
    return torch.tensor([[np.log(p / (1 - p))]], dtype=torch.float64)


def cross_entropy(x, t):
    x, t = np.asarray(x, np.float64), np.asarray(t, np.float64)
    return np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))


def one_hot(labels, classes):
    """Targets of anchors, rows of background and ignored ones zero."""
    targets = np.zeros((len(labels), classes))
    rows = np.flatnonzero(np.asarray(labels) >= 0)
    targets[rows, np.asarray(labels)[rows]] = 1
    return targets


def per_anchor(elements, labels):
    return elements.sum(1) * (np.asarray(labels) != -2)


def random_anchors(seed, anchors=7, classes=4, scale=3.0):
    """Logits in float64, labels of all kinds, and a soft target for each anchor."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(anchors, classes, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(-2, classes, (anchors,), generator=generator)
    return logits, labels, torch.rand(anchors, generator=generator, dtype=torch.float64)


def value_and_gradient(function, logits):
    """Values of a loss and the gradient of their sum."""
    logits = logits.detach().requires_grad_()
    values = function(logits)
    return values.detach(), torch.autograd.grad(values.sum(), logits)[0]
