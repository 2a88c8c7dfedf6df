"""LVIS's groups of rare, common and frequent classes (https://arxiv.org/abs/1908.03195)."""

from collections.abc import Sequence

from ..core.errors import UsageError

GROUPS = ("rare", "common", "frequent")


def frequency_groups(class_images: Sequence[int], bounds: Sequence[int] = (10, 100)) -> dict[str, list[int]]:
    """Group class labels into rare, common and frequent, as LVIS does (https://arxiv.org/abs/1908.03195).

    Args:
        class_images: Number of training images with an object of each class [K].
        bounds: Largest number of images of a rare class, and of a common class.

    Returns:
        The labels of each group.

    Raises:
        UsageError: If the bounds are not two ascending numbers of at least 0.

    Example:
        >>> frequency_groups([3, 5000, 40])
        {'rare': [0], 'common': [2], 'frequent': [1]}
    """
    if len(bounds) != 2 or not 0 <= bounds[0] < bounds[1]:
        raise UsageError(
            f"frequency_bounds must be two ascending numbers of images, such as (10, 100), not {tuple(bounds)}."
        )
    groups: dict[str, list[int]] = {group: [] for group in GROUPS}
    for label, images in enumerate(class_images):
        groups[GROUPS[int(images > bounds[0]) + int(images > bounds[1])]].append(label)  # int: of tensors too
    return groups
