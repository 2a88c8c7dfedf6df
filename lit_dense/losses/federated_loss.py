"""Federated loss as a part of a criterion: some classes at a time, of any loss of single logits."""

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
    """Federated loss (https://arxiv.org/abs/2103.07461): each step heeds the classes present and a draw of others.

    For data of which not every class is annotated in every image, as LVIS. The classes present are those of all
    processes' objects, and all processes draw the same others: the draw follows the seed and the step. Classes that no
    training image shows are never drawn. An image without objects counts as background.

    Args:
        loss: A loss of single logits: a name, an object, or a dict with class_path and init_args.
        num_classes: How many classes a step heeds; more where more are present.
        power: Chances are the number of images that show a class to this power.
        image_counts: Images that show each class [C]; by default the training set's.
        seed: Of the draw.

    Raises:
        UsageError: If the loss is not one of single logits, an argument is out of range, or the counts are not known
            when training starts.
    """

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
        if not inner.accepts_class_weights:
            raise UsageError(
                "federated: loss must be one of single logits, as focal is; "
                f"{type(inner).__name__} heeds no class weights."
            )
        self.loss = inner
        self.exclusive, self.accepts_soft_targets, self.prior = inner.exclusive, inner.accepts_soft_targets, inner.prior
        self.quality_scores = inner.quality_scores
        self.num_classes = int(check_range("federated", "num_classes", num_classes, 1))
        self.power = check_range("federated", "power", power, 0)
        self.image_counts = PerClassTable("federated", "image_counts", "images", image_counts)
        self.seed = seed

    @property
    def spec(self) -> dict[str, Any]:
        """``class_path`` and ``init_args``, those of the loss inside included."""
        spec = super().spec
        spec["init_args"]["loss"] = self.loss.spec
        return spec

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """The loss inside, of the classes that this step heeds [A]."""
        heeded = self.heeded_classes(samples).to(torch.float32)
        if samples.class_weights is not None:
            heeded = heeded * samples.class_weights
        values: Tensor = self.loss(logits, labels, samples.with_class_weights(heeded))
        return values

    def heeded_classes(self, samples: DenseSamples) -> Tensor:
        """Whether this step heeds a class, the same on all processes [C]."""
        counts = self.image_counts.values
        present = torch.zeros_like(counts).index_fill(0, samples.gt_labels, 1.0)
        # drawn on the CPU, where every process draws the same whatever its device
        noise = torch.rand(len(counts), generator=generator_of(self.seed, samples.step))
        noise = noise.to(counts.device, non_blocking=True)
        chances = torch.where(counts > 0, counts**self.power, 0.0)
        return federated_classes(samples.reduce.sum(present) > 0, chances, noise, self.num_classes)
