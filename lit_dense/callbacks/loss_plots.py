"""Pictures and numbers of what a loss makes of easy and hard samples."""

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
"""Logits whose gradient norm is below a tenth are easy, from nine tenths on hard."""


class LossPlots(EveryNSteps):
    """Shows every n-th training step what the classification loss makes of easy and hard samples.

    A picture has five parts: how many elements (an anchor and a class each) have which gradient norm ``|p - y|``; what
    share of the gradient they have with plain cross-entropy and with this loss and its weights
    (https://arxiv.org/abs/1811.05181); what share of the loss the hardest positives and the hardest negatives carry
    (https://arxiv.org/abs/1708.02002); and the shares of classes, background and pyramid levels. Files are named after
    the step, from 1 on; loggers that take images get the picture as ``loss_pictures/picture``.

    All loggers get ``loss_pictures/positive_share``, the share of the loss that positives have;
    ``loss_pictures/hardest_percent_of_negatives``, the share of the negatives' loss that the hardest 1 % of them carry;
    ``loss_pictures/easy_gradient`` and ``loss_pictures/hard_gradient``, the share of the gradient that elements of norm
    below .1 and from .9 on have. What cannot be told, as of a batch without loss, is left out.

    Everything is summed over the processes, gathered once in a step that is shown, also on one that computed no
    loss or holds images without objects. Training is not changed by it. Weights are taken for constants, and the terms
    that weighters add, the box loss and ignored anchors are not counted. It works with LitRetinaNet, and with any
    module that ``SwapLoss`` or ``patch`` gave a loss. Where the detector does not tell its levels, their part is empty.

    Args:
        every_n_steps: Optimiser steps from one picture to the next, at least 1.
        folder: Where pictures go, in the folder of the run if it is relative.
        stage: Which of the detector's losses is shown; by default the first that was replaced. Faster R-CNN has ``roi``
            and ``rpn``. A stage that is named follows in the folder and the names in loggers, as in ``loss/rpn``.
        module: Path of the detector within the LightningModule, where it contains several.

    Raises:
        UsageError: If an argument is out of range; or, when training starts, if the loss is the detector's own.
    """

    def __init__(
        self, every_n_steps: int = 200, folder: str = "loss", stage: str | None = None, module: str | None = None
    ) -> None:
        super().__init__(every_n_steps, folder, "loss_pictures", stage, module)
        self._sums: Sums = {}
        self._first_label = 0
        self._of_stage, self._of_objects = "", False

    def prepare(self, adapter: DetectorAdapter) -> None:
        """Learn what the classes are."""
        stage = self.stage_of(adapter)
        self._first_label = adapter.columns(stage).first_label
        self._of_stage = f", stage {stage}" if stage else ""
        self._of_objects = stage != adapter.stages[0]  # a further stage tells objects from background

    def observe(self, samples: DenseSamples, values: LossValues, weights: Sequence[Weights]) -> None:
        """Keep the sums of this process."""
        scales = values.image_scales[samples.image_idxs] / samples.reduce.world_size
        self._sums = _sums(samples, values.classification, product_of_weights(values, weights) * scales)

    def show(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Add up what the processes saw, log it, and draw."""
        # objects, not a tensor: a process may have computed no loss, and then it knows no levels
        held = [sums for sums in Reduce().gather_objects(self._sums) if sums]
        if not held or self._criterion is None:
            return
        sums = {name: np.sum([process[name] for process in held], 0) for name in held[0]}
        shares = _shares(sums, self.tag)
        for logger in trainer.loggers if shares else ():
            logger.log_metrics(shares, step=step)
        if self._draws:
            from ..visualization.figures import loss_figure, to_picture  # matplotlib takes its time to load

            names = self._names(pl_module, len(sums["classes"]) - 1)
            loss = type(self._criterion.loss).__name__ + self._of_stage
            figure = loss_figure(step + 1, loss, **{"levels": None, **sums}, class_names=names)
            path = self._path / f"step_{step + 1:06d}.png"
            log_picture(trainer, to_picture(figure), path, f"{self.tag}/picture", step)

    def _names(self, pl_module: LightningModule, number: int) -> list[str]:
        """Names of the classes: those that the module knows, else their labels."""
        if self._of_objects and number == 1:
            return ["object"]
        known = [str(c["name"]) for c in getattr(pl_module, "categories", None) or []]
        if len(known) > number:
            known = known[self._first_label :]  # the names of labels, that of background included
        return (known + [str(k + self._first_label) for k in range(len(known), number)])[:number]

    def forget(self) -> None:
        """Drop what was kept of a step."""
        super().forget()
        self._sums = {}


def _sums(samples: DenseSamples, values: Tensor, weights: Tensor) -> Sums:
    """This process's sums, under the names of the arguments of ``charts.loss_figure``.

    Args:
        samples: The batch.
        values: Classification loss of each anchor, with its graph [A].
        weights: What they are multiplied by before they are added up [A].
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
    flat = torch.cat([tensor.flatten() for tensor in sums.values()]).cpu()  # one transfer for all
    parts = flat.split([tensor.numel() for tensor in sums.values()])
    return {name: part.view(sums[name].shape).numpy() for name, part in zip(sums, parts, strict=True)}


def _shares(sums: Sums, tag: str) -> dict[str, float]:
    """The numbers for the loggers; those that cannot be told are left out."""
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
