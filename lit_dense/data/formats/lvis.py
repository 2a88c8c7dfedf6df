"""LVIS's files: COCO JSON with lists of absent and partly annotated categories of each image."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..federated import Federated, Ragged
from ..problems import Problems
from .annotations import Annotations
from .base import Request
from .coco import COCOFormat, integer, short

FEDERATED_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")


class LVISFormat(COCOFormat):
    """LVIS JSON: COCO JSON in which each image lists the classes that it lacks or that are annotated only in part."""

    def recognises(self, path: Path) -> bool:
        """Return False: ``coco`` reads the lists too."""
        return False

    def read(self, request: Request, problems: Problems) -> Annotations | None:
        """Read one file; a file without the lists is an error."""
        content = super().read(request, problems)
        if content and not any(key in entry for entry in content.images for key in FEDERATED_KEYS):
            what = f"not an LVIS file: no image has {' or '.join(FEDERATED_KEYS)}"
            problems.add(request.path, what, cure="data.format=coco reads files without them")
        return content


def read_federated(content: Annotations, image_ids: Iterable[int], problems: Problems) -> Federated | None:
    """Read the lists of some images; None if no image of the file has lists, as in files other than LVIS's.

    Args:
        content: The content of the file.
        image_ids: The images.
        problems: Invalid lists and unknown categories are added to it; they are left out.
    """
    entries: dict[int, dict[str, Any]] = {e["id"]: e for e in content.images if isinstance(e, dict) and "id" in e}
    if not any(key in entry for entry in entries.values() for key in FEDERATED_KEYS):
        return None
    known = {category["id"] for category in content.categories}
    wrong: list[str] = []
    lists: dict[str, list[list[int]]] = {key: [] for key in FEDERATED_KEYS}
    for image_id in image_ids:
        for key in FEDERATED_KEYS:
            given = entries[image_id].get(key, [])
            numbers = [integer(value) for value in given] if isinstance(given, list) else [None]
            lists[key].append([number for number in numbers if number in known and number is not None])
            if len(lists[key][-1]) < len(numbers):
                wrong.append(f"image {image_id}: {key} is {short(given)}")
    if wrong:
        problems.add(content.path, "lists of categories with unknown ones", wrong, repair="unknown ones left out")
    return Federated(*(Ragged.of(np.array(row, np.int64) for row in rows) for rows in lists.values()))
