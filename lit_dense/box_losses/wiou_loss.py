"""Wise-IoU loss, WIoU v1 to v3 (https://arxiv.org/abs/2301.10051), as a component of a criterion."""

from typing import Any, get_args

import torch
from torch import Tensor

from ..core.errors import check_choice, check_range
from ..core.samples import DenseSamples
from ..functional.box_pairs import box_pairs
from ..functional.wiou import WIoUVersion, wiou_focus, wiou_of_pairs
from .iou_family import IoUFamilyLoss


class WIoULoss(IoUFamilyLoss):
    """Wise-IoU loss, WIoU (https://arxiv.org/abs/2301.10051), of decoded boxes: focuses on boxes of ordinary quality.

    State (v2 and v3): the running mean of the IoU loss ``1 - IoU``, summed over positives and processes, including the
    current batch. A batch without positives does not change it. An image without objects contributes 0.

    Args:
        version: ``v1`` has no focusing factor. ``v2`` weights positives by a power of their IoU loss over the running
            mean. ``v3`` weights positives near the mean most: less those that are much better or much worse.
        momentum: Weight of a batch in the running mean, in [1e-6, 1].
        gamma: Exponent of ``v2``, at least 0.
        focus_alpha: The paper's alpha of ``v3``, in [1.01, 10]; the paper has 1.9, the authors' latest code 1.7.
        focus_delta: The paper's delta of ``v3``, in [0.1, 10]; the paper has 3, the authors' latest code 2.7.
        variant: ``inner``, ``focaler``, ``alpha`` and ``shape``, the arguments of every IoU loss.

    Raises:
        UsageError: If an argument is out of range or unknown.
    """

    mean: Tensor

    def __init__(
        self,
        version: WIoUVersion = "v3",
        momentum: float = 0.01,
        gamma: float = 0.5,
        focus_alpha: float = 1.7,
        focus_delta: float = 2.7,
        **variant: Any,
    ) -> None:
        super().__init__(**variant)
        self.version: WIoUVersion = check_choice("wiou", "version", version, get_args(WIoUVersion))
        self.momentum = check_range("wiou", "momentum", momentum, 1e-6, 1)
        self.gamma = check_range("wiou", "gamma", gamma, 0)
        self.focus_alpha = check_range("wiou", "focus_alpha", focus_alpha, 1.01, 10)
        self.focus_delta = check_range("wiou", "focus_delta", focus_delta, 0.1, 10)
        self.register_buffer("mean", torch.ones(()))

    def forward(self, predicted: Tensor, target: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the WIoU loss of each positive [P]."""
        pairs = box_pairs(predicted, target)
        values = wiou_of_pairs(pairs, self.variant)
        if self.version == "v1":
            return values
        costs = 1 - pairs.iou.detach()
        mean = self._mean_with(costs, samples) if torch.is_grad_enabled() else self.mean
        return values * wiou_focus(costs, mean, self.version, self.gamma, self.focus_alpha, self.focus_delta)

    def _mean_with(self, costs: Tensor, samples: DenseSamples) -> Tensor:
        """Stage and return the running mean, including the costs [P] of this batch's positives on all processes []."""
        own = torch.stack([costs.sum().to(self.mean), torch.full_like(self.mean, float(len(costs)))])
        total, number = samples.reduce.sum(own)
        moved = self.mean + self.momentum * (total / number.clamp(min=1) - self.mean)
        mean = torch.where(number > 0, moved, self.mean)
        self.stage(mean=mean)
        return mean
