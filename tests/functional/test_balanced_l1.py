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
def test_worked_values(difference, beta, value):
    assert cost(difference, beta=beta) == pytest.approx(value, abs=1e-6)
    assert cost(-difference, beta=beta) == pytest.approx(value, abs=1e-6)


@given(st.floats(0.05, 2), st.floats(0.1, 3), st.floats(0.02, 5))
def test_slope_starts_at_nothing_and_reaches_gamma_at_beta(alpha, gamma, beta):
    args = {"alpha": max(alpha, gamma / 20), "gamma": gamma, "beta": beta}
    assert slope(0.0, **args) == 0
    assert slope(beta * (1 - 1e-9), **args) == pytest.approx(gamma, rel=1e-6)
    assert slope(beta * 3, **args) == pytest.approx(gamma)
    assert cost(beta * (1 - 1e-9), **args) == pytest.approx(cost(beta * (1 + 1e-9), **args), rel=1e-6)


@given(st.floats(0, 10), st.floats(0.02, 5))
def test_beta_rescales_the_curve(difference, beta):
    assert cost(difference * beta, beta=beta) == pytest.approx(cost(difference) * beta, abs=1e-9)


def test_gradient_is_that_of_the_formula():
    x = torch.tensor([[-3.0, -0.4, 0.01, 0.1], [0.0, 0.5, 2.0, 40.0]], dtype=torch.float64, requires_grad=True)
    for beta in (0.11, 1.0):
        assert torch.autograd.gradcheck(lambda x, b=beta: balanced_l1_loss(x, torch.zeros_like(x), beta=b), x)
