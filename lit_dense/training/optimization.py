"""Optimiser, parameter groups and learning-rate schedule."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from ..core.errors import UsageError, check_choice, check_range

OptimizerName = Literal["adamw", "sgd"]
ScheduleName = Literal["cosine", "multistep", "constant"]
OWNER = "LitDetector"
"""Name of the class whose arguments are checked, for messages."""


@dataclass(frozen=True)
class Optimization:
    """Settings of optimiser, learning rates and schedule; the fields are arguments of :class:`LitDetector`.

    Raises:
        UsageError: If a name is unknown or a number is out of range.
    """

    optimizer: OptimizerName = "adamw"
    lr: float = 1e-4
    backbone_lr_factor: float = 1.0
    weight_decay: float = 0.05
    schedule: ScheduleName = "cosine"
    warmup_steps: int = 500
    milestones: Sequence[float] = (0.67, 0.89)

    def __post_init__(self) -> None:
        check_choice(OWNER, "optimizer", self.optimizer, get_args(OptimizerName))
        check_range(OWNER, "lr", self.lr, 0)
        check_range(OWNER, "backbone_lr_factor", self.backbone_lr_factor, 0)
        check_range(OWNER, "weight_decay", self.weight_decay, 0)
        self.schedule_of(1)

    def schedule_of(self, total_steps: float) -> "WarmupSchedule":
        """Create the schedule of a run.

        Args:
            total_steps: Number of optimiser steps of the run.
        """
        return WarmupSchedule(total_steps, self.schedule, self.warmup_steps, self.milestones)

    def groups(
        self, module: nn.Module, backbone: nn.Module | None, lr: float, given: Sequence[dict[str, Any]] = ()
    ) -> tuple[list[dict[str, Any]], list[float | None]]:
        """Create the parameter groups of a module with :func:`parameter_groups`.

        Args:
            module: The module to train.
            backbone: Its backbone; None if all parameters have the same learning rate.
            lr: The current learning rate, which a callback may have changed.
            given: Additional groups that exist already.
        """
        slow = backbone if self.backbone_lr_factor != 1 else None
        return parameter_groups([module], slow, lr, self.backbone_lr_factor, self.weight_decay, given)


def parameter_groups(
    modules: Iterable[nn.Module],
    backbone: nn.Module | None,
    lr: float,
    backbone_lr_factor: float,
    weight_decay: float,
    given: Sequence[dict[str, Any]] = (),
) -> tuple[list[dict[str, Any]], list[float | None]]:
    """Sort trainable parameters into groups: the backbone has its own rate, norms and biases have no weight decay.

    Args:
        modules: The modules to train.
        backbone: The backbone; None if all parameters have the same learning rate.
        lr: Learning rate.
        backbone_lr_factor: Learning rate of the backbone over ``lr``.
        weight_decay: Weight decay of matrices and convolutions.
        given: Additional groups that exist already; their parameters are in no other group.

    Returns:
        The groups, with those of ``given`` last; and the learning rate of each group over ``lr``, None for those of
        ``given``.
    """
    in_given = {id(p) for group in given for p in group["params"]}
    slow = {id(p) for p in backbone.parameters()} if backbone is not None else set()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad):
        if id(parameter) in in_given:
            continue
        factor = backbone_lr_factor if id(parameter) in slow else 1.0
        decay = weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    created = [{"params": p, "lr": lr * factor, "weight_decay": decay} for (factor, decay), p in groups.items()]
    return [*created, *given], [*(factor for factor, _ in groups), *(None for _ in given)]


def build_optimizer(name: OptimizerName, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """Create AdamW, or SGD with momentum 0.9.

    Args:
        name: ``adamw`` or ``sgd``.
        groups: Parameter groups.
        lr: Learning rate of groups that have none.

    Raises:
        UsageError: If the name is unknown.
    """
    check_choice(OWNER, "optimizer", name, get_args(OptimizerName))
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=lr)


def check_all_trained(parameters: Iterable[nn.Parameter], optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Check that optimisers have the parameters of weighters' networks, which are not those of the detector.

    Args:
        parameters: The parameters of the criteria; frozen ones are ignored.
        optimizers: The optimisers of the trainer.

    Raises:
        UsageError: If a parameter is in none of them.
    """
    taken = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    if any(p.requires_grad and id(p) not in taken for p in parameters):
        raise UsageError(
            "configure_optimizers leaves out the parameters of a weighter's network, which would not be trained: give "
            "the optimizer self.parameters(), or [{'params': self.model.parameters()}, *self.criterion.param_groups()]."
        )


class WarmupSchedule:
    """Factor of the learning rate at each optimiser step: a linear warm-up, then a schedule.

    Args:
        total_steps: Number of optimiser steps of the whole run.
        name: ``cosine`` falls to 0 at the end, ``multistep`` falls to a tenth at each milestone, ``constant`` stays.
        warmup_steps: Number of warm-up steps; at most a tenth of the run.
        milestones: Fractions of the run in (0, 1) at which ``multistep`` falls.

    Raises:
        UsageError: If an argument is unknown or out of range, or the schedule depends on the length of the run and
            the run has no limit.
    """

    def __init__(self, total_steps: float, name: ScheduleName, warmup_steps: int, milestones: Sequence[float]) -> None:
        check_choice(OWNER, "schedule", name, get_args(ScheduleName))
        check_range(OWNER, "warmup_steps", warmup_steps, 0)
        if not all(0 < milestone < 1 for milestone in milestones):
            raise UsageError(
                f"{OWNER}: milestones must be shares of the run in (0, 1), not {list(milestones)}: divide epochs "
                "by max_epochs, as in [0.67, 0.92] for epochs 8 and 11 of 12."
            )
        if name != "constant" and not math.isfinite(total_steps):
            raise UsageError(
                f"schedule={name!r} needs to know how long training is: set --trainer.max_epochs or "
                "--trainer.max_steps, or take schedule='constant'."
            )
        self.name, self.milestones, self.requested_warmup = name, milestones, warmup_steps
        self.set_length(total_steps)

    def set_length(self, total_steps: float) -> None:
        """Set the length of the run.

        Args:
            total_steps: Number of optimiser steps of the whole run.
        """
        self.total_steps = total_steps
        self.warmup_steps = min(self.requested_warmup, total_steps / 10)

    def __call__(self, step: int) -> float:
        """Return the factor at an optimiser step, counted from 0."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.name == "constant":
            return 1.0
        if self.name == "multistep":
            return float(0.1 ** sum(step >= m * self.total_steps for m in self.milestones))
        progress = (step - self.warmup_steps) / max(1.0, self.total_steps - self.warmup_steps)
        return (1 + math.cos(math.pi * min(1.0, progress))) / 2
