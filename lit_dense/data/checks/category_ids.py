"""Checks of the category ids of annotations against the list of categories."""

from collections.abc import Sequence

import numpy as np

from ..coco_data import Category
from ..formats.shifted_ids import shift_of, words_of
from .annotation_filter import AnnotationFilter


def drop_unknown_categories(annotations: AnnotationFilter, categories: Sequence[Category]) -> None:
    """Drop annotations of categories that are not listed; ids that are all shifted by one are an error.

    Args:
        annotations: The annotations.
        categories: The list of categories.
    """
    ids = annotations.table["category_id"]
    listed = {category["id"]: category["name"] for category in categories}
    used = set(np.unique(ids).tolist())

    def describe(row: int) -> str:
        return f"category {ids[row]}"

    unknown = ~np.isin(ids, list(listed))
    what, cure = "annotations of unknown categories", "list their categories, or correct category_id"
    shift = shift_of(used, set(listed))
    if shift:
        word, change = words_of(shift)
        names = ", ".join(f"{number} ({name})" for number, name in sorted(listed.items())[:5])
        more = ", ..." if len(listed) > 5 else ""
        what = f"category ids that are one {word} than those in the list of categories"
        cure = (
            f"the annotations count categories from {min(used)}, the list from {min(listed)}: {names}{more}; "
            f"{change} category_id of every annotation, or number the list like the annotations"
        )
    annotations.note(unknown, what, "" if shift else "dropped", describe, cure)
    annotations.keep &= ~unknown
