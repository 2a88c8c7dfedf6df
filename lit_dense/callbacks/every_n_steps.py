"""What the callbacks have in common that look at the loss of every n-th training step."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ..core.errors import UsageError, check_range
from ..core.samples import DenseSamples
from ..criterion import Criterion
from ..detectors import DetectorAdapter, attached, find_detector
from ..detectors.attach import check_stage
from ..weighters import LossValues, Weights


class EveryNSteps(Callback, ABC):
    """Observes the criterion in every n-th optimiser step, and in no other.

    Where a training step computes the loss several times, as with gradient accumulation, the first is observed.

    Args:
        every_n_steps: Optimiser steps from one that is shown to the next, at least 1.
        folder: Where pictures go, in the folder of the run if it is relative.
        tag: What names in loggers begin with.
        stage: Which of the detector's losses; by default the first that was replaced. A stage that is named follows in
            folder and tag.
        module: Path of the detector within the LightningModule, where it contains several.

    Raises:
        UsageError: If an argument is out of range; or, when training starts, if the loss is the detector's own.
    """

    def __init__(
        self, every_n_steps: int, folder: str, tag: str, stage: str | None = None, module: str | None = None
    ) -> None:
        self.every_n_steps = int(check_range(type(self).__name__, "every_n_steps", every_n_steps, 1))
        self.folder = f"{folder}/{stage}" if stage else folder
        self.tag = f"{tag}/{stage}" if stage else tag
        self.stage, self.module = stage, module
        self._path = Path(self.folder)
        self._draws = False
        self._step: int | None = None
        self._criterion: Criterion | None = None

    @abstractmethod
    def observe(self, samples: DenseSamples, values: LossValues, weights: Sequence[Weights]) -> None:
        """Keep of a batch what is to be shown; it is called in the middle of a step, so no collectives."""

    @abstractmethod
    def show(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Add up what the processes saw, log it and draw; every process is asked, also one that saw nothing."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Learn where to write: asking for log_dir is a collective, so all processes ask, once."""
        self._path = Path(trainer.log_dir or trainer.default_root_dir) / self.folder
        self._draws = trainer.is_global_zero
        self._step = None
        self.begin(self._adapter(pl_module))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Look at the loss of this batch, if it is the first of a step to be shown."""
        step = trainer.global_step
        if (step + 1) % self.every_n_steps or step == self._step:
            return
        self._step = step
        self.forget()
        adapter = self._adapter(pl_module)
        self._criterion = adapter.criteria[self.stage_of(adapter)]
        self._criterion.observers.append(self._observe)
        self.prepare(adapter)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Show what was seen."""
        if self._criterion is None or self._step is None:
            return
        self.show(trainer, pl_module, self._step)
        self.forget()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no trace."""
        self.forget()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no trace."""
        self.forget()

    def begin(self, adapter: DetectorAdapter) -> None:
        """Do what is needed when training starts."""

    def prepare(self, adapter: DetectorAdapter) -> None:
        """Do what is needed before a step that is shown."""

    def stage_of(self, adapter: DetectorAdapter) -> str:
        """The stage that is shown."""
        return self.stage or next(stage for stage in adapter.stages if stage in adapter.criteria)

    def unhook(self) -> None:
        """Stop observing."""
        if self._criterion is not None and self._observe in self._criterion.observers:
            self._criterion.observers.remove(self._observe)

    def forget(self) -> None:
        """Drop what was kept of a step."""
        self.unhook()
        self._criterion = None

    def _observe(self, samples: DenseSamples, values: LossValues, weights: Sequence[Weights]) -> None:
        self.unhook()
        with torch.autocast(samples.logits.device.type, enabled=False):  # as the loss was computed
            self.observe(samples, values, weights)

    def _adapter(self, pl_module: LightningModule) -> DetectorAdapter:
        adapter = attached(pl_module, self.module)
        of_stage = "" if self.stage is None else f" in stage {check_stage(self._found(pl_module), self.stage)!r}"
        if adapter is None or (self.stage is not None and self.stage not in adapter.criteria):
            detector = type(self._found(pl_module).detector).__name__
            named = "" if self.stage is None else f" with stage={self.stage!r}"
            raise UsageError(
                f"{type(self).__name__}: {type(pl_module).__name__} trains with {detector}'s own loss{of_stage}, which "
                f"shows nothing: add the callback SwapLoss{named}, or call lit_dense.patch{named}."
            )
        return adapter

    def _found(self, pl_module: LightningModule) -> DetectorAdapter:
        return find_detector(pl_module, self.module)


def product_of_weights(values: LossValues, weights: Sequence[Weights]) -> Tensor:
    """The product of all weighters' weights of the classification loss, 1 where there is none [A]."""
    product = torch.ones_like(values.classification)
    for answer in weights:
        if answer.classification is not None:
            product = product * answer.classification
    return product
