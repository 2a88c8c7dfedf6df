"""Comparison of an exported file with the detector that was exported: boxes, scores and mAP."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from ..core.errors import UsageError

LARGEST_SCORE_DIFFERENCE = 1e-3
LARGEST_BOX_DIFFERENCE = 1e-3
"""Relative to the longer side of the image."""
LARGEST_UNMATCHED = 0.01
"""Fraction of detections; suppression of nearly equal boxes can be decided by the last bit of their IoU."""


class Difference(NamedTuple):
    """Difference of two sets of detections of the same images.

    Args:
        images: Number of images.
        detections: Number of detections of the detector.
        unmatched: Number of detections of either that the other does not have.
        score: Largest difference of the scores of matched detections.
        box: Largest difference of the coordinates of matched boxes in pixels.
    """

    images: int
    detections: int
    unmatched: int
    score: float
    box: float


def letterbox(image: Tensor, size: tuple[int, int]) -> tuple[Tensor, float]:
    """Scale an image to fit into a canvas at its top left; returns the canvas and the factor.

    Args:
        image: uint8 image [3, h, w].
        size: Height and width of the canvas.
    """
    factor = min(size[0] / image.shape[1], size[1] / image.shape[2])
    height, width = (
        max(1, min(limit, round(side * factor))) for limit, side in zip(size, image.shape[1:], strict=True)
    )
    canvas = image.new_zeros(3, *size)
    canvas[:, :height, :width] = resize(image, [height, width], antialias=True)
    return canvas, factor


def compare(
    expected: Iterable[dict[str, Tensor]], found: Iterable[dict[str, Tensor]], size: Sequence[int]
) -> Difference:
    """Match the detections of two runs, and return their largest differences.

    Args:
        expected: For each image ``boxes`` [n, 4], ``scores`` [n] and ``labels`` [n] of the detector.
        found: The same of the exported file.
        size: Height and width of the images in pixels.
    """
    images = detections = unmatched = 0
    score = box = 0.0
    for ours, theirs in zip(expected, found, strict=True):
        images, detections = images + 1, detections + len(ours["scores"])
        if not len(ours["scores"]) or not len(theirs["scores"]):
            unmatched += len(ours["scores"]) + len(theirs["scores"])
            continue
        apart = (ours["boxes"][:, None] - theirs["boxes"]).abs().amax(2)
        apart = apart.masked_fill(ours["labels"][:, None] != theirs["labels"], float("inf"))
        near = apart <= LARGEST_BOX_DIFFERENCE * max(size)
        # boxes without area are never suppressed, so several can be equal: the score decides
        scores = (ours["scores"][:, None] - theirs["scores"]).abs().masked_fill(~near, float("inf"))
        of_score, nearest = scores.min(1)
        matched = near.any(1)
        unmatched += int((~matched).sum()) + max(0, len(theirs["scores"]) - len(ours["scores"]))
        if matched.any():
            box = max(box, float(apart.gather(1, nearest[:, None])[matched].max()))
            score = max(score, float(of_score[matched].max()))
    return Difference(images, detections, unmatched, score, box)


def check(difference: Difference, file: str) -> None:
    """Raise an error if an exported file does not compute the detector's detections.

    Args:
        difference: The difference.
        file: Name of the file, for the message.

    Raises:
        UsageError: If a difference is over the tolerance.
    """
    too_many = difference.unmatched > LARGEST_UNMATCHED * max(difference.detections, 100)
    if too_many or difference.score > LARGEST_SCORE_DIFFERENCE:
        raise UsageError(
            f"{file} was written but does not compute the detections of the model: scores differ by up to "
            f"{difference.score:.2g}, and {difference.unmatched} of {difference.detections} detections have no "
            "counterpart. Do not use it; try another format."
        )


def as_detections(outputs: Sequence[Tensor], score_thresh: float) -> list[dict[str, Tensor]]:
    """Convert the outputs of an exported file to detections, without rows of padding.

    Args:
        outputs: boxes [N, D, 4], scores [N, D] and labels [N, D].
        score_thresh: Smallest score.
    """
    detections: list[dict[str, Any]] = []
    for boxes, scores, labels in zip(*(torch.as_tensor(o).cpu() for o in outputs), strict=True):
        kept = (scores > score_thresh) & (labels >= 0)
        detections.append({"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept].long()})
    return detections
