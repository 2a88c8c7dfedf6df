"""Training sets in memory that tell nothing but which image shows which class."""

from pathlib import Path

import numpy as np

from lit_dense.data import CocoData

CATEGORY_IDS = np.array([3, 5, 7])  # of the labels 0, 1 and 2


def images_showing(*labels, crowds=()):
    """An image for each list of labels, with a box for each label; the boxes of images in ``crowds`` are crowds."""
    counts = np.array([len(found) for found in labels])
    offsets = np.concatenate([[0], counts.cumsum()])
    boxes = np.tile(np.array([0, 0, 5, 5], np.float32), (offsets[-1], 1))
    return CocoData(
        path=Path(),
        folder=Path(),
        categories=[{"id": int(number), "name": str(number)} for number in CATEGORY_IDS],
        image_ids=np.arange(len(labels)) + 100,
        file_names=[f"{index}.png" for index in range(len(labels))],
        sizes=np.full((len(labels), 2), 9),
        upright=np.ones(len(labels), bool),
        offsets=offsets,
        annotation_ids=np.arange(offsets[-1]),
        category_ids=np.array([CATEGORY_IDS[label] for found in labels for label in found], np.int64),
        boxes=boxes,
        area=np.full(len(boxes), 25, np.float32),
        iscrowd=np.repeat([index in crowds for index in range(len(labels))], counts),
    )


def drawn(sampler, data, epoch=0, seed=0):
    """How often each image is drawn in an epoch [I]."""
    order = sampler.order(data, CATEGORY_IDS, np.random.default_rng([seed, epoch]))
    return np.bincount(order, minlength=len(data))
