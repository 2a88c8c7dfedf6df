"""Figures of detection errors: the AP that each type costs, scores of right and wrong detections, reliability."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .plot_style import LINES, Array, new_figure, short_name, write_note

RIGHT, WRONG = LINES[0], LINES[1]
WIDTH = 5.6  # inches: text keeps a readable size on a phone
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---")


def costs_figure(costs: Mapping[str, Mapping[str, float]]) -> Figure:
    """Plot the AP that each type of error costs as horizontal bars, a bar for each run.

    Args:
        costs: The costs of each run by type of error; equal types for every run.
    """
    runs, kinds = list(costs), list(next(iter(costs.values())))
    height = 0.8 / len(runs)
    legend = 0.25 * len(runs) if len(runs) > 1 else 0
    figure = new_figure(WIDTH, 0.9 + len(kinds) * (0.2 + 0.14 * len(runs)) + legend)
    axes = figure.add_subplot()
    for number, (run, of_kind) in enumerate(costs.items()):
        places = np.arange(len(kinds)) + (number - (len(runs) - 1) / 2) * height
        values = [of_kind[kind] for kind in kinds]
        bars = axes.barh(places, values, height=0.9 * height, label=short_name(run), linewidth=0)
        for bar in bars:
            bar.set(facecolor=LINES[number % len(LINES)], edgecolor="white", hatch=HATCHES[number % len(HATCHES)])
        axes.bar_label(
            bars, labels=[f"{value:.3f}" for value in values], padding=4, fontsize=9 if len(runs) == 1 else 8
        )
    axes.set_yticks(range(len(kinds)), kinds)
    largest = max(value for of_kind in costs.values() for value in of_kind.values())
    axes.set(ylim=(len(kinds) - 0.4, -0.6), xlim=(0, 1.15 * max(largest, 1e-3)), xlabel="AP50 gained by fixing it")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.spines[["top", "right"]].set_visible(False)
    if len(runs) > 1:
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def scores_figure(true: Array, false: Array) -> Figure:
    """Plot the scores of right and wrong detections as histograms.

    Args:
        true: Number of true positives in equal bins of the score [N].
        false: Number of false positives [N].
    """
    figure = new_figure(WIDTH, 4)
    axes = figure.add_subplot()
    edges = np.linspace(0, 1, len(true) + 1)
    axes.set_yscale("log")  # before plotting: matplotlib warns about data that is all 0
    axes.set_ylim(0.5, 3 * max(int(true.max(initial=1)), int(false.max(initial=1)), 1))
    axes.minorticks_off()
    axes.stairs(false, edges, fill=True, color=WRONG, alpha=0.45, label=f"wrong: {int(false.sum()):,}")
    nonzero = np.where(true > 0, true, np.nan)
    axes.stairs(nonzero, edges, color=RIGHT, linewidth=2.5, baseline=None, label=f"right: {int(true.sum()):,}")
    axes.set(xlim=(0, 1), xlabel="score", ylabel="detections")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    return figure


def reliability_figure(counts: Array, scores: Array, precision: Array, error: float) -> Figure:
    """Plot the precision of detections by their score.

    Args:
        counts: Number of detections in bins of the score [B].
        scores: Mean score of each bin [B].
        precision: Share of true positives of each bin [B].
        error: Expected calibration error; -1 without detections.
    """
    figure = new_figure(WIDTH, 4)
    axes = figure.add_subplot()
    known = counts > 0
    if not known.any():
        write_note(axes, "no detections")
        return figure
    axes.plot([0, 1], [0, 1], color="0.4", linestyle=(0, (4, 3)), label="score = precision")
    axes.plot(scores[known], precision[known], color=RIGHT, marker="o", linewidth=2, label=f"ECE {error:.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="mean score of the bin", ylabel="share of right detections")
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    return figure


def bins_of(scores: Array, masks: Sequence[Array], number: int = 25) -> list[Array]:
    """Count scores in equal bins from 0 to 1.

    Args:
        scores: The scores [D].
        masks: Masks of the scores to count, a histogram for each [D].
        number: Number of bins.
    """
    index = np.minimum((scores * number).astype(np.int64), number - 1)
    return [np.bincount(index[mask], minlength=number) for mask in masks]
