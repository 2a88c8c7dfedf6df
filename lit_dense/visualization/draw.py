"""Drawing of boxes, class names, scores and weights on images."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as F

# Okabe and Ito's colours, distinguishable with colour blindness, without black
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
LIGHT = {"#E69F00", "#56B4E9", "#F0E442", "#CC79A7"}
GAP = 8
POSITIVE, NEGATIVE = "#E69F00", "#56B4E9"

Rectangle = tuple[float, float, float, float]


def draw_boxes(
    image: Tensor,
    boxes: Tensor,
    labels: Tensor,
    names: Sequence[str],
    scores: Tensor | None = None,
    side: int = 480,
    note: str = "",
) -> Image.Image:
    """Draw boxes on an image, each in the colour of its class and with its name.

    Args:
        image: The image, uint8 or float in [0, 1] [3, H, W].
        boxes: Boxes in pixels of the image, x1 y1 x2 y2 [N, 4].
        labels: Classes of the boxes [N].
        names: The name of each class.
        scores: Scores to print after the names [N]. Default: no scores.
        side: Smallest length of the shorter side of the result, in pixels; smaller images are enlarged.
        note: Text in the lower left corner.
    """
    canvas, factor = _enlarged(image, side)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=max(12, min(canvas.size) // 36))
    if note:
        left, top, right, bottom = draw.textbbox((0, 0), note, font=font)
        low = canvas.height - (bottom - top) - 8
        draw.rectangle((0, low, right - left + 8, canvas.height), fill="white")
        draw.text((4 - left, low + 4 - top), note, fill="black", font=font)
    captions: list[tuple[str, Rectangle, str]] = []
    rows = list(zip((boxes.cpu() * factor).tolist(), labels.tolist(), strict=True))
    for box, label in reversed(rows):  # the best boxes come first and are drawn last, on top
        draw.rectangle(box, outline=COLOURS[label % len(COLOURS)], width=max(2, min(canvas.size) // 240))
    for index, (box, label) in enumerate(rows):
        name = names[label] if label < len(names) else str(label)
        caption = name if scores is None else f"{name} {scores[index]:.2f}"
        captions.append((caption, tuple(box), COLOURS[label % len(COLOURS)]))
    _write_captions(draw, font, captions, canvas.size)
    return canvas


def crop(image: Tensor, box: Tensor) -> Image.Image:
    """Cut a box out of an image, at least one pixel of it.

    Args:
        image: The image, uint8 or float in [0, 1] [3, H, W].
        box: The box in pixels of the image, x1 y1 x2 y2 [4].
    """
    canvas, _ = _enlarged(image, 1)
    x1, y1, x2, y2 = box.tolist()
    left, top = min(max(0, math.floor(x1)), canvas.width - 1), min(max(0, math.floor(y1)), canvas.height - 1)
    right, bottom = min(math.ceil(x2), canvas.width), min(math.ceil(y2), canvas.height)
    return canvas.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def draw_error(
    image: Tensor, objects: Tensor, detection: Tensor | None, missed: Tensor | None, side: int
) -> Image.Image:
    """Draw the part of an image around an error: objects as dashed lines, the detection as a solid line.

    Args:
        image: The image, uint8 or float in [0, 1] [3, H, W].
        objects: Boxes of all objects in pixels of the image, x1 y1 x2 y2 [G, 4].
        detection: Box of the detection [4]; None for none.
        missed: Box of the missed object, drawn as a thick line in the centre [4]; None to show the detection there.
        side: Length of the longer side of the result in pixels.
    """
    whole, _ = _enlarged(image, 1)
    centre = missed if missed is not None else detection
    assert centre is not None
    x1, y1, x2, y2 = centre.tolist()
    reach = max(2.5 * max(x2 - x1, y2 - y1), 48) / 2
    left, right = (int(min(max(0, (x1 + x2) / 2 + way * reach), whole.width)) for way in (-1, 1))
    top, bottom = (int(min(max(0, (y1 + y2) / 2 + way * reach), whole.height)) for way in (-1, 1))
    left, top = min(left, whole.width - 1), min(top, whole.height - 1)  # a box outside the image shows its border
    part = whole.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    factor = side / max(part.size)
    canvas = part.resize((max(1, round(part.width * factor)), max(1, round(part.height * factor))))
    draw = ImageDraw.Draw(canvas)

    def scaled(box: Tensor) -> Rectangle:
        x1, y1, x2, y2 = box.tolist()
        return factor * (x1 - left), factor * (y1 - top), factor * (x2 - left), factor * (y2 - top)

    for box in objects:
        draw.rectangle(_grown(scaled(box), 1), outline="black", width=4)
        _draw_dashed(draw, scaled(box), 2)
    if detection is not None:
        draw.rectangle(_grown(scaled(detection), 2), outline="black", width=7)
        draw.rectangle(_grown(scaled(detection), 1), outline=POSITIVE, width=5)
    if missed is not None:
        draw.rectangle(_grown(scaled(missed), 5), outline="black", width=10)
        _draw_dashed(draw, scaled(missed), 8)
    return canvas


def _grown(box: Rectangle, by: float) -> Rectangle:
    """Return a box that is larger on each side."""
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by


def draw_weights(
    image: Tensor, objects: Tensor, anchors: Tensor, weights: Tensor, positive: Tensor, side: int = 480
) -> Image.Image:
    """Draw objects and anchors on an image, with the anchors' weights.

    Args:
        image: The image, uint8 or float in [0, 1] [3, H, W].
        objects: Ground-truth boxes in pixels of the image, x1 y1 x2 y2 [G, 4].
        anchors: Boxes of the anchors, x1 y1 x2 y2, the most important first. Its line is drawn on top. If numbers
            would overlap, only the most important one is written [N, 4].
        weights: Weights of the anchors [N].
        positive: Whether an anchor is positive; the others are negatives [N].
        side: Smallest length of the shorter side of the result, in pixels; smaller images are enlarged.
    """
    canvas, factor = _enlarged(image, side)
    draw = ImageDraw.Draw(canvas)
    for box in (objects.cpu() * factor).tolist():
        _draw_object(draw, box)
    captions: list[tuple[str, Rectangle, str]] = []
    rows = list(zip((anchors.cpu() * factor).tolist(), weights.tolist(), positive.tolist(), strict=True))
    for box, _, is_positive in reversed(rows):
        _draw_anchor(draw, box, is_positive)
    for box, weight, is_positive in rows:
        left, top = max(0.0, box[0]), max(0.0, box[1])  # anchors may extend beyond the border
        right, bottom = min(float(canvas.width), box[2]), min(float(canvas.height), box[3])
        captions.append((f"{weight:.2f}", (left, top, right, bottom), POSITIVE if is_positive else NEGATIVE))
    _write_captions(draw, ImageFont.load_default(size=max(12, min(canvas.size) // 36)), captions, canvas.size)
    return canvas


def with_weight_legend(sheet: Image.Image) -> Image.Image:
    """Add a legend of the lines below a sheet of :func:`draw_weights` images."""
    height, length = 36, 40
    whole = Image.new("RGB", (sheet.width, sheet.height + height), "white")
    whole.paste(sheet)
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(size=18)
    x, top, bottom = GAP, sheet.height + 6, sheet.height + height - 8
    for name in ("positive", "hard negative", "object"):
        box = (x, top, x + length, bottom)
        if name == "object":
            _draw_object(draw, box)
        else:
            _draw_anchor(draw, box, name == "positive")
        x += length + GAP
        draw.text((x, top - 1), name, fill="black", font=font)
        x += round(draw.textlength(name, font=font)) + 3 * GAP
    draw.text((x, top - 1), "number: weight (1 = unweighted)", fill="black", font=font)
    return whole


def _enlarged(image: Tensor, side: int) -> tuple[Image.Image, float]:
    """Enlarge an image so that its shorter side has at least ``side`` pixels; also returns the scale factor.

    Of images with more than three channels, such as satellite images, the first three are shown; with two, the first.
    """
    shown = image[:3] if len(image) >= 3 else image[:1]
    shown = shown.detach().cpu()
    shown = shown.float() if shown.is_floating_point() else shown  # half precision cannot be converted
    canvas: Image.Image = F.to_pil_image(shown).convert("RGB")
    factor = max(1.0, side / min(canvas.size))
    return canvas.resize((round(canvas.width * factor), round(canvas.height * factor))), factor


def _draw_object(draw: ImageDraw.ImageDraw, box: Sequence[float]) -> None:
    """Draw a thin white line on black, which is visible on any image."""
    draw.rectangle(tuple(box), outline="black", width=3)
    x1, y1, x2, y2 = box
    if min(x2 - x1, y2 - y1) >= 2:  # a thinner object has no inside
        draw.rectangle((x1 + 1, y1 + 1, x2 - 1, y2 - 1), outline="white")


def _draw_anchor(draw: ImageDraw.ImageDraw, box: Sequence[float], positive: bool) -> None:
    """Draw a solid line for a positive, a dashed line for a negative."""
    x1, y1, x2, y2 = box
    if positive:
        draw.rectangle((x1, y1, x2, y2), outline=POSITIVE, width=2)
        return
    _draw_dashed(draw, (x1, y1, x2, y2), 2)


def _draw_dashed(draw: ImageDraw.ImageDraw, box: Rectangle, width: int) -> None:
    x1, y1, x2, y2 = box
    for x in (x1, x2):
        for low, high in _dashes(y1, y2):
            draw.line((x, low, x, high), fill=NEGATIVE, width=width)
    for y in (y1, y2):
        for low, high in _dashes(x1, x2):
            draw.line((low, y, high, y), fill=NEGATIVE, width=width)


def _dashes(start: float, end: float, dash: int = 7, gap: int = 5) -> list[tuple[float, float]]:
    """Return the dashes of a line; gaps are aligned to the image, so overlapping lines have the same gaps."""
    period = dash + gap
    lows = range(int(start // period) * period, int(end) + 1, period)
    dashes = [(max(start, low), min(end, low + dash)) for low in lows]
    return [(low, high) for low, high in dashes if low < high]


def _write_captions(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    captions: Sequence[tuple[str, Rectangle, str]],
    size: tuple[int, int],
) -> None:
    """Write each caption above, below or inside its box, where it hides no earlier one; otherwise skip it."""
    taken: list[Rectangle] = []
    for text, (x1, y1, _, y2), colour in captions:
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        width, height = right - left + 4, bottom - top + 4
        x = max(0.0, min(x1, size[0] - width))
        for y in (y1 - height, y2, y1):
            place = (x, y, x + width, y + height)
            if y >= 0 and y + height <= size[1] and not any(_overlap(place, other) for other in taken):
                draw.rectangle(place, fill=colour)
                draw.text((x + 2 - left, y + 2 - top), text, fill="black" if colour in LIGHT else "white", font=font)
                taken.append(place)
                break


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def side_by_side(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str]) -> Image.Image:
    """Arrange images in a table with a title above each column.

    Args:
        rows: Images, equally many in each row.
        titles: One title for each column.
    """
    widths = [max(row[column].width for row in rows) for column in range(len(titles))]
    heights = [max(image.height for image in row) for row in rows]
    font = ImageFont.load_default(size=20)
    top = 36
    sheet = Image.new(
        "RGB", (sum(widths) + GAP * (len(titles) + 1), top + sum(heights) + GAP * (len(rows) + 1)), "white"
    )
    draw = ImageDraw.Draw(sheet)
    x = GAP
    for column, title in enumerate(titles):
        draw.text((x, GAP), title, fill="black", font=font)
        y = top
        for row, height in zip(rows, heights, strict=True):
            sheet.paste(row[column], (x, y))
            y += height + GAP
        x += widths[column] + GAP
    return sheet
