"""Class-aware sampling, https://arxiv.org/abs/1512.05830."""

from typing import TYPE_CHECKING

import numpy as np

from .base import ImageSampler

if TYPE_CHECKING:
    from ..data.coco import CocoData, Ints


class ClassAwareSampler(ImageSampler):
    """Draws a class, then an image that shows it, so that all classes are drawn equally often.

    Shen et al., *Relay Backpropagation for Effective Learning of Deep Convolutional Neural Networks*,
    https://arxiv.org/abs/1512.05830.

    Classes that occur come in a cycle, and so do the images of each class; a cycle is shuffled anew whenever it is
    through. Images without objects have no class: each is drawn once per epoch, so their share stays what it is. An
    epoch has as many draws as there are images. Crowd boxes do not count: an image that has no others is one without
    objects.
    """

    def order(self, data: "CocoData", category_ids: "Ints", rng: np.random.Generator) -> "Ints":
        """Images of classes in turn, and those without objects in between [I]."""
        presence = data.presence(category_ids)
        empty = ~presence.any(1)
        images_of = np.ascontiguousarray(presence.T)
        classes = _cycles(np.flatnonzero(images_of.any(1)), int((~empty).sum()), rng)
        drawn = np.empty(len(classes), np.int64)
        for label in np.unique(classes):
            turns = classes == label
            drawn[turns] = _cycles(np.flatnonzero(images_of[label]), int(turns.sum()), rng)
        order = np.empty(len(presence), np.int64)
        places = rng.permuted(empty)
        order[places], order[~places] = rng.permutation(np.flatnonzero(empty)), drawn
        return order


def _cycles(members: "Ints", number: int, rng: np.random.Generator) -> "Ints":
    """So many members, each once before any comes again, in an order that is drawn anew for each round [number]."""
    rounds = -(-number // max(len(members), 1))
    return rng.permuted(np.tile(members, (rounds, 1)), axis=1).ravel()[:number]
