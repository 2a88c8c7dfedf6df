"""Settings of evaluation and prediction, and checks of their values."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.errors import UsageError, check_range
from ..metrics import DetectionMAP
from ..metrics.backends import BackendName, Protocol
from ..metrics.frequency import frequency_groups
from .optimization import OWNER


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of the evaluation: arguments of :class:`LitDetector`, here without the prefix ``eval_``.

    Raises:
        UsageError: If a number is out of range.
    """

    score_thresh: float = 0.001
    detections_per_img: int = 300
    max_detections: int | None = None
    protocol: Protocol = "coco"
    backend: BackendName | None = None
    frequency_bounds: Sequence[int] = (10, 100)
    calibration_score: float | None = None

    def __post_init__(self) -> None:
        check_range(OWNER, "eval_score_thresh", self.score_thresh, 0, 1)
        check_range(OWNER, "eval_detections_per_img", self.detections_per_img, 1)
        if self.max_detections is not None:  # more than 10, which is COCO's second limit
            check_range(OWNER, "eval_max_detections", self.max_detections, 11)
        if self.calibration_score is not None:
            check_range(OWNER, "eval_calibration_score", self.calibration_score, 0, 1)
        frequency_groups((), self.frequency_bounds)  # raises an error if they are not in order

    def metric(self, class_names: Sequence[str] | None, class_images: Sequence[int] | None) -> DetectionMAP:
        """Create a metric.

        Args:
            class_names: Name of each label; None if unknown.
            class_images: Number of training images that contain each class; None if unknown.
        """
        return DetectionMAP(
            class_names,
            self.protocol,
            self.max_detections,
            class_images,
            self.frequency_bounds,
            backend=self.backend,
            calibration_score=self.calibration_score,
        )


def check_outputs(score_thresh: float, nms_thresh: float, topk_candidates: int, detections_per_img: int) -> None:
    """Check the thresholds and limits of detections; the arguments are those of :class:`LitDetector`.

    Raises:
        UsageError: If a value is out of range.
    """
    check_range(OWNER, "score_thresh", score_thresh, 0, 1)
    check_range(OWNER, "nms_thresh", nms_thresh, 0, 1)
    check_range(OWNER, "topk_candidates", topk_candidates, 1)
    check_range(OWNER, "detections_per_img", detections_per_img, 1)


def check_precision(precision: str) -> None:
    """Reject a precision that cannot represent pixel coordinates.

    Args:
        precision: The precision of the trainer.

    Raises:
        UsageError: If parameters would not be float32.
    """
    if precision.endswith("-true") and precision != "32-true":
        raise UsageError(
            f"{OWNER}: trainer.precision must be one of 32-true, bf16-mixed, 16-mixed, not {precision}: images, "
            "anchors and boxes stay float32, and half precision cannot hold pixel coordinates."
        )
