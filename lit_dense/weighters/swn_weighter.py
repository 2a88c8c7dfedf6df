"""Sample weighting network, SWN (https://arxiv.org/abs/2006.06568), as a weighter."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..core.errors import check_choice, check_range
from ..core.samples import DenseSamples
from ..functional.swn import interpolate, loss_grid
from .base import LossValues, Weighter, Weights

WIDTHS = (1, 1, 1, 4)
"""Width of each input feature: IoU, score, classification loss, box loss."""

ClassificationWeight = Literal["mean", "anchor"]


class SWNWeighter(Weighter):
    """Sample weighting network, SWN (https://arxiv.org/abs/2006.06568): a trained network predicts the weights.

    The inputs of the network are the IoU, the score and both losses of an anchor. It predicts an uncertainty m of each
    loss, and the weight is ``exp(-m)``. The loss terms ``swn_classification`` and ``swn_box`` keep the weights from
    vanishing. The network is trained with the detector, in its own parameter group. It is saved with the criterion and
    not used at inference. Means are over the anchors of all processes. Results are finite for batches without objects.

    Background anchors differ only in their classification loss, and the network is a piecewise linear function of it.
    For background the network is evaluated on a fixed grid of losses and interpolated. This costs a hundredth of
    evaluating it for every anchor.

    Args:
        classification: ``mean``, the authors' code for RetinaNet, gives all anchors one weight, from the mean of m.
            ``anchor``, the paper's description, gives each anchor its own weight.
        detach_features: Whether to detach IoU and score, so that no gradient flows through them to the detector. The
            authors' code does not detach them for RetinaNet, and does for two-stage detectors.
        regularizer: Weight of the terms that keep weights from vanishing, at least 0; 0 disables them.
        limit: Largest absolute value of m, at least 0: weights are between ``exp(-limit)`` and ``exp(limit)``.
        hidden: Width of the network's hidden layers.
        lr: Learning rate of the network, at least 0.
        weight_decay: Weight decay of the network, at least 0.
        schedule: ``warmup_steps`` and ``fade_steps``, the arguments of every weighter.

    Raises:
        UsageError: If an argument is out of range or unknown.
    """

    def __init__(
        self,
        classification: ClassificationWeight = "mean",
        detach_features: bool = True,
        regularizer: float = 0.5,
        limit: float = 2.0,
        hidden: int = 64,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        **schedule: Any,
    ) -> None:
        super().__init__(**schedule)
        self.classification = check_choice("swn", "classification", classification, get_args(ClassificationWeight))
        self.detach_features = detach_features
        self.regularizer = check_range("swn", "regularizer", regularizer, 0)
        self.limit = check_range("swn", "limit", limit, 0)
        self.lr, self.weight_decay = (
            check_range("swn", "lr", lr, 0),
            check_range("swn", "weight_decay", weight_decay, 0),
        )
        self.embeddings = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()) for width in WIDTHS
        )
        self.predictor = nn.Sequential(nn.Linear(len(WIDTHS) * hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2))
        for layer in (m for m in self.modules() if isinstance(m, nn.Linear)):
            nn.init.normal_(layer.weight, std=1e-4)  # all weights start at 1
            nn.init.zeros_(layer.bias)

    def param_groups(self) -> list[dict[str, Any]]:
        """Return the network's parameters with their learning rate and weight decay."""
        return [{"params": list(self.parameters()), "lr": self.lr, "weight_decay": self.weight_decay}]

    def forward(self, samples: DenseSamples, values: LossValues) -> Weights:
        """Compute the weights of both losses, with their graph, and the regularising terms."""
        costs = values.classification.detach()
        of_positives = self._uncertainty(*self._features(samples, values))
        box = of_positives[:, 1]
        grid = loss_grid(costs.device)
        zeros = grid.new_zeros(len(grid), 1)
        at_grid = self._uncertainty(zeros, zeros, grid.unsqueeze(1), zeros.expand(-1, 4))[:, 0]
        anchors = interpolate(costs.float(), grid, at_grid).index_put((samples.positives,), of_positives[:, 0])
        mean = self._mean(anchors, samples)
        extra = {"swn_classification": self.regularizer * mean}
        if values.has_box:
            extra["swn_box"] = self.regularizer * self._mean(box, samples)
        chosen = mean.expand_as(anchors) if self.classification == "mean" else anchors
        return Weights(torch.exp(-chosen).to(costs.dtype), torch.exp(-box).to(values.box.dtype), extra)

    def _features(self, samples: DenseSamples, values: LossValues) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return IoU, score, classification loss and box loss of the positives, each [P, width]."""
        ious = samples.pos_ious if self.detach_features else samples.pos_ious_with_grad
        scores = samples.pos_score_logits.sigmoid()
        box = values.box_coordinates.detach().float()
        return (
            ious.unsqueeze(1),
            (scores.detach() if self.detach_features else scores).unsqueeze(1),
            values.classification.detach()[samples.positives].float().unsqueeze(1),
            box if box.dim() == 2 else (box / 4).unsqueeze(1).expand(-1, 4),
        )

    def _uncertainty(self, *features: Tensor) -> Tensor:
        """Predict m of classification and box losses [N, 2]."""
        embedded = [embed(feature) for embed, feature in zip(self.embeddings, features, strict=True)]
        predicted: Tensor = self.predictor(torch.cat(embedded, 1))
        return predicted.clamp(-self.limit, self.limit)

    def _mean(self, m: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the mean over all processes, with its graph; 0 without values []."""
        number = samples.reduce.sum_number(len(m), m.device)
        return samples.reduce.sum_with_grad(m.sum()) / number.clamp(min=1)
