"""Images with boxes in memory, for augmentations."""

import torch

from lit_dense.augmentations import Picture


def picture(width=64, height=48, boxes=((10, 10, 30, 20),), labels=None, colour=200, crowds=(), **more):
    """An image of one colour; the boxes with the indices in ``crowds`` are ignore regions."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    fields = {
        "labels": torch.tensor(list(range(len(corners))) if labels is None else labels, dtype=torch.int64),
        "area": (corners[:, 2:] - corners[:, :2]).prod(1),
        "iscrowd": torch.tensor([int(row in crowds) for row in range(len(corners))], dtype=torch.int64),
    }
    return Picture(torch.full((3, height, width), colour, dtype=torch.uint8), corners, fields, **more)


class Images:
    """A training set of pictures."""

    def __init__(self, *pictures, mirrored=(0, 1, 2, 3), flips=True):
        self.pictures, self.mirrored, self.flips = pictures, torch.tensor(mirrored), flips

    def picture(self, index):
        return self.pictures[index]
