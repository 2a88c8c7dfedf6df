"""Recognition of a forward pass that activation checkpointing repeats in the backward pass."""

from typing import NamedTuple

import torch

from .errors import UsageError


class Pass(NamedTuple):
    """The kind of a forward pass.

    Args:
        training: Whether gradients are computed.
        in_backward: Whether it runs inside a backward pass, in which activation checkpointing repeats it.
    """

    training: bool
    in_backward: bool

    @classmethod
    def current(cls) -> "Pass":
        """Return the kind of the pass that is running."""
        return cls(torch.is_grad_enabled(), torch._C._current_graph_task_id() != -1)


def check_not_repeated(current: Pass, former: set[Pass]) -> None:
    """Check that a training step is not computed a second time, inside its backward pass.

    ``checkpoint(..., use_reentrant=False)`` does that. The second time, moving averages already have the values of the
    next step, and the gradient would be that of another loss. With ``use_reentrant=True`` the first time is no training
    step, and the gradient is right.

    Args:
        current: The pass that is running.
        former: The kinds of passes before.

    Raises:
        UsageError: If it is.
    """
    if current == Pass(True, True) and Pass(True, False) in former:
        raise UsageError(
            "The loss is computed again inside the backward pass, with the state of the next step: activation "
            "checkpointing (torch.utils.checkpoint) repeats it. Apply it to the backbone, not to the whole detector."
        )
