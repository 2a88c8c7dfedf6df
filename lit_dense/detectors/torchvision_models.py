"""torchvision's complete models, such as ``fasterrcnn_resnet50_fpn``, with pretrained weights and other classes."""

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
"""Default values of the options that a torchvision model does not accept."""


def build_whole(
    name: str,
    num_columns: int,
    weights: str | None,
    keep_classifier: bool,
    side: int | None,
    options: Mapping[str, Any],
) -> nn.Module:
    """Build a torchvision model; if its weights have another number of classes, it gets a new classifier.

    Args:
        name: Name of the model, such as ``retinanet_resnet50_fpn_v2``.
        num_columns: Number of columns of the classifier.
        weights: Weights of the model, such as ``COCO_V1``; None for no weights.
        keep_classifier: Whether to keep the classifier of the weights if it has ``num_columns`` columns.
        side: Side in pixels of the squares to which the model scales images; None if it does not scale to squares.
        options: Other options of the network.

    Raises:
        UsageError: If a name is unknown, or an option is chosen that a torchvision model does not accept.
    """
    whole, backbone_weights, frozen = WHOLE[name], options["weights_backbone"], options["frozen_stages"]
    _check(name, weights, options)
    if side is not None and options["max_size"] != side:
        raise UsageError(f"{name} takes images of {side} x {side} pixels: leave min_size and max_size out.")
    sizes = {} if side is not None else {size: options[size] for size in ("min_size", "max_size")}
    trainable = whole.stages - frozen if frozen is not None and (weights or backbone_weights) else None
    with downloads(f"{name}'s weights {weights}" if weights else f"{whole.body}'s weights {backbone_weights}"):
        if weights is None:
            chosen = backbone_weights and weights_of(whole.body, backbone_weights)
            columns = {"weights": None, "weights_backbone": chosen, "num_classes": num_columns}
            return whole.build(**columns, trainable_backbone_layers=trainable, **sizes)
        chosen = weights_of(name, weights)
        model = whole.build(weights=chosen, trainable_backbone_layers=trainable, **sizes)
    if len(chosen.meta["categories"]) != num_columns or not keep_classifier:
        REPLACE[whole.detector](model, num_columns)
    return model


def _check(name: str, weights: str | None, options: Mapping[str, Any]) -> None:
    """Reject options that a torchvision model would ignore."""
    chosen = {**options, "aspect_ratios": tuple(options["aspect_ratios"])}
    ignored = [option for option, neutral in NEUTRAL.items() if chosen[option] != neutral]
    problems = []
    if ignored:
        problems.append(
            f"it has anchors, a pyramid and a head of its own: leave {' and '.join(ignored)} out, or take "
            "backbone=resnet50"
        )
    if weights and options["weights_backbone"]:
        problems.append(f"weights={weights!r} are those of the backbone too: leave weights_backbone out")
    if options["frozen_stages"]:
        check_range("LitDetector", "frozen_stages", options["frozen_stages"], 0, WHOLE[name].stages)
        if not weights and not options["weights_backbone"]:
            problems.append(
                "without weights all its layers are trained: leave frozen_stages out, or give weights_backbone=DEFAULT"
            )
    if problems:
        raise UsageError(f"The backbone {name} does not take all of these arguments: {'; '.join(problems)}.")


def _replace_in_tower(model: Any, num_columns: int) -> None:
    """Replace the last layer of the classification head of RetinaNet or FCOS; its tower stays."""
    head = model.head.classification_head
    new_head = type(head)(head.cls_logits.in_channels, head.num_anchors, num_columns)
    head.cls_logits, head.num_classes = new_head.cls_logits, num_columns


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
"""Functions that replace the classifier of a detector, by the name of the detector."""
