"""The arguments of losses that change their targets: label smoothing and bootstrapping."""

from typing import get_args

from ..core.errors import UsageError, check_choice, check_range
from ..functional.bootstrapping import PAPER_BETA, BootstrapForm, TargetChange


def target_change(owner: str, smoothing: float, form: BootstrapForm | None, beta: float | None) -> TargetChange:
    """Check the arguments ``label_smoothing``, ``bootstrap`` and ``bootstrap_beta`` of a loss.

    Args:
        owner: Name of the loss, for messages.
        smoothing: Share of a target that is spread evenly.
        form: ``soft``, ``hard``, or None for labels without a prediction.
        beta: Share of the label; None for the paper's value.

    Raises:
        UsageError: If an argument is out of range or unknown, or if a share is given without a form.
    """
    smoothing = check_range(owner, "label_smoothing", smoothing, 0, 1)
    if form is None:
        if beta is not None:
            raise UsageError(f"{owner}: bootstrap_beta={beta} has no effect without bootstrap: give soft or hard.")
        return TargetChange(smoothing)
    check_choice(owner, "bootstrap", form, get_args(BootstrapForm))
    share = PAPER_BETA[form] if beta is None else check_range(owner, "bootstrap_beta", beta, 0, 1)
    return TargetChange(smoothing, form, share)
