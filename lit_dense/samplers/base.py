"""Base class of samplers: ``ImageSampler``."""

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np

from ..core.array_types import Bools, Ints
from ..core.class_counts import ClassCounts
from ..core.component import Component


class TrainingSet(Protocol):
    """The images that a sampler chooses from, such as :class:`~lit_dense.data.CocoData`."""

    def __len__(self) -> int:
        """Number of images I."""

    def presence(self, category_ids: Ints) -> Bools:
        """Whether an image shows a category, crowd boxes left out [I, C].

        Args:
            category_ids: Ids of the categories, ascending [C].
        """

    def class_counts(self, category_ids: Ints) -> ClassCounts:
        """Number of boxes and of images of each category, crowd boxes left out.

        Args:
            category_ids: Ids of the categories, ascending [C].
        """


class ImageSampler(Component, ABC):
    """Base class of samplers: selects the training images of an epoch, for all processes together.

    A sampler has no state: an epoch depends only on the training set and the random numbers of the epoch.
    :class:`~lit_dense.data.EpochSampler` distributes the images over the processes, gives each draw a seed for its
    augmentation, and resumes an interrupted epoch.
    """

    @abstractmethod
    def order(self, data: TrainingSet, category_ids: Ints, rng: np.random.Generator) -> Ints:
        """Select and order the images of an epoch.

        Args:
            data: The training set, I images. ``data.presence(category_ids)`` is the mask of classes in each image.
            category_ids: The category ids of labels 0 to C - 1, ascending; some may not occur [C].
            rng: The random numbers of this epoch, the same on all processes. Use no other randomness.

        Returns:
            Indices of images, in the order in which they are drawn [D]. An index can occur several times. All epochs
            must have the same length D >= 1.
        """
