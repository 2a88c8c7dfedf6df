"""All checks of splits: enough boxes of each class, and no image in two splits."""

import itertools
import os
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from ..coco_data import CocoData
from ..problems import KEPT, Problems
from .classes import check_boxes, check_classes
from .split_overlap import CURE, check_overlap

if TYPE_CHECKING:
    from ..sources import Source

SPLITS = ("train", "val", "test")


def check_splits(
    splits: Mapping[str, CocoData],
    new: Collection[str],
    data_sets: Iterable[Mapping[str, "Source"]],
    problems: Problems,
) -> None:
    """Report problems of whole splits and of pairs of splits.

    Args:
        splits: All splits that have been read.
        new: Names of the splits that were read just now; problems among the others were reported before.
        data_sets: For each data set the files of all splits, including splits that have not been read.
        problems: Problems are added to it.
    """
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    check_boxes({split: data for split, data in ordered.items() if split in new}, problems)
    check_classes(ordered, new, problems)
    check_overlap(ordered, new, problems)
    for sources in data_sets:
        _note_one_file(sources, splits, new, problems)


def _note_one_file(
    sources: Mapping[str, "Source"], splits: Collection[str], new: Collection[str], problems: Problems
) -> None:
    """Report two splits with one annotation file, if one of them was not read."""
    for first, second in itertools.combinations([split for split in SPLITS if split in sources], 2):
        if (first in new) != (second in new) and not (first in splits and second in splits):
            one, other = sources[first].annotations, sources[second].annotations
            if os.path.realpath(one) == os.path.realpath(other) and not sources[second].is_shared:
                what = f"the annotations of {second} are those of {first}"
                problems.add(other, what, repair=KEPT, cure=CURE, hint=first == "val")
