"""Base class of the IoU losses, with the arguments ``inner``, ``focaler``, ``alpha`` and ``shape`` of all of them."""

from collections.abc import Sequence

from ..core.component import name_or_path
from ..core.errors import UsageError, check_range
from ..functional.iou_variant import IoUVariant
from .base import BoxLoss


class IoUFamilyLoss(BoxLoss):
    """Base class of losses ``1 - IoU + penalties`` of decoded boxes.

    The order is: IoU of the scaled boxes, then the map of ``focaler``, then the power ``alpha``. Penalties are computed
    from the boxes as they are.

    Args:
        inner: Ratio by which both boxes are scaled about their centres before their IoU is computed, in [0.1, 10]:
            Inner-IoU (https://arxiv.org/abs/2311.02877).
        focaler: Two IoUs: the overlap is 0 below the first and 1 above the second, and linear between them:
            Focaler-IoU (https://arxiv.org/abs/2401.10525).
        alpha: Power of the overlap and of each penalty, in [0.1, 10]: alpha-IoU (https://arxiv.org/abs/2110.13675).
        shape: Power of the sides of the target in the weights of horizontal and vertical differences, in [-10, 10]:
            Shape-IoU (https://arxiv.org/abs/2312.17663). It weights the penalties and adds a cost of different shapes;
            by default neither.

    Raises:
        UsageError: If an argument is out of range.
    """

    space = "boxes"

    def __init__(
        self,
        inner: float = 1.0,
        focaler: Sequence[float] | None = None,
        alpha: float = 1.0,
        shape: float | None = None,
    ) -> None:
        super().__init__()
        owner = name_or_path(type(self))
        self.variant = IoUVariant(
            check_range(owner, "inner", inner, 0.1, 10),
            None if focaler is None else _checked_interval(owner, focaler),
            check_range(owner, "alpha", alpha, 0.1, 10),
            None if shape is None else check_range(owner, "shape", shape, -10, 10),
        )


def _checked_interval(owner: str, focaler: Sequence[float]) -> Sequence[float]:
    try:
        low, high = focaler
        valid = 0 <= low < high <= 1
    except (TypeError, ValueError):  # another number of entries, or no numbers
        valid = False
    if not valid:
        raise UsageError(f"{owner}: focaler must be two IoUs in ascending order, as in [0, 0.95], not {focaler!r}.")
    return low, high
