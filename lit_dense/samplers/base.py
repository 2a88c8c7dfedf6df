"""The base of samplers."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from ..core.component import Component

if TYPE_CHECKING:
    from ..data.coco import CocoData, Ints


class ImageSampler(Component, ABC):
    """Chooses the training images of an epoch.

    It decides for all processes together, and has no state: an epoch follows from the training set and the epoch's
    random numbers alone. :class:`~lit_dense.data.EpochSampler` deals the images out to the processes, gives each draw a
    seed for its augmentation, and finds the place to go on from after an interruption.
    """

    @abstractmethod
    def order(self, data: "CocoData", category_ids: "Ints", rng: np.random.Generator) -> "Ints":
        """Which image comes at which place of an epoch.

        Args:
            data: The training set, I images; ``data.presence(category_ids)`` tells which image shows which class.
            category_ids: The ids that labels 0 to C - 1 stand for, ascending; some may not occur [C].
            rng: The random numbers of this epoch, alike on all processes. There must be no other randomness.

        Returns:
            Indices of images, as often as each is to be drawn; equally many in each epoch, D >= 1 [D].
        """
