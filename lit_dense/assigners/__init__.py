"""Assigners by name; each matches the anchors of an image with its ground-truth boxes.

The names are the entry points of the group ``lit_dense.assigners``. Each name is also an attribute of this module.
"""

from typing import TYPE_CHECKING, Any

from ..core.cli_types import cli_type
from ..core.registry import Registry
from .base import Assigner as Assigner
from .base import AssignInput as AssignInput
from .base import Assignment as Assignment

ASSIGNERS: Registry[Assigner] = Registry("lit_dense.assigners", "assigner", Assigner)


def __getattr__(name: str) -> Any:
    return ASSIGNERS.attribute(name)


if TYPE_CHECKING:
    AssignerLike = Assigner | str | dict[str, Any]
else:
    AssignerLike = cli_type(ASSIGNERS, "AssignerLike")
