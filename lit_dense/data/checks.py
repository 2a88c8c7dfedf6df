"""Checks of one COCO file and its images: what can be repaired is, and every problem is noted."""

from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from .coco import Bools, CocoData, Floats, Ints
from .coco_json import NO_ID, CocoJson, integer, short
from .images import Header, read_headers
from .lvis_json import read_federated
from .problems import Problems

ROUNDING = 0.02  # pixels: COCO's boxes have two decimals, so x + width may pass the border by a hundredth


class _Image(NamedTuple):
    id: int
    file_name: str
    height: int
    width: int
    upright: bool


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
    images, dropped = _check_images(content, folder, problems)
    if not images:
        problems.add(content.path, "no image that can be used")
        return None
    return _check_boxes(content, folder, images, dropped, problems)


class _ImageNotes:
    """What is wrong with images, kind by kind, until all have been looked at."""

    def __init__(self, content: CocoJson) -> None:
        ids, counts = np.unique(content.annotations["image_id"], return_counts=True)
        self.num_boxes = dict(zip(ids.tolist(), counts.tolist(), strict=True))
        self.details: dict[tuple[str, str], list[str]] = {}
        self.dropped: set[int] = set()

    def note(self, what: str, repair: str, detail: str) -> None:
        self.details.setdefault((what, repair), []).append(detail)

    def drop(self, what: str, image_id: int | None, detail: str) -> None:
        if image_id is not None:
            self.dropped.add(image_id)
            if number := self.num_boxes.get(image_id):
                detail += f"; annotations that go with it: {number}"
        self.note(what, "dropped", detail)

    def report(self, path: Path, problems: Problems) -> None:
        for (what, repair), details in self.details.items():
            problems.add(path, what, details, repair=repair)


def _check_images(content: CocoJson, folder: Path, problems: Problems) -> tuple[list[_Image], set[int]]:
    """The images that can be used, and the ids of those that cannot."""
    notes = _ImageNotes(content)
    entries: dict[int, dict[str, Any]] = {}
    for entry in content.images:
        fields = entry if isinstance(entry, dict) else {}
        image_id, file_name = integer(fields.get("id")), fields.get("file_name")
        if image_id is None or not isinstance(file_name, str) or not file_name:
            notes.drop("images without an integer id or a file name", image_id, f"image {short(entry)}")
        elif image_id in entries:
            detail = f"image {image_id}: {entries[image_id]['file_name']}, {file_name}"
            notes.note("image ids used more than once", "", detail)
        elif _leaves_folder(file_name):
            notes.drop("file names that leave the image folder", image_id, f"image {image_id} ({file_name})")
        else:
            entries[image_id] = entry
    headers = read_headers([f"{folder}/{entry['file_name']}" for entry in entries.values()])
    images = []
    for (image_id, entry), header in zip(entries.items(), headers, strict=True):
        name = f"image {image_id} ({entry['file_name']})"
        if header == "no such file":
            notes.drop("missing image files", image_id, name)
        elif isinstance(header, str):
            notes.drop("unreadable image files", image_id, f"{name}: {header}")
        else:
            images.append(_sized(image_id, entry, header, notes))
    notes.report(content.path, problems)
    return images, notes.dropped - {image.id for image in images}


def _leaves_folder(file_name: str) -> bool:
    depth = 0
    path = PurePath(file_name)
    for part in path.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return bool(path.anchor)


def _sized(image_id: int, entry: dict[str, Any], header: Header, notes: _ImageNotes) -> _Image:
    """The image with the size that its boxes refer to."""
    file_name = entry["file_name"]
    name = f"image {image_id} ({file_name})"
    stated = integer(entry.get("width")), integer(entry.get("height"))
    if stated == (header.width, header.height):
        pass
    elif header.swapped and stated == (header.height, header.width):
        # Whoever drew the boxes saw the picture as the file has it: turning it would put them elsewhere.
        notes.note("sizes of images before their EXIF turn", "read without the turn", name)
        return _Image(image_id, file_name, header.width, header.height, False)
    elif None in stated or min(stated[0] or 0, stated[1] or 0) < 1:
        notes.note("images without width and height", "read from the image file", name)
    else:
        sizes = f"{stated[0]} x {stated[1]}, the file {header.width} x {header.height}"
        notes.note("sizes that differ from the image file", "the file's are taken", f"{name}: the JSON says {sizes}")
    return _Image(image_id, file_name, header.height, header.width, True)


