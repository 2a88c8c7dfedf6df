"""Images and their boxes in memory, as flat arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch

from ..core.array_types import Bools, Floats, Ints
from ..core.class_counts import ClassCounts
from .federated import Federated
from .origins import Groups, Origins


class Category(TypedDict):
    """A category of a COCO file: its id and name."""

    id: int
    name: str


@dataclass(frozen=True)
class CocoData:
    """Checked images and boxes as flat arrays: I images, N boxes sorted by image.

    Args:
        path: The COCO file.
        folder: The folder that file names are relative to.
        categories: Categories by ascending id; empty for images without annotations.
        image_ids: Image ids, int64 [I].
        file_names: The I file names.
        sizes: Height and width of each image, int64 [I, 2].
        upright: Whether to apply the EXIF orientation of an image, bool [I].
        offsets: The boxes of image i are the rows offsets[i] to offsets[i + 1], int64 [I + 1].
        annotation_ids: Annotation id of each box, int64 [N].
        category_ids: Category id of each box, int64 [N].
        boxes: x1, y1, x2, y2 in pixels, float32 [N, 4].
        area: Area of the object's mask if the file gives one, else of its box, in square pixels, float32 [N].
        iscrowd: Whether a box marks a crowd of objects, bool [N].
        weight: Weight of each box, float32 [N]; None if no weights were read.
        federated: LVIS's lists of absent and partly annotated categories of each image; None if the file has none.
        outlines: The mask of each box as polygons in pixels, run lengths or None, as in a COCO file; None as a whole if
            masks were not read.
        origins: The source of each image of joined data; None for a single data set.
    """

    path: Path
    folder: Path
    categories: list[Category]
    image_ids: Ints
    file_names: list[str]
    sizes: Ints
    upright: Bools
    offsets: Ints
    annotation_ids: Ints
    category_ids: Ints
    boxes: Floats
    area: Floats
    iscrowd: Bools
    weight: Floats | None = None
    federated: Federated | None = None
    outlines: Sequence[Any] | None = None
    origins: Origins | None = None

    @classmethod
    def without_boxes(cls, file_names: list[str], sizes: Ints) -> "CocoData":
        """Build data of images without boxes; ids count from 1, names are relative to the current folder."""
        count = len(file_names)
        return cls(
            path=Path(),
            folder=Path(),
            categories=[],
            image_ids=np.arange(1, count + 1),
            file_names=file_names,
            sizes=sizes,
            upright=np.ones(count, bool),
            offsets=np.zeros(count + 1, np.int64),
            annotation_ids=np.zeros(0, np.int64),
            category_ids=np.zeros(0, np.int64),
            boxes=np.zeros((0, 4), np.float32),
            area=np.zeros(0, np.float32),
            iscrowd=np.zeros(0, bool),
        )

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def image_index(self) -> Ints:
        """The image index of each box, int64 [N]."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def groups(self) -> Groups | None:
        """The images that are annotated for the same categories; None if all are annotated for all."""
        return None if self.origins is None else self.origins.groups

    def select(self, indices: Ints) -> "CocoData":
        """Select images and their boxes, in the order of the indices."""
        counts = np.diff(self.offsets)[indices]
        offsets = np.concatenate([[0], counts.cumsum()])
        rows = np.repeat(self.offsets[indices] - offsets[:-1], counts) + np.arange(offsets[-1])
        return replace(
            self,
            image_ids=self.image_ids[indices],
            file_names=[self.file_names[index] for index in indices],
            sizes=self.sizes[indices],
            upright=self.upright[indices],
            offsets=offsets,
            annotation_ids=self.annotation_ids[rows],
            category_ids=self.category_ids[rows],
            boxes=self.boxes[rows],
            area=self.area[rows],
            iscrowd=self.iscrowd[rows],
            weight=None if self.weight is None else self.weight[rows],
            outlines=None if self.outlines is None else [self.outlines[row] for row in rows.tolist()],
            federated=self.federated and self.federated.select(indices.tolist()),
            origins=self.origins and self.origins.select(indices),
        )

    def with_category_ids(self, new: Mapping[int, int], categories: list[Category]) -> "CocoData":
        """Replace the ids of categories.

        Args:
            new: The new id of each category, by its id; several may become one.
            categories: The categories with their new ids.
        """
        old = np.array(sorted(new), np.int64)
        table = np.array([new[number] for number in old.tolist()], np.int64)

        def renumbered(ids: Ints) -> Ints:
            return table[np.searchsorted(old, ids)] if len(ids) else ids

        return replace(
            self,
            categories=categories,
            category_ids=renumbered(self.category_ids),
            federated=self.federated
            and self.federated.renumbered(new, np.split(self.category_ids, self.offsets[1:-1])),
        )

    def labels(self, category_ids: Ints) -> Ints:
        """Return the label of each box: the position of its category id in ``category_ids``, int64 [N].

        Args:
            category_ids: The category id of each label, ascending; it must contain the id of every box.
        """
        return np.searchsorted(category_ids, self.category_ids)

    def presence(self, category_ids: Ints) -> Bools:
        """Return whether an image has a non-crowd box of a category, bool [I, C]."""
        present = np.zeros((len(self), len(category_ids)), bool)
        present[self.image_index[~self.iscrowd], self.labels(category_ids)[~self.iscrowd]] = True
        return present

    def class_counts(self, category_ids: Ints) -> ClassCounts:
        """Count the boxes and images of each category."""
        instances = np.bincount(self.labels(category_ids)[~self.iscrowd], minlength=len(category_ids))
        present = self.presence(category_ids)
        annotated = int(present.any(1).sum())
        return ClassCounts(torch.from_numpy(instances), torch.from_numpy(present.sum(0)), len(self), annotated)
