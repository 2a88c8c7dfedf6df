"""Construction of a RetinaNet from arguments: backbone, anchors and head."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead

from ...core.errors import UsageError, check_range
from ..backbones import build_backbone, pyramid_of

ASPECT_RATIOS = (0.5, 1.0, 2.0)


def build_retinanet(
    num_classes: int,
    backbone: str = "resnet50",
    weights_backbone: str | None = None,
    frozen_stages: int | None = None,
    fpn_channels: int = 256,
    head_convs: int = 4,
    anchor_sizes: Sequence[Sequence[int]] | None = None,
    aspect_ratios: Sequence[float] = ASPECT_RATIOS,
    min_size: int | Sequence[int] = 800,
    max_size: int = 1333,
    **detector: Any,
) -> RetinaNet:
    """Build a RetinaNet whose head has ``num_classes`` columns.

    Args:
        num_classes: Number of columns of the head: the object classes and extra columns of the loss.
        backbone: A torchvision ResNet or MobileNet, ``tiny`` or ``timm/NAME``.
        weights_backbone: Backbone weights, such as ``IMAGENET1K_V1`` or ``DEFAULT``; by default random weights.
        frozen_stages: Number of backbone stages that are not trained, 0 to 5; by default 2 with weights and 0 without.
        fpn_channels: Number of channels of the pyramid and the head, a multiple of 8.
        head_convs: Number of convolutions of each tower of the head, 1 to 4.
        anchor_sizes: Anchor sizes of each pyramid level in pixels; by default three per octave from 32 to 812.
        aspect_ratios: Aspect ratios of the anchors, height over width.
        min_size: Length of an image's shorter side in pixels; from several, one is drawn for each training image.
        max_size: Largest length of the longer side in pixels.
        detector: Other arguments of torchvision's RetinaNet.

    Raises:
        UsageError: If a name is unknown or an argument does not fit the backbone.
    """
    sizes = [min_size] if isinstance(min_size, int) else list(min_size)
    options: dict[str, Any] = {"min_size": sizes, "max_size": max_size, **detector}
    if fpn_channels < 8 or fpn_channels % 8:
        raise UsageError(
            f"fpn_channels must be a multiple of 8, because the head normalises groups of 8: not {fpn_channels}."
        )
    body = build_backbone(backbone, weights_backbone, frozen_stages, fpn_channels)
    levels = len(pyramid_of(body))
    generator = _anchors(anchor_sizes or _default_sizes(levels), aspect_ratios)
    check_levels(backbone, generator.sizes, levels)
    if len(set(generator.num_anchors_per_location())) > 1:
        raise UsageError(
            "anchor_sizes must have the same number of sizes for each level, because all levels share a head: not "
            f"{', '.join(str(len(sizes)) for sizes in generator.sizes)}."
        )
    channels: Any = body.out_channels
    head = RetinaNetHead(
        channels,
        generator.num_anchors_per_location()[0],
        num_classes,
        norm_layer=partial(nn.GroupNorm, channels // 8),
    )
    for tower in (head.classification_head, head.regression_head):
        tower.conv = tower.conv[: int(check_range("LitDetector", "head_convs", head_convs, 1, 4))]
    return RetinaNet(body, num_classes, anchor_generator=generator, head=head, **options)


def check_levels(backbone: str, anchor_sizes: Sequence[Any], levels: int) -> None:
    """Check that anchors have as many levels as the backbone.

    Args:
        backbone: Name of the backbone.
        anchor_sizes: Anchor sizes of each level.
        levels: Number of levels of the backbone's pyramid.

    Raises:
        UsageError: If the numbers of levels differ.
    """
    if len(anchor_sizes) != levels:
        raise UsageError(f"anchor_sizes has {len(anchor_sizes)} levels, but the backbone {backbone!r} gives {levels}.")


def _anchors(sizes: Sequence[Sequence[int]], ratios: Sequence[float]) -> AnchorGenerator:
    return AnchorGenerator(tuple(tuple(s) for s in sizes), (tuple(ratios),) * len(sizes))


def _default_sizes(levels: int) -> list[tuple[int, ...]]:
    """Return RetinaNet's anchor sizes: three per octave, from 32 pixels on the level of stride 8."""
    return [tuple(int(32 * 2 ** (level + octave / 3)) for octave in range(3)) for level in range(levels)]
