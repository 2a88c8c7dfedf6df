"""The demo data set: scikit-learn's handwritten digits on cluttered images, in COCO format.

It is made in seconds and is still a detection problem: class counts follow Zipf's law, sizes and contrast vary, and the
background contains textures, strokes and parts of digits.
"""

import filecmp
import json
import math
import shutil
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ..core.errors import UsageError

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZE = 96  # side of an image, pixels
ZIPF = 1.5  # a class's share is rank ** -ZIPF: the tenth class has 1 / 32 of the first
HEIGHTS = (14.0, 36.0)  # smallest and largest height of a digit before rotation and cropping, pixels
MAX_OBJECTS = 12  # per image
EMPTY_SHARE = 0.1  # share of images without objects
INK = 0.25  # smallest coverage of a pixel that belongs to the box

Array = NDArray[np.float32]
Box = tuple[int, int, int, int]  # x, y, width, height


class Digits(NamedTuple):
    """Handwritten digits.

    Args:
        images: N images of 8 x 8 pixels and a margin of 2, ink from 0 to 1.
        labels: The digit of each image, 0 to 9 [N].
        sources: The index of each image in scikit-learn's data set [N].
    """

    images: list[Image.Image]
    labels: NDArray[np.int64]
    sources: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "Digits":
        """Select the digits of some rows."""
        return Digits([self.images[i] for i in rows], self.labels[rows], self.sources[rows])


def write_digits(folder: Path, seed: int = 0, num_train: int = 3000, num_val: int = 300) -> None:
    """Write train.json, val.json and their images, in the folders train and val.

    The two splits share no handwritten digit. Besides COCO's keys, annotations have ``source``: the index of the digit
    in ``sklearn.datasets.load_digits``. The files are written to a temporary folder next to ``folder`` and renamed when
    they are complete, so an interrupted run leaves no partial data set.

    Args:
        folder: The folder to create. A folder with the same data set is left unchanged.
        seed: Equal seeds and sizes write equal files.
        num_train: Number of training images.
        num_val: Number of validation images.

    Raises:
        FileExistsError: The folder has other content.
        UsageError: scikit-learn is not installed.
    """
    train, val = _split(_load_digits(), np.random.default_rng(seed))
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        _write_part(partial, "train", train, num_train, np.random.default_rng([seed, 0]))
        _write_part(partial, "val", val, num_val, np.random.default_rng([seed, 1]))
        _move(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _load_digits() -> Digits:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise UsageError(
            'The demo data set is made from scikit-learn\'s digits: pip install "lit-dense[demo]"'
        ) from error
    bunch = load_digits()
    images = [Image.fromarray(np.pad(pixels / 16, 2).astype(np.float32)) for pixels in bunch.images]
    return Digits(images, bunch.target.astype(np.int64), np.arange(len(images)))


def _split(digits: Digits, rng: Generator) -> tuple[Digits, Digits]:
    """Split the digits: three quarters of each class for training, the others for validation."""
    train, val = [], []
    for label in range(len(NAMES)):
        rows = rng.permutation(np.flatnonzero(digits.labels == label))
        cut = len(rows) * 3 // 4
        train.append(rows[:cut])
        val.append(rows[cut:])
    return digits.take(np.concatenate(train)), digits.take(np.concatenate(val))


def _move(partial: Path, folder: Path) -> None:
    """Rename the complete data set, unless another process or an earlier run has written the same one."""
    try:
        partial.rename(folder)
    except OSError as error:
        if not folder.exists():
            raise
        parts = ["train.json", "val.json"]
        if filecmp.cmpfiles(partial, folder, parts, shallow=False)[0] != parts:
            raise FileExistsError(f"{folder} has other content: remove it or choose another folder") from error


def _write_part(root: Path, part: str, digits: Digits, num_images: int, rng: Generator) -> None:
    """Write one split: its images and its COCO file."""
    (root / part).mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    counts = rng.integers(1, MAX_OBJECTS + 1, num_images) * (rng.random(num_images) >= EMPTY_SHARE)
    labels = _deal_labels(int(counts.sum()), rng)
    for image_id, count in enumerate(counts, start=1):
        rows = [int(rng.choice(np.flatnonzero(digits.labels == labels.pop()))) for _ in range(count)]
        pixels, boxes = _compose(digits, rows, rng)
        name = f"{image_id:05d}.png"
        Image.fromarray(pixels).save(root / part / name, compress_level=1)
        images.append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE})
        for row, (x, y, width, height) in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(digits.labels[row]) + 1,
                    "bbox": [x, y, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "source": int(digits.sources[row]),
                }
            )
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, start=1)]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"{part}.json").write_text(json.dumps(coco))


