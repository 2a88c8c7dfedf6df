"""The errors of an evaluation, and the tables and figures about them, for one run or several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from markupsafe import Markup

from ...core.object_sizes import OBJECT_SIZES
from ...metrics.arguments import MAX_DETECTIONS
from ...metrics.backends import Protocol
from ...metrics.calibration import reliability
from ...metrics.detection_table import DETECTION, OBJECT, Array, DetectionTable
from ...metrics.evaluation import Evaluation
from ...metrics.tide import CORRECT, ERRORS, SPECIAL, UNCOUNTED, TideErrors, tide
from ...metrics.worst_errors import object_scores, rivals, size_index
from ...visualization.error_figures import HATCHES, bins_of, costs_figure, reliability_figure, scores_figure
from ...visualization.page import Table, embedded_svg

MOST_CLASSES, MOST_CONFUSIONS, NAME_LENGTH = 40, 20, 48
"""Largest number of rows of a table of classes and of one of confusions, and largest length of a name in a table."""
NOTICEABLE = 0.005  # smallest cost that the summary names
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
MEANINGS = {
    "classification": "right place, wrong class: IoU of 0.5 or more with an object of another class",
    "localisation": "right class, wrong place: IoU of 0.1 to 0.5 with an object of the class",
    "both": "wrong class and wrong place: IoU of 0.1 to 0.5 with an object of another class",
    "duplicate": "a better detection has found the object",
    "background": "no object is there: IoU below 0.1 with every object",
    "missed": "an object without a detection, right or wrong",
    "false positives": "all wrong detections",
    "false negatives": "all objects that are not found",
}
NOTE = (
    "AP50 gained by fixing it: how much AP50 would rise if all errors of this type were corrected and the others "
    "stayed (TIDE). The gains do not add up to the lost AP50, because one error hides another."
)
SCORES_NOTE = (
    "Histogram: all detections that are evaluated, on a logarithmic scale. Curve: the share of right detections, at "
    "IoU 0.5, in ten bins of the score. Below the diagonal scores are too high, above it too low. ECE: the mean "
    "distance to the diagonal, weighted by the detections."
)


@dataclass(frozen=True)
class Errors:
    """The errors of an evaluation with K classes.

    Args:
        rows: Detections and ground truth.
        tide: Their types.
        evaluation: The evaluation, of which the numbers, the class names and the confusions are used.
    """

    rows: DetectionTable
    tide: TideErrors
    evaluation: Evaluation

    @property
    def score(self) -> float:
        """Smallest score of the detections in tables that count errors."""
        return self.evaluation.confusion_score


def find_errors(
    rows: DetectionTable, evaluation: Evaluation, protocol: Protocol = "coco", max_detections: int | None = None
) -> Errors:
    """Find the errors of an evaluation.

    Args:
        rows: Its detections and ground truth.
        evaluation: The evaluation.
        protocol: The rules of the evaluation.
        max_detections: Its limit of detections; by default that of the protocol.
    """
    limit = max_detections or MAX_DETECTIONS[protocol]
    return Errors(rows, tide(rows, len(evaluation.class_names), protocol, limit), evaluation)


def summary(errors: Errors) -> str:
    """Return one sentence about the results, and one about the most expensive errors."""
    numbers, costs = errors.evaluation.numbers, errors.tide.costs
    objects = int(errors.tide.num_objects.sum())
    text = (
        f"AP {numbers['map']:.3f} and AP50 {numbers['map_50']:.3f} on {len(errors.rows.image_ids):,} images with "
        f"{objects:,} objects."
    )
    if not objects:
        return f"The {len(errors.rows.image_ids):,} images have no objects: there is no AP."
    ranked = sorted(ERRORS, key=lambda name: -costs[name])
    said = [f"{'missed objects' if n == 'missed' else f'{n} errors'} ({costs[n]:.3f})" for n in ranked[:2]]
    if costs[ranked[0]] < NOTICEABLE:
        perfect = errors.tide.mean_ap_50 >= 1 - NOTICEABLE
        reason = "No type of error costs AP50." if perfect else "Fixing one type of errors alone would gain nothing."
        return f"{text} {reason}"
    second = f", then {said[1]}" if costs[ranked[1]] >= NOTICEABLE else ""
    return f"{text} Fixing all {said[0]} would gain most AP50{second}."


def costs_chart(errors: Mapping[str, Errors], name: str) -> Markup:
    """Return the figure of the AP50 that each type costs in each run, at most six of them.

    Args:
        errors: The errors of each run.
        name: Name of the figure in the page.
    """
    figure = costs_figure({run: one.tide.costs for run, one in islice(errors.items(), len(HATCHES))})
    return embedded_svg(figure, name, "AP50 gained by fixing each type of error; the table has the numbers")


def scores_charts(errors: Errors, name: str) -> list[Markup]:
    """Return the figures of the scores of right and wrong detections, and of their reliability.

    Args:
        errors: The errors.
        name: First part of the names of the figures in the page.
    """
    counted = (errors.rows.kinds == DETECTION) & (errors.tide.error != UNCOUNTED)
    scores, is_true = errors.rows.scores[counted], errors.tide.error[counted] == CORRECT
    curve = reliability(scores, is_true)
    true, false = bins_of(scores, (is_true, ~is_true))
    reliable = reliability_figure(*curve, error=curve.error)
    return [
        embedded_svg(scores_figure(true, false), f"{name}-scores", "Histogram of scores of right and wrong detections"),
        embedded_svg(reliable, f"{name}-reliability", "Share of right detections by score"),
    ]


def costs_table(errors: Errors) -> Table:
    """Return the table of the types of errors: their cost and number."""
    rows, costs = errors.rows, errors.tide.costs
    shown = errors.tide.error[(rows.kinds == DETECTION) & (rows.scores >= np.float32(errors.score))]
    found = object_scores(rows, errors.tide)
    is_lost = (rows.kinds == OBJECT) & (found < np.float32(errors.score))
    missed = int((is_lost & (rivals(rows, errors.tide, errors.score) < 0)).sum())
    cells = []
    for number, name in enumerate(ERRORS):
        of_shown = missed if name == "missed" else int((shown == number).sum())
        total = int(errors.tide.counts[number].sum())
        cells.append([name, f"{costs[name]:.3f}", f"{of_shown:,}", f"{total:,}"])
    wrong, lost = int((shown >= 0).sum()), int(errors.tide.num_objects.sum()) - int((found > 0).sum())
    totals = ((wrong, int(errors.tide.counts[:-1].sum())), (int(is_lost.sum()), lost))
    for name, (of_shown, total) in zip(SPECIAL, totals, strict=True):
        cells.append([name, f"{costs[name]:.3f}", f"{of_shown:,}", f"{total:,}"])
    notes = [
        NOTE,
        f"Errors from score {errors.score:g}: only detections of at least this score count, and objects are lost that "
        "none of them finds.",
    ]
    headers = ["type", "AP50 gained", f"errors from score {errors.score:g}", "all errors"]
    return Table(headers, cells, notes)


def runs_table(errors: Mapping[str, Errors]) -> Table:
    """Return the table of the AP50 that each type costs in each run."""
    rows = []
    for run, one in errors.items():
        costs = one.tide.costs
        rows.append([run, f"{one.tide.mean_ap_50:.3f}", *(f"{costs[name]:.3f}" for name in (*ERRORS, *SPECIAL))])
    return Table(["run", "AP50", *ERRORS, *SPECIAL], rows, [NOTE])


def classes_table(errors: Errors) -> Table:
    """Return the table of the cost of each type in each class, the lowest AP50 first."""
    found, names = errors.tide, errors.evaluation.class_names
    ap_50 = found.ap_50()
    known = np.flatnonzero(found.num_objects)
    order = known[np.lexsort((-found.num_objects[known], ap_50[known]))]
    shown, rows, marked = order[:MOST_CLASSES], [], set()
    for row, k in enumerate(shown):
        costs = found.class_costs[: len(ERRORS), k]
        if costs.max() > 0:
            marked.add((row, 3 + int(costs.argmax())))
        rows.append([short(names[k]), f"{found.num_objects[k]:,}", f"{ap_50[k]:.3f}", *map(signed, costs)])
    notes = ["AP50 of the class gained by fixing each type. The largest gain of a class is bold.", *_rest(known, shown)]
    return Table(["class", "objects", "AP50", *ERRORS], rows, notes, marked=frozenset(marked))


def largest_table(errors: Mapping[str, Errors]) -> Table:
    """Return the table of the most expensive type of each class in each run, the lowest AP50 of the first run first."""
    first = next(iter(errors.values()))
    known = np.flatnonzero(first.tide.num_objects)
    shown = known[np.argsort(first.tide.ap_50()[known], kind="stable")][:MOST_CLASSES]
    rows = []
    for k in shown:
        cells = []
        name = first.evaluation.class_names[k]
        for one in errors.values():
            if name not in (names := one.evaluation.class_names):  # a run with other annotations
                cells.append(DASH)
                continue
            costs = one.tide.class_costs[: len(ERRORS), names.index(name)]
            largest = int(costs.argmax())
            cells.append(f"{ERRORS[largest]} {costs[largest]:.3f}" if costs[largest] > 0 else DASH)
        rows.append([short(name), *cells])
    notes = ["The type of error whose correction gains most AP50 of the class, and the gain.", *_rest(known, shown)]
    return Table(["class", *errors], rows, notes)


def _rest(known: Array, shown: Array) -> list[str]:
    rest = len(known) - len(shown)
    return [f"The {len(shown)} classes of lowest AP50 are shown, and {rest:,} more are left out."] if rest else []


def sizes_table(errors: Errors) -> Table:
    """Return the table of results and errors of small, medium and large objects and detections."""
    rows, found, score = errors.rows, errors.tide, np.float32(errors.score)
    sizes, scores = size_index(rows), object_scores(rows, found)
    is_object, is_shown = rows.kinds == OBJECT, (rows.kinds == DETECTION) & (rows.scores >= score)
    cells = []
    for number, size in enumerate(OBJECT_SIZES):
        objects = is_object & (sizes == number)
        count, ap = int(objects.sum()), errors.evaluation.numbers[f"map_{size}"]
        share = f"{100 * (scores[objects] >= score).mean():.0f} %" if count else DASH
        of_size = found.error[is_shown & (sizes == number)]
        kinds = [f"{int((of_size == kind).sum()):,}" for kind in range(len(ERRORS) - 1)]
        cells.append([size, f"{count:,}", f"{ap:.3f}" if ap >= 0 else DASH, share, *kinds])
    notes = [
        "Small: below 32 x 32 pixels; large: from 96 x 96 pixels (COCO). Objects have the size of their mask if the "
        "data gives it, detections that of their box.",
        f"Found: the share of objects that a detection of score {errors.score:g} or more finds. Right of it: the "
        "number of wrong detections of this score.",
    ]
    return Table(["size", "objects", "AP", "found", *ERRORS[:-1]], cells, notes)


def confusions_table(errors: Mapping[str, Errors]) -> Table | None:
    """Return the table of the most frequent confusions of two classes in each run; None if there are none."""
    first = next(iter(errors.values())).evaluation
    names = list(dict.fromkeys(name for one in errors.values() for name in one.evaluation.class_names))
    matrices, objects = zip(*(_by_name(one.evaluation, names) for one in errors.values()), strict=True)
    total = np.sum(matrices, 0)
    pairs = np.flatnonzero(total)
    if not len(pairs):
        return None
    shown = pairs[np.argsort(-total.ravel()[pairs], kind="stable")][:MOST_CONFUSIONS]
    rows = []
    for true, detected in zip(*np.unravel_index(shown, total.shape), strict=True):
        cells = []
        for matrix, number in zip(matrices, objects, strict=True):
            count = int(matrix[true, detected])
            cells.append(f"{count:,} ({100 * count / max(1, number[true]):.0f} %)")
        rows.append([short(names[true]), short(names[detected]), *cells])
    notes = [
        f"Detections of score {first.confusion_score:g} or more whose best object, at IoU 0.5 or more, has another "
        "class. In brackets: their share of the objects of the class."
    ]
    if rest := len(pairs) - len(shown):
        notes.append(f"The {len(shown)} most frequent pairs are shown, and {rest:,} more are left out.")
    return Table(["object", "detected as", *(errors if len(errors) > 1 else ["number"])], rows, notes)


def short(name: str) -> str:
    """Shorten a long name."""
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 9]}…{name[-8:]}"


def signed(value: float) -> str:
    """Format a number with a typographic minus; zero has no sign."""
    text = f"{value:.3f}"
    return text.replace("-", MINUS) if float(text) else "0.000"


def _by_name(evaluation: Evaluation, names: Sequence[str]) -> tuple[Array, Array]:
    """Return the confusions of two classes [K, K] and the objects of each class [K], in the order of ``names``."""
    labels = [names.index(name) for name in evaluation.class_names]
    matrix = np.zeros((len(names), len(names)), np.int64)
    matrix[np.ix_(labels, labels)] = evaluation.confusion[:-1, :-1] * ~np.eye(len(labels), dtype=bool)
    objects = np.zeros(len(names), np.int64)
    objects[labels] = evaluation.confusion.sum(1)[:-1]
    return matrix, objects
