"""The weighted sum of losses, which is a term of a criterion."""

from collections.abc import Sequence

from torch import Tensor


def total_of(values: Tensor, weights: Sequence[Tensor | None], scales: Tensor, image_idxs: Tensor) -> Tensor:
    """Compute the weighted sum of losses, each multiplied by the scale of its image [].

    Args:
        values: Loss of each anchor or positive [N].
        weights: Factors of the losses, None for 1; entries after the first N are of positives without a loss [N or M].
        scales: Factor of the losses of each image [B].
        image_idxs: Image of each loss, with as many entries as the weights [N or M].
    """
    number = len(values)
    for weight in weights:
        if weight is not None:
            values = values * weight[:number]
    return (values * scales.to(values.dtype)[image_idxs[:number]]).sum()
