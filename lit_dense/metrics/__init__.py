"""Metrics of dense detection that are right on any number of processes."""

from .bootstrap import Resampled as Resampled
from .bootstrap import resampled_ap as resampled_ap
from .detection_rows import DetectionRows as DetectionRows
from .evaluation import Evaluation as Evaluation
from .frequency import frequency_groups as frequency_groups
from .mean_ap import DetectionMAP as DetectionMAP
