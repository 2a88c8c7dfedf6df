"""torchvision's FCOS, SSD, SSDlite and Faster R-CNN as they come, with weights for the whole detector."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision import models
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.ssd import SSDClassificationHead
from torchvision.models.detection.ssdlite import SSDLiteClassificationHead

from ..backbones import downloads
from ..errors import UsageError, check_range, nearest

WHOLE: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "retinanet": {"retinanet_resnet50_fpn": ("resnet50", 5), "retinanet_resnet50_fpn_v2": ("resnet50", 5)},
    "fcos": {"fcos_resnet50_fpn": ("resnet50", 5)},
    "ssd": {"ssd300_vgg16": ("vgg16", 5)},
    "ssdlite": {"ssdlite320_mobilenet_v3_large": ("mobilenet_v3_large", 6)},
    "faster_rcnn": {
        "fasterrcnn_resnet50_fpn": ("resnet50", 5),
        "fasterrcnn_resnet50_fpn_v2": ("resnet50", 5),
        "fasterrcnn_mobilenet_v3_large_fpn": ("mobilenet_v3_large", 6),
    },
}
"""Of each detector torchvision's builders, with the backbone's name and the number of its stages."""


def build_whole(word: str, num_columns: int, options: Mapping[str, Any], given: Sequence[str]) -> nn.Module:
    """One of torchvision's detectors; where its weights have other classes, the classifier starts anew.

    Args:
        word: The detector.
        num_columns: Columns of its classifier.
        options: The network's options; ``keep_classifier`` says whether a classifier of as many columns is kept.
        given: Options that were chosen though such a detector has its own.

    Raises:
        UsageError: If a name is unknown or an option is chosen that such a detector has itself.
    """
    name, weights, of_backbone = options["backbone"], options["weights"], options["weights_backbone"]
    body, stages = WHOLE[word][name]
    given = [*given, *(["fpn_channels"] if options["fpn_channels"] != 256 else [])]
    if given:
        raise UsageError(
            f"The backbone {name} is a whole detector and has its own {' and '.join(given)}: leave it out."
        )
    if weights and of_backbone:
        raise UsageError(f"weights={weights!r} are those of the backbone of {name} too: leave weights_backbone out.")
    frozen = options["frozen_stages"]
    trainable = None if frozen is None else stages - int(check_range("LitDetector", "frozen_stages", frozen, 0, stages))
    arguments: dict[str, Any] = {"weights": None, "weights_backbone": None, **_sizes(name, options)}
    if weights or of_backbone:
        arguments["trainable_backbone_layers"] = trainable
    elif frozen:
        raise UsageError(f"{name} without weights is trained as a whole: leave frozen_stages out.")
    build: Any = models.get_model_builder(name)
    with downloads(f"{name}'s weights {weights or of_backbone}"):
        if weights is None:
            chosen = of_backbone and _weights(body, of_backbone)
            model: nn.Module = build(**{**arguments, "weights_backbone": chosen, "num_classes": num_columns})
            return model
        chosen = _weights(name, weights)
        model = build(**{**arguments, "weights": chosen})
    if len(chosen.meta["categories"]) != num_columns or not options["keep_classifier"]:
        REPLACE[word](model, num_columns)
    return model


def categories_of(word: str, backbone: str, weights: str | None) -> list[str] | None:
    """Names of the object classes that weights come with, background left out where the detector has it."""
    if weights is None or backbone not in WHOLE[word]:
        return None
    names = list(_weights(backbone, weights).meta["categories"])
    return names if word == "fcos" else names[1:]


def _sizes(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    if not name.startswith("ssd"):
        return {"min_size": options["min_size"], "max_size": options["max_size"]}
    own = 320 if name.startswith("ssdlite") else 300
    if options["max_size"] != own:
        raise UsageError(f"{name} takes images of {own} x {own} pixels: leave min_size and max_size out.")
    return {}


def _weights(name: str, weights: str) -> Any:
    enum = models.get_model_weights(name)
    if weights not in enum.__members__:
        hint = nearest(weights, enum.__members__)
        raise UsageError(f"{name} has no weights {weights!r}: take one of {', '.join(enum.__members__)}.{hint}")
    return enum[weights]


def _replace_fcos(model: Any, num_columns: int) -> None:
    head = model.head.classification_head
    old = head.cls_logits
    head.cls_logits = nn.Conv2d(
        old.in_channels, head.num_anchors * num_columns, old.kernel_size, old.stride, old.padding
    )
    nn.init.normal_(head.cls_logits.weight, std=0.01)
    nn.init.constant_(head.cls_logits.bias, -torch.logit(torch.tensor(0.99)).item())
    head.num_classes = num_columns


def _replace_ssd(model: Any, num_columns: int, head: Any = SSDClassificationHead) -> None:
    last = [m if isinstance(m, nn.Conv2d) else m[-1] for m in model.head.classification_head.module_list]
    channels, numbers = [layer.in_channels for layer in last], model.anchor_generator.num_anchors_per_location()
    model.head.classification_head = head(channels, numbers, num_columns)


def _replace_faster_rcnn(model: Any, num_columns: int) -> None:
    old = model.roi_heads.box_predictor.cls_score
    model.roi_heads.box_predictor = FastRCNNPredictor(old.in_features, num_columns)


REPLACE: Mapping[str, Any] = {
    "fcos": _replace_fcos,
    "ssd": _replace_ssd,
    "ssdlite": partial(
        _replace_ssd,
        head=partial(SSDLiteClassificationHead, norm_layer=partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)),
    ),
    "faster_rcnn": _replace_faster_rcnn,
}
"""What gives a detector a new classifier."""
