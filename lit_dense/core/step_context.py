"""The state of training that a batch does not hold: step, epoch, class frequencies, sums over processes."""

from dataclasses import dataclass, field

from .class_counts import ClassCounts
from .distributed import Reduce


@dataclass(frozen=True)
class StepContext:
    """What is known of a training step besides its batch. The criterion makes one for each call.

    Args:
        reduce: Sums over the processes of the run.
        step: Training steps so far.
        epoch: Epochs so far.
        class_counts: Class frequencies of the training set, None if unknown.
    """

    reduce: Reduce = field(default_factory=lambda: Reduce(enabled=False))
    step: int = 0
    epoch: int = 0
    class_counts: ClassCounts | None = None
