"""torchvision's detectors as they come, with weights for the whole detector."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.ssd import SSDClassificationHead
from torchvision.models.detection.ssdlite import SSDLiteClassificationHead

from ..core.errors import UsageError, check_range
from .backbones import WHOLE, downloads, weights_of
from .retinanet.network import ASPECT_RATIOS

NEUTRAL: Mapping[str, Any] = {
    "fpn_channels": 256,
    "head_convs": 4,
    "anchor_sizes": None,
    "aspect_ratios": ASPECT_RATIOS,
}
"""What a whole detector has of its own, as its options are where nobody chose them."""


def build_whole(
    name: str,
    num_columns: int,
    weights: str | None,
    keep_classifier: bool,
    side: int | None,
    options: Mapping[str, Any],
) -> nn.Module:
    """One of torchvision's detectors; where its weights have other classes, the classifier starts anew.

    Args:
        name: The detector.
        num_columns: Columns of its classifier.
        weights: Weights of the whole detector.
        keep_classifier: Whether weights with as many columns keep their classifier.
        side: Side of the squares that it scales images to, None where it has no such size.
        options: The network's other options.

    Raises:
        UsageError: If a name is unknown or an option is chosen that such a detector has itself.
    """
    whole, of_backbone, frozen = WHOLE[name], options["weights_backbone"], options["frozen_stages"]
    _check(name, weights, options)
    if side is not None and options["max_size"] != side:
        raise UsageError(f"{name} takes images of {side} x {side} pixels: leave min_size and max_size out.")
    sizes = {} if side is not None else {size: options[size] for size in ("min_size", "max_size")}
    trainable = whole.stages - frozen if frozen is not None and (weights or of_backbone) else None
    with downloads(f"{name}'s weights {weights}" if weights else f"{whole.body}'s weights {of_backbone}"):
        if weights is None:
            chosen = of_backbone and weights_of(whole.body, of_backbone)
            columns = {"weights": None, "weights_backbone": chosen, "num_classes": num_columns}
            return whole.build(**columns, trainable_backbone_layers=trainable, **sizes)
        chosen = weights_of(name, weights)
        model = whole.build(weights=chosen, trainable_backbone_layers=trainable, **sizes)
    if len(chosen.meta["categories"]) != num_columns or not keep_classifier:
        REPLACE[whole.detector](model, num_columns)
    return model


def _check(name: str, weights: str | None, options: Mapping[str, Any]) -> None:
    """Refuse what a whole detector would ignore."""
    chosen = {**options, "aspect_ratios": tuple(options["aspect_ratios"])}
    parts = [part for part, neutral in NEUTRAL.items() if chosen[part] != neutral]
    problems = []
    if parts:
        problems.append(
            f"it has anchors, a pyramid and a head of its own: leave {' and '.join(parts)} out, or take "
            "backbone=resnet50"
        )
    if weights and options["weights_backbone"]:
        problems.append(f"weights={weights!r} are those of the backbone too: leave weights_backbone out")
    if options["frozen_stages"]:
        check_range("LitDetector", "frozen_stages", options["frozen_stages"], 0, WHOLE[name].stages)
        if not weights and not options["weights_backbone"]:
            problems.append(
                "without weights it is trained as a whole: leave frozen_stages out, or give weights_backbone=DEFAULT"
            )
    if problems:
        raise UsageError(f"The backbone {name} does not take all of these arguments: {'; '.join(problems)}.")


def _replace_in_tower(model: Any, num_columns: int) -> None:
    """Of RetinaNet and FCOS the last layer starts anew, and its tower stays."""
    head = model.head.classification_head
    fresh = type(head)(head.cls_logits.in_channels, head.num_anchors, num_columns)
    head.cls_logits, head.num_classes = fresh.cls_logits, num_columns


def _replace_ssd(model: Any, num_columns: int, head: Any = SSDClassificationHead) -> None:
    last = [m if isinstance(m, nn.Conv2d) else m[-1] for m in model.head.classification_head.module_list]
    channels, numbers = [layer.in_channels for layer in last], model.anchor_generator.num_anchors_per_location()
    model.head.classification_head = head(channels, numbers, num_columns)


def _replace_faster_rcnn(model: Any, num_columns: int) -> None:
    old = model.roi_heads.box_predictor.cls_score
    model.roi_heads.box_predictor = FastRCNNPredictor(old.in_features, num_columns)


REPLACE: Mapping[str, Callable[[nn.Module, int], None]] = {
    "retinanet": _replace_in_tower,
    "fcos": _replace_in_tower,
    "ssd": _replace_ssd,
    "ssdlite": partial(
        _replace_ssd,
        head=partial(SSDLiteClassificationHead, norm_layer=partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)),
    ),
    "faster_rcnn": _replace_faster_rcnn,
}
"""What gives a detector a new classifier."""
