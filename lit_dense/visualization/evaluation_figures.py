"""Figures of an evaluation: precision-recall curves and the confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .plot_style import LINES, MOST_CLASSES, Array, new_figure, percent_formatter, short_name, write_note

MOST_CURVES = 12


def precision_recall_figure(precision: Array, ap: Array, class_names: Sequence[str]) -> Figure:
    """Plot precision over recall of at most twelve classes, and the mean over all classes.

    If there are more classes with ground truth, the six with the highest and the six with the lowest AP are shown.

    Args:
        precision: Precision of each class at equal steps of recall from 0 to 1, -1 without ground truth [K, R].
        ap: AP of each class at the same IoU; selects and sorts the classes [K].
        class_names: The K names.
    """
    figure = new_figure(10, 6)
    axes = figure.add_subplot()
    recalls = np.linspace(0, 1, precision.shape[1])
    known = np.flatnonzero((precision >= 0).all(1))
    known = known[np.argsort(-ap[known], kind="stable")]
    half = MOST_CURVES // 2
    shown = known if len(known) <= MOST_CURVES else np.concatenate([known[:half], known[-half:]])
    for number, k in enumerate(shown):
        axes.plot(
            recalls,
            precision[k],
            color=LINES[number % len(LINES)],
            linestyle="-" if number < len(LINES) else (0, (4, 2)),
            linewidth=1.5,
            label=f"{short_name(class_names[k])}  {ap[k]:.2f}",
        )
    if len(known) > 1:
        mean = precision[known].mean(0)
        label = f"mean of {len(known)}  {ap[known].mean():.2f}"
        axes.plot(recalls, mean, color="black", linewidth=3, label=label, zorder=3)
    if len(known):
        left_out = len(known) - len(shown)
        title = "class and AP$_{50}$" + (f": the {half} best\nand the {half} worst" if left_out else "")
        figure.legend(loc="outside right upper", title=title, frameon=False, alignment="left")
    else:
        write_note(axes, "no ground truth")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title="Precision and recall, IoU 0.5")
    axes.grid(color="0.9")
    return figure


def confusion_figure(confusion: Array, class_names: Sequence[str], score: float, note: str = "") -> Figure:
    """Plot the confusion matrix: counts, coloured by their share of the row.

    If there are more than twenty classes, the twenty that are most often confused with others are shown. An additional
    column then counts detections of the other classes.

    Args:
        confusion: Ground truth in rows, detections in columns, background last [K + 1, K + 1].
        class_names: The K names.
        score: Smallest score of counted detections.
        note: A line below the title.
    """
    shown, counts, columns = _confused(confusion, class_names)
    rows = [short_name(class_names[k]) for k in shown] + ["background"]
    side = max(5.5, 0.38 * len(columns) + 3)
    figure = new_figure(side + 1.2, side)
    axes = figure.add_subplot()
    total = counts.sum(1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    size = 8 if len(rows) > 10 else 10
    image = axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="0.85", linewidth=0.4)
    axes.invert_yaxis()
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            place: dict[str, Any] = {"ha": "center", "va": "center", "in_layout": False}
            axes.text(column + 0.5, row + 0.5, _count(int(count)), color=colour, fontsize=size, **place)
    turned = len(columns) > 5 or max(map(len, columns)) > 10
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=90 if turned else 0)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.axhline(len(rows) - 1, color="black", linewidth=1)
    axes.axvline(len(columns) - 1, color="black", linewidth=1)
    title = f"Confusion, IoU 0.5, score from {score:g}"
    if len(shown) < len(class_names):
        title += f"\nthe {len(shown)} of {len(class_names)} classes most often confused"
    if note:
        title += f"\n{note}"
    axes.set(xlabel="detected as (background: missed)", ylabel="object (background: false detections)", title=title)
    bar = figure.colorbar(image, ax=axes, label="share of the row", fraction=0.05)
    bar.ax.yaxis.set_major_formatter(percent_formatter())
    return figure


def _confused(confusion: Array, class_names: Sequence[str]) -> tuple[Array, Array, list[str]]:
    """Return the classes to show, their matrix and the names of its columns."""
    number = len(class_names)
    names = [short_name(name) for name in class_names]
    if number <= MOST_CLASSES:
        return np.arange(number), confusion, [*names, "background"]
    others = confusion[:-1, :-1] * ~np.eye(number, dtype=bool)
    worst = np.argsort(-(others.sum(0) + others.sum(1)), kind="stable")[:MOST_CLASSES]
    shown = np.sort(worst)
    rows = confusion[np.append(shown, number)]
    rest = rows[:, :-1].sum(1) - rows[:, shown].sum(1)
    counts = np.column_stack([rows[:, shown], rest, rows[:, -1]])
    return shown, counts, [*(names[k] for k in shown), "other classes", "background"]


def _count(count: int) -> str:
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if count >= 10 * unit:
            return f"{count // unit}{name}"
    return str(count)
