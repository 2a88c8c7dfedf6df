"""Overlapping tiles of a large image, and the merging of the detections in them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

EDGE = 0.01
"""A box ends at an edge of its tile if its distance is at most this share of the tile's side, or one pixel."""

Floats = npt.NDArray[np.float64]


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Return the first pixel of each tile along one side of an image.

    Tiles are spaced evenly. The first starts at 0, and the last ends where the image ends. Neighbours share at least
    ``overlap`` of a tile. If the side is not longer than a tile, there is one tile, as long as the side.

    Args:
        length: Length of the side in pixels.
        tile: Length of a tile in pixels.
        overlap: Smallest share of a tile that its neighbour also covers, in [0, 1).

    Example:
        >>> tile_starts(1000, 400, 0.2)
        [0, 300, 600]
    """
    if length <= tile:
        return [0]
    step = max(1, int(tile * (1 - overlap)))
    gaps = -(-(length - tile) // step)
    return [(length - tile) * number // gaps for number in range(gaps + 1)]


def tile_boxes(size: tuple[int, int], tile: int, overlap: float) -> list[tuple[int, int, int, int]]:
    """Return x1, y1, x2, y2 of the tiles that cover an image, row by row.

    Args:
        size: Height and width of the image.
        tile: Length of a tile's sides in pixels. Tiles are shorter only if the image is.
        overlap: Smallest share of a tile's side that its neighbour also covers, in [0, 1).

    Example:
        >>> tile_boxes((300, 700), 400, 0.25)
        [(0, 0, 400, 300), (300, 0, 700, 300)]
    """
    height, width = size
    return [
        (x, y, min(x + tile, width), min(y + tile, height))
        for y in tile_starts(height, tile, overlap)
        for x in tile_starts(width, tile, overlap)
    ]


def merge_tiles(
    detections: Sequence[dict[str, Tensor]],
    tiles: Sequence[tuple[int, int, int, int]],
    iou_thresh: float = 0.5,
) -> dict[str, Tensor]:
    """Merge the detections in tiles into those of the whole image.

    This is non-maximum suppression between detections of one class from different tiles. Detections of one tile do not
    suppress each other: a detection suppresses at most one of each other tile, that of largest IoU. Two detections show
    the same object if the IoU of their parts within the region that both tiles show exceeds ``iou_thresh``. So the part
    of an object in one tile matches the whole object in another. The detection with the highest score is kept. If it
    ends at an edge of its tile that is not an edge of the image, the box is extended in this direction to the boxes
    that it suppresses. Tiles without a common region are not merged.

    The time grows with the square of the number of detections of a class. Synchronises the device.

    Args:
        detections: For each tile ``boxes`` [N, 4] in pixels of the tile, ``labels`` [N] and ``scores`` [N]; other
            tensors with N rows are kept.
        tiles: x1, y1, x2, y2 of each tile in pixels of the image.
        iou_thresh: Largest IoU of two detections that are both kept, in [0, 1].

    Returns:
        The same fields, best scores first, with boxes in pixels of the image.
    """
    if len(tiles) == 1:
        return detections[0]
    moved = [
        {**found, "boxes": found["boxes"] + found["boxes"].new_tensor([x, y, x, y])}
        for found, (x, y, _, _) in zip(detections, tiles, strict=True)
    ]
    whole = {name: torch.cat([d[name] for d in moved]) for name in moved[0]}
    order = whole["scores"].argsort(descending=True, stable=True)
    whole = {name: value[order] for name, value in whole.items()}
    owner = np.repeat(np.arange(len(tiles)), [len(d["scores"]) for d in detections])[order.cpu().numpy()]
    boxes, labels = whole["boxes"].detach().double().cpu().numpy(), whole["labels"].cpu().numpy()
    kept: list[int] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        first, merged = _merged_class(boxes[rows], owner[rows], np.asarray(tiles, np.float64), iou_thresh)
        boxes[rows[first]] = merged
        kept += rows[first].tolist()
    keep = torch.tensor(sorted(kept), dtype=torch.int64, device=order.device)
    merged_boxes = torch.from_numpy(boxes).to(whole["boxes"])
    return {**{name: value[keep] for name, value in whole.items()}, "boxes": merged_boxes[keep]}


def _merged_class(
    boxes: Floats, owner: npt.NDArray[np.int64], tiles: Floats, iou_thresh: float
) -> tuple[list[int], Floats]:
    """Return the rows of one class that are kept, and their boxes, extended where tiles cut them.

    Args:
        boxes: Boxes by descending score, in pixels of the image [N, 4].
        owner: Tile of each box [N].
        tiles: The tiles [T, 4].
        iou_thresh: Largest IoU of two boxes that are both kept.
    """
    windows = tiles[owner]
    sides = windows[:, 2:] - windows[:, :2]
    near = np.abs(boxes - windows) <= np.maximum(1, EDGE * np.concatenate([sides, sides], 1))
    frame = np.array([*tiles[:, :2].min(0), *tiles[:, 2:].max(0)])
    is_cut = near & (windows != frame)
    kept, merged = [], []
    free = np.ones(len(boxes), bool)
    for row in range(len(boxes)):
        if not free[row]:
            continue
        free[row] = False
        group, waiting = [row], [row]
        while waiting:
            one = waiting.pop()
            rows = np.flatnonzero(free & ~np.isin(owner, owner[group]))
            same = _best_of_tiles(rows, owner, _common_iou(boxes, windows, one, rows), iou_thresh)
            free[same] = False
            group += same.tolist()
            if is_cut[row].any():  # otherwise the first tile shows the whole object, and all others overlap it
                waiting += (same if is_cut[one].any() else same[is_cut[same].any(1)]).tolist()
        low, high = boxes[group][:, :2].min(0), boxes[group][:, 2:].max(0)
        kept.append(row)
        merged.append(np.where(is_cut[row], np.concatenate([low, high]), boxes[row]))
    return kept, np.asarray(merged)


def _best_of_tiles(
    rows: npt.NDArray[np.int64], owner: npt.NDArray[np.int64], iou: Floats, iou_thresh: float
) -> npt.NDArray[np.int64]:
    """Return the row of largest IoU of each tile, if the IoU exceeds a threshold."""
    order = np.argsort(-iou, kind="stable")
    order = order[iou[order] > iou_thresh]
    _, first = np.unique(owner[rows[order]], return_index=True)
    return rows[order[np.sort(first)]]


def _common_iou(boxes: Floats, windows: Floats, one: int, rows: npt.NDArray[np.int64]) -> Floats:
    """Return the IoU of a box with others, each pair clipped to the region that both tiles show [len(rows)]."""
    low = np.maximum(windows[one, :2], windows[rows, :2])
    high = np.minimum(windows[one, 2:], windows[rows, 2:])
    own_low, own_high = np.maximum(boxes[one, :2], low), np.minimum(boxes[one, 2:], high)
    low, high = np.maximum(boxes[rows, :2], low), np.minimum(boxes[rows, 2:], high)
    common = (np.minimum(own_high, high) - np.maximum(own_low, low)).clip(0).prod(1)
    areas = (own_high - own_low).clip(0).prod(1) + (high - low).clip(0).prod(1)
    iou: Floats = common / np.maximum(areas - common, 1e-9)
    return iou
