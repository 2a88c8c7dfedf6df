"""Backbones with a feature pyramid, built from their names."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.hub import get_dir
from torchvision import models
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ..core.errors import UsageError, nearest
from .tiny_backbone import tiny_backbone

STRIDES = (2, 4, 8, 16, 32)
"""Strides at the ends of the stages of a backbone."""
_LOADS_CHECKPOINT = ContextVar("loads_checkpoint", default=False)


class Whole(NamedTuple):
    """A torchvision model, which can be named instead of a backbone."""

    detector: str
    """Name of the detector, as the argument ``detector`` has it."""
    build: Callable[..., nn.Module]
    """torchvision's builder."""
    body: str
    """torchvision's name of its backbone, for the backbone's weights."""
    stages: int
    """Number of stages of the backbone that can be frozen."""


WHOLE: Mapping[str, Whole] = {
    "retinanet_resnet50_fpn": Whole("retinanet", detection.retinanet_resnet50_fpn, "resnet50", 5),
    "retinanet_resnet50_fpn_v2": Whole("retinanet", detection.retinanet_resnet50_fpn_v2, "resnet50", 5),
    "fcos_resnet50_fpn": Whole("fcos", detection.fcos_resnet50_fpn, "resnet50", 5),
    "ssd300_vgg16": Whole("ssd", detection.ssd300_vgg16, "vgg16", 5),
    "ssdlite320_mobilenet_v3_large": Whole("ssdlite", detection.ssdlite320_mobilenet_v3_large, "mobilenet_v3_large", 6),
    "fasterrcnn_resnet50_fpn": Whole("faster_rcnn", detection.fasterrcnn_resnet50_fpn, "resnet50", 5),
    "fasterrcnn_resnet50_fpn_v2": Whole("faster_rcnn", detection.fasterrcnn_resnet50_fpn_v2, "resnet50", 5),
    "fasterrcnn_mobilenet_v3_large_fpn": Whole(
        "faster_rcnn", detection.fasterrcnn_mobilenet_v3_large_fpn, "mobilenet_v3_large", 6
    ),
}
"""torchvision models by name."""
OTHERS = ("tiny", *WHOLE)
"""Accepted backbones that are not torchvision classifiers."""


def build_backbone(name: str, weights: str | None, frozen_stages: int | None, fpn_channels: int) -> nn.Module:
    """Build a backbone with a feature pyramid of strides 8 to 128 from a torchvision or timm classifier.

    Batch norm is frozen if the backbone has weights, as in torchvision's detectors; otherwise it is trained.

    Args:
        name: A torchvision ResNet or MobileNet, ``timm/NAME``, or ``tiny``.
        weights: Name of the classifier's weights, such as ``IMAGENET1K_V1`` or ``DEFAULT``; for timm ``DEFAULT`` or a
            tag, such as ``a1_in1k``; None for random weights.
        frozen_stages: Number of stages that are not trained, 0 to 5; by default 2 with weights and 0 without.
        fpn_channels: Number of channels of the pyramid.

    Raises:
        UsageError: If the name, the weights or the number of stages is unknown; if timm is needed and not installed;
            or if the timm model does not compute pyramid features for images of any size.
    """
    if name == "tiny" and weights is not None:
        raise UsageError(f"The backbone tiny has no weights {weights!r}: leave weights_backbone out.")
    if name == "tiny" or name.startswith("timm/"):
        if frozen_stages:
            raise UsageError(f"The backbone {name} has no stages that can be frozen: leave frozen_stages out.")
        return tiny_backbone(fpn_channels) if name == "tiny" else _timm_backbone(name, weights, fpn_channels)
    frozen = (2 if weights else 0) if frozen_stages is None else frozen_stages
    if not 0 <= frozen <= len(STRIDES):
        raise UsageError(f"frozen_stages must be 0 to {len(STRIDES)}, not {frozen}.")
    body = _torchvision_body(name, weights)
    ends = _stage_ends(body, name)
    _freeze(body, ends, frozen)
    layers = {child: str(level) for level, (child, _) in enumerate(ends[2:])}
    channels = [c for _, c in ends[2:]]
    pyramid: nn.Module = BackboneWithFPN(
        body, layers, channels, fpn_channels, LastLevelP6P7(fpn_channels, fpn_channels)
    )
    return pyramid


