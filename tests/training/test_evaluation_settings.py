import pytest

from lit_dense import LitDetector
from lit_dense.core.errors import UsageError
from lit_dense.training.evaluation_settings import check_precision

GOOD = {
    "score_thresh": 0.0,
    "eval_score_thresh": 1.0,
    "nms_thresh": 0.5,
    "topk_candidates": 1,
    "detections_per_img": 1,
    "eval_detections_per_img": 1,
    "eval_max_detections": 11,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score_thresh": -0.1}, r"score_thresh must be in \[0, 1\]"),
        ({"eval_score_thresh": 1.1}, r"eval_score_thresh must be in \[0, 1\]"),
        ({"nms_thresh": 1.1}, r"nms_thresh must be in \[0, 1\]"),
        ({"topk_candidates": 0}, "topk_candidates must be at least 1, not 0"),
        ({"detections_per_img": 0}, "detections_per_img must be at least 1, not 0"),
        ({"eval_detections_per_img": 0}, "eval_detections_per_img must be at least 1, not 0"),
        ({"eval_max_detections": 10}, "eval_max_detections must be at least 11, not 10"),
    ],
)
def test_lit_detector__refuses_limits_with_which_nothing_is_found(change, message):
    LitDetector(**GOOD)
    LitDetector(**{**GOOD, "eval_max_detections": None})
    with pytest.raises(UsageError, match=message):
        LitDetector(**{**GOOD, **change})


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed", "transformer-engine"])
def test_check_precision__accepts_precisions_that_keep_float32(precision):
    check_precision(precision)
