"""Boxes for property-based tests, and boxes without area."""

import torch
from hypothesis import strategies as st


@st.composite
def boxes(draw):
    x, y = (draw(st.integers(-50, 50)) for _ in range(2))
    return x, y, x + draw(st.integers(1, 40)), y + draw(st.integers(1, 40))


def assert_finite_without_area(loss, *more):
    """``loss(predicted, target)`` and its gradient are finite for boxes without area, and ``more`` of them."""
    points = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.2, 0.9], [0, 0, 1e-20, 1e-20], *more])
    for target in (points, points + 0.1, torch.tensor([[0.4, 0.4, 0.6, 0.6]]).expand(len(points), 4)):
        predicted = points.clone().requires_grad_()
        values = loss(predicted, target)
        values.sum().backward()
        assert values.isfinite().all()
        assert predicted.grad.isfinite().all()
