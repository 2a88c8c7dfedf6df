"""A callback that plots and logs how the loss is distributed over easy and hard samples."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ..core.distributed import Reduce
from ..core.samples import NEGATIVE, DenseSamples
from ..detectors import DetectorAdapter
from ..functional.loss_distribution import (
    NORM_BINS,
    group_sums,
    hardest_share,
    logit_gradients,
    loss_over_norms,
    value_distribution,
)
from ..weighters import LossValues, Weights
from .every_n_steps import EveryNSteps, product_of_weights
from .image_log import log_picture

Sums = dict[str, npt.NDArray[np.float64]]

EASY, HARD = NORM_BINS // 10, NORM_BINS - NORM_BINS // 10
"""Bins of the gradient norm: logits below .1 are easy, logits of .9 and more are hard."""


class LossPlots(EveryNSteps):
    """Plots in every n-th training step how the classification loss is distributed over easy and hard samples.

    A plot has five panels: the number of logits by gradient norm ``|p - y|`` (one logit for each anchor and class);
    their share of the gradient with plain cross-entropy and with this loss and its weights
    (https://arxiv.org/abs/1811.05181); the share of the loss in the hardest positives and the hardest negatives
    (https://arxiv.org/abs/1708.02002); the shares of classes and background; and the shares of pyramid levels. Files
    are named after the step, from 1 on. Loggers that accept images get the plot as ``loss_pictures/picture``.

    All loggers get four numbers: ``loss_pictures/positive_share``, the positives' share of the loss;
    ``loss_pictures/hardest_percent_of_negatives``, the share of the negatives' loss in their hardest 1 %;
    ``loss_pictures/easy_gradient`` and ``loss_pictures/hard_gradient``, the share of the gradient of logits with a norm
    below .1 and from .9 on. Undefined numbers, such as those of a batch without loss, are not logged.

    Everything is summed over the processes in one collective per observed step, even if a process has computed no loss
    or has no objects. Training is not affected. Weights are treated as constants. Extra terms of weighters, the box
    loss and ignored anchors are not counted. The callback works with LitRetinaNet, and with any module with a loss set
    by ``SwapLoss`` or ``patch``. If the detector does not provide its pyramid levels, their panel is empty.

    Args:
        every_n_steps: Interval between plots in optimiser steps, at least 1.
        folder: Folder of the plots; relative paths are inside the folder of the run.
        stage: The observed loss of a detector with several; by default the first that was replaced. Faster R-CNN has
            ``roi`` and ``rpn``. A given stage is appended to the folder and the names in loggers, as in ``loss/rpn``.
        module: Path of the detector within the LightningModule, if it contains several.

    Raises:
        UsageError: If an argument is out of range; when training starts, if the loss is the detector's own.
    """

    def __init__(
        self, every_n_steps: int = 200, folder: str = "loss", stage: str | None = None, module: str | None = None
    ) -> None:
        super().__init__(every_n_steps, folder, "loss_pictures", stage, module)
        self._sums: Sums = {}
        self._first_label = 0
        self._of_stage, self._of_objects = "", False

    def prepare(self, adapter: DetectorAdapter) -> None:
        """Read the numbering of the classes."""
        stage = self.stage_of(adapter)
        self._first_label = adapter.columns(stage).first_label
        self._of_stage = f", stage {stage}" if stage else ""
        self._of_objects = stage != adapter.stages[0]  # other stages classify objects against background

    def observe(self, samples: DenseSamples, values: LossValues, weights: Sequence[Weights]) -> None:
        """Store the sums of this process."""
        self._sums = loss_sums(samples, values, weights)

    def show(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Sum over processes, log and draw."""
        # objects, not a tensor: the number of levels is unknown on a process that has computed no loss
        held = [sums for sums in Reduce().gather_objects(self._sums) if sums]
        if not held or self._criterion is None:
            return
        sums = total_of(held)
        shares = _shares(sums, self.tag)
        for logger in trainer.loggers if shares else ():
            logger.log_metrics(shares, step=step)
        if self._draws:
            from ..visualization.figures import loss_figure, to_picture  # matplotlib is slow to import

            number = len(sums["classes"]) - 1
            names = ["object"]
            if not (self._of_objects and number == 1):
                names = column_names(pl_module, number, self._first_label)
            loss = type(self._criterion.loss).__name__ + self._of_stage
            figure = loss_figure(step + 1, loss, **sums, class_names=names)
            path = self._path / f"step_{step + 1:06d}.png"
            log_picture(trainer, to_picture(figure), path, f"{self.tag}/picture", step)

    def forget(self) -> None:
        """Remove the observer and the collected data."""
        super().forget()
        self._sums = {}


def column_names(module: LightningModule, number: int, first_label: int) -> list[str]:
    """Return the names of the classes of a head from its module, or else their labels.

    Args:
        module: The module, with ``categories`` if the names are known.
        number: Number of classes.
        first_label: Label of the first class in the detector.
    """
    known = [str(c["name"]) for c in getattr(module, "categories", None) or []]
    if len(known) > number:
        known = known[first_label:]  # the names are those of labels, including background
    return (known + [str(k + first_label) for k in range(len(known), number)])[:number]


def total_of(parts: Sequence[Sums]) -> Sums:
    """Return the sums of several batches or processes, at least one."""
    return {name: np.sum([part[name] for part in parts], 0) for name in parts[0]}


def loss_sums(samples: DenseSamples, values: LossValues, weights: Sequence[Weights]) -> Sums:
    """Return this process's sums of a batch, by the names of the arguments of ``loss_figure``.

    Args:
        samples: The batch.
        values: Losses, the classification loss with its graph.
        weights: Weights of the weighters.
    """
    scales = values.image_scales[samples.image_idxs] / samples.reduce.world_size
    return _sums(samples, values.classification, product_of_weights(values, weights) * scales)


def _sums(samples: DenseSamples, values: Tensor, weights: Tensor) -> Sums:
    """Return the sums of a batch.

    Args:
        samples: The batch.
        values: Classification loss of each anchor, with its graph [A].
        weights: Factor of each value in the sum [A].
    """
    gradients, factor = logit_gradients(samples.logits, values, weights)
    norms = loss_over_norms(samples.logits, samples.labels, gradients, samples.score_logits)
    weighted = (values * weights).detach()
    classes = samples.labels.where(samples.labels != NEGATIVE, samples.num_classes)
    kinds = torch.where(samples.labels >= 0, 0, -1).where(samples.labels != NEGATIVE, 1)
    sums: dict[str, Any] = {
        "norm_counts": norms.counts,
        "before": norms.before,
        "after": norms.after / factor,
        "losses": value_distribution(weighted, kinds, 2),
        "entropies": value_distribution(norms.entropies, kinds, 2),
        "classes": group_sums(weighted, classes, samples.num_classes + 1),
    }
    if samples.geometry is not None:
        number = len(samples.geometry.level_sizes)
        levels = (2 * samples.level_idxs + kinds).where(kinds >= 0, -1)
        sums["levels"] = group_sums(weighted, levels, 2 * number).view(number, 2)
    flat = torch.cat([tensor.flatten() for tensor in sums.values()]).cpu()  # a single transfer
    parts = flat.split([tensor.numel() for tensor in sums.values()])
    return {name: part.view(sums[name].shape).numpy() for name, part in zip(sums, parts, strict=True)}


def _shares(sums: Sums, tag: str) -> dict[str, float]:
    """Return the numbers for the loggers, without undefined ones."""
    classes, after = sums["classes"], sums["after"]
    shares = {
        "positive_share": _ratio(classes[:-1].sum(), classes.sum()),
        "hardest_percent_of_negatives": hardest_share(sums["losses"][:, 1], 0.01),
        "easy_gradient": _ratio(after[:EASY].sum(), after.sum()),
        "hard_gradient": _ratio(after[HARD:].sum(), after.sum()),
    }
    return {f"{tag}/{name}": share for name, share in shares.items() if math.isfinite(share)}


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else math.nan
