"""Box losses by name; each returns one value per positive anchor, or one per coordinate.

The names are the entry points of the group ``lit_dense.box_losses``. Each name is also an attribute of this module.
"""

from typing import TYPE_CHECKING, Any

from ..core.cli_types import cli_type
from ..core.registry import Registry
from .base import BoxLoss as BoxLoss

BOX_LOSSES: Registry[BoxLoss] = Registry("lit_dense.box_losses", "box loss", BoxLoss)


def __getattr__(name: str) -> Any:
    return BOX_LOSSES.attribute(name)


if TYPE_CHECKING:
    BoxLossLike = BoxLoss | str | dict[str, Any]
else:
    BoxLossLike = cli_type(BOX_LOSSES, "BoxLossLike")
