"""A figure of the loss of one training step: its distribution over logits, anchors, classes and pyramid levels."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..functional.loss_distribution import cumulative_shares
from .draw import NEGATIVE, POSITIVE
from .plot_style import MOST_CLASSES, Array, new_figure, percent_formatter, short_name, write_note

BEFORE, AFTER = "#0072B2", "#D55E00"


def loss_figure(
    step: int,
    loss: str,
    norm_counts: Array,
    before: Array,
    after: Array,
    losses: Array,
    entropies: Array,
    classes: Array,
    class_names: Sequence[str],
    levels: Array | None = None,
) -> Figure:
    """Plot the distribution of a classification loss in one training step.

    Args:
        step: Number of the step.
        loss: Name of the loss.
        norm_counts: Number of logits with target 1 and with target 0 by gradient norm [2, bins].
        before: Gradient of plain cross-entropy by gradient norm [bins].
        after: Gradient of the trained loss by gradient norm [bins].
        losses: Counts and sums of the anchors' losses, of positives and negatives, by value [2, 2, VALUE_BINS].
        entropies: The same for plain cross-entropy [2, 2, VALUE_BINS].
        classes: Loss of the positives of each class, and of background [K + 1].
        levels: Loss of the positives and the negatives of each pyramid level [L, 2]; None if the levels are unknown.
        class_names: The K names.
    """
    rows = min(len(classes), MOST_CLASSES + 2)
    figure = new_figure(15, 4.8 + max(3.2, 0.24 * rows + 1))
    figure.suptitle(f"Step {step}: {loss}")
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=[4.6, max(3.2, 0.24 * rows + 1)]))
    by_count, by_pull, by_rank = top.subplots(1, 3)
    by_class, by_level = bottom.subplots(1, 2, width_ratios=[2, 1])
    _norm_counts(by_count, norm_counts)
    _norm_pull(by_pull, before, after)
    _hardest(by_rank, losses, entropies)
    _class_shares(by_class, classes, class_names)
    _level_shares(by_level, levels)
    if by_level.patches:
        bottom.legend(*by_level.get_legend_handles_labels(), loc="outside lower right", ncols=2, frameon=False)
    return figure


def _norm_counts(axes: Axes, counts: Array) -> None:
    edges = np.linspace(0, 1, counts.shape[1] + 1)
    _log_scale(axes, 0.5, max(2.0, 3 * float(counts.max(initial=1))))
    positive, negative = (
        f"target {target}: {int(values.sum()):,}" for target, values in zip((1, 0), counts, strict=True)
    )
    axes.stairs(counts[1], edges, fill=True, color=NEGATIVE, label=negative)
    nonzero = np.where(counts[0] > 0, counts[0], np.nan)
    axes.stairs(nonzero, edges, color=POSITIVE, linewidth=2.5, baseline=None, label=positive)
    axes.set(title="Logits: one for each anchor and class", ylabel="number")
    _norm_axis(axes)


def _norm_pull(axes: Axes, before: Array, after: Array) -> None:
    edges = np.linspace(0, 1, len(before) + 1)
    _log_scale(axes, 1e-5, 1.5)
    lines = ((before, "plain cross-entropy", BEFORE, 4), (after, "this loss, weighted", AFTER, 2))
    for values, name, colour, width in lines:
        if values.sum() > 0:
            shares = np.where(values > 0, values / values.sum(), np.nan)
            axes.stairs(shares, edges, color=colour, linewidth=width, label=name, baseline=None)
    axes.yaxis.set_major_formatter(percent_formatter())
    axes.set(title="Share of the gradient", ylabel="of its magnitude, summed")
    _norm_axis(axes)


def _log_scale(axes: Axes, low: float, high: float) -> None:
    """Set a logarithmic scale; called before plotting, because matplotlib warns about data that is all 0."""
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.minorticks_off()


def _norm_axis(axes: Axes) -> None:
    axes.set(xlim=(0, 1), xlabel="gradient norm $|p - y|$ (right: wrong)")
    _legend_below(axes)


def _hardest(axes: Axes, losses: Array, entropies: Array) -> None:
    smallest = 0.1
    for spread, style, name in ((entropies, (0, (2, 1.5)), "cross-entropy"), (losses, "-", "this loss")):
        for group, colour, kind in ((0, POSITIVE, "positives"), (1, NEGATIVE, "negatives")):
            samples, carried = cumulative_shares(spread[:, group])
            if len(samples):
                smallest = min(smallest, samples[1])
                axes.plot(samples[1:], carried[1:], color=colour, linestyle=style, linewidth=2, label=f"{kind}, {name}")
    axes.set_xscale("log")
    axes.minorticks_off()  # minor ticks double the layout time without adding information
    axes.set(xlim=(smallest, 1), ylim=(0, 1.02), xlabel="hardest share of the anchors", ylabel="share of their loss")
    axes.set_title("Loss of the hardest anchors")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(percent_formatter())
    axes.grid(color="0.9")
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)


def _class_shares(axes: Axes, classes: Array, class_names: Sequence[str]) -> None:
    values, names = classes[:-1], [short_name(name) for name in class_names]
    order = np.argsort(-values, kind="stable")
    shown, rest = order[:MOST_CLASSES], order[MOST_CLASSES:]
    bars = [(names[k], float(values[k]), POSITIVE) for k in shown]
    if len(rest):
        bars.append((f"{len(rest)} other classes", float(values[rest].sum()), POSITIVE))
    bars.append(("background", float(classes[-1]), NEGATIVE))
    axes.set_title("Share of the loss: positives by their class, and background")
    _bars(axes, bars)


def _bars(axes: Axes, bars: Sequence[tuple[str, float, str]]) -> None:
    total = sum(value for _, value, _ in bars)
    if not total > 0:
        write_note(axes, "no loss")
        return
    shares = [value / total for _, value, _ in bars]
    drawn = axes.barh(range(len(bars)), shares, color=[colour for *_, colour in bars], height=0.75)
    axes.bar_label(drawn, labels=[f"{100 * share:.1f} %" for share in shares], padding=4, fontsize=9)
    axes.set_yticks(range(len(bars)), [name for name, *_ in bars])
    axes.set(ylim=(len(bars) - 0.4, -0.6), xlim=(0, 1.12 * max(shares)))
    axes.xaxis.set_major_formatter(percent_formatter())
    axes.spines[["top", "right"]].set_visible(False)


def _level_shares(axes: Axes, levels: Array | None) -> None:
    axes.set_title("Share of the loss by pyramid level")
    total = 0.0 if levels is None else float(levels.sum())
    if levels is None or not total > 0:
        write_note(axes, "no loss" if levels is not None else "levels are not known")
        return
    left = np.zeros(len(levels))
    for column, colour, name in ((0, POSITIVE, "positives"), (1, NEGATIVE, "negatives")):
        drawn = axes.barh(
            range(len(levels)), levels[:, column] / total, left=left, color=colour, label=name, height=0.6
        )
        left = left + levels[:, column] / total
    axes.bar_label(drawn, labels=[f"{100 * share:.1f} %" for share in left], padding=4, fontsize=9)
    names = [f"level {level}" for level in range(len(levels))]
    names[0] += "\n(finest)"
    axes.set_yticks(range(len(levels)), names)
    axes.set(ylim=(len(levels) - 0.4, -0.6), xlim=(0, 1.25 * float(left.max())))
    axes.xaxis.set_major_formatter(percent_formatter())
    axes.spines[["top", "right"]].set_visible(False)
