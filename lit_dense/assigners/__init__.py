"""Assigners by name: each decides which ground truth an anchor stands for.

The names are entry points of the group ``lit_dense.assigners``, and attributes of this module.
"""

from typing import TYPE_CHECKING, Any

from ..core.cli_types import cli_type
from ..core.registry import Registry
from .base import Assigner as Assigner
from .base import AssignInput as AssignInput

ASSIGNERS: Registry[Assigner] = Registry("lit_dense.assigners", "assigner", Assigner)


def __getattr__(name: str) -> Any:
    return ASSIGNERS.attribute(name)


if TYPE_CHECKING:
    AssignerLike = Assigner | str | dict[str, Any]
else:
    AssignerLike = cli_type(ASSIGNERS, "AssignerLike")
