"""Learning rates that follow what the module and the trainer have become since the optimiser was made."""

from collections.abc import Sequence

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.optim.lr_scheduler import LambdaLR

from ..core.errors import UsageError, check_range
from .optimization import WarmupSchedule


class LearningRates:
    """Keeps an optimiser at the ``lr`` of its module, and its schedule at the length of the run.

    Callbacks change both after the optimiser was made: LearningRateFinder sets ``lr``, BatchSizeFinder the batch size.
    For an optimiser with one :class:`WarmupSchedule`; any other is left alone.

    Args:
        lr: Learning rate that the optimiser was made with.
        factors: Rate of each parameter group over ``lr``; None for a group with a rate of its own.
    """

    def __init__(self, lr: float, factors: Sequence[float | None]) -> None:
        self.lr, self.factors = lr, factors
        self._told = False

    def start(self, module: LightningModule) -> None:
        """Settle rates and schedule when training starts, after a checkpoint was read.

        Args:
            module: The module, whose ``lr`` is followed.

        Raises:
            UsageError: If its ``lr`` is negative or not a number.
        """
        if (scheduler := _warmup(module)) is not None:
            meet_length(scheduler, module.trainer.estimated_stepping_batches)
            self.follow(module)

    def follow(self, module: LightningModule) -> None:
        """Give the optimiser the rate that ``lr`` has become; warn once of rates that the schedule will undo.

        Args:
            module: The module, whose ``lr`` is followed.

        Raises:
            UsageError: If its ``lr`` is negative or not a number.
        """
        if (scheduler := _warmup(module)) is None:
            return
        lr = getattr(module, "lr", self.lr)
        if lr != self.lr:
            set_rates(scheduler, check_range(type(module).__name__, "lr", lr, 0), self.factors)
            self.lr = lr
        rates = [group["lr"] for group in scheduler.optimizer.param_groups]
        if not self._told and rates != rates_of(scheduler):
            self._told = True
            rank_zero_warn(
                f"A callback has set the optimiser's learning rates to {rates}, which the schedule replaces after this "
                "step. To change the rate, set the module's lr: the schedule goes on from it."
            )


def refuse_finders(trainer: Trainer) -> None:
    """Refuse LearningRateFinder and BatchSizeFinder where a checkpoint is continued.

    They search before the trainer has restored its state, and the checkpoint that they end with replaces the one that
    was asked for: step, optimiser and schedule would start anew without a word.

    Args:
        trainer: The trainer, which has read the checkpoint.

    Raises:
        UsageError: If both are there.
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
    """The module's schedule; None where it is of another kind, or another is in its place."""
    found = module.lr_schedulers()
    return found if isinstance(found, LambdaLR) and isinstance(found.lr_lambdas[0], WarmupSchedule) else None


def set_rates(scheduler: LambdaLR, lr: float, factors: Sequence[float | None]) -> None:
    """Give an optimiser another learning rate under the schedule that it has, from its next step on.

    Args:
        scheduler: The schedule of the optimiser.
        lr: Learning rate before the schedule's factor.
        factors: Each parameter group's rate over ``lr``; None for a group that keeps its own.

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
    """The learning rate of each parameter group that the schedule gives for the next step."""
    factors = [factor(scheduler.last_epoch) for factor in scheduler.lr_lambdas]
    return [float(base) * factor for base, factor in zip(scheduler.base_lrs, factors, strict=True)]


def meet_length(scheduler: LambdaLR, total_steps: float) -> None:
    """Tell a :class:`WarmupSchedule` how long the run is, which may have changed since it was made.

    A schedule that has not begun becomes so long; one that goes on from a checkpoint stays what it is, and a warning
    says so.

    Args:
        scheduler: The schedule of the optimiser.
        total_steps: Optimiser steps of the whole run.
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
            end = f"after step {schedule.total_steps:g} the learning rate is what it is at its end"
        rank_zero_warn(
            f"The checkpoint's schedule {schedule.name!r} was made for {schedule.total_steps:g} optimiser steps and "
            f"stays as it is, but with this batch size, number of processes, accumulate_grad_batches and max_epochs "
            f"the run has {total_steps:g}: {end}."
        )


def warn_of_ended_schedule(module: LightningModule) -> bool:
    """Warn where a checkpoint of a finished run is to be continued, and say whether it is.

    Args:
        module: The module whose training starts.
    """
    rates = [group["lr"] for optimizer in module.trainer.optimizers for group in optimizer.param_groups]
    if not module.global_step or not rates or any(rates):
        return False
    rank_zero_warn(
        "The checkpoint's schedule has ended, and the learning rate stays 0: nothing will be learnt. Start a new run "
        "from its weights instead, with LitDetector.load_from_checkpoint(path) in Python."
    )
    return True
