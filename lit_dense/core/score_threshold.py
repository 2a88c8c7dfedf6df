"""Selection of detections by a score threshold, and a note for users if the threshold hides all of them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def keep_scores(detection: dict[str, Tensor], threshold: float, most: int | None = None) -> dict[str, Tensor]:
    """Select the detections whose score reaches a threshold.

    Args:
        detection: ``boxes`` [N, 4], ``labels`` [N] and ``scores`` [N], best first.
        threshold: Smallest score.
        most: Largest number of detections; by default all.
    """
    keep = detection["scores"] >= threshold
    return {name: torch.as_tensor(rows)[keep][:most] for name, rows in detection.items()}


def hidden_note(scores: Sequence[float], threshold: float) -> str:
    """Return a note if the threshold hides every detection; empty if one is shown, or if there are no detections.

    Args:
        scores: Scores of all detections.
        threshold: Smallest score shown.
    """
    if not len(scores) or max(scores) >= threshold:
        return ""
    return f"0 of {len(scores)} detections score {threshold:g} or more; the best is {max(scores):.2g}"


def lower_threshold(scores: Sequence[float]) -> float:
    """Return a round threshold, at most 80 % of the best score.

    Args:
        scores: Scores of at least one detection.
    """
    wanted = 0.8 * max(scores)
    if wanted <= 0:
        return 0.0
    digits = -math.floor(math.log10(wanted))
    return float(math.floor(wanted * 10.0**digits) / 10.0**digits)
