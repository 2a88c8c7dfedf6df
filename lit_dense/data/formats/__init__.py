"""Annotation formats by name; each reads, and some write, the annotation files of a data set.

The names are the entry points of the group ``lit_dense.formats``. Each name is also an attribute of that module.
"""

from typing import TYPE_CHECKING, Any

from ...core.cli_types import cli_type
from ...core.registry import Registry
from .base import Format

FORMATS: Registry[Format] = Registry("lit_dense.formats", "format", Format, home=__name__)  # type: ignore[type-abstract]

if TYPE_CHECKING:
    FormatLike = Format | str | dict[str, Any]
else:
    FormatLike = cli_type(FORMATS, "FormatLike")
