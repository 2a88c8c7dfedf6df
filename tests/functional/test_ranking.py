"""Ranking losses: values and gradients of the authors' code, and of the definition with all pairs."""

import pytest
import torch

from lit_dense.functional import ranking
from lit_dense.functional.alrp import ALRPErrors, alrp_loss, localisation_weights
from lit_dense.functional.ap import APErrors, ap_loss
from lit_dense.functional.ranking import OneProcess, ranking_errors, step
from lit_dense.functional.rs import RSErrors, rs_loss

FG = [0.5, 1.2, -0.3, 0.8]
IOU = torch.tensor([0.9, 0.6, 0.7, 0.5], dtype=torch.float64)
BG = [1.0, 0.4, -0.2, -0.9, -2.0]
FAR = -1e4


def batch(fg=FG, bg=BG):
    """Anchors with the positive logits in different classes, and negatives beside and below them."""
    logits = torch.full((len(fg) + len(bg), 2), FAR, dtype=torch.float64)
    labels = torch.full((len(logits),), -1)
    for row, x in enumerate(fg):
        labels[row] = row % 2
        logits[row, row % 2] = x
    for row, x in enumerate(bg):
        logits[len(fg) + row, row % 2] = x
    return logits.requires_grad_(), labels


def parts(logits, labels, gradient):
    rows = (labels >= 0).nonzero().squeeze(1)
    fg = gradient[rows, labels[rows]]
    rest = gradient.clone()
    rest[rows, labels[rows]] = 0
    near = (logits > FAR) & (rest == rest)
    near[rows, labels[rows]] = False
    return fg, rest[near]


def check(loss, values, fg, bg, weights=None, **batch_arguments):
    logits, labels = batch(**batch_arguments)
    result = loss(logits, labels)
    rows = (labels >= 0).nonzero().squeeze(1)
    close(result[rows], values)
    assert result.sum() == result[rows].sum()
    upstream = torch.zeros_like(result)
    upstream[rows] = torch.tensor(weights or [1 / len(rows)] * len(rows), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(result, logits, upstream)
    own, rest = parts(logits.detach(), labels, gradient)
    close(own, fg)
    close(rest, bg)
    assert abs(gradient.sum()) < 1e-12


def close(values, expected):
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64), atol=2.5e-6, rtol=0)


def test_rs_loss__worked_values():
    above, sorting = [0.378378, 0.333333, 0.426230, 0.333333], [0.269565, 0.016667, 0.161905, 0]
    check(
        lambda x, y: rs_loss(x, y, IOU),
        [r + s for r, s in zip(above, sorting, strict=True)],
        [-0.161986, -0.029822, -0.147034, -0.028977],
        [0.264801, 0.078427, 0.024590, 0, 0],
    )


def test_rs_loss__worked_values_of_a_plain_comparison():
    above, sorting = [0.25, 0, 0.428571, 0.333333], [0.233333, 0, 0.125, 0]
    check(
        lambda x, y: rs_loss(x, y, IOU, delta=0.0),
        [r + s for r, s in zip(above, sorting, strict=True)],
        [-0.120833, 0.044792, -0.138393, -0.038542],
        [0.181548, 0.035714, 0.035714, 0, 0],
    )


def test_rs_loss__one_positive():
    logits, labels = batch(FG[:1])
    result = rs_loss(logits, labels, IOU[:1])
    close(result[:1], [0.736842])
    result.sum().backward()
    close(logits.grad[0, 0], -0.736842)
    assert abs(logits.grad.sum()) < 1e-12


def test_ap_loss__worked_values():
    logits, labels = batch()
    close(ap_loss(logits, labels)[:4].mean(), 0.325817)
    errors = [-4 * g for g in (-0.085443, -0.064103, -0.1, -0.076271)]
    check(ap_loss, errors, [-0.085443, -0.064103, -0.1, -0.076271], [0.188059, 0.099418, 0.030648, 0.007692, 0])


def test_alrp_loss__worked_values():
    logits, labels = batch()
    values, ranks = ranking_errors(logits, labels, IOU, ALRPErrors(), OneProcess())
    close(values[:4].mean(), 0.325817)
    close(ranks, [3.95, 1.95, 6.5, 2.95])
    box_errors = ((1 - IOU) / 0.5).clamp(0, 1)
    weights = localisation_weights(torch.tensor(FG, dtype=torch.float64), ranks)
    close((weights * box_errors).sum(), 0.481689)
    check(
        lambda x, y: alrp_loss(x, y, IOU),
        values.detach()[:4].tolist(),
        [-0.173418, -0.106410, -0.176154, -0.129661],
        [0.335664, 0.179897, 0.056532, 0.013550, 0],
    )


