"""The context of a training step: step, epoch, class counts and sums over processes."""

from dataclasses import dataclass, field

from .class_counts import ClassCounts
from .distributed import Reduce


@dataclass(frozen=True)
class StepContext:
    """Data of a training step that are not part of its batch. The criterion creates one for each call.

    Args:
        reduce: Sums over the processes of the run.
        step: Number of training steps so far.
        epoch: Number of epochs so far.
        class_counts: Class counts of the training set; None if unknown.
    """

    reduce: Reduce = field(default_factory=lambda: Reduce(enabled=False))
    step: int = 0
    epoch: int = 0
    class_counts: ClassCounts | None = None
