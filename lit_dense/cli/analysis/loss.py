"""A callback that observes how the classification loss is distributed over validation images."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from ...callbacks.loss_plots import Sums, column_names, loss_sums, total_of
from ...core.distributed import Reduce
from ...core.samples import DenseSamples
from ...training import LitDetector
from ...visualization.loss_figures import loss_figure
from ...weighters import LossValues, Weights

IMAGES = 16
"""Number of observed images of each process."""


class LossObserver(Callback):
    """Computes the loss of the first validation images as in training, and sums its distribution over processes.

    The module is in evaluation mode, and images are not augmented. Weighters take part. Every process observes the same
    number of images, because the loss sums over processes.

    Attributes:
        sums: The sums of all processes, arguments of ``loss_figure``; None if the loss is the detector's own.
        images: Number of observed images of all processes.
    """

    def __init__(self) -> None:
        self.sums: Sums | None = None
        self.images = 0
        self._kept: list[tuple[Any, Any]] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first images."""
        assert isinstance(pl_module, LitDetector)
        if not trainer.sanity_checking and len(self._kept) < IMAGES:
            self._kept += list(zip(*pl_module.unpack_batch(batch), strict=True))[: IMAGES - len(self._kept)]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the loss of the images, one after another."""
        assert isinstance(pl_module, LitDetector)
        number = min(Reduce().gather_objects(len(self._kept)))
        kept, self._kept = self._kept[:number], []
        criterion, parts = pl_module.criterion, list[Sums]()

        def observe(samples: DenseSamples, values: LossValues, weights: Sequence[Weights]) -> None:
            with torch.autocast(samples.logits.device.type, enabled=False):  # as the loss was computed
                parts.append(loss_sums(samples, values, weights))

        criterion.observers.append(observe)
        try:
            for image, target in kept:
                with torch.enable_grad():
                    pl_module.terms_of([image], [target])
        finally:
            criterion.observers.remove(observe)
        gathered = [part for process in Reduce().gather_objects(parts) for part in process]
        self.images = len(gathered)
        if gathered:
            self.sums = total_of(gathered)

    def figure(self, module: LitDetector) -> Figure | None:
        """Return the figure; None if nothing was observed.

        Args:
            module: The module.
        """
        if self.sums is None:
            return None
        names = column_names(module, len(self.sums["classes"]) - 1, first_label=0)
        loss = type(module.criterion.loss).__name__
        return loss_figure(module.criterion.step, loss, **self.sums, class_names=names)
