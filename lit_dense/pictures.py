"""Draws boxes, class names and scores on pictures."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.v2 import functional as F

# Okabe and Ito's colours, which the colour-blind tell apart, without black
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
LIGHT = {"#E69F00", "#56B4E9", "#F0E442", "#CC79A7"}
GAP = 8

Rectangle = tuple[float, float, float, float]


def draw_boxes(
    image: Tensor, boxes: Tensor, labels: Tensor, names: Sequence[str], scores: Tensor | None = None, side: int = 480
) -> Image.Image:
    """A picture with its boxes, each in the colour of its class and with its name.

    Args:
        image: The picture, uint8 or float in [0, 1] [3, H, W].
        boxes: Boxes in its pixels, x1 y1 x2 y2 [N, 4]; none leaves the picture as it is.
        labels: Their classes [N].
        names: The name of each class.
        scores: Scores to print behind the names [N].
        side: Length in pixels to which the shorter side of a smaller picture is enlarged.
    """
    picture: Image.Image = F.to_pil_image(image.detach().cpu())
    factor = max(1.0, side / min(picture.size))
    picture = picture.resize((round(picture.width * factor), round(picture.height * factor)))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=max(12, min(picture.size) // 36))
    captions: list[tuple[str, Rectangle, str]] = []
    for index, (box, label) in enumerate(zip((boxes.cpu() * factor).tolist(), labels.tolist(), strict=True)):
        colour = COLOURS[label % len(COLOURS)]
        draw.rectangle(box, outline=colour, width=max(2, min(picture.size) // 240))
        name = names[label] if label < len(names) else str(label)
        captions.append((name if scores is None else f"{name} {scores[index]:.2f}", tuple(box), colour))
    _write_captions(draw, font, captions, picture.size)
    return picture


def _write_captions(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    captions: Sequence[tuple[str, Rectangle, str]],
    size: tuple[int, int],
) -> None:
    """Write each caption where it hides none before it: above the box, below, or inside; else leave it out."""
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
    """Pictures in a table, a title above each column.

    Args:
        rows: Pictures, equally many in each row.
        titles: One for each column.
    """
    widths = [max(row[column].width for row in rows) for column in range(len(titles))]
    heights = [max(picture.height for picture in row) for row in rows]
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


def keep_scores(detection: dict[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """The detections whose score reaches a threshold.

    Args:
        detection: ``boxes`` [N, 4], ``labels`` [N] and ``scores`` [N].
        threshold: Smallest score.
    """
    keep = detection["scores"] >= threshold
    return {name: torch.as_tensor(rows)[keep] for name, rows in detection.items()}
