"""Class counts of the training set in a stage that does not read it."""

from typing import Any

import numpy as np

from ..core.class_counts import ClassCounts
from .problems import Problems


def training_counts(datamodule: Any) -> ClassCounts | None:
    """Return the class counts of the training set, by label; reads its annotations if that was not done before.

    Args:
        datamodule: A data module; only :class:`CocoDataModule` reads annotations here.

    Returns:
        The counts; None if the data module has none.

    Raises:
        DataError: If the training set has problems that cannot be repaired, or any problem if ``strict``.
    """
    known: ClassCounts | None = getattr(datamodule, "class_counts", None)
    if known is not None or "train" not in getattr(datamodule, "available", ()):
        return known
    problems = Problems()
    data = datamodule.read(["train"], problems)
    problems.settle(datamodule.strict)
    counts: ClassCounts = data["train"].class_counts(np.array([c["id"] for c in datamodule.categories], np.int64))
    return counts
