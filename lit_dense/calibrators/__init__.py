"""Calibrators by name; each changes the scores of a trained detector.

The names are the entry points of the group ``lit_dense.calibrators``. Each name is also an attribute of this module.
"""

from typing import TYPE_CHECKING, Any

from ..core.cli_types import cli_type
from ..core.registry import Registry
from .base import Calibrator as Calibrator
from .base import StoredDetections as StoredDetections

_BASE: Any = Calibrator  # Any, because type checkers reject an abstract class as an argument
CALIBRATORS: Registry[Calibrator] = Registry("lit_dense.calibrators", "calibrator", _BASE)


def __getattr__(name: str) -> Any:
    return CALIBRATORS.attribute(name)


if TYPE_CHECKING:
    CalibratorLike = Calibrator | str | dict[str, Any]
else:
    CalibratorLike = cli_type(CALIBRATORS, "CalibratorLike")
