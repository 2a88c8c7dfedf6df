"""The face of the figures: their names, and conversion of a figure to an image or SVG.

This module imports matplotlib, so other modules import it only when they draw.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from .evaluation_figures import confusion_figure as confusion_figure
from .evaluation_figures import precision_recall_figure as precision_recall_figure
from .loss_figures import loss_figure as loss_figure


def to_picture(figure: Figure) -> Image.Image:
    """Render a figure as an RGB image."""
    canvas = FigureCanvasAgg(figure)
    with _quiet():
        canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return Image.fromarray(pixels).convert("RGB")


def to_svg(figure: Figure) -> str:
    """Render a figure as one ``<svg>`` element for an HTML page; equal figures give equal text."""
    file = io.StringIO()
    with _quiet(), rc_context({"svg.hashsalt": "lit_dense"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence matplotlib's warnings about characters that the font lacks; a box is drawn in their place."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