class _Sieve:
    """Annotations that are still good, and how to tell of those that are not."""

    def __init__(self, content: CocoJson, images: list[_Image], problems: Problems) -> None:
        self.table = content.annotations
        self.path = content.path
        self.file_names = {image.id: image.file_name for image in images}
        self.problems = problems
        self.keep: Bools = np.ones(len(self.table), bool)

    def drop(self, bad: Bools, what: str, describe: Callable[[int], str]) -> None:
        """Notes and drops annotations; each is told for the first thing that is wrong with it."""
        self.note(bad, what, "dropped", describe)
        self.keep &= ~bad

    def note(self, bad: Bools, what: str, repair: str, describe: Callable[[int], str]) -> None:
        """Notes annotations."""
        rows = np.flatnonzero(bad & self.keep).tolist()
        if rows:
            details = (f"{self._name(row)}: {describe(row)}" for row in rows)
            self.problems.add(self.path, what, details, count=len(rows), repair=repair)

    def _name(self, row: int) -> str:
        number, image_id = self.table["id"][row], self.table["image_id"][row]
        file_name = f" ({self.file_names[image_id]})" if image_id in self.file_names else ""
        return f"annotation {'without id' if number == NO_ID else number} of image {image_id}{file_name}"

    def box(self, row: int) -> str:
        """The box as the file has it."""
        return f"box [{', '.join(f'{value:g}' for value in self.table['bbox'][row])}]"


def _check_boxes(
    content: CocoJson, folder: Path, images: list[_Image], dropped: set[int], problems: Problems
) -> CocoData:
    table, sieve = content.annotations, _Sieve(content, images, problems)
    image_ids = np.array([image.id for image in images])
    sizes = np.array([(image.height, image.width) for image in images])
    sieve.keep &= ~np.isin(table["image_id"], list(dropped))  # told with their images
    image_index = _index(image_ids, table["image_id"])
    sieve.drop(image_index < 0, "annotations of images that are not listed", lambda row: "no such image")
    if content.categories:
        unknown = _index(np.array([c["id"] for c in content.categories]), table["category_id"]) < 0
        sieve.drop(unknown, "annotations of unknown categories", lambda row: f"category {table['category_id'][row]}")
    boxes, clipped = _check_coordinates(sieve, sizes[image_index])
    ids = _check_ids(sieve)
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


def _check_coordinates(sieve: _Sieve, sizes: Ints) -> tuple[Floats, Bools]:
    """Boxes as corners inside their images, [N, 4], and which of them were clipped, [N].

    Args:
        sieve: N annotations.
        sizes: Height and width of the image of each, [N, 2].
    """
    bbox = sieve.table["bbox"]
    sieve.drop(_any(~np.isfinite(bbox)), "boxes that are not finite", sieve.box)
    sieve.drop(_any(~(bbox[:, 2:] > 0)), "boxes of zero or negative size", lambda row: _flaw(sieve, row))

    def with_size(row: int) -> str:
        return f"{sieve.box(row)}, the image is {sizes[row, 1]} x {sizes[row, 0]}"

    with np.errstate(invalid="ignore", over="ignore"):  # of boxes that are dropped already
        corners = np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1)
        limits = sizes[:, [1, 0, 1, 0]]
        outside = _any((corners[:, 2:] <= 0) | (corners[:, :2] >= limits[:, :2]))
        inside = corners.clip(0, limits)
        boxes = inside.astype(np.float32)
        lost = _any(~(boxes[:, 2:] > boxes[:, :2]))
        clipped = _any(np.abs(inside - corners) > ROUNDING)
    sieve.drop(outside, "boxes wholly outside their image", with_size)
    sieve.drop(lost, "boxes without size after clipping", with_size)
    sieve.note(clipped, "boxes partly outside their image", "clipped", with_size)
    return boxes, clipped


def _any(rows: Bools) -> Bools:
    return np.asarray(rows.any(axis=1))


def _flaw(sieve: _Sieve, row: int) -> str:
    sides = zip(("width", "height"), sieve.table["bbox"][row][2:], strict=True)
    flaws = [f"{'zero' if length == 0 else 'negative'} {side}" for side, length in sides if not length > 0]
    return f"{sieve.box(row)} has {' and '.join(flaws)}"


def _check_ids(sieve: _Sieve) -> Ints:
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


def _check_weights(sieve: _Sieve, key: str) -> Floats:
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
