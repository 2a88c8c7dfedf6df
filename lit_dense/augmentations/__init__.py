"""Augmentations by name; each changes a training image with the help of other training images.

The names are the entry points of the group ``lit_dense.augmentations``. Each name is also an attribute of this module.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.cli_types import cli_type
from ..core.registry import Registry
from .base import Augmentation as Augmentation
from .base import TrainingImages as TrainingImages
from .picture import Picture as Picture

AUGMENTATIONS: Registry[Augmentation] = Registry("lit_dense.augmentations", "augmentation", Augmentation)  # type: ignore[type-abstract]


def __getattr__(name: str) -> Any:
    return AUGMENTATIONS.attribute(name)


if TYPE_CHECKING:
    AugmentationLike = Augmentation | str | dict[str, Any]
else:
    AugmentationLike = cli_type(AUGMENTATIONS, "AugmentationLike")
AugmentationsLike = Sequence[AugmentationLike] | AugmentationLike
