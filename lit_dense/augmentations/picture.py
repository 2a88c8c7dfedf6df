"""An image with its boxes, and the operations that augmentations have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

FILL = (124, 116, 104)
"""Colour of places without an image: ImageNet's mean, which normalisation maps to 0."""
LEAST_SIDE, LEAST_SHARE, LARGEST_RATIO = 2.0, 0.1, 100.0
"""A box that was cut stays an object if its sides exceed 2 pixels, more than a tenth of its area is left, and no side
is 100 times as long as the other: the rule of YOLOv5."""

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels."""


@dataclass(frozen=True)
class Picture:
    """An image with N boxes.

    Args:
        image: The image, uint8 [3, H, W].
        boxes: x1, y1, x2, y2 in pixels, float32 [N, 4].
        fields: Values of each box by name: ``labels`` int64, ``area`` float32, ``iscrowd`` int64 (1 for an ignore
            region), and others that the data has [N].
        absent: Labels of the classes that the image is known not to show, of LVIS's annotations; None if the data has
            no such lists.
        partial: Labels of the classes that are not exhaustively annotated in the image; None as for ``absent``.
        unknown: Labels of the classes that the image is not annotated for; None if all images are annotated for all.
        group: Number of the images that are annotated for the same classes as this one.
    """

    image: Tensor
    boxes: Tensor
    fields: Mapping[str, Tensor]
    absent: Tensor | None = None
    partial: Tensor | None = None
    unknown: Tensor | None = None
    group: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.image.shape[-2], self.image.shape[-1]


def fitted(size: tuple[int, int], into: tuple[int, int], scale: float = 1.0) -> tuple[int, int]:
    """Return the height and width of an image that is scaled to fit into another size, at least one pixel each.

    Args:
        size: Height and width of the image.
        into: Height and width that it must fit into.
        scale: Factor of the fitted size.

    Example:
        >>> fitted((480, 640), (320, 320))
        (240, 320)
    """
    factor = scale * min(into[0] / size[0], into[1] / size[1])
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def resized(picture: Picture, size: tuple[int, int]) -> Picture:
    """Scale an image with its boxes.

    Args:
        picture: The image and its boxes.
        size: New height and width.
    """
    (height, width), (old_height, old_width) = size, picture.size
    if (height, width) == (old_height, old_width):
        return picture
    y, x = height / old_height, width / old_width
    boxes = picture.boxes * picture.boxes.new_tensor([x, y, x, y])
    image = F.resize_image(picture.image, [height, width], antialias=True)
    return replace(picture, image=image, boxes=boxes, fields=_scaled_area(picture.fields, x * y))


def mirrored(picture: Picture, labels: Tensor) -> Picture:
    """Mirror an image horizontally with its boxes.

    Args:
        picture: The image and its boxes.
        labels: Label that each label becomes [C].
    """
    x1, y1, x2, y2 = picture.boxes.unbind(1)
    width = picture.size[1]
    return replace(
        picture,
        image=picture.image.flip(-1),
        boxes=torch.stack([width - x2, y1, width - x1, y2], 1),
        fields={**picture.fields, "labels": labels[picture.fields["labels"]]},
        absent=None if picture.absent is None else labels[picture.absent],
        partial=None if picture.partial is None else labels[picture.partial],
        unknown=None if picture.unknown is None else labels[picture.unknown],
    )


def cut(boxes: Tensor, fields: Mapping[str, Tensor], window: Box) -> tuple[Tensor, dict[str, Tensor]]:
    """Clip boxes to a window. A box of which too little is left becomes an ignore region, unless nothing is left.

    Args:
        boxes: x1, y1, x2, y2 in pixels [N, 4].
        fields: Values of each box [N].
        window: The visible part of the image.

    Returns:
        The clipped boxes in the same coordinates, and their values. Areas shrink with their boxes.
    """
    x1, y1, x2, y2 = window
    clipped = torch.stack(
        [boxes[:, 0].clamp(min=x1), boxes[:, 1].clamp(min=y1), boxes[:, 2].clamp(max=x2), boxes[:, 3].clamp(max=y2)], 1
    )
    rows = (clipped[:, 2:] > clipped[:, :2]).all(1).nonzero().squeeze(1)
    before, after = boxes[rows], clipped[rows]
    found = {name: value[rows] for name, value in fields.items()}
    whole = (before == after).all(1)
    found["area"] = found["area"] * torch.where(whole, 1.0, box_areas(after) / box_areas(before))
    found["iscrowd"] = found["iscrowd"] | ~(whole | still_visible(before, after))
    return after, found


def still_visible(before: Tensor, after: Tensor) -> Tensor:
    """Return whether a box that was cut still stands for its object [N].

    Args:
        before: Boxes before they were cut [N, 4].
        after: What is left of them [N, 4].

    Example:
        >>> before = torch.tensor([[0.0, 0, 10, 10]]).repeat(3, 1)
        >>> still_visible(before, torch.tensor([[0.0, 0, 3, 3], [0, 0, 10, 2], [0, 0, 10, 5]])).tolist()
        [False, False, True]
    """
    width, height = (after[:, 2:] - after[:, :2]).unbind(1)
    ratio = torch.maximum(width / height.clamp(min=1e-9), height / width.clamp(min=1e-9))
    share = box_areas(after) / box_areas(before).clamp(min=1e-9)
    return (width > LEAST_SIDE) & (height > LEAST_SIDE) & (share > LEAST_SHARE) & (ratio < LARGEST_RATIO)


def box_areas(boxes: Tensor) -> Tensor:
    """Return the area of each box, 0 if a side is negative [N]."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1)


def moved(boxes: Tensor, x: float, y: float) -> Tensor:
    """Shift boxes by x and y pixels [N, 4]."""
    return boxes + boxes.new_tensor([x, y, x, y])


def joined(image: Tensor, parts: Sequence[Picture]) -> Picture:
    """Return an image with the boxes of several parts, which are in its coordinates.

    A class is known to be absent if no part shows it and all parts say which objects of it they show. It is annotated
    only in part if some part does not say this. A class that some part is not annotated for is unknown.

    Args:
        image: The image that the parts are combined in [3, H, W].
        parts: Its parts.
    """
    fields = {name: torch.cat([part.fields[name] for part in parts]) for name in parts[0].fields}
    boxes = torch.cat([part.boxes for part in parts])
    whole = replace(parts[0], image=image, boxes=boxes, fields=fields, unknown=all_unknown(parts))
    if parts[0].absent is None:
        return whole
    shown = [set(part.fields["labels"].tolist()) for part in parts]
    known = [_known(part, labels) for part, labels in zip(parts, shown, strict=True)]
    everywhere, present = set.intersection(*known), set.union(*shown)
    lists = (sorted(everywhere - present), sorted(present - everywhere))
    absent, partial = (torch.tensor(labels, dtype=torch.int64) for labels in lists)
    return replace(whole, absent=absent, partial=partial)


def all_unknown(parts: Sequence[Picture]) -> Tensor | None:
    """Return the classes that at least one of several images is not annotated for; None if there are no lists.

    Args:
        parts: The images.
    """
    lists = [part.unknown for part in parts if part.unknown is not None]
    return torch.cat(lists).unique() if lists else None


def _known(part: Picture, shown: set[int]) -> set[int]:
    """Return the classes of which a part shows all objects that it is annotated with."""
    absent, partial = (labels.tolist() if labels is not None else [] for labels in (part.absent, part.partial))
    return set(absent) | (shown - set(partial))


def _scaled_area(fields: Mapping[str, Tensor], factor: float) -> dict[str, Tensor]:
    return {**fields, "area": fields["area"] * factor}
