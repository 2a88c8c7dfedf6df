"""Callbacks under the names of version 0.1.0, kept for two minor versions."""

import warnings
from typing import Any

from .detection_plots import DetectionPlots
from .evaluation_plots import EvaluationPlots
from .loss_plots import LossPlots
from .weight_plots import WeightPlots


def _warn(callback: object) -> None:
    old, new = type(callback).__name__, type(callback).__mro__[1].__name__
    warnings.warn(f"The callback {old} is now called {new}.", DeprecationWarning, stacklevel=3)


class DetectionPictures(DetectionPlots):
    """The former name of :class:`DetectionPlots`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _warn(self)


class EvaluationPictures(EvaluationPlots):
    """The former name of :class:`EvaluationPlots`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _warn(self)


class LossPictures(LossPlots):
    """The former name of :class:`LossPlots`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _warn(self)


class WeightPictures(WeightPlots):
    """The former name of :class:`WeightPlots`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _warn(self)
