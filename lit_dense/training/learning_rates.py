"""Changes of the learning rate during a run, if a callback changes ``lr``, batch size or length of the run."""

from collections.abc import Sequence

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.optim.lr_scheduler import LambdaLR

from ..core.errors import UsageError, check_range
from .optimization import WarmupSchedule


class LearningRates:
    """Keeps an optimiser's rates at the ``lr`` of its module, and its schedule at the length of the run.

    Callbacks change both after the optimiser was created: LearningRateFinder sets ``lr``, BatchSizeFinder the batch
    size. Only an optimiser with a single :class:`WarmupSchedule` is updated; others do not change.

    Args:
        lr: Learning rate with which the optimiser was created.
        factors: Rate of each parameter group over ``lr``; None for a group with its own rate.
    """

    def __init__(self, lr: float, factors: Sequence[float | None]) -> None:
        self.lr, self.factors = lr, factors
        self._warned = False

    def start(self, module: LightningModule) -> None:
        """Update rates and schedule when training starts, after a checkpoint was loaded.

        Args:
            module: The module with the attribute ``lr``.

        Raises:
            UsageError: If ``lr`` is negative or not a number.
        """
        if (scheduler := _warmup(module)) is not None:
            meet_length(scheduler, module.trainer.estimated_stepping_batches)
            self.follow(module)

    def follow(self, module: LightningModule) -> None:
        """Update the optimiser if ``lr`` has changed; warn once about rates that the schedule will overwrite.

        Args:
            module: The module with the attribute ``lr``.

        Raises:
            UsageError: If ``lr`` is negative or not a number.
        """
        if (scheduler := _warmup(module)) is None:
            return
        lr = getattr(module, "lr", self.lr)
        if lr != self.lr:
            set_rates(scheduler, check_range(type(module).__name__, "lr", lr, 0), self.factors)
            self.lr = lr
        rates = [group["lr"] for group in scheduler.optimizer.param_groups]
        if not self._warned and rates != rates_of(scheduler):
            self._warned = True
            rank_zero_warn(
                f"A callback has set the optimiser's learning rates to {rates}, which the schedule replaces after this "
                "step. To change the rate, set the module's lr: the schedule goes on from it."
            )


def refuse_finders(trainer: Trainer) -> None:
    """Reject LearningRateFinder and BatchSizeFinder in a run that resumes from a checkpoint.

    The finders run before the trainer has restored its state, and the checkpoint that they load at their end replaces
    the requested one: step, optimiser and schedule would start from 0 without a warning.

    Args:
        trainer: The trainer, after it has loaded the checkpoint.

    Raises:
        UsageError: If the trainer has such a callback and resumes from a checkpoint.
    """
    callbacks = getattr(trainer, "callbacks", [])
    finders = [type(c).__name__ for c in callbacks if isinstance(c, LearningRateFinder | BatchSizeFinder)]
    if finders and trainer.ckpt_path:
        raise UsageError(
            f"{finders[0]} would make Lightning forget the step, the optimiser and the schedule of the checkpoint: "
            "leave it out to go on. The learning rate that was found is in the checkpoint; a batch size that was found "
            "is given as data.batch_size."
        )


def _warmup(module: LightningModule) -> LambdaLR | None:
    """Return the module's scheduler if it has a single one with a ``WarmupSchedule``; otherwise None."""
    scheduler = module.lr_schedulers()
    if isinstance(scheduler, LambdaLR) and isinstance(scheduler.lr_lambdas[0], WarmupSchedule):
        return scheduler
    return None


def set_rates(scheduler: LambdaLR, lr: float, factors: Sequence[float | None]) -> None:
    """Change the learning rate of an optimiser under its schedule, from its next step on.

    Args:
        scheduler: The scheduler of the optimiser.
        lr: Learning rate before the factor of the schedule.
        factors: Rate of each parameter group over ``lr``; None for a group that keeps its own rate.
    """
    for index, (group, factor) in enumerate(zip(scheduler.optimizer.param_groups, factors, strict=True)):
        if factor is not None:
            scheduler.base_lrs[index] = group["initial_lr"] = lr * factor
    _apply(scheduler)


def _apply(scheduler: LambdaLR) -> None:
    """Write the rates of the next step into the parameter groups."""
    for group, rate in zip(scheduler.optimizer.param_groups, rates_of(scheduler), strict=True):
        group["lr"] = rate


def rates_of(scheduler: LambdaLR) -> list[float]:
    """Return the learning rate of each parameter group in the next step."""
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    return [float(base) * factor for base, factor in zip(scheduler.base_lrs, factors, strict=True)]


def meet_length(scheduler: LambdaLR, total_steps: float) -> None:
    """Adapt a :class:`WarmupSchedule` to the length of the run, which may have changed since it was created.

    A schedule that has not begun gets the new length. A schedule that resumes from a checkpoint does not change, and a
    warning says so.

    Args:
        scheduler: The scheduler of the optimiser.
        total_steps: Number of optimiser steps of the whole run.
    """
    schedule = scheduler.lr_lambdas[0]
    if not isinstance(schedule, WarmupSchedule) or schedule.total_steps == total_steps:
        return
    if not scheduler.last_epoch:
        schedule.set_length(total_steps)
        _apply(scheduler)
    elif schedule.name != "constant":
        end = "the run ends before it does"
        if total_steps > schedule.total_steps:
            end = f"after step {schedule.total_steps:g} the learning rate stays at its final value"
        rank_zero_warn(
            f"The checkpoint's schedule {schedule.name!r} was made for {schedule.total_steps:g} optimiser steps and "
            f"stays as it is, but with this batch size, number of processes, accumulate_grad_batches and max_epochs "
            f"the run has {total_steps:g}: {end}."
        )


def warn_of_ended_schedule(module: LightningModule) -> bool:
    """Warn if the run resumes from a checkpoint of a finished run, and return whether it does.

    Args:
        module: The module.
    """
    rates = [group["lr"] for optimizer in module.trainer.optimizers for group in optimizer.param_groups]
    if not module.global_step or not rates or any(rates):
        return False
    rank_zero_warn(
        "The checkpoint's schedule has ended, and the learning rate stays 0: nothing will be learnt. Start a new run "
        "from its weights instead, with LitDetector.load_from_checkpoint(path) in Python."
    )
    return True
