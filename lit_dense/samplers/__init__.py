"""Samplers by name: each decides how often and in which order an epoch shows the training images.

The names are entry points of the group ``lit_dense.samplers``, and attributes of this module.
"""

from typing import TYPE_CHECKING, Any

from ..named_type import named_type
from ..registry import Registry
from .base import ImageSampler as ImageSampler
from .class_aware_sampler import ClassAwareSampler as ClassAwareSampler
from .repeat_factor_sampler import RepeatFactorSampler as RepeatFactorSampler
from .repeat_factor_sampler import repeat_factors as repeat_factors

SAMPLERS: Registry[ImageSampler] = Registry("lit_dense.samplers", "sampler", ImageSampler)  # type: ignore[type-abstract]
__getattr__ = SAMPLERS.attribute

if TYPE_CHECKING:
    SamplerLike = ImageSampler | str | dict[str, Any]
else:
    SamplerLike = named_type(SAMPLERS, "SamplerLike")
