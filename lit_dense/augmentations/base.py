"""Base class of augmentations with several images: ``Augmentation``."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
from torch import Tensor

from ..core.array_types import Bools, Ints
from ..core.component import Component
from ..core.errors import check_range
from .picture import Picture


class Objects(Protocol):
    """The boxes of a training set, such as those of :class:`~lit_dense.data.CocoData`: I images with N boxes.

    Two attributes are optional. ``outlines`` has the mask of each box as in a COCO file, or None [N]. ``groups`` has
    the group of each image, ``of_image`` int64 [I], and whether images of the first group may be combined with images
    of the second one, ``partners`` bool [G, G].
    """

    @property
    def offsets(self) -> Ints:
        """The boxes of image i are the rows offsets[i] to offsets[i + 1], int64 [I + 1]."""

    @property
    def iscrowd(self) -> Bools:
        """Whether a box is an ignore region and not an object [N]."""


class TrainingImages(Protocol):
    """The training images that an augmentation combines, such as :class:`~lit_dense.data.CocoDataset`."""

    flips: bool
    """Whether images may be mirrored: whether the transforms have a horizontal flip."""
    mirrored: Tensor
    """Label that each label becomes in a mirrored image [C]."""

    def picture(self, index: int) -> Picture:
        """Read an image with its boxes.

        Args:
            index: Index of the image.
        """


class Augmentation(Component, ABC):
    """Base class of augmentations: changes a training image with the help of other training images.

    An augmentation has no state that changes during training. Its result depends only on the training set, the partner
    images and the random numbers of the sample. The data module draws all of them from its seed, the epoch and the
    position of the sample. The result is therefore the same for any number of workers and processes, and after a
    resume.

    Args:
        p: Probability that it is applied to a sample, in [0, 1].
        close_after: Fraction of the run after which it is switched off, in [0, 1]; 1 for never. The run is
            ``trainer.max_epochs`` or ``trainer.max_steps``. If both are unlimited, it is never switched off.

    Attributes:
        num_partners: Number of other images that a sample needs. They are drawn from the order of the epoch, so a
            sampler affects them too. They are annotated for the classes of the image, and perhaps more.
        reads_outlines: Whether it uses ``outlines`` of the objects, so that masks are read.

    Raises:
        UsageError: If an argument is out of range.
    """

    num_partners: ClassVar[int] = 0
    reads_outlines: bool = False

    def __init__(self, p: float, close_after: float) -> None:
        super().__init__()
        name = type(self).__name__
        self.p = check_range(name, "p", p, 0, 1)
        self.close_after = check_range(name, "close_after", close_after, 0, 1)

    def receive_objects(self, objects: Objects, labels: Ints) -> None:
        """Store what the augmentation needs to know of the training set; called before training.

        Args:
            objects: The boxes of the training set.
            labels: Label of each box [N].
        """

    def is_open(self, progress: float) -> bool:
        """Return whether the augmentation is still switched on.

        Args:
            progress: Fraction of the run that precedes the sample.
        """
        return self.close_after == 1 or progress < self.close_after

    @abstractmethod
    def forward(
        self, picture: Picture, partners: Sequence[int], images: TrainingImages, rng: np.random.Generator
    ) -> Picture:
        """Return the changed image with its boxes.

        Args:
            picture: The image and its boxes. Do not change it in place.
            partners: Indices of ``num_partners`` other images.
            images: The training images.
            rng: The random numbers of this sample. Use no other randomness.
        """
