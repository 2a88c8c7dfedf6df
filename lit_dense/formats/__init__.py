"""Annotation formats by name; each reads, and some write, the annotation files of a data set.

The names are the entry points of the group ``lit_dense.formats``. Each name is also an attribute of this module.
"""

from typing import Any

from ..data.formats import FORMATS as FORMATS
from ..data.formats import FormatLike as FormatLike
from ..data.formats.annotations import Annotations as Annotations
from ..data.formats.annotations import TextPlaces as TextPlaces
from ..data.formats.annotations import Wording as Wording
from ..data.formats.annotations import table_of as table_of
from ..data.formats.base import Format as Format
from ..data.formats.base import Request as Request
from ..data.problems import Problems as Problems


def __getattr__(name: str) -> Any:
    return FORMATS.attribute(name)
