"""Builds torchvision's detectors from names, on any backbone with a feature pyramid."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import MultiScaleRoIAlign

from ..backbones import build_backbone
from ..errors import UsageError, check_choice, check_range
from ..retinanet import ASPECT_RATIOS, build_retinanet

NETWORK_OPTIONS = (
    "backbone",
    "weights",
    "weights_backbone",
    "frozen_stages",
    "fpn_channels",
    "head_convs",
    "anchor_sizes",
    "aspect_ratios",
    "min_size",
    "max_size",
    "keep_classifier",
)
IGNORED_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "retinanet": (),
    "fcos": ("anchor_sizes", "aspect_ratios"),
    "ssd": ("anchor_sizes", "aspect_ratios", "head_convs"),
    "ssdlite": ("anchor_sizes", "aspect_ratios", "head_convs"),
    "faster_rcnn": ("head_convs",),
}
"""Options of a RetinaNet that a detector has no use for."""


def build_detector(word: str, num_columns: int, **options: Any) -> nn.Module:
    """Build a detector of torchvision.

    Args:
        word: ``retinanet``, ``fcos``, ``ssd``, ``ssdlite`` or ``faster_rcnn``.
        num_columns: Columns of its classifier, one of background included where the detector has it.
        options: The network's options, as :class:`~lit_dense.LitRetinaNet` has them.

    Raises:
        UsageError: If a name is unknown or an argument does not fit.
    """
    check_choice("LitDetector", "detector", word, BUILDERS)
    if word != "retinanet" and options.get("weights") is not None:
        raise UsageError(
            f"weights={options['weights']!r} are those of a whole RetinaNet: leave weights out for {word}, and give "
            "weights_backbone for the backbone alone."
        )
    model: nn.Module = BUILDERS[word](num_columns, **options)
    return model


def _pyramid(options: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Tensor]]:
    """The backbone, and its features of an image of 64 pixels."""
    backbone = build_backbone(
        options["backbone"], options["weights_backbone"], options["frozen_stages"], options["fpn_channels"]
    )
    training = backbone.training
    with torch.no_grad():
        features: dict[str, Tensor] = backbone.eval()(torch.zeros(1, 3, 64, 64))
    backbone.train(training)
    return backbone, features


def _sizes(options: Mapping[str, Any]) -> dict[str, Any]:
    smallest = options["min_size"]
    return {"min_size": smallest if isinstance(smallest, int) else list(smallest), "max_size": options["max_size"]}


def _build_fcos(num_columns: int, **options: Any) -> nn.Module:
    backbone, features = _pyramid(options)
    strides = [64 // level.shape[-1] for level in features.values()]
    generator = AnchorGenerator(tuple((stride,) for stride in strides), ((1.0,),) * len(strides))
    convs = int(check_range("LitDetector", "head_convs", options["head_convs"], 1, 4))
    channels: Any = backbone.out_channels
    head = FCOSHead(channels, 1, num_columns, convs)
    model: nn.Module = FCOS(backbone, num_columns, anchor_generator=generator, head=head, **_square_free(options))
    return model


def _square_free(options: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes as FCOS takes them: one shorter side."""
    sizes = _sizes(options)
    if not isinstance(sizes["min_size"], int):
        raise UsageError("FCOS takes one min_size, not several.")
    return sizes


def _build_ssd(num_columns: int, lite: bool = False, **options: Any) -> nn.Module:
    backbone, features = _pyramid(options)
    channels = [level.shape[1] for level in features.values()]
    generator = DefaultBoxGenerator([[2, 3] for _ in channels], min_ratio=0.1, max_ratio=0.9)
    numbers = generator.num_anchors_per_location()
    norm: Callable[..., nn.Module] = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    head = SSDLiteHead(channels, numbers, num_columns, norm) if lite else SSDHead(channels, numbers, num_columns)
    side = int(options["max_size"])
    model: nn.Module = SSD(backbone, generator, (side, side), num_columns, head=head)
    return model


def _build_faster_rcnn(num_columns: int, **options: Any) -> nn.Module:
    backbone, features = _pyramid(options)
    levels = len(features)
    sizes: Sequence[Sequence[int]] = options["anchor_sizes"] or [(32 * 2**level,) for level in range(levels)]
    if len(sizes) != levels:
        raise UsageError(
            f"anchor_sizes has {len(sizes)} levels, but the backbone {options['backbone']!r} gives {levels}."
        )
    ratios = tuple(options["aspect_ratios"] or ASPECT_RATIOS)
    generator = AnchorGenerator(tuple(tuple(s) for s in sizes), (ratios,) * levels)
    pooled = [name for name in features if name not in ("pool", "p6", "p7")]
    model: nn.Module = FasterRCNN(
        backbone,
        num_columns,
        rpn_anchor_generator=generator,
        box_roi_pool=MultiScaleRoIAlign(pooled, output_size=7, sampling_ratio=2),
        **_sizes(options),
    )
    return model


def _build_retinanet(num_columns: int, **options: Any) -> nn.Module:
    model: nn.Module = build_retinanet(num_columns, **options)
    return model


BUILDERS: Mapping[str, Callable[..., nn.Module]] = {
    "retinanet": _build_retinanet,
    "fcos": _build_fcos,
    "ssd": _build_ssd,
    "ssdlite": partial(_build_ssd, lite=True),
    "faster_rcnn": _build_faster_rcnn,
}
"""Builders by the word that chooses a detector."""
