"""Class-aware sampling (https://arxiv.org/abs/1512.05830)."""

import numpy as np

from ..core.array_types import Ints
from .base import ImageSampler, TrainingSet


class ClassAwareSampler(ImageSampler):
    """Draws a class, then an image that contains it, so that all classes are drawn equally often.

    Shen et al., *Relay Backpropagation for Effective Learning of Deep Convolutional Neural Networks*,
    https://arxiv.org/abs/1512.05830.

    Classes are drawn in cycles, and so are the images of each class. Each cycle contains every member once, in a new
    random order. Images without objects have no class: each is drawn once per epoch, so their fraction stays the same.
    An epoch has as many draws as there are images. Crowd boxes are ignored: an image with only crowd boxes is an image
    without objects.
    """

    def order(self, data: TrainingSet, category_ids: Ints, rng: np.random.Generator) -> Ints:
        """Draw images of classes in turn, with images without objects at random positions [I]."""
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


def _cycles(members: Ints, number: int, rng: np.random.Generator) -> Ints:
    """Repeat all members in rounds, each round in a new random order, and return the first ``number`` [number]."""
    rounds = -(-number // max(len(members), 1))
    return rng.permuted(np.tile(members, (rounds, 1)), axis=1).ravel()[:number]
