"""A check for annotations that a file contains more than once."""

import numpy as np
import numpy.typing as npt

from ...core.array_types import Bools, Ints
from ..problems import KEPT
from .annotation_filter import AnnotationFilter


def note_repeated_annotations(annotations: AnnotationFilter) -> None:
    """Report annotations that repeat the image, the category and the box of an earlier one.

    Boxes are compared to two decimals, the precision of COCO's files. Repeated annotations are not removed, because a
    benchmark's file must be evaluated unchanged.

    Args:
        annotations: N annotations.
    """
    rows = np.flatnonzero(annotations.keep)
    first = np.arange(len(annotations.keep))
    first[rows] = rows[_first_of_equals(annotations.table, rows)]
    categories = annotations.table["category_id"]
    annotations.note(
        first != np.arange(len(first)),
        "annotations given more than once (same image, category and box)",
        KEPT,
        lambda row: f"{annotations.box(row)} of category {categories[row]}, as {annotations.short_name(first[row])}",
        "remove the copies: each copy counts as another object, which is missed when the first is detected",
    )


def _first_of_equals(table: npt.NDArray[np.void], rows: Ints) -> Ints:
    """Return, for each selected row, the position of the first row that is equal to it."""
    places = np.arange(len(rows))
    part = table[rows]
    boxes = (part["bbox"].round(2) + 0.0).view(np.int64)  # + 0.0 because -0.0 is equal to 0.0 but has other bits
    columns = np.column_stack([part["image_id"], part["category_id"], boxes])
    hashes = np.zeros(len(rows), np.uint64)
    for column in columns.T.astype(np.uint64):
        hashes = (hashes ^ column) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    order = np.argsort(hashes, kind="stable")
    same: Bools = hashes[order][1:] == hashes[order][:-1]
    suspects = np.sort(order[np.append(same, False) | np.insert(same, 0, False)]) if len(rows) else order
    # sorting all columns is slow: only the few rows with equal hashes are compared in full
    _, start, group = np.unique(columns[suspects], axis=0, return_index=True, return_inverse=True)
    places[suspects] = suspects[start][group.ravel()]
    return places
