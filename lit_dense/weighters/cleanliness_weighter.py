"""Cleanliness of anchors, Learning from Noisy Anchors (https://arxiv.org/abs/1912.05086), as a weighter."""

from typing import Any, get_args

import torch
from torch import Tensor

from ..assigners import TopNAssigner
from ..core.errors import check_choice, check_range
from ..core.samples import DenseSamples
from ..functional.cleanliness import CleanlinessForm, cleanliness_targets, cleanliness_weights
from .base import LossValues, Weighter, Weights


class CleanlinessWeighter(Weighter):
    """Learning from Noisy Anchors (https://arxiv.org/abs/1912.05086): soft targets and weights by prediction quality.

    The candidates of an object are its anchors of largest IoU, without a threshold; all are positive. The cleanliness
    of a candidate measures how well it predicts box and class. It is the candidate's soft target, and determines its
    weight in both losses. Statistics are computed per image. The reference form preserves the sums of both losses over
    all processes. An image without objects has no candidates. ``configs/recipes/cleanliness.yaml`` combines the
    weighter with the matching loss.

    Args:
        candidates: Number of candidates of each object; 0 keeps the assignment of the detector.
        alpha: Weight of the box in cleanliness, in [0, 1]; the weight of the class is ``1 - alpha``.
        gamma: Exponent of the weights, at least 0; the authors' code has no exponent, which corresponds to 1.
        form: ``reference``, the authors' code; or ``paper``, which neither divides by means nor preserves loss sums.
        schedule: ``warmup_steps`` and ``fade_steps``, the arguments of every weighter.

    Raises:
        UsageError: If an argument is out of range, or if the form is unknown.
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
        """Compute the cleanliness of each candidate [P]."""
        return cleanliness_targets(
            samples.pos_ious,
            samples.pos_scores,
            samples.pos_image_idxs,
            samples.num_images,
            self.alpha,
            self.form,
        )

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Compute the weights of candidates, and in the reference form rescale all weights to preserve loss sums."""
        pos_weights = cleanliness_weights(
            samples.pos_ious,
            samples.pos_scores,
            samples.pos_image_idxs,
            samples.num_images,
            self.alpha,
            self.gamma,
            self.form,
        ).to(values.classification.dtype)
        weights = torch.ones_like(values.classification).index_put((samples.positives,), pos_weights)
        if self.form == "paper":
            return Weights(weights, pos_weights)
        costs = values.classification.detach() * values.image_scales[samples.image_idxs]
        box_costs = values.box.detach() * values.box_scales[samples.pos_image_idxs]
        sums = [costs.sum(), (weights * costs).sum(), box_costs.sum(), (pos_weights * box_costs).sum()]
        plain, weighted, box_plain, box_weighted = samples.reduce.sum(torch.stack([s.double() for s in sums]))
        return Weights(
            weights * torch.where(weighted > 0, plain / weighted, 1.0).to(weights.dtype),
            pos_weights * torch.where(box_weighted > 0, box_plain / box_weighted, 1.0).to(pos_weights.dtype),
        )