def plain_errors(method, x, y, q, g):
    """Gradients of the definition, with all pairs of elements."""
    rows = (y >= 0).nonzero().squeeze(1)
    fg = x[rows, y[rows]]
    negative = torch.ones_like(x, dtype=torch.bool)
    negative[rows, y[rows]] = False
    negative[y == -2] = False
    bg = x[negative]
    above = step(bg - fg[:, None], method.delta)
    errors = method.errors(fg, q, above.sum(1))
    own = -g * errors.pulls
    pushes = method.pushes(fg, q, g)
    gradient = torch.zeros_like(x)
    gradient[rows, y[rows]] = own if pushes is None else own + pushes
    gradient[negative] = (g * errors.spreads) @ above
    return errors.values, gradient


@pytest.mark.parametrize("delta", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("kind", [APErrors, ALRPErrors, RSErrors])
def test_ranking_errors__equal_the_definition_with_all_pairs(kind, delta, monkeypatch):
    monkeypatch.setattr(ranking, "ELEMENTS_AT_ONCE", 64)  # several chunks
    monkeypatch.setattr(ranking, "PAIRS_AT_ONCE", 50)
    generator = torch.Generator().manual_seed(1)
    logits = (torch.randn(200, 5, generator=generator, dtype=torch.float64) * 2).round(decimals=1)  # with ties
    labels = torch.randint(-2, 5, (200,), generator=generator)
    labels[60:] = labels[60:].clamp(max=-1)
    number = int((labels >= 0).sum())
    q, g = torch.rand(2, number, generator=generator, dtype=torch.float64)
    expected, slopes = plain_errors(kind(delta), logits, labels, q, g)
    leaf = logits.clone().requires_grad_()
    values, _ = ranking_errors(leaf, labels, q, kind(delta), OneProcess())
    torch.testing.assert_close(values[labels >= 0], expected, atol=1e-12, rtol=0)
    upstream = torch.zeros(200, dtype=torch.float64)
    upstream[labels >= 0] = g
    (gradient,) = torch.autograd.grad(values, leaf, upstream)
    torch.testing.assert_close(gradient, slopes, atol=1e-12, rtol=0)
    assert abs(gradient.sum()) < 1e-9
    shifted, _ = ranking_errors(logits + 7, labels, q, kind(delta), OneProcess())
    torch.testing.assert_close(shifted, values.detach(), atol=1e-9, rtol=0)


def test_rs_loss__weighted_errors():
    logits, labels = batch()
    g = torch.tensor([0.1, 0.4, 0.2, 0.3], dtype=torch.float64)
    expected, slopes = plain_errors(RSErrors(), logits.detach(), labels, IOU, g)
    values = rs_loss(logits, labels, IOU)[:4]
    torch.testing.assert_close(values, expected)
    (values * g).sum().backward()
    torch.testing.assert_close(logits.grad, slopes, atol=1e-14, rtol=0)
    own, rest = parts(logits.detach(), labels, logits.grad)
    close((values.detach() * g).sum(), 0.422421)
    close(own, [-0.064794, -0.108834, -0.117627, -0.065162])
    close(rest, [0.280647, 0.056098, 0.019672, 0, 0])


def without_positives(loss):
    return lambda x, y: loss(x, y, x.new_zeros(0))


@pytest.mark.parametrize("loss", [ap_loss, without_positives(rs_loss), without_positives(alrp_loss)])
def test_ranking_losses__no_positives(loss):
    for count in (3, 0):
        logits = torch.randn(count, 2, requires_grad=True)
        values = loss(logits, torch.tensor([-1, -2, -1][:count], dtype=torch.int64))
        assert values.requires_grad
        values.sum().backward()
        assert torch.equal(logits.grad, torch.zeros(count, 2))


def test_rs_loss__perfect_order_is_0():
    logits, labels = batch([3.0, 2.0, 1.0], [-5.0, -6.0])
    values = rs_loss(logits, labels, torch.tensor([0.9, 0.8, 0.7]), delta=0.0)
    assert values.abs().max() < 1e-15
