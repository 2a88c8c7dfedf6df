"""Normalizers by name: what the sums over a batch are divided by.

The names are entry points of the group ``lit_dense.normalizers``, and attributes of this module. Each gives one
divisor per image, such that the mean of the processes' losses, which is what data-parallel training follows, is the
loss of one process that holds the whole batch.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .errors import UsageError, check_range
from .named_type import named_type
from .part import Part
from .registry import Registry
from .samples import DenseSamples


class Normalizer(Part):
    """Gives the divisor of each image's sum."""

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image of this process, float32 [B]."""
        raise NotImplementedError


class ImageNormalizer(Normalizer):
    """The mean over images of each image's sum per positive, as torchvision does.

    An image without positives is divided as if it had one. Images are counted over all processes, so a last batch of
    which the processes hold different shares comes out right.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image [B]."""
        num_images = samples.reduce.sum_number(samples.num_images, samples.device)
        return samples.pos_per_image.clamp(min=1) * num_images / samples.reduce.world_size


class BatchNormalizer(Normalizer):
    """The batch's sum per positive, positives counted over all processes.

    A batch without positives is divided as if it had one.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image [B]."""
        return _share(_positives(samples).clamp(min=1), samples)


class EMANormalizer(Normalizer):
    """The batch's sum per positive of a moving average over training steps.

    Steadier than ``batch`` where batches are small. Positives are counted over all processes, so all hold one average;
    a step without any counts as one. Evaluation divides by the average and leaves it as it is. detectron2, which it
    comes from, starts at 100 too, but each of its processes averages the positives of its own images.

    Args:
        momentum: Share of the past in the average, in [0, 1].
        initial: Positives of the whole batch to start from, at least 1.

    Raises:
        UsageError: If an argument is out of range.
    """

    positives: Tensor

    def __init__(self, momentum: float = 0.9, initial: float = 100.0) -> None:
        super().__init__()
        self.momentum = check_range("ema", "momentum", momentum, 0, 1)
        self.register_buffer("positives", torch.tensor(check_range("ema", "initial", initial, 1)))

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image [B]."""
        if not torch.is_grad_enabled():
            return _share(self.positives, samples)
        positives = self.momentum * self.positives + (1 - self.momentum) * _positives(samples).clamp(min=1)
        self.stage(positives=positives)
        return _share(positives, samples)


class SampledNormalizer(Normalizer):
    """The batch's sum per anchor that counts, positive or negative, counted over all processes.

    This is what the losses of torchvision's RPN and RoI heads are divided by, whose samplers draw the anchors that
    count. A batch in which none counts is divided as if one did.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image [B]."""
        return _share(samples.reduce.sum(samples.valid.sum().float()).clamp(min=1), samples)


class NativeNormalizer(Normalizer):
    """The batch's sum per number that the detector itself divides by, counted over all processes.

    It is the default of adapters whose detectors count something else than positives or anchors, such as the objects of
    a set predictor, and has no name: there is nothing to choose where it fits. One number is summed over processes,
    whatever each holds, and each image has a factor of its own.
    """

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image [B].

        Raises:
            UsageError: If the detector has no such number.
        """
        native = samples.native
        if native is None:
            raise UsageError(
                "NativeNormalizer: this detector gives no number of its own to divide by. Name another normalizer, "
                "such as batch."
            )
        total = samples.reduce.sum(native.count.float()).clamp(min=native.least)
        return total / samples.reduce.world_size * native.factors


class NoNormalizer(Normalizer):
    """The plain sum over the batch of all processes."""

    def forward(self, samples: DenseSamples) -> Tensor:
        """The divisor of each image [B]."""
        return _share(torch.ones((), device=samples.device), samples)


def _positives(samples: DenseSamples) -> Tensor:
    """Positives of all processes."""
    return samples.reduce.sum_number(len(samples.positives), samples.device)


def _share(divisor: Tensor, samples: DenseSamples) -> Tensor:
    """One divisor for every image, made smaller by what the mean over processes divides by."""
    return (divisor / samples.reduce.world_size).expand(samples.num_images)


NORMALIZERS: Registry[Normalizer] = Registry("lit_dense.normalizers", "normalizer", Normalizer)
__getattr__ = NORMALIZERS.attribute

if TYPE_CHECKING:
    NormalizerLike = Normalizer | str | dict[str, Any]
else:
    NormalizerLike = named_type(NORMALIZERS, "NormalizerLike")
