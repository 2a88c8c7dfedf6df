"""Builds torchvision's RetinaNet from names."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection import RetinaNet, retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetClassificationHead, RetinaNetHead

from .backbones import build_backbone, downloads
from .errors import UsageError, check_range, nearest

DETECTORS = {"retinanet_resnet50_fpn": retinanet_resnet50_fpn, "retinanet_resnet50_fpn_v2": retinanet_resnet50_fpn_v2}
ASPECT_RATIOS = (0.5, 1.0, 2.0)


def build_retinanet(
    num_classes: int,
    backbone: str = "resnet50",
    weights: str | None = None,
    weights_backbone: str | None = None,
    frozen_stages: int | None = None,
    fpn_channels: int = 256,
    head_convs: int = 4,
    anchor_sizes: Sequence[Sequence[int]] | None = None,
    aspect_ratios: Sequence[float] = ASPECT_RATIOS,
    min_size: int | Sequence[int] = 800,
    max_size: int = 1333,
    keep_classifier: bool = True,
    **detector: Any,
) -> RetinaNet:
    """Build a RetinaNet whose head has ``num_classes`` columns.

    Args:
        num_classes: Columns of the head: the object classes, and those that the loss has besides.
        backbone: A torchvision ResNet or MobileNet, ``tiny``, ``timm/NAME``, or a whole detector of torchvision:
            ``retinanet_resnet50_fpn`` or ``retinanet_resnet50_fpn_v2``.
        weights: Detector weights, such as ``COCO_V1``, of a whole detector. If it has other classes, its classifier
            starts anew.
        weights_backbone: Backbone weights, such as ``IMAGENET1K_V1`` or ``DEFAULT``.
        frozen_stages: Stages of the backbone that are not trained, 0 to 5; by default 2 where it has weights.
        fpn_channels: Channels of the pyramid and the head, a multiple of 8.
        head_convs: Convolutions of each of the head's towers, 1 to 4.
        anchor_sizes: Anchor sizes of each pyramid level in pixels; by default three per octave from 32 to 812.
        aspect_ratios: Heights of anchors over their widths.
        min_size: Length of an image's shorter side in pixels; one of several is drawn for each image in training.
        max_size: Largest length of the longer side.
        keep_classifier: Whether detector weights with as many columns keep their classifier; a loss that gives columns
            another meaning needs a new one.
        detector: Further arguments of torchvision's RetinaNet.

    Raises:
        UsageError: If a name is unknown or an argument does not fit the backbone.
    """
    sizes = [min_size] if isinstance(min_size, int) else list(min_size)
    options: dict[str, Any] = {"min_size": sizes, "max_size": max_size, **detector}
    if backbone in DETECTORS:
        given = {"fpn_channels": fpn_channels != 256, "head_convs": head_convs != 4}
        given |= {"anchor_sizes": anchor_sizes is not None, "aspect_ratios": tuple(aspect_ratios) != ASPECT_RATIOS}
        parts = [name for name in given if given[name]]
        _check_whole(backbone, weights, weights_backbone, frozen_stages, parts)
        return _whole_detector(
            backbone, num_classes, weights, weights_backbone, frozen_stages, keep_classifier, options
        )
    if weights is not None:
        raise UsageError(
            f"weights={weights!r} are those of a whole detector: take backbone={' or '.join(DETECTORS)}, "
            "or give weights_backbone for the backbone alone."
        )
    if fpn_channels < 8 or fpn_channels % 8:
        raise UsageError(
            f"fpn_channels must be a multiple of 8, for the head normalises groups of 8: not {fpn_channels}."
        )
    body = build_backbone(backbone, weights_backbone, frozen_stages, fpn_channels)
    levels = _count_levels(body)
    generator = _anchors(anchor_sizes or _default_sizes(levels), aspect_ratios)
    if len(generator.sizes) != levels:
        raise UsageError(
            f"anchor_sizes has {len(generator.sizes)} levels, but the backbone {backbone!r} gives {levels}."
        )
    if len(set(generator.num_anchors_per_location())) > 1:
        raise UsageError(
            "anchor_sizes must have as many sizes for each level, for all levels share a head: not "
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


def _check_whole(
    name: str, weights: str | None, weights_backbone: str | None, frozen_stages: int | None, parts: list[str]
) -> None:
    """Refuse what a whole detector would ignore; ``parts`` are arguments of what it has already."""
    problems = []
    if parts:
        problems.append(
            f"it has anchors, a pyramid and a head of its own: leave {' and '.join(parts)} out, or take "
            "backbone=resnet50"
        )
    if weights and weights_backbone:
        problems.append(f"weights={weights!r} are those of the backbone too: leave weights_backbone out")
    if frozen_stages:
        check_range("LitDetector", "frozen_stages", frozen_stages, 0, 5)
        if not weights and not weights_backbone:
            problems.append(
                "without weights it is trained as a whole: leave frozen_stages out, or give weights_backbone=DEFAULT"
            )
    if problems:
        raise UsageError(f"The backbone {name} does not take all of these arguments: {'; '.join(problems)}.")


def _whole_detector(
    name: str,
    num_classes: int,
    weights: str | None,
    weights_backbone: str | None,
    frozen_stages: int | None,
    keep_classifier: bool,
    options: dict[str, Any],
) -> RetinaNet:
    """One of torchvision's detectors; where its weights have other classes, the classifier starts anew."""
    trainable = None if frozen_stages is None else 5 - frozen_stages
    if weights is None:
        with downloads(f"resnet50's weights {weights_backbone}"):
            model: RetinaNet = DETECTORS[name](
                weights=None,
                weights_backbone=weights_backbone and _weights_enum("resnet50", weights_backbone),
                num_classes=num_classes,
                trainable_backbone_layers=trainable if weights_backbone else None,
                **options,
            )
        return model
    with downloads(f"{name}'s weights {weights}"):
        model = DETECTORS[name](weights=_weights_enum(name, weights), trainable_backbone_layers=trainable, **options)
    classifier = model.head.classification_head
    if classifier.num_classes != num_classes or not keep_classifier:
        old = classifier.cls_logits
        fresh = RetinaNetClassificationHead(old.in_channels, classifier.num_anchors, num_classes)
        classifier.cls_logits, classifier.num_classes = fresh.cls_logits, num_classes
    return model


def _weights_enum(name: str, weights: str) -> Any:
    enum = models.get_model_weights(name)
    if weights not in enum.__members__:
        hint = nearest(weights, enum.__members__)
        raise UsageError(f"{name} has no weights {weights!r}: take one of {', '.join(enum.__members__)}.{hint}")
    return enum[weights]


def weights_categories(backbone: str, weights: str | None) -> list[str] | None:
    """Names of the columns that detector weights come with; None without such weights."""
    if weights is None or backbone not in DETECTORS:
        return None
    return list(_weights_enum(backbone, weights).meta["categories"])


def _anchors(sizes: Sequence[Sequence[int]], ratios: Sequence[float]) -> AnchorGenerator:
    return AnchorGenerator(tuple(tuple(s) for s in sizes), (tuple(ratios),) * len(sizes))


def _default_sizes(levels: int) -> list[tuple[int, ...]]:
    """RetinaNet's: three sizes per octave, 32 pixels and up on the level of stride 8."""
    return [tuple(int(32 * 2 ** (level + octave / 3)) for octave in range(3)) for level in range(levels)]


def _count_levels(body: nn.Module) -> int:
    training = body.training
    with torch.no_grad():
        features: dict[str, Tensor] = body.eval()(torch.zeros(1, 3, 64, 64))
    body.train(training)
    return len(features)
