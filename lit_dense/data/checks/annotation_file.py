"""All checks of the annotations of one split, in their order; repairs what can be repaired."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...core.array_types import Bools, Doubles, Floats, Ints
from ..coco_data import CocoData
from ..formats.annotations import NO_ID, Annotations
from ..formats.lvis import FEDERATED_KEYS, read_federated
from ..problems import KEPT, Problems
from .annotation_filter import AnnotationFilter
from .box_formats import note_other_units, note_small, note_stated_sizes
from .category_ids import drop_unknown_categories
from .duplicate_annotations import note_repeated_annotations
from .image_files import CheckedImage, check_images

ROUNDING = 0.02  # pixels: COCO's boxes have two decimals, so x + width may exceed the border by 0.01
AREA = "area must be that of the mask or of the box, in square pixels; without the key, the area of the box is used"


class CheckedAnnotations(NamedTuple):
    """What can be used of a file, with boxes sorted by image: I images, N boxes.

    Args:
        images: The images that can be used.
        rows: The row of each box in the annotations' table, int64 [N].
        offsets: The boxes of image i are offsets[i] to offsets[i + 1], int64 [I + 1].
        ids: Unique id of each box, int64 [N].
        boxes: x1, y1, x2, y2 inside the image, float64 [N, 4].
        clipped: Whether a box was clipped, bool [N].
        weight: Weight of each box, float32 [N]; None if no weights were read.
    """

    images: list[CheckedImage]
    rows: Ints
    offsets: Ints
    ids: Ints
    boxes: Doubles
    clipped: Bools
    weight: Floats | None


def check_split(content: Annotations, folder: Path, problems: Problems) -> CocoData | None:
    """Check and repair the annotations of one split; reads the header of every image file.

    Args:
        content: The annotations.
        folder: The folder with the images.
        problems: All problems are added to it, repaired or not.

    Returns:
        The usable images and boxes; None if there is no image.
    """
    found = checked_images(content, folder, problems)
    return None if found is None else _check_boxes(content, folder, *found, problems)


def checked_images(
    content: Annotations, folder: Path, problems: Problems
) -> tuple[list[CheckedImage], set[int]] | None:
    """Return the images that can be used and the ids of the others; None if no image can be used.

    Args:
        content: The annotations.
        folder: The folder with the images.
        problems: All problems are added to it, repaired or not.
    """
    if not folder.is_dir():
        problems.add(folder, "the image folder is a file" if folder.exists() else "no such image folder")
        return None
    if not content.images:
        problems.add(content.path, "no images" if content.folder is None else f"no images in {content.folder}")
        return None
    images, dropped = check_images(content, folder, problems)
    if not images:
        problems.add(content.path, "no image that can be used")
        return None
    return images, dropped


def _check_boxes(
    content: Annotations, folder: Path, images: list[CheckedImage], dropped: set[int], problems: Problems
) -> CocoData:
    shares, content = content.relative, in_pixels(content, images)
    table, checked = content.annotations, check_boxes(content, images, dropped, problems)
    boxes = checked.boxes.astype(np.float32)
    box_area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    with np.errstate(over="ignore", under="ignore"):
        area = table["area"][checked.rows].astype(np.float32)
    area = np.where((area > 0) & (area < 1e30), area, box_area)  # NaN if the file has none
    image_ids = np.array([image.id for image in images])
    return CocoData(
        path=content.path,
        folder=folder,
        categories=content.categories,
        image_ids=image_ids,
        file_names=[image.file_name for image in images],
        sizes=np.array([(image.height, image.width) for image in images]),
        upright=np.array([image.upright for image in images]),
        offsets=checked.offsets,
        annotation_ids=checked.ids,
        category_ids=table["category_id"][checked.rows],
        boxes=boxes,
        area=np.where(checked.clipped, np.minimum(area, box_area), area),
        iscrowd=table["iscrowd"][checked.rows] != 0,
        weight=checked.weight,
        outlines=_masks(content, checked, shares),
        federated=read_federated(content, image_ids.tolist(), problems),
    )


def check_content(content: Annotations, folder: Path, problems: Problems) -> Annotations | None:
    """Check and repair the annotations of one split, and return them in the form in which a format writes them.

    Args:
        content: The annotations.
        folder: The folder with the images.
        problems: All problems are added to it, repaired or not.

    Returns:
        Annotations sorted by image, with boxes and polygons in pixels and the size of every image; None if no image can
        be used. Numbers that need no repair are unchanged.
    """
    found = checked_images(content, folder, problems)
    if found is None:
        return None
    images, dropped = found
    shares, content = content.relative, in_pixels(content, images)
    checked = check_boxes(content, images, dropped, problems)
    table = content.annotations[checked.rows].copy()
    table["id"] = checked.ids
    corners = checked.boxes[checked.clipped]
    table["bbox"][checked.clipped] = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    if checked.weight is not None:
        weight = table["weight"]
        table["weight"] = np.where(weight.astype(np.float32) == checked.weight, weight, checked.weight)
    masks = _masks(content, checked, shares)
    lists = {entry["id"]: entry for entry in content.images if isinstance(entry, dict) and "id" in entry}
    entries = []
    for image in images:
        entry: dict[str, Any] = {
            "id": image.id,
            "file_name": image.file_name,
            "width": image.width,
            "height": image.height,
        }
        entry |= {key: lists[image.id][key] for key in FEDERATED_KEYS if key in lists.get(image.id, {})}
        if not image.upright:
            entry["before_rotation"] = True
        entries.append(entry)
    return replace(content, images=entries, annotations=table, segmentations=masks, place=None)


def _masks(content: Annotations, checked: CheckedAnnotations, shares: bool) -> list[Any] | None:
    """Return the mask of each checked box, with polygons in pixels; None if masks were not read.

    Args:
        content: The annotations.
        checked: The images and boxes that can be used.
        shares: Whether polygons are written as shares of the image's width and height.
    """
    if content.segmentations is None:
        return None
    masks = [content.segmentations[row] for row in checked.rows.tolist()]
    if not shares:
        return masks
    index = np.repeat(np.arange(len(checked.images)), np.diff(checked.offsets)).tolist()
    return [_polygons_in_pixels(mask, checked.images[image]) for mask, image in zip(masks, index, strict=True)]


def _polygons_in_pixels(mask: list[list[float]] | None, image: CheckedImage) -> list[list[float]] | None:
    if mask is None:
        return None
    return [[value * (image.height if place % 2 else image.width) for place, value in enumerate(part)] for part in mask]


def in_pixels(content: Annotations, images: list[CheckedImage]) -> Annotations:
    """Return annotations with boxes in pixels; those of images that cannot be used stay as they are."""
    if not content.relative:
        return content
    table = content.annotations.copy()
    index = _index(np.array([image.id for image in images]), table["image_id"])
    scale = np.array([(image.width, image.height) * 2 for image in images])[index]
    table["bbox"] = np.where((index >= 0)[:, None], table["bbox"] * scale, table["bbox"])
    return replace(content, annotations=table, relative=False)


def check_boxes(
    content: Annotations, images: list[CheckedImage], dropped: set[int], problems: Problems
) -> CheckedAnnotations:
    """Check and repair the boxes of one split.

    Args:
        content: The annotations, in pixels.
        images: The images that can be used.
        dropped: Ids of the other images, which were reported.
        problems: All problems are added to it, repaired or not.
    """
    table, annotations = content.annotations, AnnotationFilter(content, images, problems)
    sizes = np.array([(image.height, image.width) for image in images])
    annotations.keep &= ~np.isin(table["image_id"], list(dropped))  # reported with their images
    image_index = _index(np.array([image.id for image in images]), table["image_id"])
    annotations.drop(image_index < 0, "annotations of images that are not listed", lambda row: "no such image")
    if content.categories:
        drop_unknown_categories(annotations, content.categories)
    stated = np.array([image.stated or (0, 0) for image in images])[:, ::-1]
    boxes, clipped = _check_coordinates(annotations, sizes[image_index], stated[image_index])
    ids = _check_ids(annotations)
    note_repeated_annotations(annotations)
    _note_areas(annotations)
    weight = None if content.weight_key is None else _check_weights(annotations, content.weight_key)
    rows = np.flatnonzero(annotations.keep)
    rows = rows[np.argsort(image_index[rows], kind="stable")]
    counts = np.bincount(image_index[rows], minlength=len(images))
    offsets = np.concatenate([[0], counts.cumsum()])
    weight = None if weight is None else weight[rows]
    return CheckedAnnotations(images, rows, offsets, ids[rows], boxes[rows], clipped[rows], weight)


def _check_coordinates(annotations: AnnotationFilter, sizes: Ints, stated: Ints) -> tuple[Doubles, Bools]:
    """Return the boxes as corners inside their images, [N, 4], and whether they were clipped, [N].

    Args:
        annotations: N annotations.
        sizes: Height and width of the image of each annotation, [N, 2].
        stated: Height and width in the COCO file if they differ from the image file, else 0, [N, 2].
    """
    bbox = annotations.table["bbox"]
    annotations.drop(_any(~np.isfinite(bbox)), "boxes that are not finite", annotations.box)
    annotations.drop(_any(~(bbox[:, 2:] > 0)), "boxes of zero or negative size", lambda row: _flaw(annotations, row))
    fractions = note_other_units(annotations, sizes)

    def with_size(row: int) -> str:
        return f"{annotations.box(row)}, the image is {sizes[row, 1]} x {sizes[row, 0]}"

    with np.errstate(invalid="ignore", over="ignore"):  # for boxes that are already dropped
        corners = np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1)
        limits = sizes[:, [1, 0, 1, 0]]
        outside = _any((corners[:, 2:] <= 0) | (corners[:, :2] >= limits[:, :2]))
        inside = corners.clip(0, limits)
        boxes = inside.astype(np.float32)
        lost = _any(~(boxes[:, 2:] > boxes[:, :2]) | (inside[:, 2:] - inside[:, :2] < ROUNDING / 2))
        clipped = _any(np.abs(inside - corners) > ROUNDING)
        note_stated_sizes(annotations, sizes, stated)
    words = annotations.wording
    cure = f"{words.box} of the image in {words.name}, measured from its upper left corner"
    annotations.drop(outside, "boxes wholly outside their image", with_size, cure)
    annotations.drop(lost, "boxes without size after clipping", with_size)
    annotations.note(clipped, "boxes partly outside their image", "clipped", with_size)
    note_small(annotations, inside[:, 2:] - inside[:, :2], fractions, 1 - ROUNDING)
    return inside, clipped


def _any(rows: Bools) -> Bools:
    return np.asarray(rows.any(axis=1))


def _flaw(annotations: AnnotationFilter, row: int) -> str:
    sides = zip(("width", "height"), annotations.table["bbox"][row][2:], strict=True)
    flaws = [f"{'zero' if length == 0 else 'negative'} {side}" for side, length in sides if not length > 0]
    return f"{annotations.box(row)} has {' and '.join(flaws)}"


def _check_ids(annotations: AnnotationFilter) -> Ints:
    """Return unique ids of the annotations; missing and repeated ids are replaced."""
    ids: Ints = annotations.table["id"].copy()
    rows = np.flatnonzero(annotations.keep)
    first = np.unique(ids[rows], return_index=True)[1]
    bad = np.zeros(len(ids), bool)
    bad[rows] = True
    bad[rows[first]] = False
    bad |= (ids == NO_ID) & annotations.keep
    annotations.note(bad, "annotation ids that are missing or used before", "given new ids", annotations.box)
    ids[bad] = max(ids.max(initial=0), 0) + 1 + np.arange(bad.sum())
    return ids


def _note_areas(annotations: AnnotationFilter) -> None:
    """Report areas that are impossible for a mask in its box; evaluation uses areas to group objects by size."""
    given = annotations.table["area"]

    def describe(row: int) -> str:
        return f"area {given[row]:g}, {annotations.box(row)}"

    with np.errstate(invalid="ignore", over="ignore"):  # NaN if the file has none; boxes that are already dropped
        box = annotations.table["bbox"][:, 2:].prod(1)
        unusable = (given.astype(np.float32) <= 0) | (given >= 1e30)
        bad = ((given > 1.5 * box + 2) & (given < 1e30)) | ((given > 0) & (given <= 1) & (box > 100))
    annotations.note(unusable, "areas that are not positive numbers", "the area of the box is used", describe, AREA)
    annotations.note(bad, "areas that do not fit their boxes", KEPT, describe, AREA)


def _check_weights(annotations: AnnotationFilter, key: str) -> Floats:
    """Return the weights of the annotations, finite and not negative, [N]."""
    given = annotations.table["weight"]
    with np.errstate(over="ignore"):  # values too large for float32 become infinite
        weights = given.astype(np.float32)
    bad = ~(np.isfinite(weights) & (weights >= 0))

    def describe(row: int) -> str:
        return f"{key} is {'not a number' if np.isnan(given[row]) else f'{given[row]:g}'}"

    annotations.note(bad, "weights that are not numbers, negative or not finite", "1 is used", describe)
    weights[bad] = 1
    return weights


def _index(known: Ints, wanted: Ints) -> Ints:
    """Return the index of each wanted number among the known ones (at least one); -1 if it is not there."""
    order = np.argsort(known)
    place = np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)
    return np.where(known[order[place]] == wanted, order[place], -1)
