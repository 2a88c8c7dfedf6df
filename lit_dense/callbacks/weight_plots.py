"""Pictures and numbers of how samples are weighted."""

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
"""A smaller change of a weight would not be seen in its two decimals."""
HARD_PER_POSITIVE, HARD_AT_LEAST = 10, 100
"""How many negatives of an image are hard: those of greatest loss, so many for each positive, and at least so many."""


class _Shown(NamedTuple):
    """One image and its anchors of most and of least weight."""

    image: Tensor
    objects: Tensor
    most: tuple[Tensor, Tensor, Tensor]
    least: tuple[Tensor, Tensor, Tensor]


class WeightPlots(EveryNSteps):
    """Shows every n-th training step how the weighters weighted its anchors, as a picture and as numbers.

    The weight is the product of all weighters' weights of the classification loss; 1 is unweighted. A picture has a row
    for each of the first images of the first process's batch, as the network sees it: on the left the anchors that
    gained most weight, on the right those that lost most. Of negatives only the hard ones are drawn. An image whose
    weights are all 1 is left out, and so is the picture if none is left. Files are named after the step, from 1 on;
    loggers that take images get the picture as ``weights/picture``.

    All loggers get, summed over the processes, each one's share of all weight (times what the normalizer multiplies its
    image by) and of the weighted classification loss: ``weights/positive_share``, ``weights/negative_share``,
    ``weights/level_0_share`` and so on, and ``weights/positive_loss_share`` and so on. Where the total is 0, nothing is
    logged. Images without objects count with their negatives.

    It works with LitRetinaNet, and with any module that ``SwapLoss`` or ``patch`` gave a loss. Numbers of levels are
    left out where the detector does not tell its levels, and so are pictures where it has no anchors or does not resize
    images by torchvision's transform, of which a line is logged. Where a training step computes the loss several times,
    as with gradient accumulation, the first is shown.

    Args:
        every_n_steps: Optimiser steps from one picture to the next, at least 1.
        number: Most anchors drawn on each side, at least 1.
        folder: Where pictures go, in the folder of the run if it is relative; ``weights`` by default.
        num_images: Images drawn, at least 1.
        stage: Which of the detector's losses is shown; by default the first that was replaced. Faster R-CNN has ``roi``
            and ``rpn``. A stage that is named follows in the folder and the names in loggers, as in ``weights/rpn``.
        module: Path of the detector within the LightningModule, where it contains several.

    Raises:
        UsageError: If an argument is out of range; or, when training starts, if the loss is the detector's own.
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
        """Say what cannot be drawn."""
        if reason := _why_not_drawn(adapter):
            rank_zero_info(f"{type(self).__name__}: {reason}, so numbers are logged and nothing is drawn.")

    def prepare(self, adapter: DetectorAdapter) -> None:
        """Get hold of the images, on the process that draws."""
        if self._draws and not _why_not_drawn(adapter):
            self._transform = adapter.detector.transform
            self._handle = self._transform.register_forward_hook(self._keep_images)

    def show(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Add up what the processes saw, log it, and draw."""
        # objects, not a tensor: a process may have computed no loss, and then it knows no levels
        shares = _shares(Reduce().gather_objects(self._sums), self.tag)
        for logger in trainer.loggers if shares else ():
            logger.log_metrics(shares, step=step)
        if self._shown:
            self._draw(trainer, step + 1)

    def _keep_images(self, transform: nn.Module, inputs: Any, output: tuple[ImageList, Any]) -> None:
        """Forward hook of the detector's transform: keep the images as the network sees them."""
        self._images = output[0]

    def observe(self, samples: DenseSamples, values: LossValues, weights: Sequence[Weights]) -> None:
        """Keep of a batch what is to be logged and drawn."""
        product = product_of_weights(values, weights)
        self._sums = _sums(samples, values, product)
        images, self._images = self._images, None
        if images is not None:
            self._shown = [
                shown
                for index in range(min(self.num_images, samples.num_images))
                if (shown := self._look_at(images, samples, values, product, index)) is not None
            ]

    def _look_at(
        self, images: ImageList, samples: DenseSamples, values: LossValues, product: Tensor, index: int
    ) -> _Shown | None:
        """One image's anchors of most and of least weight; None if those that could be drawn all have the weight 1."""
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
        """Take the hooks off."""
        super().unhook()
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def forget(self) -> None:
        """Drop what was kept of a step."""
        super().forget()
        self._sums, self._shown = {}, []
        self._images = self._transform = None


def _why_not_drawn(adapter: DetectorAdapter) -> str:
    """What a picture of a detector's anchors lacks; empty where it lacks nothing."""
    name = type(adapter.detector).__name__
    if "anchors" not in adapter.offers:
        return f"{name} has no anchors"
    if not isinstance(getattr(adapter.detector, "transform", None), GeneralizedRCNNTransform):
        return f"{name} has no torchvision transform, which tells its images"
    return ""


def _plain_image(image: Tensor, transform: Any) -> Tensor:
    """An image as it was before normalisation, in [0, 1] [3, H, W]."""
    mean, std = (
        torch.tensor(v, device=image.device)[:, None, None] for v in (transform.image_mean, transform.image_std)
    )
    return (image.float() * std + mean).clamp(0, 1)


def _extremes(weights: Tensor, values: Tensor, labels: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Anchors of one image that gained most weight and that lost most, among positives and hard negatives.

    Of equal weights those with the greater loss come first. Where no weight rose, those that kept theirs count as
    gainers: with weights of 0 and 1 they are what was chosen.

    Args:
        weights: Weight of each anchor [K].
        values: Its loss before weighting [K].
        labels: Its class, -1 background, -2 ignored [K].
        number: Most of each.

    Returns:
        Indices, the most important first.
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
    """This process's weight and weighted loss of positives, negatives and each level."""
    scaled = (weights * values.image_scales[samples.image_idxs]).float()
    both = torch.stack([scaled, scaled * values.classification], 1)
    groups = {"positive": samples.labels >= 0, "negative": samples.labels == NEGATIVE}
    if samples.geometry is not None:
        levels = ((level, samples.level_idxs == level) for level in range(len(samples.geometry.level_sizes)))
        groups |= {f"level_{level}": inside & samples.valid for level, inside in levels}
    sums = torch.stack([both[inside].sum(0) for inside in groups.values()])
    return dict(zip(groups, sums.tolist(), strict=True))


def _shares(sums: Sequence[Mapping[str, Sequence[float]]], tag: str) -> dict[str, float]:
    """The shares of the sums of all processes; those of a total of 0 are left out."""
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
