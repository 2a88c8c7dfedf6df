"""Prime sample attention, PISA (https://arxiv.org/abs/1904.04821), as a weighter."""

from typing import Any

import torch
from torch import Tensor

from ..core.errors import check_range
from ..core.samples import NEGATIVE, DenseSamples
from ..functional.pisa import (
    carl_values,
    carl_weights,
    hierarchical_local_rank,
    match_by_nms,
    rank_weights,
)
from .base import LossValues, Weighter, Weights


class PISAWeighter(Weighter):
    """Prime sample attention, PISA (https://arxiv.org/abs/1904.04821): weights the best box of every object most.

    Positives are ranked by IoU over the batches of all processes (ISR-P). With ``negatives``, background with high
    scores is ranked by score within its image (ISR-N). Both preserve the sum of their losses. CARL adds a loss term
    ``carl``, which raises the scores of well-localised boxes. An image without objects has no positives to weight.

    Args:
        gamma: Exponent of the weights of positives, at least 0; larger values decrease faster with the rank.
        beta: Lower bound of the base of that power, in [0, 1].
        carl: Weight of the CARL term, at least 0; 0 disables it.
        carl_gamma: Exponent of the weights in CARL, at least 0; larger values increase faster with the score.
        carl_beta: Base of that power for a score of 0, in [0, 1].
        negatives: Whether to weight background too.
        negative_gamma: Exponent of the weights of background, at least 0; larger values decrease faster with the rank.
        negative_beta: Lower bound of the base of that power, in [0, 1].
        score_thresh: Background with a smaller score has the smallest weight, in [0, 1].
        candidates: Number of background anchors of an image that are ranked, best scores first, at least 1.
        nms_thresh: IoU above which predicted boxes of background form a group, in [0, 1].
        schedule: ``warmup_steps`` and ``fade_steps``, the arguments of every weighter.

    Raises:
        UsageError: If an argument is out of range.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        beta: float = 0.0,
        carl: float = 1.0,
        carl_gamma: float = 1.0,
        carl_beta: float = 0.2,
        negatives: bool = False,
        negative_gamma: float = 0.5,
        negative_beta: float = 0.0,
        score_thresh: float = 0.05,
        candidates: int = 1000,
        nms_thresh: float = 0.5,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        self.gamma = check_range("pisa", "gamma", gamma, 0)
        self.beta = check_range("pisa", "beta", beta, 0, 1)
        self.carl = check_range("pisa", "carl", carl, 0)
        self.carl_gamma = check_range("pisa", "carl_gamma", carl_gamma, 0)
        self.carl_beta = check_range("pisa", "carl_beta", carl_beta, 0, 1)
        self.negatives = negatives
        self.negative_gamma = check_range("pisa", "negative_gamma", negative_gamma, 0)
        self.negative_beta = check_range("pisa", "negative_beta", negative_beta, 0, 1)
        self.score_thresh = check_range("pisa", "score_thresh", score_thresh, 0, 1)
        self.candidates = int(check_range("pisa", "candidates", candidates, 1))
        self.nms_thresh = check_range("pisa", "nms_thresh", nms_thresh, 0, 1)

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Compute the weights of positives, those of background with ``negatives``, and the CARL term."""
        costs = values.classification.detach() * values.image_scales[samples.image_idxs].to(values.classification.dtype)
        weights = torch.ones_like(costs)
        pos_weights = self._positive_weights(samples).to(costs.dtype)
        weights[samples.positives] = pos_weights * _sum_preserving_scale(pos_weights, costs[samples.positives], samples)
        if self.negatives:
            background = samples.labels == NEGATIVE
            neg_weights = self._negative_weights(samples).to(costs.dtype)
            scale = _sum_preserving_scale(neg_weights, costs.where(background, 0.0), samples)
            weights = torch.where(background, neg_weights * scale, weights)
        carl = {"carl": self._carl(samples, values)} if self.carl and values.has_box else {}
        return Weights(classification=weights, extra=carl)

    @torch.no_grad()
    def _positive_weights(self, samples: DenseSamples) -> Tensor:
        """Compute weights by the rank among the positives of all processes [P]."""
        reduce = samples.reduce
        objects = samples.pos_matched_idxs * reduce.world_size + reduce.rank  # unique over processes
        rows = torch.stack([samples.pos_labels.double(), objects.double(), samples.pos_ious.double()], 1)
        rows, own = reduce.gather_with_own(rows)
        labels, groups, ious = rows.unbind(1)
        ranks = hierarchical_local_rank(labels.long(), groups.long(), ious)
        number = ranks.max() + 1 if len(ranks) else ranks.new_ones(())
        return rank_weights(ranks, number, self.gamma, self.beta)[own]

    @torch.no_grad()
    def _negative_weights(self, samples: DenseSamples) -> Tensor:
        """Compute weights of background by the rank within its image; the rest has the weight of the last rank [A]."""
        scores = samples.best_scores.masked_fill(samples.labels != NEGATIVE, -1.0)
        weights = torch.ones_like(scores)
        for image in range(samples.num_images):
            own = samples.rows_of(image)
            best, index = scores[own].topk(min(self.candidates, len(own)))
            ranked = best > self.score_thresh
            rows, ranked_scores = own[index[ranked]], best[ranked]
            groups = match_by_nms(samples.decoded(rows), ranked_scores, self.nms_thresh)
            ranks = hierarchical_local_rank(torch.zeros_like(groups), groups, ranked_scores)
            number = ranks.new_full((), max(1, len(ranks)))
            least = rank_weights(number - 1, number, self.negative_gamma, self.negative_beta)
            weights[own] = least
            weights[rows] = rank_weights(ranks, number, self.negative_gamma, self.negative_beta)
        return weights

    def _carl(self, samples: DenseSamples, values: LossValues) -> Tensor:
        """Compute the CARL term: the box loss weighted by scores, with gradients to the scores []."""
        scores = torch.sigmoid(samples.pos_score_logits)
        total = samples.reduce.sum_with_grad(carl_values(scores, self.carl_gamma, self.carl_beta).sum())
        number = samples.reduce.sum_number(len(scores), scores.device)
        weights = carl_weights(scores, total, number, self.carl_gamma, self.carl_beta)
        scales = values.box_scales[samples.pos_image_idxs].to(values.box.dtype)
        return self.carl * (weights * values.box * scales).sum()


def _sum_preserving_scale(weights: Tensor, costs: Tensor, samples: DenseSamples) -> Tensor:
    """Compute the factor of weights for which the weighted sum of costs over all processes equals the plain sum []."""
    plain, weighted = samples.reduce.sum(torch.stack([costs.sum(), (weights * costs).sum()]))
    return torch.where(weighted > 0, plain / weighted, 1.0)
