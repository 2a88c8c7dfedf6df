"""Checks of one COCO file and its images: what can be repaired is, and every problem is noted."""

from pathlib import Path

import numpy as np

from .coco import Bools, CocoData, Floats, Ints
from .coco_json import NO_ID, CocoJson
from .coordinates import PIXELS, note_other_units, note_small, note_stated_sizes
from .image_checks import CheckedImage, check_images
from .lvis_json import read_federated
from .problems import KEPT, Problems
from .repeats import note_repeated_annotations
from .sieve import Sieve

ROUNDING = 0.02  # pixels: COCO's boxes have two decimals, so x + width may pass the border by a hundredth


def check_split(content: CocoJson, folder: Path, problems: Problems) -> CocoData | None:
    """Checks and repairs the content of one COCO file, reading the header of every image file.

    Args:
        content: What the file says.
        folder: The folder with its images.
        problems: Where problems are noted, repaired or not.

    Returns:
        The images and boxes that are left; None where there is no image.
    """
    if not folder.is_dir():
        problems.add(folder, "the image folder is a file" if folder.exists() else "no such image folder")
        return None
    if not content.images:
        problems.add(content.path, "no images")
        return None
    images, dropped = check_images(content, folder, problems)
    if not images:
        problems.add(content.path, "no image that can be used")
        return None
    return _check_boxes(content, folder, images, dropped, problems)


def _check_boxes(
    content: CocoJson, folder: Path, images: list[CheckedImage], dropped: set[int], problems: Problems
) -> CocoData:
    table, sieve = content.annotations, Sieve(content, images, problems)
    image_ids = np.array([image.id for image in images])
    sizes = np.array([(image.height, image.width) for image in images])
    sieve.keep &= ~np.isin(table["image_id"], list(dropped))  # told with their images
    image_index = _index(image_ids, table["image_id"])
    sieve.drop(image_index < 0, "annotations of images that are not listed", lambda row: "no such image")
    if content.categories:
        unknown = _index(np.array([c["id"] for c in content.categories]), table["category_id"]) < 0
        sieve.drop(unknown, "annotations of unknown categories", lambda row: f"category {table['category_id'][row]}")
    stated = np.array([image.stated or (0, 0) for image in images])[:, ::-1]
    boxes, clipped = _check_coordinates(sieve, sizes[image_index], stated[image_index])
    ids = _check_ids(sieve)
    note_repeated_annotations(sieve)
    _note_areas(sieve)
    weight = None if content.weight_key is None else _check_weights(sieve, content.weight_key)

    rows = np.flatnonzero(sieve.keep)
    rows = rows[np.argsort(image_index[rows], kind="stable")]
    boxes, clipped = boxes[rows], clipped[rows]
    box_area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    area = table["area"][rows]
    area = np.where((area > 0) & (area < 1e30), area, box_area).astype(np.float32)  # NaN where the file has none
    counts = np.bincount(image_index[rows], minlength=len(images))
    return CocoData(
        path=content.path,
        folder=folder,
        categories=content.categories,
        image_ids=image_ids,
        file_names=[image.file_name for image in images],
        sizes=sizes,
        upright=np.array([image.upright for image in images]),
        offsets=np.concatenate([[0], counts.cumsum()]),
        annotation_ids=ids[rows],
        category_ids=table["category_id"][rows],
        boxes=boxes,
        area=np.where(clipped, np.minimum(area, box_area), area),
        iscrowd=table["iscrowd"][rows] != 0,
        weight=None if weight is None else weight[rows],
        federated=read_federated(content, image_ids.tolist(), problems),
    )


