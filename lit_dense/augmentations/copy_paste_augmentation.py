"""Copy-paste of objects, chosen by the frequency of their class (https://arxiv.org/abs/2012.07177)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.ops import box_area
from torchvision.transforms.v2 import functional as F

from ..core.array_types import Doubles, Ints
from ..core.errors import check_range
from .base import Augmentation, Objects, TrainingImages
from .mosaic_augmentation import checked_interval
from .outlines import Outline, mask_of, outline_of
from .picture import Box, Picture, all_unknown, box_areas, cut, mirrored, moved, resized

RIM = 2
"""Width of the blended border in pixels."""
TRIES = 10
"""Number of random places that are tried for an object."""
LEAST_SIZE = 4
"""Shortest side of a pasted object in pixels."""


def class_probabilities(counts: npt.ArrayLike, power: float) -> Doubles:
    """Compute the probability of each class, proportional to its number of objects to the power ``-power``.

    Args:
        counts: Number of objects of each class; a class without objects has probability 0 [C].
        power: 0 for equal probabilities of all classes, 0.5 for the inverse square root of the number.

    Example:
        >>> class_probabilities([1000, 100, 10], 0.5).round(4).tolist()
        [0.0706, 0.2233, 0.7061]
    """
    numbers = np.asarray(counts, np.float64)
    shares = np.where(numbers > 0, np.maximum(numbers, 1) ** -power, 0)
    probabilities: Doubles = shares / max(shares.sum(), np.finfo(float).tiny)
    return probabilities


class _Candidates(NamedTuple):
    """The objects that may be pasted into images of a group.

    Args:
        rows_of_class: The rows of each class.
        probabilities: The probability of each class [C].
    """

    rows_of_class: list[Ints]
    probabilities: Doubles


class _Cutting(NamedTuple):
    """A part of an image with its boxes.

    Args:
        part: The pixels and boxes; the copied object is row 0.
        opacity: Share of each pixel in the blended image, in [0, 1] [H, W].
    """

    part: Picture
    opacity: Tensor


class CopyPaste(Augmentation):
    """Pastes objects of other images, mostly of rare classes (https://arxiv.org/abs/2012.07177 without equal classes).

    A class is drawn with probability proportional to its number of objects to the power ``-power``, and an object of
    the class from all training images that are annotated for the classes of the image. The object is scaled with
    its image to the size of this image, and by a random factor. It is mirrored with probability 0.5 if the transforms
    have a horizontal flip. It is pasted at a random place at which it covers no object too far. An object for which 10
    random places do not suffice is left out.

    If the annotations have the object's outline, only the pixels of the object are copied. Otherwise the
    rectangle of its box is copied, with 2 pixels around it, in which the border is blended. Boxes of other objects of
    which more than half lies in the rectangle are copied with it. Parts of other objects become ignore regions.

    Args:
        p: Probability that objects are pasted into an image, in [0, 1].
        number: Largest number of objects that are pasted into an image, at least 1.
        power: Exponent of the class frequencies, at least 0.
        scale: Range of the random factor.
        max_overlap: Largest share of another object that a pasted one may cover, and of itself within another's box,
            in [0, 1].
        masks: Whether to use outlines, of formats that have them.
        close_after: Fraction of the run after which nothing is pasted, in [0, 1]; 1 for never.

    Raises:
        UsageError: If an argument is out of range.
    """

    def __init__(
        self,
        p: float = 0.3,
        number: int = 3,
        power: float = 0.5,
        scale: tuple[float, float] = (0.8, 1.25),
        max_overlap: float = 0.3,
        masks: bool = True,
        close_after: float = 0.9,
    ) -> None:
        super().__init__(p, close_after)
        self.number = int(check_range("copy_paste", "number", number, 1))
        self.power = check_range("copy_paste", "power", power, 0)
        self.scale = checked_interval("copy_paste", "scale", scale, 0.01, 10)
        self.max_overlap = check_range("copy_paste", "max_overlap", max_overlap, 0, 1)
        self.masks = self.reads_outlines = masks
        self._groups: dict[int, _Candidates] = {}
        self._offsets: Ints = np.zeros(1, np.int64)
        self._outlines: Sequence[Any] | None = None

    def receive_objects(self, objects: Objects, labels: Ints) -> None:
        """Sort the objects by class, and keep their outlines."""
        rows = np.flatnonzero(~objects.iscrowd)
        counts = np.bincount(labels[rows])
        groups = getattr(objects, "groups", None)
        partners = np.ones((1, 1), bool) if groups is None else groups.partners
        of_image = np.zeros(len(objects.offsets) - 1, np.int64) if groups is None else groups.of_image
        of_row = np.repeat(of_image, np.diff(objects.offsets))[rows]
        self._groups = {}
        for group, allowed in enumerate(partners):
            own = rows[allowed[of_row]]
            if not len(own):
                continue
            own_counts = np.bincount(labels[own], minlength=len(counts))
            of_class = np.split(own[np.argsort(labels[own], kind="stable")], own_counts.cumsum()[:-1])
            # the frequency of a class is that of the whole training set
            probabilities = class_probabilities(np.where(own_counts > 0, counts, 0), self.power)
            self._groups[group] = _Candidates(of_class, probabilities)
        self._offsets = objects.offsets
        self._outlines = getattr(objects, "outlines", None) if self.masks else None

    def forward(
        self, picture: Picture, partners: Sequence[int], images: TrainingImages, rng: np.random.Generator
    ) -> Picture:
        """Paste objects into the image."""
        candidates = self._groups.get(picture.group)
        if candidates is None:
            return picture
        for _ in range(rng.integers(1, self.number + 1)):
            rows = candidates.rows_of_class[rng.choice(len(candidates.probabilities), p=candidates.probabilities)]
            row = int(rows[rng.integers(len(rows))])
            index = int(np.searchsorted(self._offsets, row, side="right")) - 1
            scale, mirror = rng.uniform(*self.scale), rng.random() < 0.5
            source = images.picture(index)
            scale *= min(new / old for new, old in zip(picture.size, source.size, strict=True))
            outline = None if self._outlines is None else outline_of(self._outlines[row])
            cutting = _cutting(source, row - int(self._offsets[index]), outline, scale)
            if mirror and images.flips:
                cutting = _Cutting(mirrored(cutting.part, images.mirrored), cutting.opacity.flip(-1))
            if (place := self._place(picture, cutting.part, rng)) is not None:
                picture = paste(picture, *cutting, place)
        return picture

    def _place(self, picture: Picture, part: Picture, rng: np.random.Generator) -> tuple[int, int] | None:
        """Return a random position (x, y) at which a part may be pasted; None if none was found."""
        (height, width), (part_height, part_width) = picture.size, part.size
        if part_height > height or part_width > width or min(part_height, part_width) < LEAST_SIZE:
            return None
        objects = picture.boxes[picture.fields["iscrowd"] == 0]
        for _ in range(TRIES):
            x, y = int(rng.integers(width - part_width + 1)), int(rng.integers(height - part_height + 1))
            pasted = moved(part.boxes[:1], x, y)
            sides = torch.minimum(objects[:, 2:], pasted[:, 2:]) - torch.maximum(objects[:, :2], pasted[:, :2])
            common = sides.clamp(min=0).prod(1)
            least = torch.minimum(box_area(objects), box_area(pasted)).clamp(min=1e-9)
            if not bool((common > self.max_overlap * least).any()):
                return x, y
        return None


def paste(picture: Picture, part: Picture, opacity: Tensor, place: tuple[int, int]) -> Picture:
    """Blend a part of another image into an image, and add its boxes.

    Args:
        picture: The image and its boxes.
        part: The part and its boxes.
        opacity: Share of each pixel of the part in the result [H, W].
        place: x and y of the part's top left corner in the image.
    """
    (x, y), (height, width) = place, part.size
    image = picture.image.clone()
    below = image[:, y : y + height, x : x + width]
    image[:, y : y + height, x : x + width] = below.float().lerp_(part.image.float(), opacity).round_().to(torch.uint8)
    boxes = torch.cat([picture.boxes, moved(part.boxes, x, y)])
    fields = {name: torch.cat([value, part.fields[name]]) for name, value in picture.fields.items()}
    absent, partial = _lists(picture, part)
    unknown = all_unknown([picture, part])
    return replace(picture, image=image, boxes=boxes, fields=fields, absent=absent, partial=partial, unknown=unknown)


def _lists(picture: Picture, part: Picture) -> tuple[Tensor | None, Tensor | None]:
    """Return the lists of absent and partly annotated classes after a part was pasted."""
    if picture.absent is None or picture.partial is None:
        return None, None
    labels = part.fields["labels"].unique()
    known = torch.cat([picture.absent, picture.fields["labels"]])
    unknown = labels[~torch.isin(labels, known)]  # the rest of the image may show objects of these classes too
    return picture.absent[~torch.isin(picture.absent, labels)], torch.cat([picture.partial, unknown]).unique()


def _cutting(source: Picture, row: int, outline: Outline | None, scale: float) -> _Cutting:
    """Cut an object out of an image and scale it.

    Args:
        source: The image and its boxes.
        row: Index of the object.
        outline: The object's outline; None if it has none.
        scale: Factor of its size.
    """
    window = _window(source, row)
    x1, y1, x2, y2 = window
    size = max(1, round((y2 - y1) * scale)), max(1, round((x2 - x1) * scale))
    mask = None if outline is None else torch.from_numpy(mask_of(outline, window))
    if mask is not None and not mask.any():  # an outline elsewhere than its box
        mask = None
    others = _others(source.boxes, row, window) if mask is None else torch.empty(0, dtype=torch.int64)
    rows = torch.cat([torch.tensor([row]), others])
    boxes, fields = cut(source.boxes[rows], {name: value[rows] for name, value in source.fields.items()}, window)
    inside = _mostly_inside(source.boxes[rows], window)
    fields["iscrowd"] = fields["iscrowd"] | ~inside
    part = replace(source, image=source.image[:, y1:y2, x1:x2], boxes=moved(boxes, -x1, -y1), fields=fields)
    if mask is None:
        return _Cutting(resized(part, size), feathered(size))
    opacity = F.resize_image(mask.float()[None], list(size), antialias=True)[None]
    opacity = torch.nn.functional.avg_pool2d(opacity, 3, 1, 1, count_include_pad=False)[0, 0]
    return _Cutting(resized(part, size), opacity)


def _window(source: Picture, row: int) -> Box:
    """Return the pixels of an object's box with a rim around it, within the image."""
    (height, width), (x1, y1, x2, y2) = source.size, source.boxes[row].tolist()
    left, top = max(0, int(x1) - RIM), max(0, int(y1) - RIM)
    right, bottom = min(width, int(np.ceil(x2)) + RIM), min(height, int(np.ceil(y2)) + RIM)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _others(boxes: Tensor, row: int, window: Box) -> Tensor:
    """Return the other boxes of which a part lies in a window."""
    limits = boxes.new_tensor(window)
    touched = (torch.minimum(boxes[:, 2:], limits[2:]) > torch.maximum(boxes[:, :2], limits[:2])).all(1)
    touched[row] = False
    return touched.nonzero().squeeze(1)


def _mostly_inside(boxes: Tensor, window: Box) -> Tensor:
    """Return whether more than half of each box lies in a window [N]."""
    limits = boxes.new_tensor(window)
    inside = torch.cat([torch.maximum(boxes[:, :2], limits[:2]), torch.minimum(boxes[:, 2:], limits[2:])], 1)
    return box_areas(inside) > 0.5 * box_areas(boxes)


def feathered(size: tuple[int, int]) -> Tensor:
    """Return the opacity of a rectangle with a blended border: it rises linearly over 2 pixels to 1 [H, W].

    Args:
        size: Height and width.

    Example:
        >>> feathered((1, 6))
        tensor([[0.2500, 0.2500, 0.2500, 0.2500, 0.2500, 0.2500]])
        >>> feathered((5, 5))[2]
        tensor([0.2500, 0.7500, 1.0000, 0.7500, 0.2500])
    """
    ramps = []
    for side in size:
        position = torch.arange(side) + 0.5
        ramps.append((torch.minimum(position, side - position) / RIM).clamp(max=1))
    return torch.minimum(ramps[0][:, None], ramps[1][None])
