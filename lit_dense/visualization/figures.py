"""Charts of an evaluation and of a loss: arrays in, a figure out. Imports matplotlib, so it is itself imported late."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter
from PIL import Image

from ..functional.loss_distribution import cumulative_shares
from .draw import NEGATIVE, POSITIVE

Array = npt.NDArray[Any]

# Okabe and Ito's colours that are seen on white; twelve curves are these six, full and then broken
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BEFORE, AFTER = "#0072B2", "#D55E00"
DPI = 100
NAME_LENGTH = 24
MOST_CURVES, MOST_CLASSES = 12, 20


def to_picture(figure: Figure) -> Image.Image:
    """A figure as pixels."""
    canvas = FigureCanvasAgg(figure)
    with _quiet():
        canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return Image.fromarray(pixels).convert("RGB")


def to_svg(figure: Figure) -> str:
    """A figure as one ``<svg>`` element, which can stand inside a page; equal figures give equal text."""
    file = io.StringIO()
    with _quiet(), rc_context({"svg.hashsalt": "lit_dense"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def precision_recall_figure(precision: Array, ap: Array, class_names: Sequence[str]) -> Figure:
    """Precision over recall of at most twelve classes, half of most and half of least AP, and the mean of all.

    Args:
        precision: Precision of each class at equal steps of recall from 0 to 1, -1 where there is no ground truth
            [K, R].
        ap: AP of each class at the same IoU, by which classes are chosen and sorted [K].
        class_names: The K names.
    """
    figure = _figure(10, 6)
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
            label=f"{_short(class_names[k])}  {ap[k]:.2f}",
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
        _say(axes, "no ground truth")
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title="Precision and recall, IoU 0.5")
    axes.grid(color="0.9")
    return figure


def confusion_figure(confusion: Array, class_names: Sequence[str], score: float, note: str = "") -> Figure:
    """Which classes objects were detected as: counts, in the colour of their share of the row.

    Of more than twenty classes the twenty are shown that were confused most often with other classes; a column then
    counts the detections as classes that are not shown.

    Args:
        confusion: Ground truth in rows, detections in columns, the last of each background [K + 1, K + 1].
        class_names: The K names.
        score: Smallest score of a detection that was counted.
        note: A line below the title.
    """
    shown, counts, columns = _confused(confusion, class_names)
    rows = [_short(class_names[k]) for k in shown] + ["background"]
    side = max(5.5, 0.38 * len(columns) + 3)
    figure = _figure(side + 1.2, side)
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
    bar.ax.yaxis.set_major_formatter(_percent())
    return figure


def _confused(confusion: Array, class_names: Sequence[str]) -> tuple[Array, Array, list[str]]:
    """The classes shown, their matrix and the names of its columns."""
    number = len(class_names)
    names = [_short(name) for name in class_names]
    if number <= MOST_CLASSES:
        return np.arange(number), confusion, [*names, "background"]
    others = confusion[:-1, :-1] * ~np.eye(number, dtype=bool)
    worst = np.argsort(-(others.sum(0) + others.sum(1)), kind="stable")[:MOST_CLASSES]
    shown = np.sort(worst)
    rows = confusion[np.append(shown, number)]
    rest = rows[:, :-1].sum(1) - rows[:, shown].sum(1)
    counts = np.column_stack([rows[:, shown], rest, rows[:, -1]])
    return shown, counts, [*(names[k] for k in shown), "other classes", "background"]


def loss_figure(
    step: int,
    loss: str,
    norm_counts: Array,
    before: Array,
    after: Array,
    losses: Array,
    entropies: Array,
    classes: Array,
    levels: Array | None,
    class_names: Sequence[str],
) -> Figure:
    """What a classification loss makes of a training step.

    Args:
        step: The step.
        loss: The loss's name.
        norm_counts: Logits with target 1 and with target 0 by gradient norm [2, bins].
        before: Gradient of plain cross-entropy by gradient norm [bins].
        after: Gradient of the loss as it is trained on [bins].
        losses: Counts and sums of the anchors' losses, of positives and negatives, by value [2, 2, VALUE_BINS].
        entropies: The same of their plain cross-entropy [2, 2, VALUE_BINS].
        classes: Loss of the positives of each class, and of background [K + 1].
        levels: Loss of the positives and the negatives of each pyramid level; None where levels are not known [L, 2].
        class_names: The K names.
    """
    rows = min(len(classes), MOST_CLASSES + 2)
    figure = _figure(15, 4.8 + max(3.2, 0.24 * rows + 1))
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
    yes, no = (f"target {target}: {int(values.sum()):,}" for target, values in zip((1, 0), counts, strict=True))
    axes.stairs(counts[1], edges, fill=True, color=NEGATIVE, label=no)
    found = np.where(counts[0] > 0, counts[0], np.nan)
    axes.stairs(found, edges, color=POSITIVE, linewidth=2.5, baseline=None, label=yes)
    axes.set(title="SigmoidTerms: an anchor and a class each", ylabel="number")
    _norm_axis(axes)


def _norm_pull(axes: Axes, before: Array, after: Array) -> None:
    edges = np.linspace(0, 1, len(before) + 1)
    _log_scale(axes, 1e-5, 1.5)
    lines = ((before, "plain cross-entropy", BEFORE, 4), (after, "this loss, weighted", AFTER, 2))
    for values, name, colour, width in lines:
        if values.sum() > 0:
            shares = np.where(values > 0, values / values.sum(), np.nan)
            axes.stairs(shares, edges, color=colour, linewidth=width, label=name, baseline=None)
    axes.yaxis.set_major_formatter(_percent())
    axes.set(title="Share of the gradient", ylabel="of its magnitude, summed")
    _norm_axis(axes)


def _log_scale(axes: Axes, low: float, high: float) -> None:
    """Before there are data: matplotlib complains of those that are all 0."""
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
    axes.minorticks_off()  # they take as long to lay out as the others and say nothing
    axes.set(xlim=(smallest, 1), ylim=(0, 1.02), xlabel="hardest share of the anchors", ylabel="share of their loss")
    axes.set_title("Loss that the hardest carry")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(_percent())
    axes.grid(color="0.9")
    _legend_below(axes)


def _legend_below(axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)


def _class_shares(axes: Axes, classes: Array, class_names: Sequence[str]) -> None:
    values, names = classes[:-1], [_short(name) for name in class_names]
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
        _say(axes, "no loss")
        return
    shares = [value / total for _, value, _ in bars]
    drawn = axes.barh(range(len(bars)), shares, color=[colour for *_, colour in bars], height=0.75)
    axes.bar_label(drawn, labels=[f"{100 * share:.1f} %" for share in shares], padding=4, fontsize=9)
    axes.set_yticks(range(len(bars)), [name for name, *_ in bars])
    axes.set(ylim=(len(bars) - 0.4, -0.6), xlim=(0, 1.12 * max(shares)))
    axes.xaxis.set_major_formatter(_percent())
    axes.spines[["top", "right"]].set_visible(False)


def _level_shares(axes: Axes, levels: Array | None) -> None:
    axes.set_title("Share of the loss by pyramid level")
    total = 0.0 if levels is None else float(levels.sum())
    if levels is None or not total > 0:
        _say(axes, "no loss" if levels is not None else "levels are not known")
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
    axes.xaxis.set_major_formatter(_percent())
    axes.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1))


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.4", fontsize=14)
    axes.set(xticks=[], yticks=[])


def _percent() -> FuncFormatter:
    return FuncFormatter(lambda share, _: f"{100 * share:g} %")


def _short(name: str) -> str:
    """A class name that fits beside others, and that matplotlib takes for no formula."""
    if len(name) > NAME_LENGTH:
        name = name[: NAME_LENGTH - 9] + "…" + name[-8:]
    return name.replace("$", r"\$")


def _count(count: int) -> str:
    for unit, name in ((1_000_000, "M"), (1_000, "k")):
        if count >= 10 * unit:
            return f"{count // unit}{name}"
    return str(count)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warning for each letter that the font lacks: the picture shows a box there."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
