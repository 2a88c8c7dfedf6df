"""A loader that resumes in the middle of an epoch, even with another batch size or number of processes."""

import math
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.utils.data import BatchSampler, DataLoader

from .ordering import EpochSampler


class ResumableLoader(DataLoader[Any]):
    """A data loader with an :class:`EpochSampler` that resumes in the middle of an epoch.

    Lightning saves ``state_dict`` in its checkpoints and loads it into the loader of the resumed run. Images that were
    drawn before are skipped without being loaded. The state counts the images that all processes together have drawn,
    so batch size and number of processes may change: the rest of the epoch consists of the images that were not drawn.
    As in every epoch, an incomplete last batch is dropped, unless it is the only one left. If the batches have changed,
    a warning gives the number of dropped images.

    Attributes:
        trainer: The trainer whose batch count is adjusted to the remaining batches; None if there is none.
    """

    trainer: Trainer | None = None
    _epoch = -1  # the last epoch that was started
    _drawn = 0  # positions of it that all processes together have drawn
    _state: dict[str, int] | None = None  # of the interrupted run, until its epoch is iterated over

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator, so that nothing is drawn before the first batch is requested: a resumed trainer creates the
        # iterator before it sets the sampler's epoch.
        if not isinstance(self.sampler, EpochSampler):  # Trainer(overfit_batches=...) replaces the sampler
            yield from super().__iter__()
            return
        changed = self._resumes and self._changed()
        if changed:
            rank_zero_warn(self._warning())
        if not self._resumes:
            self._epoch, self._drawn = self.sampler.epoch, 0
        self._state = None
        self.sampler.start = self._drawn
        self.sampler.keeps_rest = changed and self._is_short()
        if isinstance(self.batch_sampler, BatchSampler):
            self.batch_sampler.drop_last = self.drop_last and not self.sampler.keeps_rest
        for batch in super().__iter__():
            self._drawn += self._step
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, the number of drawn positions, and the settings that these depend on.

        A batch that the trainer has drawn but not finished, because an exception stopped it, counts as not drawn: the
        resumed trainer asks for it again.
        """
        drawn = self._drawn
        if self.trainer is not None:
            batches: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
            drawn = max(0, drawn - (batches.ready - batches.processed) * self._step)
        return {"epoch": self._epoch, "drawn": drawn, **self._conditions()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume from a state when its epoch is iterated over next.

        Args:
            state: The result of ``state_dict``. In older versions it has only ``epoch`` and ``batches``; these are
                counted as batches of this loader's size.
        """
        state = {**self._conditions(), "drawn": state.get("batches", 0) * self._step, **state}
        self._epoch, self._state = state["epoch"], state
        self._drawn = state["drawn"] if self._same_order() else 0
        if isinstance(self.sampler, EpochSampler):
            self.sampler.on_epoch = self._set_progress

    @property
    def _resumes(self) -> bool:
        """True if the sampler's epoch is the interrupted one."""
        return self._state is not None and isinstance(self.sampler, EpochSampler) and self._epoch == self.sampler.epoch

    @property
    def _step(self) -> int:
        """Positions that all processes together draw for a batch."""
        processes = self.sampler.num_replicas if isinstance(self.sampler, EpochSampler) else 1
        return (self.batch_size or 1) * processes

    def _conditions(self) -> dict[str, int]:
        """Return the settings that an epoch's order and batches depend on."""
        if not isinstance(self.sampler, EpochSampler):
            return {}
        sampler = self.sampler
        return {
            "batch_size": self.batch_size or 1,
            "processes": sampler.num_replicas,
            "draws": sampler.draws,
            "seed": sampler.seed,
        }

    def _changed(self) -> bool:
        """Return whether the interrupted run had other batches than this one."""
        state = self._state or {}
        return any(state[name] != value for name, value in self._conditions().items())

    def _same_order(self) -> bool:
        """Return whether the positions of an epoch are those of the interrupted run."""
        state = self._state or {}
        return all(state[name] == value for name, value in self._conditions().items() if name in ("draws", "seed"))

    def _left(self) -> int:
        """Return the number of images of the epoch that were not drawn yet."""
        return max(0, self._conditions()["draws"] - self._drawn)

    def _is_short(self) -> bool:
        """Return whether the rest of the epoch is less than one batch."""
        return 0 < self._left() < self._step

    def _batches_left(self) -> int:
        full, rest = divmod(self._left(), self._step)
        return full + bool(rest and (not full or not self.drop_last))

    def _set_progress(self) -> None:
        """Set the trainer's batch count so that the epoch ends when no batches are left.

        Lightning has restored the batch count of the interrupted run, but it ends the epoch at the number of batches of
        a whole epoch with the current settings. This method is called each time the sampler's epoch is set; one of
        these calls is between the restoration and the end of the epoch.
        """
        if self.trainer is None or not self._resumes or not self._changed():
            return
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current
        whole = min(len(self), self.trainer.num_training_batches)
        shift = max(0, int(whole) - self._batches_left()) - done.ready
        for count in ("ready", "started", "processed", "completed"):
            setattr(done, count, getattr(done, count) + shift)

    def _warning(self) -> str:
        """Describe the differences from the interrupted run, in one line."""
        was, now = self._state or {}, self._conditions()
        if not self._same_order():
            return (
                f"The checkpoint was made in the middle of epoch {self._epoch} of other training data: {was['draws']} "
                f"images with seed {was['seed']}, now {now['draws']} with seed {now['seed']}. The epoch starts again."
            )
        batches, left = self._batches_left(), self._left()
        follow = min(batches * self._step, left)
        if follow > now["processes"]:
            follow -= follow % now["processes"]  # all draw equally many
        return (
            f"Epoch {self._epoch} resumes with {now['batch_size']} images x {now['processes']} processes in a batch; "
            f"the checkpoint had {was['batch_size']} x {was['processes']}. Of {now['draws']} images in the epoch, "
            f"{self._drawn} were seen before, {follow} follow in {batches} batches, and {left - follow} are dropped "
            "because they do not fill a batch."
        )


def run_epochs(trainer: Trainer, batches: int) -> float | None:
    """Return the length of a trainer's run in epochs; None if it is unlimited.

    Args:
        trainer: The trainer.
        batches: Batches of an epoch on this process.
    """
    limit = trainer.limit_train_batches
    used = min(limit, batches) if isinstance(limit, int) else int(batches * limit)
    epochs = [float(trainer.max_epochs)] if trainer.max_epochs is not None and trainer.max_epochs > 0 else []
    if trainer.max_steps > 0 and used > 0:
        steps = math.ceil(used / trainer.accumulate_grad_batches)  # Lightning steps at the end of an epoch too
        epochs.append(trainer.max_steps / steps)
    return min(epochs, default=None)
