"""The report of a comparison: a self-contained HTML page, and the same tables as Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from ..cli.analysis import errors as error_sections
from ..visualization import figures as run_figures
from ..visualization.figures import to_svg
from ..visualization.page import Panel, embedded_image, embedded_svg, embedded_svg_text, template, to_webp
from . import figures, sections
from .files import write_text
from .results import Comparison, Result

HTML, TEXT = "report.html", "report.md"
HEADINGS = {
    "detections": "Detections",
    "loss": "Loss of easy and hard samples",
    "weights": "Weights of samples",
}
"""Headings of the plots that callbacks save, by file or folder; other plots get the name of their file or folder."""
DESCRIPTIONS = {
    "curves": "AP of the validation set by training step. Line: mean over the seeds. Band: smallest and largest seed.",
    "differences": "AP of each run minus AP of the baseline. Diamond: mean over the seeds. Circles: each seed. "
    "Band: 95 % interval over the validation images. Grey, with a hollow diamond: within the noise.",
}
"""What the figures show."""
DRAWN_HERE = ("precision_recall", "confusion")
"""Plots of callbacks that the report draws itself."""


def write(comparison: Comparison) -> list[Path]:
    """Write the report into the folder of the comparison.

    Returns:
        The written files.
    """
    context = _context(comparison)
    paths = [comparison.folder / HTML, comparison.folder / TEXT]
    for path in paths:
        write_text(path, template("lit_dense.compare", path.name).render(context))
    for name in DESCRIPTIONS:  # the text shows them
        path = comparison.folder / f"{name}.svg"
        path.unlink(missing_ok=True)
        if name in context["figures"]:
            write_text(path, context["figures"][name])
    return paths


def _context(comparison: Comparison) -> dict[str, Any]:
    """Return the variables of the templates."""
    runs = [result for seeds in comparison.results.values() for result in seeds.values()]
    context: dict[str, Any] = {
        "title": sections.title(comparison),
        "summary": sections.summary(comparison),
        "unfinished": sections.unfinished_table(comparison),
        "failed": [r for r in runs if r.state == "failed"],
        "runs": runs,
        "notes": comparison.notes,
        "working_folder": ", ".join(dict.fromkeys(r.run.working_folder for r in runs if r.run.working_folder)),
        "has_joined": not all(r.run.working_folder for r in runs),
        "baseline": comparison.baseline,
        "has_results": bool(comparison.shown),
        "figures": {},
    }
    if comparison.shown:
        context |= {
            "main": sections.main_table(comparison),
            "groups": sections.groups_table(comparison),
            "classes": sections.classes_table(comparison, "map"),
            "classes_50": sections.classes_table(comparison, "map_50"),
            "costs": sections.costs_table(comparison),
            "machine": sections.machine_table(comparison),
            **_charts(comparison),
            **_side_by_side(comparison),
        }
    return context


def _charts(comparison: Comparison) -> dict[str, Any]:
    compared = {name: comparison.difference(name) for name in sections.others(comparison)}
    known = {name: difference for name, difference in compared.items() if difference}
    finished = {name: [r.found for r in comparison.finished(name).values()] for name in comparison.shown}
    curves = {
        name: [[(point["step"], point["map"]) for point in one["curve"]] for one in found]
        for name, found in finished.items()
    }
    on_gpu = any(one["cuda_bytes"] for found in finished.values() for one in found)
    key = "cuda_bytes" if on_gpu else "memory_bytes"
    times, memory = (
        {name: _mean([one[k] for one in found]) for name, found in finished.items()} for k in ("step_seconds", key)
    )
    costs = figures.costs_figure(times, memory, "GPU memory" if on_gpu else "main memory")
    drawn = {"curves": to_svg(figures.curves_figure(curves, "AP of the validation set"))}
    if known:
        drawn["differences"] = to_svg(figures.differences_figure(known, comparison.baseline))
    return {
        "figures": drawn,
        "descriptions": DESCRIPTIONS,
        "charts": {name: embedded_svg_text(svg, name, DESCRIPTIONS[name]) for name, svg in drawn.items()},
        "costs_chart": embedded_svg(costs, "costs", "Time and memory of each run"),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _side_by_side(comparison: Comparison) -> dict[str, Any]:
    """Return the plots of one seed of each run: the first seed that all runs have, else the first of each run."""
    seeds = [set(comparison.finished(name)) for name in comparison.shown]
    common = sorted(set.intersection(*seeds))
    chosen: dict[str, Result] = {}
    for name in comparison.shown:
        finished = comparison.finished(name)
        chosen[name] = finished[common[0]] if common else next(iter(finished.values()))
    tables = {name: result.tables for name, result in chosen.items()}
    errors = {
        name: error_sections.find_errors(result.rows(), result.tables, comparison.protocol, result.max_detections)
        for name, result in chosen.items()
    }
    scores = {name: error_sections.scores_charts(one, f"errors-{n}") for n, (name, one) in enumerate(errors.items())}
    precision = {
        name: run_figures.precision_recall_figure(t.precision_50, t.ap_50, t.class_names) for name, t in tables.items()
    }
    confusion = {
        name: run_figures.confusion_figure(t.confusion, t.class_names, t.confusion_score) for name, t in tables.items()
    }
    return {
        "seed_shown": f"seed {common[0]}" if common else "the first seed of each run",
        "precision": _panels(precision, 0.75, "Precision and recall"),
        "confusion": _panels(confusion, 0.8, "Confusion of classes"),
        "plots": _saved_plots(chosen),
        "errors_chart": error_sections.costs_chart(errors, "errors"),
        "errors": error_sections.runs_table(errors),
        "errors_of_classes": error_sections.largest_table(errors),
        "confusions": error_sections.confusions_table(errors),
        "meanings": error_sections.MEANINGS,
        "scores": [Panel(name, Markup("").join(charts)) for name, charts in scores.items()],
        "scores_note": error_sections.SCORES_NOTE,
    }


def _panels(figures_of_runs: Mapping[str, Figure], scale: float, title: str) -> list[Panel]:
    """Reduce the size of figures, so that their text is larger relative to the plot when they are side by side."""
    panels = []
    for number, (name, figure) in enumerate(figures_of_runs.items()):
        figure.set_size_inches(*(scale * side for side in figure.get_size_inches()))
        prefix = f"{title.partition(' ')[0].lower()}-{number}"
        panels.append(Panel(name, embedded_svg(figure, prefix, f"{title}: {name}")))
    return panels


def _saved_plots(chosen: Mapping[str, Result]) -> list[tuple[str, list[Panel]]]:
    """Return the plots that callbacks saved, grouped by kind."""
    panels: dict[str, list[Panel]] = {}
    for name, result in chosen.items():
        for kind, path in result.plots().items():
            if kind in DRAWN_HERE:
                continue
            heading = HEADINGS.get(kind, kind.replace("_", " ").capitalize())
            shown = embedded_image(to_webp(Image.open(path)), f"{heading}: {name}")
            panels.setdefault(heading, []).append(Panel(name, shown))
    return sorted(panels.items(), key=lambda item: [*HEADINGS.values(), item[0]].index(item[0]))
