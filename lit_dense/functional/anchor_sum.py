"""From elements to anchors: how a loss of single logits becomes one value per anchor without one-hot targets."""

from collections.abc import Callable

from torch import Tensor

Elementwise = Callable[[Tensor], Tensor]


def sum_over_classes(logits: Tensor, labels: Tensor, negative: Elementwise, positive: Elementwise) -> Tensor:
    """Sum an elementwise loss over the classes of each anchor.

    Positive elements are few: the background's formula is evaluated for all of them and then replaced where an anchor
    has a class, which costs no tensor of targets.

    Args:
        logits: Scores before the sigmoid [A, C]; computed in float32 whatever their type.
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        negative: Loss of an element whose target is 0, for any shape.
        positive: Loss of an element whose target is 1, for any shape.

    Returns:
        One value per anchor, 0 where it is ignored, connected to the logits whatever they are [A].
    """
    logits = logits.float() if logits.dtype.itemsize < 4 else logits
    rows = (labels >= 0).nonzero().squeeze(1)
    columns = labels[rows]
    values = negative(logits)
    values[rows, columns] = positive(logits[rows, columns])
    return values.sum(1).masked_fill(labels == -2, 0.0)