def _torchvision_body(name: str, weights: str | None) -> nn.Module:
    """Build the convolutional layers of a torchvision classifier, as a sequence of children."""
    known = [
        n for n in models.list_models(module=models) if n.startswith(("resnet", "resnext", "wide_res", "mobilenet"))
    ]
    if name not in known:
        raise UsageError(
            f"Unknown backbone {name!r}.{nearest(name, [*known, *OTHERS])} Accepted: {', '.join([*known, *OTHERS])}, "
            "timm/NAME."
        )
    if weights is not None:
        weights_of(name, weights)  # raises an error for an unknown name
    norm: Any = FrozenBatchNorm2d if weights else nn.BatchNorm2d
    with downloads(f"{name}'s weights {weights}"):
        chosen = None if _LOADS_CHECKPOINT.get() else weights
        model: nn.Module = models.get_model(name, weights=chosen, norm_layer=norm)
    if isinstance(features := getattr(model, "features", None), nn.Module):
        return features
    return nn.Sequential(OrderedDict((n, m) for n, m in model.named_children() if n not in ("avgpool", "fc")))


def weights_of(name: str, weights: str) -> Any:
    """Return the weights of a torchvision model.

    Args:
        name: Name of the model.
        weights: Name of the weights, such as ``COCO_V1`` or ``DEFAULT``.

    Raises:
        UsageError: If the model has no weights of this name.
    """
    enum = models.get_model_weights(name)
    if weights not in enum.__members__:
        hint = nearest(weights, enum.__members__)
        raise UsageError(f"{name} has no weights {weights!r}: take one of {', '.join(enum.__members__)}.{hint}")
    return enum[weights]


@torch.no_grad()
def pyramid_of(body: nn.Module) -> dict[str, Tensor]:
    """Compute the features of an image of 64 x 64 pixels, which show strides, channels and the number of levels.

    Args:
        body: A backbone with a feature pyramid.
    """
    training = body.training
    features: dict[str, Tensor] = body.eval()(torch.zeros(1, 3, 64, 64))
    body.train(training)
    return features


