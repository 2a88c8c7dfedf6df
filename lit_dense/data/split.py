"""Splits into training and validation images."""

from collections.abc import Collection

import numpy as np

from ..core.array_types import Bools, Ints
from ..core.errors import UsageError


def stratified_split(presence: Bools, val_share: float, seed: int, groups: Ints | None = None) -> tuple[Ints, Ints]:
    """Split images so that validation gets the same share of the images of every class.

    Iterative stratification (Sechidis et al., 2011): repeatedly, the images of the class with the fewest remaining
    images are assigned, because they leave the least choice. Images without any class form a class of their own. If a
    class has only one image, training gets it.

    Args:
        presence: Whether an image shows a class, bool [I, C].
        val_share: Share of the validation images, between 0 and 1.
        seed: Seed of the random choices.
        groups: A group number from 0 for each image; images of a group, such as copies of one image, stay together.
            Default: each image is a group.

    Returns:
        Indices of the training and of the validation images, each ascending. Both have at least one image if there is
        more than one group.

    Example:
        >>> train, val = stratified_split(np.array([[True, False]] * 8 + [[True, True]] * 4), 0.25, seed=0)
        >>> len(val), int((val >= 8).sum())
        (3, 1)
    """
    if groups is not None:
        together = np.zeros((groups.max(initial=-1) + 1, presence.shape[1]), bool)
        np.logical_or.at(together, groups, presence)
        _, val_groups = stratified_split(together, val_share, seed)
        in_val = np.isin(groups, val_groups)
        return np.flatnonzero(~in_val), np.flatnonzero(in_val)
    presence = np.concatenate([presence, ~presence.any(1, keepdims=True)], axis=1)
    images_of_class = presence.sum(0)
    rng = np.random.default_rng(seed)
    left = np.ones(len(presence), bool)
    val = np.zeros(len(presence), bool)
    while left.any():
        counts = presence[left].sum(0)
        rarest = np.argmin(np.where(counts > 0, counts, len(presence) + 1))
        members = np.flatnonzero(left & presence[:, rarest])
        left[members] = False
        wanted = val_share * images_of_class[rarest] - val[presence[:, rarest]].sum()
        lagging = val_share * (~left).sum() - val.sum()  # compensates for earlier rounding
        number = int(np.clip(round(lagging), np.floor(wanted), np.ceil(wanted)).clip(0, len(members)))
        if images_of_class[rarest] > 1:
            val[rng.permutation(members)[:number]] = True
    if len(val) > 1 and val.all() == val.any():
        val[rng.integers(len(val))] ^= True
    return np.flatnonzero(~val), np.flatnonzero(val)


def check_val_split(splits: Collection[str], val_split: float) -> None:
    """Raise an error if ``val_split`` does not fit the files.

    Args:
        splits: The splits that have files of their own.
        val_split: Share of the training images to validate on; 0 for none.

    Raises:
        UsageError: If there is a validation file already, or no training file.
    """
    if val_split and "val" in splits:
        raise UsageError("There are validation images already: leave out val_split.")
    if val_split and "train" not in splits:
        raise UsageError("val_split takes images from train_annotations, which is not given.")
