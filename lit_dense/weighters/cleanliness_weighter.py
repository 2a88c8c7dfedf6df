"""Cleanliness of candidates as a part of a criterion."""

from typing import Any, get_args

import torch
from torch import Tensor

from ..assigners import TopNAssigner
from ..core.errors import check_choice, check_range
from ..core.samples import DenseSamples
from ..functional.cleanliness import CleanlinessForm, cleanliness_targets, cleanliness_weights
from .base import LossValues, Weighter, Weights


class CleanlinessWeighter(Weighter):
    """Learning from Noisy Anchors (https://arxiv.org/abs/1912.05086): anchors that predict well are clean, and count.

    The best anchors of each object are its candidates, whatever their IoU. How well a candidate predicts box and class
    is its soft target, and weighs it in both losses. Statistics are those of an image; the reference form keeps both
    losses' sums over all processes. An image without objects has no candidates. The recipe
    ``configs/recipes/cleanliness.yaml`` has the loss that belongs to it.

    Args:
        candidates: Anchors of each object; 0 leaves the assignment as it is.
        alpha: Share of the box in cleanliness, ``1 - alpha`` that of the class, in [0, 1].
        gamma: Power of the weights, at least 0; the authors' code has none, which is 1.
        form: ``reference``, as the authors' code; or ``paper``, without division by means and without kept sums.
        schedule: ``warmup_steps`` and ``fade_steps``, as every weighter has.

    Raises:
        UsageError: If an argument is out of range, or there is no such form.
    """

    def __init__(
        self,
        candidates: int = 30,
        alpha: float = 0.75,
        gamma: float = 1.0,
        form: CleanlinessForm = "reference",
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        self.alpha = check_range("cleanliness", "alpha", alpha, 0, 1)
        self.gamma = check_range("cleanliness", "gamma", gamma, 0)
        self.form: CleanlinessForm = check_choice("cleanliness", "form", form, get_args(CleanlinessForm))
        self.exclusive = frozenset({"soft_targets"})
        if check_range("cleanliness", "candidates", candidates, 0):
            self.assigner = TopNAssigner(candidates)
            self.exclusive |= {"assignment"}

    def soft_targets(self, samples: DenseSamples) -> Tensor:
        """Cleanliness of each candidate [P]."""
        return cleanliness_targets(
            samples.pos_ious,
            samples.pos_scores,
            samples.pos_image_idxs,
            samples.num_images,
            self.alpha,
            self.form,
        )

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Weights of candidates; in the reference form those of background keep the sum."""
        own = cleanliness_weights(
            samples.pos_ious,
            samples.pos_scores,
            samples.pos_image_idxs,
            samples.num_images,
            self.alpha,
            self.gamma,
            self.form,
        ).to(values.classification.dtype)
        weights = torch.ones_like(values.classification).index_put((samples.positives,), own)
        if self.form == "paper":
            return Weights(weights, own)
        costs = values.classification.detach() * values.image_scales[samples.image_idxs]
        box_costs = values.box.detach() * values.box_scales[samples.pos_image_idxs]
        sums = [costs.sum(), (weights * costs).sum(), box_costs.sum(), (own * box_costs).sum()]
        plain, weighted, box_plain, box_weighted = samples.reduce.sum(torch.stack([s.double() for s in sums]))
        return Weights(
            weights * torch.where(weighted > 0, plain / weighted, 1.0).to(weights.dtype),
            own * torch.where(box_weighted > 0, box_plain / box_weighted, 1.0).to(own.dtype),
        )
