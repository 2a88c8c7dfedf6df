"""Detection metrics with the same results on any number of processes: ``DetectionMAP`` and its helpers."""

from typing import Any

from .._moved import former
from .bootstrap import Resampled as Resampled
from .bootstrap import resampled_ap as resampled_ap
from .compact_table import load_compact as load_compact
from .detection_table import DetectionTable as DetectionTable
from .evaluation import Evaluation as Evaluation
from .frequency import frequency_groups as frequency_groups
from .mean_ap import DetectionMAP as DetectionMAP


def __getattr__(name: str) -> Any:
    return former(__name__, name)
