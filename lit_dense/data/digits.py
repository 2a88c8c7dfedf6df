"""The demo data set: scikit-learn's handwritten digits, scattered over cluttered pictures, in COCO's format.

It is small enough to make in seconds and still a detection problem: class counts fall off like Zipf's law, sizes and
contrast vary, and there are textures, strokes and pieces of digits that count as background.
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
SIZE = 96  # of a picture, pixels
ZIPF = 1.5  # a class's share is rank ** -ZIPF: the tenth class is 1 / 32 of the first
HEIGHTS = (14.0, 36.0)  # of a digit before it is turned and cut to its ink, pixels
MAX_OBJECTS = 12  # in a picture
EMPTY_SHARE = 0.1  # of the pictures
INK = 0.25  # coverage from which a pixel belongs to the box

Array = NDArray[np.float32]
Box = tuple[int, int, int, int]  # x, y, width, height


class Digits(NamedTuple):
    """Handwritten digits.

    Args:
        images: Pictures of 8 x 8 pixels and a margin of 2, ink from 0 to 1.
        labels: The digit that each shows, 0 to 9 [N].
        sources: The number of each in scikit-learn's set [N].
    """

    images: list[Image.Image]
    labels: NDArray[np.int64]
    sources: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> "Digits":
        """The digits of these rows."""
        return Digits([self.images[i] for i in rows], self.labels[rows], self.sources[rows])


def write_digits(folder: Path, seed: int = 0, num_train: int = 3000, num_val: int = 300) -> None:
    """Writes train.json, val.json and the pictures of both, in folders train and val.

    The two parts share no handwritten digit. The annotations carry, besides COCO's keys, ``source``: the number of the
    digit in ``sklearn.datasets.load_digits``. Everything is made in a folder beside the asked one and moved there when
    it is complete, so a run that is stopped leaves no half of a set.

    Args:
        folder: Where to write. Made here; a folder that holds the same set is left as it is.
        seed: Equal seeds and sizes write equal files.
        num_train: Pictures to train on.
        num_val: Pictures to validate on.

    Raises:
        FileExistsError: The folder holds something else.
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
    """Three quarters of the digits of each class to train on, and the others to validate on."""
    train, val = [], []
    for label in range(len(NAMES)):
        rows = rng.permutation(np.flatnonzero(digits.labels == label))
        cut = len(rows) * 3 // 4
        train.append(rows[:cut])
        val.append(rows[cut:])
    return digits.take(np.concatenate(train)), digits.take(np.concatenate(val))


def _move(partial: Path, folder: Path) -> None:
    """Gives the finished set its name, unless another process, or an earlier run, has written the same one."""
    try:
        partial.rename(folder)
    except OSError as error:
        if not folder.exists():
            raise
        parts = ["train.json", "val.json"]
        if filecmp.cmpfiles(partial, folder, parts, shallow=False)[0] != parts:
            raise FileExistsError(f"{folder} holds something else: remove it or name another folder") from error


def _write_part(root: Path, part: str, digits: Digits, num_images: int, rng: Generator) -> None:
    """Writes one part: its pictures and its COCO file."""
    (root / part).mkdir()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    counts = rng.integers(1, MAX_OBJECTS + 1, num_images) * (rng.random(num_images) >= EMPTY_SHARE)
    labels = _deal_labels(int(counts.sum()), rng)
    for image_id, count in enumerate(counts, start=1):
        rows = [int(rng.choice(np.flatnonzero(digits.labels == labels.pop()))) for _ in range(count)]
        picture, boxes = _compose(digits, rows, rng)
        name = f"{image_id:05d}.png"
        Image.fromarray(picture).save(root / part / name, compress_level=1)
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
    """Labels of ``count`` objects in random order: every class its share by Zipf's law, to the nearest object."""
    shares = np.arange(1, len(NAMES) + 1) ** -ZIPF
    ends = np.round(np.cumsum(shares) / shares.sum() * count).astype(int)
    labels = np.repeat(np.arange(len(NAMES)), np.diff(ends, prepend=0))
    return [int(label) for label in rng.permutation(labels)]


def _compose(digits: Digits, rows: list[int], rng: Generator) -> tuple[NDArray[np.uint8], list[tuple[int, Box]]]:
    """A picture [SIZE, SIZE], and the rows of the digits that found room in it, each with its box."""
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
    """Light paper with stains of several sizes [SIZE, SIZE], values around .75."""
    paper = np.full((SIZE, SIZE), rng.uniform(0.65, 0.9), np.float32)
    for cells in (3, 8, 32):
        coarse = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32))
        stains = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        paper += rng.uniform(0, 0.08) * stains
    return paper


def _draw_clutter(canvas: Array, digits: Digits, rng: Generator) -> None:
    """Draws thin lines and arcs, and pieces of digits, none of which is an object."""
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
        piece = glyph[: math.ceil(height * 0.4)] if rng.random() < 0.5 else glyph[:, : math.ceil(width * 0.4)]
        x, y = (int(rng.integers(0, SIZE - side + 1)) for side in piece.shape[::-1])
        _draw(canvas, piece, x, y, rng.uniform(0.2, 0.7))


def _glyph(digit: Image.Image, rng: Generator) -> Array:
    """The ink of a digit, enlarged, turned a little and cut to its box: coverage from 0 to 1 [height, width]."""
    height = math.exp(rng.uniform(math.log(HEIGHTS[0]), math.log(HEIGHTS[1])))
    angle = rng.uniform(-0.2, 0.2)
    down, across = 8 / height, 8 / (height * rng.uniform(0.85, 1.15))  # pixels of the digit per pixel of the picture
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]]) * (across, down)
    side = round(height * 1.6)
    origin = digit.width / 2 - turn.sum(axis=1) * side / 2  # centre on centre
    affine = (*turn[0], origin[0], *turn[1], origin[1])
    turned = np.asarray(digit.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC))
    ink = np.clip((turned - 0.3) / 0.4, 0, 1).astype(np.float32)
    rows, columns = (np.flatnonzero((ink >= INK).any(axis=axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _find_room(glyph: Array, boxes: list[Box], rng: Generator) -> Box | None:
    """A place where the glyph touches no other box, or None after many tries."""
    height, width = glyph.shape
    for _ in range(50):
        x, y = int(rng.integers(0, SIZE - width + 1)), int(rng.integers(0, SIZE - height + 1))
        if all(x >= bx + bw or bx >= x + width or y >= by + bh or by >= y + height for bx, by, bw, bh in boxes):
            return x, y, width, height
    return None


def _draw(canvas: Array, glyph: Array, x: int, y: int, contrast: float) -> None:
    """Darkens the canvas where the glyph has ink, in place."""
    height, width = glyph.shape
    canvas[y : y + height, x : x + width] *= 1 - contrast * glyph
