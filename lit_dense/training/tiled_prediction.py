"""Prediction in overlapping tiles of large images."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..data.tiling import TILING
from ..functional.tiles import merge_tiles, tile_boxes

Detections = list[dict[str, Tensor]]


def predict_in_tiles(
    predict: Callable[[Sequence[Tensor], list[dict[str, Any]]], Detections],
    images: Sequence[Tensor],
    targets: Sequence[dict[str, Any]],
) -> Detections:
    """Return the detections of images, predicted in tiles if the targets say so and then merged.

    A batch has whole images, so an image's tiles never lie in two batches or on two processes. They are predicted in
    groups as large as the batch. A forward pass thus needs the memory of a batch of tiles.

    Args:
        predict: Returns the detections in images with targets.
        images: Images [3, H, W].
        targets: A dict for each image; ``tiling`` is the side of a tile in pixels and the overlap.
    """
    if not any(TILING in target for target in targets):
        return predict(images, list(targets))
    tiles = [
        tile_boxes((image.shape[-2], image.shape[-1]), *target[TILING]) if TILING in target else [_whole(image)]
        for image, target in zip(images, targets, strict=True)
    ]
    places = [(index, box) for index, boxes in enumerate(tiles) for box in boxes]
    detections: Detections = []
    for start in range(0, len(places), len(images)):
        group = places[start : start + len(images)]
        parts = [images[index][:, y1:y2, x1:x2] for index, (x1, y1, x2, y2) in group]
        detections += predict(parts, [targets[index] for index, _ in group])
    remaining = iter(detections)
    return [merge_tiles([next(remaining) for _ in boxes], boxes) for boxes in tiles]


def _whole(image: Tensor) -> tuple[int, int, int, int]:
    return 0, 0, image.shape[-1], image.shape[-2]
