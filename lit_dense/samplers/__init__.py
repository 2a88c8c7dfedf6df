"""Samplers by name; each selects the training images of an epoch and their order.

The names are the entry points of the group ``lit_dense.samplers``. Each name is also an attribute of this module.
"""

from typing import TYPE_CHECKING, Any

from ..core.cli_types import cli_type
from ..core.registry import Registry
from .base import ImageSampler as ImageSampler
from .repeat_factor_sampler import repeat_factors as repeat_factors

SAMPLERS: Registry[ImageSampler] = Registry("lit_dense.samplers", "sampler", ImageSampler)  # type: ignore[type-abstract]


def __getattr__(name: str) -> Any:
    return SAMPLERS.attribute(name)


if TYPE_CHECKING:
    SamplerLike = ImageSampler | str | dict[str, Any]
else:
    SamplerLike = cli_type(SAMPLERS, "SamplerLike")
