"""Score thresholds."""

import pytest
import torch

from lit_dense.core.score_threshold import hidden_note, keep_scores, lower_threshold


def test_keep_scores__keeps_scores_from_a_threshold():
    kept = keep_scores({"boxes": torch.rand(3, 4), "scores": torch.tensor([0.1, 0.3, 0.9])}, 0.3)
    assert len(kept["boxes"]) == 2
    assert kept["scores"].tolist() == pytest.approx([0.3, 0.9])
    assert len(keep_scores({"scores": torch.tensor([0.9, 0.8, 0.7])}, 0.3, most=2)["scores"]) == 2


@pytest.mark.parametrize(
    ("scores", "threshold", "note"),
    [
        ([0.31, 0.1], 0.5, "0 of 2 detections score 0.5 or more; the best is 0.31"),
        ([0.00123], 0.05, "0 of 1 detections score 0.05 or more; the best is 0.0012"),
        ([0.5, 0.1], 0.5, ""),
        ([0.9], 0.5, ""),
        ([], 0.5, ""),
    ],
)
def test_hidden_note__a_threshold_that_hides_everything_is_noted(scores, threshold, note):
    assert hidden_note(scores, threshold) == note


@pytest.mark.parametrize(
    ("best", "lower"), [(1.0, 0.8), (0.31, 0.2), (0.05, 0.04), (0.0123, 0.009), (0.00011, 8e-05), (0.0, 0.0)]
)
def test_lower_threshold__is_round_and_shows_the_best(best, lower):
    found = lower_threshold([0.0, best])
    assert found == pytest.approx(lower)
    assert found <= best
    assert len(f"{found:g}".strip("0.").split("e")[0]) <= 1
