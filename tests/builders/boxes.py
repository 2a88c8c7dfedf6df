"""Boxes for property-based tests."""

from hypothesis import strategies as st


@st.composite
def boxes(draw):
    x, y = (draw(st.integers(-50, 50)) for _ in range(2))
    return x, y, x + draw(st.integers(1, 40)), y + draw(st.integers(1, 40))
