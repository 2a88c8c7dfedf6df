"""A callback that plots and logs the weights of samples."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ..core.distributed import Reduce
from ..core.errors import check_range
from ..core.samples import NEGATIVE, DenseSamples
from ..detectors import DetectorAdapter
from ..visualization.draw import draw_weights, side_by_side, with_weight_legend
from ..weighters import LossValues, Weights
from .every_n_steps import EveryNSteps, product_of_weights
from .image_log import log_picture

NOTICEABLE = 0.005
"""Smallest change of a weight that is visible in two decimals."""
HARD_PER_POSITIVE, HARD_AT_LEAST = 10, 100
"""Number of hard negatives of an image, those with the greatest loss: per positive, and at least."""


class _Shown(NamedTuple):
    """One image and its anchors with the greatest and the smallest weights."""

    image: Tensor
    objects: Tensor
    most: tuple[Tensor, Tensor, Tensor]
    least: tuple[Tensor, Tensor, Tensor]


class WeightPlots(EveryNSteps):
    """Plots and logs the weights of anchors in every n-th training step.

    The weight of an anchor is the product of all weighters' weights of the classification loss; 1 is unweighted. A plot
    has a row for each of the first images of the first process's batch, as the network sees them: on the left the
    anchors with the greatest increase of weight, on the right those with the greatest decrease. Of the negatives, only
    hard ones are drawn. An image with no weight other than 1 is skipped, and without images there is no plot. Files are
    named after the step, from 1 on. Loggers that accept images get the plot as ``weights/picture``.

    All loggers get shares of the total weight (including the normalizer's factor of each image) and of the weighted
    classification loss, summed over processes: ``weights/positive_share``, ``weights/negative_share``,
    ``weights/level_0_share`` and so on, and ``weights/positive_loss_share`` and so on. If the total is 0, nothing is
    logged. Images without objects contribute their negatives.

    The callback works with LitRetinaNet, and with any module with a loss set by ``SwapLoss`` or ``patch``. Shares of
    levels are not logged if the detector does not provide its pyramid levels. There are no plots, and a line is logged,
    if the detector has no anchors or does not resize images by torchvision's transform. If a training step computes the
    loss several times, as with gradient accumulation, the first is shown.

    Args:
        every_n_steps: Interval between plots in optimiser steps, at least 1.
        number: Largest number of anchors drawn on each side, at least 1.
        folder: Folder of the plots; relative paths are inside the folder of the run. Default: ``weights``.
        num_images: Number of images drawn, at least 1.
        stage: The observed loss of a detector with several; by default the first that was replaced. Faster R-CNN has
            ``roi`` and ``rpn``. A given stage is appended to the folder and the names in loggers, as in
            ``weights/rpn``.
        module: Path of the detector within the LightningModule, if it contains several.

    Raises:
        UsageError: If an argument is out of range; when training starts, if the loss is the detector's own.
    """

    def __init__(
        self,
        every_n_steps: int = 200,
        number: int = 20,
        folder: str | None = None,
        num_images: int = 2,
        stage: str | None = None,
        module: str | None = None,
    ) -> None:
        super().__init__(every_n_steps, folder or "weights", "weights", stage, module)
        self.number = int(check_range("WeightPlots", "number", number, 1))
        self.num_images = int(check_range("WeightPlots", "num_images", num_images, 1))
        self._sums: dict[str, list[float]] = {}
        self._shown: list[_Shown] = []
        self._images: ImageList | None = None
        self._transform: nn.Module | None = None
        self._handle: RemovableHandle | None = None

    def begin(self, adapter: DetectorAdapter) -> None:
        """Log if the detector's anchors cannot be drawn."""
        if reason := _reason_not_to_draw(adapter):
            rank_zero_info(f"{type(self).__name__}: {reason}, so numbers are logged and nothing is drawn.")

    def prepare(self, adapter: DetectorAdapter) -> None:
        """Register a hook that keeps the images, on the process that draws."""
        if self._draws and not _reason_not_to_draw(adapter):
            self._transform = adapter.detector.transform
            self._handle = self._transform.register_forward_hook(self._keep_images)

    def show(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Sum over processes, log and draw."""
        # objects, not a tensor: the number of levels is unknown on a process that has computed no loss
        shares = _shares(Reduce().gather_objects(self._sums), self.tag)
        for logger in trainer.loggers if shares else ():
            logger.log_metrics(shares, step=step)
        if self._shown:
            self._draw(trainer, step + 1)

    def _keep_images(self, transform: nn.Module, inputs: Any, output: tuple[ImageList, Any]) -> None:
        """Keep the images as the network sees them; a forward hook of the detector's transform."""
        self._images = output[0]

    def observe(self, samples: DenseSamples, values: LossValues, weights: Sequence[Weights]) -> None:
        """Collect the numbers and the anchors of a batch."""
        product = product_of_weights(values, weights)
        self._sums = _sums(samples, values, product)
        images, self._images = self._images, None
        if images is not None:
            self._shown = [
                shown
                for index in range(min(self.num_images, samples.num_images))
                if (shown := self._select(images, samples, values, product, index)) is not None
            ]

    def _select(
        self, images: ImageList, samples: DenseSamples, values: LossValues, product: Tensor, index: int
    ) -> _Shown | None:
        """Select one image's anchors with the most changed weights; None if all weights of candidates are 1."""
        rows = samples.rows_of(index)
        weights, labels, anchors = product[rows].float(), samples.labels[rows], samples.anchors[rows]
        most, least = _extremes(weights, values.classification[rows].float(), labels, self.number)
        if not len(least) and not (weights[most] > 1 + NOTICEABLE).any():
            return None
        height, width = images.image_sizes[index]
        return _Shown(
            _plain_image(images.tensors[index, :, :height, :width], self._transform),
            samples.gt_boxes[samples.gt_image_idxs == index],
            (anchors[most], weights[most], labels[most] >= 0),
            (anchors[least], weights[least], labels[least] >= 0),
        )

    def _draw(self, trainer: Trainer, step: int) -> None:
        rows = [
            [draw_weights(s.image, s.objects, *s.most), draw_weights(s.image, s.objects, *s.least)] for s in self._shown
        ]
        sheet = side_by_side(rows, (f"step {step}: most weight", "least weight"))
        path = self._path / f"step_{step:06d}.png"
        log_picture(trainer, with_weight_legend(sheet), path, f"{self.tag}/picture", step - 1)

    def unhook(self) -> None:
        """Remove the hooks."""
        super().unhook()
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def forget(self) -> None:
        """Remove the hooks and the collected data."""
        super().forget()
        self._sums, self._shown = {}, []
        self._images = self._transform = None


def _reason_not_to_draw(adapter: DetectorAdapter) -> str:
    """Return the reason why a detector's anchors cannot be drawn; empty if they can."""
    name = type(adapter.detector).__name__
    if "anchors" not in adapter.offers:
        return f"{name} has no anchors"
    if not isinstance(getattr(adapter.detector, "transform", None), GeneralizedRCNNTransform):
        return f"{name} has no torchvision transform, which provides the images"
    return ""


def _plain_image(image: Tensor, transform: Any) -> Tensor:
    """Undo the normalisation of an image; values are in [0, 1] [3, H, W]."""
    mean, std = (
        torch.tensor(v, device=image.device)[:, None, None] for v in (transform.image_mean, transform.image_std)
    )
    return (image.float() * std + mean).clamp(0, 1)


def _extremes(weights: Tensor, values: Tensor, labels: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Select one image's positives and hard negatives with the greatest increase and decrease of weight.

    Among equal weights the greater loss comes first. If no weight has increased, anchors with an unchanged weight are
    selected in place of increases: for weights of 0 and 1, these are the chosen anchors.

    Args:
        weights: Weight of each anchor [K].
        values: Loss of each anchor before weighting [K].
        labels: Class of each anchor, -1 background, -2 ignored [K].
        number: Largest number of increases and of decreases.

    Returns:
        Indices of increases and of decreases, the greatest change first.
    """
    by_value = values.argsort(descending=True, stable=True)
    positive, negative = labels[by_value] >= 0, labels[by_value] == NEGATIVE
    hard = negative & (negative.cumsum(0) <= max(HARD_AT_LEAST, HARD_PER_POSITIVE * int(positive.sum())))
    considered = by_value[positive | hard]
    change = weights[considered] - 1
    most, least = change > NOTICEABLE, change < -NOTICEABLE
    if not most.any():
        most = ~least
    falling, rising = (change.argsort(descending=d, stable=True) for d in (True, False))
    return considered[falling[most[falling]]][:number], considered[rising[least[rising]]][:number]


def _sums(samples: DenseSamples, values: LossValues, weights: Tensor) -> dict[str, list[float]]:
    """Return this process's total weight and weighted loss of positives, negatives and each level."""
    scaled = (weights * values.image_scales[samples.image_idxs]).float()
    both = torch.stack([scaled, scaled * values.classification], 1)
    groups = {"positive": samples.labels >= 0, "negative": samples.labels == NEGATIVE}
    if samples.geometry is not None:
        levels = ((level, samples.level_idxs == level) for level in range(len(samples.geometry.level_sizes)))
        groups |= {f"level_{level}": inside & samples.valid for level, inside in levels}
    sums = torch.stack([both[inside].sum(0) for inside in groups.values()])
    return dict(zip(groups, sums.tolist(), strict=True))


def _shares(sums: Sequence[Mapping[str, Sequence[float]]], tag: str) -> dict[str, float]:
    """Return shares of the sums of all processes; shares of a total of 0 are left out."""
    shares: dict[str, float] = {}
    for column, suffix in enumerate(("share", "loss_share")):
        totals: dict[str, float] = {}
        for process in sums:
            for name, values in process.items():
                totals[name] = totals.get(name, 0.0) + values[column]
        total = totals.get("positive", 0.0) + totals.get("negative", 0.0)
        if total > 0:
            shares |= {f"{tag}/{name}_{suffix}": value / total for name, value in totals.items()}
    return shares
