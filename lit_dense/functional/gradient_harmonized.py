"""Gradient harmonized losses, GHM-C and GHM-R (https://arxiv.org/abs/1811.05181)."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .elements import Elements, ValueAndSlope, with_own
from .one_pass import IGNORED, readable
from .piecewise import Piecewise

FUSED_BINS = 64
"""Sums that a compiler makes at once."""
HistogramUpdate = Literal["corrected", "paper", "reference"]


@torch.no_grad()
def classification_histogram(
    logits: Tensor, labels: Tensor, bins: int = 30, class_weights: Tensor | None = None
) -> Tensor:
    """Number of elements in each bin of the gradient's norm ``|p - t|``, ignored anchors left out [bins].

    Args:
        logits: Scores before the sigmoid [A, C].
        labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
        bins: Equal parts of [0, 1].
        class_weights: Elements of a class with weight 0 are not counted [C].

    Example:
        >>> classification_histogram(torch.tensor([[-4.0], [-4.0], [4.0]]), torch.tensor([-1, 0, 0]), bins=2)
        tensor([2., 1.], dtype=torch.float64)
    """
    logits = logits.detach()

    def of_piece(histogram: Callable[..., Tensor], piece: slice) -> Tensor:
        return histogram(logits[piece], labels[piece], bins, class_weights)

    return torch.stack(list(_piece_histogram.over(logits, of_piece, _piece_histogram.compiles(logits)))).sum(0)


@Piecewise
def _piece_histogram(logits: Tensor, labels: Tensor, bins: int, class_weights: Tensor | None) -> Tensor:
    p = torch.sigmoid(readable(logits))
    own = p.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    counted: Tensor = (labels != IGNORED).unsqueeze(1)
    if class_weights is not None:
        counted = counted & (class_weights != 0)
    return norm_histogram(with_own(p, labels, 1 - own), bins, counted)


def norm_histogram(norms: Tensor, bins: int, counted: Tensor | None = None) -> Tensor:
    """Number of norms in each of equal parts of [0, 1] [bins].

    Args:
        norms: Of any shape.
        bins: How many parts; the last is closed.
        counted: Which of them to count, of a shape that broadcasts; all by default.
    """
    if torch.compiler.is_compiling() and bins <= FUSED_BINS:
        # one kernel with a sum for each bin, where adding to one place would queue
        places = norm_bins(norms, bins, torch.int32)
        inside = True if counted is None else counted
        return torch.stack([((places == place) & inside).sum() for place in range(bins)]).double()
    index = norm_bins(norms, bins, torch.int64)
    if counted is not None:
        index.masked_fill_(~counted, bins)
    index = index.flatten()
    # whole numbers are exact in any order, and adding them up needs no wait for a device, as bincount does
    found = torch.zeros(bins + 1, dtype=torch.int64, device=norms.device)
    return found.scatter_add_(0, index, torch.ones_like(index))[:bins].double()


def norm_bins(norms: Tensor, bins: int, dtype: torch.dtype) -> Tensor:
    """The part that each norm lies in; 1 lies in the last, NaN in the first."""
    return (norms * bins).to(dtype).clamp_(0, bins - 1)


def harmonize(
    counts: Tensor, history: Tensor, steps: Tensor, momentum: float, update: HistogramUpdate
) -> tuple[Tensor, Tensor]:
    """What the elements of each bin are multiplied by, and the moving average of counts.

    Args:
        counts: Elements of the batch in each bin [bins].
        history: The moving average before this batch [bins].
        steps: How many batches it has seen, [].
        momentum: Share of the past in the average.
        update: ``corrected`` (bias correction, so that the first steps are not ``1 / (1 - momentum)`` times too
            large), ``paper`` (none, and divided by all bins) or ``reference`` (the authors' code: none, and a bin
            without elements keeps its average).

    Returns:
        ``1 / (average * number of bins with elements)``, 0 for bins without [bins]; and the new average [bins].
    """
    filled = counts > 0
    average = momentum * history + (1 - momentum) * counts
    if update == "reference":
        average = torch.where(filled, average, history)
    density = average / (1 - momentum ** (steps + 1)) if update == "corrected" else average
    divisor = len(counts) if update == "paper" else filled.sum()
    return torch.where(filled, 1 / (density * divisor), 0.0), average


def harmonized_elements(bin_weights: Tensor) -> Elements:
    """Cross-entropy, each element times the weight of its bin [bins]."""

    def weight(norms: Tensor) -> Tensor:
        index = norm_bins(norms.detach(), len(bin_weights), torch.int32)
        return bin_weights.to(norms.dtype).index_select(0, index.flatten()).view_as(norms)

    def negative(x: Tensor, labels: Tensor) -> ValueAndSlope:
        p = torch.sigmoid(x)
        factor = weight(p)
        return factor * F.softplus(x), factor * p

    def positive(x: Tensor, labels: Tensor, targets: Tensor | None) -> ValueAndSlope:
        # as in the histogram: 1 - p and sigmoid(-x) may round to different bins
        factor = weight(1 - torch.sigmoid(x))
        return factor * F.softplus(-x), -factor * torch.sigmoid(-x)

    return Elements(negative, positive)
