import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_dense.functional.balanced_l1 import balanced_l1_loss


def cost(difference, **args):
    x = torch.tensor([[difference]], dtype=torch.float64)
    return balanced_l1_loss(x, torch.zeros_like(x), **args).item()


def slope(difference, **args):
    x = torch.tensor([[difference]], dtype=torch.float64, requires_grad=True)
    return torch.autograd.grad(balanced_l1_loss(x, torch.zeros_like(x), **args).sum(), x)[0].item()


@pytest.mark.parametrize(
    ("difference", "beta", "value"),
    [(0.5, 1.0, 0.400568), (2.0, 1.0, 2.578594), (0.05, 0.11, 0.038280), (0.5, 0.11, 0.703645)],
)
def test_balanced_l1_loss__worked_values(difference, beta, value):
    assert cost(difference, beta=beta) == pytest.approx(value, abs=1e-6)
    assert cost(-difference, beta=beta) == pytest.approx(value, abs=1e-6)


def published(z, alpha=0.5, gamma=1.5, beta=1.0):
    """The formula of the authors' code, written from it."""
    b = math.e ** (gamma / alpha) - 1
    if z < beta:
        return alpha / b * (b * z + 1) * math.log(b * z / beta + 1) - alpha * z
    return gamma * z + gamma / b - alpha * beta


@given(st.floats(0, 10), st.floats(0.02, 5))
def test_balanced_l1_loss__the_published_curve_is_that_of_the_authors_code(difference, beta):
    assert cost(difference, beta=beta, curve="published") == pytest.approx(published(difference, beta=beta), abs=1e-9)


@pytest.mark.parametrize(
    ("difference", "expected"), [(1e-9, 4.045455), (1e-3, 3.527324), (0.11 - 1e-9, 1.701411), (0.2, 1.5)]
)
def test_balanced_l1_loss__slope_of_the_published_curve_of_retinanet(difference, expected):
    assert slope(difference, beta=0.11, curve="published") == pytest.approx(expected, abs=1e-5)
    assert slope(-difference, beta=0.11, curve="published") == pytest.approx(-expected, abs=1e-5)


@given(st.floats(-3, 3))
def test_balanced_l1_loss__both_curves_are_the_papers_for_its_beta(difference):
    assert cost(difference, curve="published") == cost(difference)


@given(st.floats(0.05, 2), st.floats(0.1, 3), st.floats(0.02, 5))
def test_balanced_l1_loss__slope_starts_at_zero_and_reaches_gamma_at_beta(alpha, gamma, beta):
    args = {"alpha": max(alpha, gamma / 20), "gamma": gamma, "beta": beta}
    assert slope(0.0, **args) == 0
    assert slope(beta * (1 - 1e-9), **args) == pytest.approx(gamma, rel=1e-6)
    assert slope(beta * 3, **args) == pytest.approx(gamma)
    assert cost(beta * (1 - 1e-9), **args) == pytest.approx(cost(beta * (1 + 1e-9), **args), rel=1e-6)


@given(st.floats(0, 10), st.floats(0.02, 5))
def test_balanced_l1_loss__beta_rescales_the_curve(difference, beta):
    assert cost(difference * beta, beta=beta) == pytest.approx(cost(difference) * beta, abs=1e-9)


def test_balanced_l1_loss__gradient_is_that_of_the_formula():
    x = torch.tensor([[-3.0, -0.4, 0.01, 0.1], [0.0, 0.5, 2.0, 40.0]], dtype=torch.float64, requires_grad=True)
    for beta in (0.11, 1.0):
        assert torch.autograd.gradcheck(lambda x, b=beta: balanced_l1_loss(x, torch.zeros_like(x), beta=b), x)
    x = x.detach()[:, x.detach().abs().amin(0) > 0].requires_grad_()  # the published curve has a corner at 0
    assert torch.autograd.gradcheck(lambda x: balanced_l1_loss(x, torch.zeros_like(x), beta=0.11, curve="published"), x)