def _stage_ends(body: nn.Module, name: str) -> list[tuple[str, int]]:
    """Find the last child of each stride and its channels, by passing an image through the body."""
    x, ends = torch.zeros(1, 3, 64, 64), dict[int, tuple[str, int]]()
    training = body.training
    body.eval()
    with torch.no_grad():
        for child_name, child in body.named_children():
            x = child(x)
            ends[64 // x.shape[-1]] = (child_name, x.shape[1])
    body.train(training)
    if missing := [s for s in STRIDES if s not in ends]:
        raise UsageError(f"The backbone {name!r} has no stage of stride {missing[0]}.")
    return [ends[s] for s in STRIDES]


def _freeze(body: nn.Module, ends: list[tuple[str, int]], stages: int) -> None:
    """Freeze the parameters of the first stages."""
    if stages == 0:
        return
    last = ends[stages - 1][0]
    for name, child in body.named_children():
        child.requires_grad_(False)
        if name == last:
            return


class _TimmPyramid(nn.Module):
    """A timm feature extractor with a feature pyramid."""

    def __init__(self, body: nn.Module, in_channels: list[int], out_channels: int) -> None:
        super().__init__()
        self.body = body
        self.fpn = FeaturePyramidNetwork(in_channels, out_channels, LastLevelP6P7(out_channels, out_channels))
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features: dict[str, Tensor] = self.fpn(OrderedDict((str(i), f) for i, f in enumerate(self.body(x))))
        return features


def _timm_backbone(name: str, weights: str | None, fpn_channels: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise UsageError(f'The backbone {name} needs timm: pip install "lit-dense[timm]"') from error
    model = name.removeprefix("timm/")
    if not timm.is_model(model):
        raise UsageError(f"timm has no model {model!r}.{nearest(model, timm.list_models())}")
    model = _with_tag(model, weights)
    untrained: Any = timm.create_model(model, features_only=True)
    strides, channels = untrained.feature_info.reduction(), untrained.feature_info.channels()
    wanted = [i for i, stride in enumerate(strides) if stride in STRIDES[2:]]
    if [strides[i] for i in wanted] != list(STRIDES[2:]):
        raise UsageError(f"{name} has features of strides {strides}; strides 8, 16 and 32 are needed.")
    _check_features(untrained, name, wanted, [channels[i] for i in wanted])
    with downloads(f"{name}'s weights {weights}"):
        pretrained = bool(weights) and not _LOADS_CHECKPOINT.get()
        body: nn.Module = timm.create_model(model, pretrained=pretrained, features_only=True, out_indices=wanted)
    layers: Any = timm.layers
    body = layers.freeze_batch_norm_2d(body) if weights else body
    return _TimmPyramid(body, [channels[i] for i in wanted], fpn_channels)


def _with_tag(model: str, weights: str | None) -> str:
    """Return the name of a timm model with the tag of the weights, which decides the weights that timm loads."""
    import timm

    architecture, _, own = model.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    requested = weights if weights and weights != "DEFAULT" else ""
    for tag in filter(None, (own, requested)):
        if tag not in tags:
            raise UsageError(
                f"timm/{model} has no weights {tag!r}.{nearest(tag, tags)} Accepted: {', '.join(['DEFAULT', *tags])}."
            )
        tags = [tag]
    if weights and not tags:
        raise UsageError(f"timm/{model} has no weights: leave weights_backbone out.")
    return f"{architecture}.{own or requested}".rstrip(".")


def _check_features(body: nn.Module, name: str, wanted: list[int], channels: list[int]) -> None:
    """Reject a model for a single image size, and one with features that are not [N, C, H, W] (transformers)."""
    expected, problem = [(1, c, 64 // s, 64 // s) for c, s in zip(channels, STRIDES[2:], strict=True)], ""
    try:
        with torch.no_grad():
            features = body.eval()(torch.zeros(1, 3, 64, 64))
    except (AssertionError, RuntimeError, ValueError) as error:
        problem = f"it does not take an image of 64 pixels: {error}"
    else:
        if (shapes := [tuple(features[i].shape) for i in wanted]) != expected:
            problem = f"its features of an image of 64 pixels are {shapes}, not {expected}"
    if problem:
        raise UsageError(
            f"The backbone {name} cannot be used, {problem.rstrip('.')}. A detector gets images of all sizes: "
            "take a convolutional model, such as timm/resnet50, timm/convnext_tiny or timm/mobilenetv3_large_100."
        )


@contextmanager
def loads_checkpoint() -> Iterator[None]:
    """Build backbones in this context with random weights, because a checkpoint replaces all of them afterwards.

    The layers are those of a pretrained backbone. torchvision's whole models still load their weights, because their
    layers depend on it.
    """
    token = _LOADS_CHECKPOINT.set(True)
    try:
        yield
    finally:
        _LOADS_CHECKPOINT.reset(token)


@contextmanager
def downloads(what: str) -> Iterator[None]:
    """Convert download errors in this context into one line that says how to provide the file by hand."""
    try:
        yield
    except OSError as error:  # of the network, or because a folder is not writable
        raise UsageError(
            f"{what} cannot be downloaded: {error}. Without a network put the file into {get_dir()}/checkpoints "
            "(TORCH_HOME chooses another folder)."
        ) from error
