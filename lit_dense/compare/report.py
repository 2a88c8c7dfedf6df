"""The report of a comparison: a self-contained HTML page, and the same tables as Markdown."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from ..visualization import figures as run_figures
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
DRAWN_HERE = ("precision_recall", "confusion")
"""Plots of callbacks that the report draws itself."""


@dataclass(frozen=True)
class Panel:
    """A plot of one run.

    Args:
        run: Name of the run.
        content: The HTML element of the plot.
    """

    run: str
    content: Markup


def write(comparison: Comparison) -> list[Path]:
    """Write the report into the folder of the comparison.

    Returns:
        The written files.
    """
    context = _context(comparison)
    paths = [comparison.folder / HTML, comparison.folder / TEXT]
    for path in paths:
        write_text(path, _template(path.name).render(context))
    return paths


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lit_dense.compare", ""),
        autoescape=name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _markdown_cell
    return environment.get_template(f"{name}.jinja")


def _markdown_cell(text: str) -> str:
    """Escape text for a Markdown table, so that it contains neither cell borders nor HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


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
    return {
        "difference_chart": _svg(figures.differences_figure(known, comparison.baseline)) if known else None,
        "curves_chart": _svg(figures.curves_figure(curves, "AP of the validation set")),
        "costs_chart": _svg(costs),
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
    precision = {
        name: run_figures.precision_recall_figure(t.precision_50, t.ap_50, t.class_names) for name, t in tables.items()
    }
    confusion = {
        name: run_figures.confusion_figure(t.confusion, t.class_names, t.confusion_score) for name, t in tables.items()
    }
    return {
        "seed_shown": f"seed {common[0]}" if common else "the first seed of each run",
        "precision": _panels(precision, 0.75),
        "confusion": _panels(confusion, 0.8),
        "plots": _saved_plots(chosen),
    }


def _panels(figures_of_runs: Mapping[str, Figure], scale: float) -> list[Panel]:
    """Reduce the size of figures, so that their text is larger relative to the plot when they are side by side."""
    for figure in figures_of_runs.values():
        figure.set_size_inches(*(scale * side for side in figure.get_size_inches()))
    return [Panel(name, _svg(figure)) for name, figure in figures_of_runs.items()]


def _saved_plots(chosen: Mapping[str, Result]) -> list[tuple[str, list[Panel]]]:
    """Return the plots that callbacks saved, grouped by kind."""
    panels: dict[str, list[Panel]] = {}
    for name, result in chosen.items():
        for kind, path in result.plots().items():
            if kind in DRAWN_HERE:
                continue
            heading = HEADINGS.get(kind, kind.replace("_", " ").capitalize())
            panels.setdefault(heading, []).append(Panel(name, _image(path, f"{heading}: {name}")))
    return sorted(panels.items(), key=lambda item: [*HEADINGS.values(), item[0]].index(item[0]))


def _image(path: Path, description: str) -> Markup:
    """Embed an image file in the page, as WebP: a tenth of a photograph's size as PNG."""
    file = io.BytesIO()
    Image.open(path).save(file, format="WEBP", quality=90)
    data = base64.b64encode(file.getvalue()).decode()
    return Markup('<img loading="lazy" src="data:image/webp;base64,{}" alt="{}">').format(data, description)


def _svg(figure: Figure) -> Markup:
    """Embed a figure in the page; matplotlib escapes its text."""
    return Markup(run_figures.to_svg(figure))
