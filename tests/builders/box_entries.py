"""Boxes as entries of a COCO file, checked without any image."""

from pathlib import Path

import numpy as np

from lit_dense.data.checks.annotation_file import _check_boxes
from lit_dense.data.checks.image_files import CheckedImage
from lit_dense.data.formats.annotations import TABLE, Annotations, Wording
from lit_dense.data.formats.coco import _Table
from lit_dense.data.problems import Problems
from tests.builders.coco_files import CATEGORIES, box_entry


def check_entries(boxes, size=(640, 480), num_images=4, stated=None, categories=(), wording=None, **fields):
    """Problems of boxes dealt out to images of one size, and what is left of the boxes."""
    images = [CheckedImage(i, f"{i}.png", size[1], size[0], True, stated) for i in range(1, num_images + 1)]
    table = _Table(TABLE)
    rows = [
        table.keep(box_entry(number, 1 + number % num_images, np.asarray(box).tolist(), category, **fields))
        for number, (box, category) in enumerate(zip(boxes, categories or [3] * len(boxes), strict=True))
    ]
    problems = Problems()
    annotations = table.select(rows, Path("a.json"), problems)
    content = Annotations(Path("a.json"), [], annotations, CATEGORIES, wording=wording or Wording())
    return _check_boxes(content, Path(), images, set(), problems), problems
