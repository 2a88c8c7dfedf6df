"""The content of a checkpoint beside the arguments of a module: what must agree, and what the module replaces."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import nn

from ..box_losses import BOX_LOSSES, BoxLoss
from ..core.component import differing
from ..core.errors import UsageError
from ..criterion import named_spec
from ..losses import LOSSES, DenseLoss


def check_same_number(number: int | None, asked: int | None, saved: dict[str, Any]) -> None:
    """Reject a checkpoint with another number of classes than requested.

    Args:
        number: Number of classes of the checkpoint; None if unknown.
        asked: Requested number of classes; None to accept the number of the checkpoint.
        saved: Data about the classes in the checkpoint.

    Raises:
        UsageError: If both numbers are known and differ.
    """
    if number is not None and asked is not None and number != asked:
        names = ", ".join(str(c["name"]) for c in saved.get("categories") or []) or "names unknown"
        raise UsageError(
            f"The checkpoint has {number} classes ({names}), but num_classes={asked}: leave num_classes out, or start "
            "without the checkpoint."
        )


def check_same_outputs(saved: dict[str, Any] | None, part: DenseLoss | BoxLoss | None) -> None:
    """Reject a checkpoint whose head has another number of outputs than a loss needs.

    Args:
        saved: Spec of the loss, or of the box loss, of the checkpoint; None if unknown.
        part: The same part of the module; None if it has none.

    Raises:
        UsageError: If both numbers are known and differ.
    """
    if saved is None or part is None:
        return
    boxes = isinstance(part, BoxLoss)
    try:
        before: DenseLoss | BoxLoss = BOX_LOSSES.build(saved) if boxes else LOSSES.build(saved)
    except UsageError:  # a loss of a package that is not installed, whose number of outputs is unknown
        return
    option, field = ("box_loss", "box_outputs") if boxes else ("loss", "extra_logits")
    had, needs = getattr(before, field), getattr(part, field)
    if had != needs:
        what = "outputs for the box of an anchor" if boxes else "columns besides those of classes"
        raise UsageError(
            f"The checkpoint's head has {had} {what} ({option}={_described(before)}), but {option}={_described(part)} "
            f"needs {needs}: leave {option} out, or start without the checkpoint."
        )


def _described(part: DenseLoss | BoxLoss) -> str:
    """Return the name of a loss, with its number of bins if it has one."""
    reg_max = part.spec["init_args"].get("reg_max")
    return f"{part.spec['class_path']}{'' if reg_max is None else f', reg_max={reg_max}'}"


def name_of_class(module: nn.Module) -> dict[str, str]:
    """Return the name of a module's class for a checkpoint; empty for a class of this package."""
    cls = type(module)
    return {} if cls.__module__.partition(".")[0] == "lit_dense" else {"class": cls.__qualname__}


def warn_of_differences(module: nn.Module, saved: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]) -> None:
    """Warn if a checkpoint was trained with other components, or written by a class of the user and not loaded into it.

    Args:
        module: The module that loads it.
        saved: What the module that wrote it had stored.
        own: For each criterion of the module, by its name in checkpoints, the specs of its components.
    """
    for owner, specs in own.items():
        for component, before, now in differing(named_spec(saved.get(owner, {})), specs):
            argument = f"rpn.{component}" if owner == "rpn" else component
            rank_zero_warn(f"The checkpoint was trained with {argument} {before}; this model has {now}.")
    name = saved.get("class")
    if name is not None and name not in {cls.__qualname__ for cls in type(module).__mro__}:
        cls = name.rpartition(".")[2]
        rank_zero_warn(
            f"The checkpoint was written by the class {name}, and is loaded into {type(module).__name__}, which lacks "
            f"what {name} overrides: results can differ. In Python, use {cls}.load_from_checkpoint(PATH), and "
            f"Predictor({cls}.load_from_checkpoint(PATH)) for prediction; for commands, LightningCLI({cls}, ...)."
        )


def replace_state(state: dict[str, Any], prefix: str, part: nn.Module | None) -> None:
    """Replace the state of a part in a checkpoint by that of the module, which has another part there.

    Args:
        state: The state dict of the checkpoint; it is changed.
        prefix: Beginning of the part's names in it.
        part: The part of the module; None if it has none.
    """
    for name in [name for name in state if name.startswith(prefix)]:
        del state[name]
    if part is not None:
        state.update({f"{prefix}{name}": value for name, value in part.state_dict().items()})
