"""Shared style of the figures: colours, sizes, axis formats and class names."""

from typing import Any

import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

Array = npt.NDArray[Any]

# The colours of Okabe and Ito that are visible on white. Twelve curves use these six colours, first solid, then dashed.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DPI = 100
NAME_LENGTH = 24
MOST_CLASSES = 20


def new_figure(width: float, height: float) -> Figure:
    """Create a figure with a constrained layout; width and height are in inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1))


def write_note(axes: Axes, text: str) -> None:
    """Write a note into empty axes, without ticks."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.4", fontsize=14)
    axes.set(xticks=[], yticks=[])


def percent_formatter() -> FuncFormatter:
    """Return a tick formatter that shows shares as percentages."""
    return FuncFormatter(lambda share, _: f"{100 * share:g} %")


def short_name(name: str) -> str:
    """Shorten a name, escape the dollar signs that mark formulas in matplotlib, and keep ``_x`` in its legends."""
    if len(name) > NAME_LENGTH:
        name = name[: NAME_LENGTH - 9] + "…" + name[-8:]
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name  # matplotlib leaves labels out that begin with it
