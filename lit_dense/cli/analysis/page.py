"""The page of an analysis."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from ...visualization.evaluation_figures import confusion_figure
from ...visualization.page import embedded_svg, template
from . import errors as sections
from .errors import Errors
from .pictures import Gallery


def render(
    errors: Errors, galleries: Mapping[str, Gallery], loss: Figure | None, loss_images: int, title: str, facts: Any
) -> str:
    """Return the page as HTML.

    Its size is bounded: tables and figures have a largest number of classes, and galleries a largest number of bytes.

    Args:
        errors: The errors.
        galleries: Pictures by heading.
        loss: Figure of the loss; None if there is none.
        loss_images: Number of images on which the loss was observed.
        title: The title.
        facts: Name and value of each fact about the analysis.
    """
    evaluation = errors.evaluation
    matrix = confusion_figure(evaluation.confusion, evaluation.class_names, evaluation.confusion_score)
    return template("lit_dense.cli.analysis", "analysis.html").render(
        title=title,
        summary=sections.summary(errors),
        costs_chart=sections.costs_chart({"": errors}, "costs"),
        costs=sections.costs_table(errors),
        meanings=sections.MEANINGS,
        sizes=sections.sizes_table(errors),
        classes=sections.classes_table(errors),
        confusions=sections.confusions_table({"": errors}),
        matrix=embedded_svg(matrix, "confusion", "Confusion matrix"),
        galleries=galleries,
        scores_charts=sections.scores_charts(errors, "all"),
        scores_note=sections.SCORES_NOTE,
        loss_chart=None if loss is None else embedded_svg(loss, "loss", "Distribution of the loss over samples"),
        loss_images=loss_images,
        score=errors.score,
        facts=facts,
    )