def _deal_labels(count: int, rng: Generator) -> list[int]:
    """Return ``count`` labels in random order; class shares follow Zipf's law, rounded to whole objects."""
    shares = np.arange(1, len(NAMES) + 1) ** -ZIPF
    ends = np.round(np.cumsum(shares) / shares.sum() * count).astype(int)
    labels = np.repeat(np.arange(len(NAMES)), np.diff(ends, prepend=0))
    return [int(label) for label in rng.permutation(labels)]


def _compose(digits: Digits, rows: list[int], rng: Generator) -> tuple[NDArray[np.uint8], list[tuple[int, Box]]]:
    """Return an image [SIZE, SIZE], and the rows of the digits that fit into it, each with its box."""
    canvas = _paper(rng)
    _draw_clutter(canvas, digits, rng)
    placed: list[tuple[int, Box]] = []
    for row in rows:
        glyph = _glyph(digits.images[row], rng)
        box = _find_room(glyph, [b for _, b in placed], rng)
        if box is not None:
            _draw(canvas, glyph, box[0], box[1], rng.uniform(0.35, 0.8))
            placed.append((row, box))
    canvas += rng.uniform(0.01, 0.04) * rng.standard_normal(canvas.shape, np.float32)
    return (np.clip(canvas, 0, 1) * 255).astype(np.uint8), placed


def _paper(rng: Generator) -> Array:
    """Return light paper with stains of several sizes [SIZE, SIZE], values around .75."""
    paper = np.full((SIZE, SIZE), rng.uniform(0.65, 0.9), np.float32)
    for cells in (3, 8, 32):
        coarse = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32))
        stains = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        paper += rng.uniform(0, 0.08) * stains
    return paper


def _draw_clutter(canvas: Array, digits: Digits, rng: Generator) -> None:
    """Draw background clutter: thin lines, arcs and parts of digits."""
    strokes = Image.new("L", (SIZE, SIZE))
    pen = ImageDraw.Draw(strokes)
    for _ in range(rng.integers(0, 4)):
        x, y, far_x, far_y = (int(v) for v in rng.integers(-SIZE // 4, SIZE * 5 // 4, 4))
        width = int(rng.integers(1, 3))
        if rng.random() < 0.5:
            pen.line((x, y, far_x, far_y), fill=int(rng.integers(60, 200)), width=width)
        else:
            corners = (min(x, far_x), min(y, far_y), max(x, far_x) + 1, max(y, far_y) + 1)
            start = int(rng.integers(0, 360))
            pen.arc(corners, start, start + 120, fill=int(rng.integers(60, 200)), width=width)
    canvas -= 0.6 * np.asarray(strokes, np.float32) / 255
    for _ in range(rng.integers(0, 5)):
        glyph = _glyph(digits.images[rng.integers(len(digits.images))], rng)
        height, width = glyph.shape
        part = glyph[: math.ceil(height * 0.4)] if rng.random() < 0.5 else glyph[:, : math.ceil(width * 0.4)]
        x, y = (int(rng.integers(0, SIZE - side + 1)) for side in part.shape[::-1])
        _draw(canvas, part, x, y, rng.uniform(0.2, 0.7))


def _glyph(digit: Image.Image, rng: Generator) -> Array:
    """Enlarge a digit, rotate it slightly and crop it to its box: ink coverage from 0 to 1 [height, width]."""
    height = math.exp(rng.uniform(math.log(HEIGHTS[0]), math.log(HEIGHTS[1])))
    angle = rng.uniform(-0.2, 0.2)
    down, across = 8 / height, 8 / (height * rng.uniform(0.85, 1.15))  # pixels of the digit per pixel of the image
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]) * (across, down)
    side = round(height * 1.6)
    origin = digit.width / 2 - turn.sum(axis=1) * side / 2  # aligns both centres
    affine = (*turn[0], origin[0], *turn[1], origin[1])
    turned = np.asarray(digit.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC))
    ink = np.clip((turned - 0.3) / 0.4, 0, 1).astype(np.float32)
    rows, columns = (np.flatnonzero((ink >= INK).any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _find_room(glyph: Array, boxes: list[Box], rng: Generator) -> Box | None:
    """Find a place where the glyph touches no other box; None after 50 tries."""
    height, width = glyph.shape
    for _ in range(50):
        x, y = int(rng.integers(0, SIZE - width + 1)), int(rng.integers(0, SIZE - height + 1))
        if all(x >= bx + bw or bx >= x + width or y >= by + bh or by >= y + height for bx, by, bw, bh in boxes):
            return x, y, width, height
    return None


def _draw(canvas: Array, glyph: Array, x: int, y: int, contrast: float) -> None:
    """Darken the canvas where the glyph has ink, in place."""
    height, width = glyph.shape
    canvas[y : y + height, x : x + width] *= 1 - contrast * glyph
