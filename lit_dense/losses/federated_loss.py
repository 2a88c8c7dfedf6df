"""Federated loss (https://arxiv.org/abs/2103.07461), as a component of a criterion."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UsageError, check_range
from ..core.per_class_table import PerClassTable
from ..core.samples import DenseSamples
from ..core.seeds import generator_of
from ..functional.federated import federated_classes
from .base import DenseLoss
from .registry import LOSSES, LossLike


class FederatedLoss(DenseLoss):
    """Federated loss (https://arxiv.org/abs/2103.07461): each step uses the present classes and a sample of others.

    Use it for data in which not every class is annotated in every image, such as LVIS. It wraps another loss. Present
    are the classes of the objects of all processes. All processes draw the same other classes, because the draw depends
    only on the seed and the step. Classes without training images are never drawn. An image without objects counts as
    background.

    Args:
        loss: A loss of single logits: a name, an object, or a dict with class_path and init_args.
        num_classes: Number of classes that a step uses, at least 1. Present classes are always used, even if there are
            more.
        power: Exponent of the image counts: a class is drawn with probability proportional to ``count ** power``.
        image_counts: Number of images that contain each class [C]; by default those of the training set.
        seed: Seed of the draw.

    Raises:
        UsageError: If the loss is not a loss of single logits, if an argument is out of range, or if the counts are
            unknown when training starts.
    """

    accepts_class_weights = True

    def __init__(
        self,
        loss: LossLike = "bce",
        num_classes: int = 50,
        power: float = 0.5,
        image_counts: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        inner = LOSSES.build(loss)
        if isinstance(inner, FederatedLoss):
            raise UsageError("federated: loss must be one of single logits, as focal is, not federated itself.")
        if not inner.accepts_class_weights:
            raise UsageError(
                "federated: loss must be one of single logits, as focal is; "
                f"{type(inner).__name__} does not use class weights."
            )
        self.loss = inner
        self.exclusive, self.accepts_soft_targets, self.prior = inner.exclusive, inner.accepts_soft_targets, inner.prior
        self.quality_scores, self.accepts_dual_weights = inner.quality_scores, inner.accepts_dual_weights
        self.num_classes = int(check_range("federated", "num_classes", num_classes, 1))
        self.power = check_range("federated", "power", power, 0)
        self.image_counts = PerClassTable("federated", "image_counts", "images", image_counts)
        self.seed = seed

    @property
    def spec(self) -> dict[str, Any]:
        """``class_path`` and ``init_args``, including those of the wrapped loss."""
        spec = super().spec
        spec["init_args"]["loss"] = self.loss.spec
        return spec

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the wrapped loss over the classes that this step uses [A]."""
        class_weights = self.classes_of_step(samples).to(torch.float32)
        if samples.class_weights is not None:
            class_weights = class_weights * samples.class_weights
        values: Tensor = self.loss(logits, labels, samples.with_class_weights(class_weights))
        return values

    def classes_of_step(self, samples: DenseSamples) -> Tensor:
        """Return a mask of the classes that this step uses, the same on all processes [C]."""
        counts = self.image_counts.values
        present = torch.zeros_like(counts).index_fill(0, samples.gt_labels, 1.0)
        # Drawn on the CPU, so that the numbers do not depend on a process's device.
        noise = torch.rand(len(counts), generator=generator_of(self.seed, samples.step))
        noise = noise.to(counts.device, non_blocking=True)
        frequencies = torch.where(counts > 0, counts**self.power, 0.0)
        return federated_classes(samples.reduce.sum(present) > 0, frequencies, noise, self.num_classes)
