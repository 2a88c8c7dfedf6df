"""Figures of a comparison. Imports matplotlib, so other modules import it only when they draw."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..visualization.plot_style import LINES, short_name
from .statistics import Difference

REAL, NOISE = "#0072B2", "#888888"
MARKERS = "osD^vPXp"
"""Markers tell curves apart where colours are not seen."""
WIDTH = 5.6


def curves_figure(curves: Mapping[str, Sequence[Sequence[tuple[int, float]]]], label: str) -> Figure:
    """Plot a metric over the training steps: a line for the mean over seeds, a band from smallest to largest.

    Args:
        curves: The curves of each run, one for each seed, as pairs of step and value.
        label: Name of the metric.
    """
    figure = _figure(4.2 + 0.24 * -(-len(curves) // 2))
    axes = figure.add_subplot()
    for number, (name, seeds) in enumerate(curves.items()):
        by_step: dict[int, list[float]] = {}
        for curve in seeds:
            for step, value in curve:
                by_step.setdefault(int(step), []).append(max(value, 0.0))
        steps = sorted(step for step, values in by_step.items() if len(values) == len(seeds))
        values = [by_step[step] for step in steps]
        colour, style = LINES[number % len(LINES)], "-" if number < len(LINES) else (0, (4, 2))
        mean = [float(np.mean(v)) for v in values]
        marker = MARKERS[number % len(MARKERS)]
        axes.plot(
            steps, mean, color=colour, linestyle=style, marker=marker, markersize=6, linewidth=2, label=short_name(name)
        )
        axes.fill_between(steps, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.15, lw=0)
    axes.set(xlabel="training step", ylabel=label, xlim=(0, None), ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(color="0.9")
    _bare(axes)
    figure.legend(handlelength=4, loc="outside lower center", ncols=2, frameon=False)
    return figure


def differences_figure(differences: Mapping[str, Difference], baseline: str) -> Figure:
    """Plot each run's AP minus the baseline's: a line for the interval over images, a circle for each seed.

    Args:
        differences: The difference of each run, from top to bottom.
        baseline: Name of the baseline.
    """
    figure = _figure(1.5 + 0.42 * len(differences))
    axes = figure.add_subplot()
    axes.axvline(0, color="black", linewidth=1)
    for row, difference in enumerate(differences.values()):
        is_real = difference.verdict in ("better", "worse", "one seed")
        colour = REAL if is_real else NOISE
        if not np.isnan(difference.low):
            axes.plot(
                [difference.low, difference.high],
                [row, row],
                color=colour,
                linewidth=5,
                alpha=0.35,
                solid_capstyle="butt",
            )
        axes.plot(difference.per_seed, [row] * len(difference.per_seed), "o", color=colour, mfc="white", markersize=5)
        axes.plot(difference.mean, row, "D", color=colour, mfc=colour if is_real else "white", markersize=7, zorder=3)
    axes.set_yticks(range(len(differences)), list(differences))
    reach = 1.08 * max([abs(x) for x in axes.get_xlim()] + [1e-3])
    axes.set(ylim=(len(differences) - 0.4, -0.6), xlim=(-reach, reach), xlabel=f"AP minus AP of {baseline}")
    axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    _bare(axes)
    return figure


def costs_figure(times: Mapping[str, float | None], memory: Mapping[str, float | None], kind: str) -> Figure:
    """Plot the time of a training step and the peak memory of each run as bars.

    Args:
        times: Seconds by run.
        memory: Bytes by run.
        kind: Kind of memory, for the label.
    """
    figure = _figure(1.3 + 0.36 * len(times))
    left, right = figure.subplots(1, 2, sharey=True)
    _bars(left, [1000 * (value or 0) for value in times.values()], "milliseconds per step", "{:.0f}")
    _bars(right, [(value or 0) / 2**30 for value in memory.values()], f"GiB of {kind}", "{:.2f}")
    left.set_yticks(range(len(times)), list(times))
    left.set_ylim(len(times) - 0.4, -0.6)
    right.tick_params(left=False)
    return figure


def _bars(axes: Axes, values: Sequence[float], label: str, form: str) -> None:
    drawn = axes.barh(range(len(values)), values, color=LINES[0], height=0.62)
    axes.bar_label(drawn, labels=[form.format(value) for value in values], padding=4, fontsize=10)
    axes.set(xlabel=label, xlim=(0, 1.22 * max([*values, 1e-6])))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained")