def _check_coordinates(sieve: Sieve, sizes: Ints, stated: Ints) -> tuple[Floats, Bools]:
    """Boxes as corners inside their images, [N, 4], and which of them were clipped, [N].

    Args:
        sieve: N annotations.
        sizes: Height and width of the image of each, [N, 2].
        stated: Height and width in the COCO file where they are others than the picture's, else 0, [N, 2].
    """
    bbox = sieve.table["bbox"]
    sieve.drop(_any(~np.isfinite(bbox)), "boxes that are not finite", sieve.box)
    sieve.drop(_any(~(bbox[:, 2:] > 0)), "boxes of zero or negative size", lambda row: _flaw(sieve, row))
    fractions = note_other_units(sieve, sizes)

    def with_size(row: int) -> str:
        return f"{sieve.box(row)}, the image is {sizes[row, 1]} x {sizes[row, 0]}"

    with np.errstate(invalid="ignore", over="ignore"):  # of boxes that are dropped already
        corners = np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1)
        limits = sizes[:, [1, 0, 1, 0]]
        outside = _any((corners[:, 2:] <= 0) | (corners[:, :2] >= limits[:, :2]))
        inside = corners.clip(0, limits)
        boxes = inside.astype(np.float32)
        lost = _any(~(boxes[:, 2:] > boxes[:, :2]) | (inside[:, 2:] - inside[:, :2] < ROUNDING / 2))
        clipped = _any(np.abs(inside - corners) > ROUNDING)
        note_stated_sizes(sieve, sizes, stated)
    cure = f"{PIXELS} of the picture that file_name names, from its upper left corner"
    sieve.drop(outside, "boxes wholly outside their image", with_size, cure)
    sieve.drop(lost, "boxes without size after clipping", with_size)
    sieve.note(clipped, "boxes partly outside their image", "clipped", with_size)
    note_small(sieve, inside[:, 2:] - inside[:, :2], fractions, 1 - ROUNDING)
    return boxes, clipped


def _any(rows: Bools) -> Bools:
    return np.asarray(rows.any(axis=1))


def _flaw(sieve: Sieve, row: int) -> str:
    sides = zip(("width", "height"), sieve.table["bbox"][row][2:], strict=True)
    flaws = [f"{'zero' if length == 0 else 'negative'} {side}" for side, length in sides if not length > 0]
    return f"{sieve.box(row)} has {' and '.join(flaws)}"


def _check_ids(sieve: Sieve) -> Ints:
    """The ids of the annotations, each once."""
    ids: Ints = sieve.table["id"].copy()
    rows = np.flatnonzero(sieve.keep)
    first = np.unique(ids[rows], return_index=True)[1]
    bad = np.zeros(len(ids), bool)
    bad[rows] = True
    bad[rows[first]] = False
    bad |= (ids == NO_ID) & sieve.keep
    sieve.note(bad, "annotation ids that are missing or used before", "given new ids", sieve.box)
    ids[bad] = max(ids.max(initial=0), 0) + 1 + np.arange(bad.sum())
    return ids


def _note_areas(sieve: Sieve) -> None:
    """Notes areas that no mask in its box can have: evaluation tells small objects from large ones by them."""
    given, box = sieve.table["area"], sieve.table["bbox"][:, 2:].prod(1)
    with np.errstate(invalid="ignore"):  # NaN where the file has none
        bad = ((given > 1.5 * box + 2) & (given < 1e30)) | ((given > 0) & (given <= 1) & (box > 100))
    cure = "area must be that of the mask, or of the box, in square pixels; without the key that of the box is taken"
    sieve.note(
        bad, "areas that do not fit their boxes", KEPT, lambda row: f"area {given[row]:g}, {sieve.box(row)}", cure
    )


def _check_weights(sieve: Sieve, key: str) -> Floats:
    """The weights of the annotations, finite and not negative, [N]."""
    given = sieve.table["weight"]
    with np.errstate(over="ignore"):  # what 32 bits cannot hold is not finite
        weights = given.astype(np.float32)
    bad = ~(np.isfinite(weights) & (weights >= 0))

    def describe(row: int) -> str:
        return f"{key} is {'no number' if np.isnan(given[row]) else f'{given[row]:g}'}"

    sieve.note(bad, "weights that are no numbers, negative or not finite", "1 is taken", describe)
    weights[bad] = 1
    return weights


def _index(known: Ints, wanted: Ints) -> Ints:
    """Where each wanted number is among the known ones (at least one), -1 where it is not."""
    order = np.argsort(known)
    place = np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)
    return np.where(known[order[place]] == wanted, order[place], -1)
