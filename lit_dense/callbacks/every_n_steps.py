"""The base class of callbacks that observe the loss in every n-th training step."""

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
    """Base class of a callback that observes the criterion in every n-th optimiser step, and only then.

    If a training step computes the loss several times, as with gradient accumulation, the first is observed.

    Args:
        every_n_steps: Interval between observed optimiser steps, at least 1.
        folder: Folder of the plots; relative paths are inside the folder of the run.
        tag: Prefix of names in loggers.
        stage: The observed loss of a detector with several; by default the first that was replaced. A given stage is
            appended to folder and tag.
        module: Path of the detector within the LightningModule, if it contains several.

    Raises:
        UsageError: If an argument is out of range; when training starts, if the loss is the detector's own.
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
        """Collect the data of a batch. Called within a step, so it must not communicate between processes."""

    @abstractmethod
    def show(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Sum the data over processes, log and draw it. Called on every process, even on one without data."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the output folder; log_dir is a collective, so all processes call it, once."""
        self._path = Path(trainer.log_dir or trainer.default_root_dir) / self.folder
        self._draws = trainer.is_global_zero
        self._step = None
        self.begin(self._adapter(pl_module))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Observe the loss of this batch, if it is the first batch of an observed step."""
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
        """Show the observed data."""
        if self._criterion is None or self._step is None:
            return
        self.show(trainer, pl_module, self._step)
        self.forget()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the observer and the collected data."""
        self.forget()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove the observer and the collected data."""
        self.forget()

    def begin(self, adapter: DetectorAdapter) -> None:
        """Prepare for training; called when it starts."""

    def prepare(self, adapter: DetectorAdapter) -> None:
        """Prepare for an observed step; called before it."""

    def stage_of(self, adapter: DetectorAdapter) -> str:
        """Return the observed stage."""
        return self.stage or next(stage for stage in adapter.stages if stage in adapter.criteria)

    def unhook(self) -> None:
        """Stop observing."""
        if self._criterion is not None and self._observe in self._criterion.observers:
            self._criterion.observers.remove(self._observe)

    def forget(self) -> None:
        """Remove the observer and the collected data."""
        self.unhook()
        self._criterion = None

    def _observe(self, samples: DenseSamples, values: LossValues, weights: Sequence[Weights]) -> None:
        self.unhook()
        with torch.autocast(samples.logits.device.type, enabled=False):  # as the loss was computed
            self.observe(samples, values, weights)

    def _adapter(self, pl_module: LightningModule) -> DetectorAdapter:
        adapter = attached(pl_module, self.module)
        if adapter is not None and (self.stage is None or self.stage in adapter.criteria):
            return adapter
        own = find_detector(pl_module, self.module)
        of_stage = "" if self.stage is None else f" in stage {check_stage(own, self.stage)!r}"
        named = "" if self.stage is None else f" with stage={self.stage!r}"
        raise UsageError(
            f"{type(self).__name__}: {type(pl_module).__name__} trains with {type(own.detector).__name__}'s own "
            f"loss{of_stage}, which cannot be observed: add the callback SwapLoss{named}, or call "
            f"lit_dense.patch{named}."
        )


def product_of_weights(values: LossValues, weights: Sequence[Weights]) -> Tensor:
    """Return the product of all weighters' weights of the classification loss; 1 without weights [A]."""
    product = torch.ones_like(values.classification)
    for of_weighter in weights:
        if of_weighter.classification is not None:
            product = product * of_weighter.classification
    return product
