"""Matches of detections with objects of their own class, as COCO evaluates them at IoU 0.5."""

from typing import NamedTuple

import numpy as np

from .confusion import best_first, has_annotated_class, inside_crowds, match_boxes
from .detection_table import CROWD, DETECTION, OBJECT, Array, DetectionTable


class Matches(NamedTuple):
    """Detections and the objects that they take.

    Args:
        detections: Rows of the detections, by image and class and best first [D].
        objects: Row of the object that each detection takes, -1 for a detection without one [D].
        counts: Whether a detection is a true or a false positive; the others are ignored [D].
    """

    detections: Array
    objects: Array
    counts: Array


def match_own_class(rows: DetectionTable, lvis: bool = False) -> Matches:
    """Match detections with objects of their class, best first, at IoU 0.5.

    Each detection takes the object of largest IoU that no better detection has taken. Unmatched detections inside a
    crowd of their class are ignored. With ``lvis``, so are detections of classes that are not annotated in the image,
    and unmatched ones of classes that are not annotated exhaustively.

    Args:
        rows: Detections and ground truth.
        lvis: Whether the images are annotated for some classes only.
    """
    group = rows.groups
    sorted_rows = np.argsort(group, kind="stable")
    columns = {name: getattr(rows, name)[sorted_rows] for name in ("boxes", "labels", "kinds", "scores")}
    table = DetectionTable(rows.image_ids, images=group[sorted_rows], **columns)
    detections = np.flatnonzero(table.kinds == DETECTION)
    detections = detections[best_first(table.images[detections], table.scores[detections])]
    objects, crowds = np.flatnonzero(table.kinds == OBJECT), np.flatnonzero(table.kinds == CROWD)
    taken = np.full(len(detections), -1)
    found, by = match_boxes(table, detections, objects)
    taken[found] = sorted_rows[objects[by]]
    counts = np.ones(len(detections), bool)
    counts[inside_crowds(table, detections, crowds)] = False
    if lvis:
        counts &= has_annotated_class(table.images, table.kinds, detections)
    return Matches(sorted_rows[detections], taken, counts | (taken >= 0))
