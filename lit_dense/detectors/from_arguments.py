"""Construction of detectors from the arguments of LitDetector: RetinaNet, FCOS, SSD, SSDlite and Faster R-CNN."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.models.detection.ssdlite import SSDLiteHead
from torchvision.ops import MultiScaleRoIAlign

from ..core.errors import UsageError, check_choice, check_range
from ..criterion import Criterion, CriterionArgs
from ..losses import DenseLoss, SoftmaxLoss
from .attach import build_criterion
from .backbones import WHOLE, build_backbone, pyramid_of, weights_of
from .base import DetectorAdapter
from .faster_rcnn import FasterRCNNAdapter
from .fcos import FCOSAdapter
from .retinanet.adapter import RetinaNetAdapter
from .retinanet.network import build_retinanet, check_levels
from .ssd import SSDAdapter
from .torchvision_models import NEUTRAL, build_whole

STAGE_ARGUMENTS = tuple(name for name in CriterionArgs.__annotations__ if name not in ("assigner", "calibrator"))
"""Criterion arguments of a stage that does its own matching and computes its own scores."""


class Network(NamedTuple):
    """A kind of detector: its name, its builder, and facts that are needed before it is built."""

    name: str
    """Value of the argument ``detector``."""
    build: Callable[..., nn.Module]
    """Function of the number of columns of the head and the options of the network."""
    adapter: type[DetectorAdapter]
    background: int = 0
    """Number of background columns, besides those of the object classes."""
    sizes: tuple[int, int] = (800, 1333)
    """Default ``min_size`` and ``max_size``."""
    squares: bool = False
    """Whether images are scaled to squares of ``max_size``."""
    unused: tuple[str, ...] = ()
    """Options that the network ignores; a warning is shown if one was chosen."""

    def criteria(
        self, backbone: str, chosen: CriterionArgs, second: Mapping[str, Any] | None
    ) -> tuple[Criterion, Criterion | None]:
        """Build the criterion of the first stage, and of the second stage if the detector has one.

        Args:
            backbone: Name of the backbone or the torchvision model.
            chosen: All criterion arguments of the first stage; None means not chosen. An assigner that cannot be used
                is ignored with a warning, because one configuration may be used for several detectors.
            second: Criterion arguments of the second stage; by default the detector's own.

        Raises:
            UsageError: If ``second`` is given and there is no second stage, or it does not have such an argument.
        """
        stages, adapter = self.adapter.stages, self.adapter
        own: CriterionArgs = {**adapter.stock[stages[0]]}
        if backbone == "retinanet_resnet50_fpn_v2":
            own["box_loss"] = "giou"
        if chosen["assigner"] is not None and "assignment" not in adapter.offers:
            warnings.warn(
                f"{self.name} matches and draws its proposals itself: the assigner {chosen['assigner']} is ignored.",
                stacklevel=2,
            )
            chosen = {**chosen, "assigner": None}
        first = build_criterion(own, {**chosen, "weighters": chosen["weighters"] or None})
        if len(stages) == 1:
            if second:
                raise UsageError(f"{self.name} has no region proposal network: leave rpn={dict(second)} out.")
            return first, None
        second_args = {name: value for name, value in (second or {}).items() if value is not None}
        for name in second_args:
            check_choice("rpn", "an argument", name, STAGE_ARGUMENTS)
        if "class_weights" in second_args:
            raise UsageError(
                "rpn: its only class is that of all objects, so class_weights has no effect: leave it out."
            )
        return first, build_criterion(adapter.stock[stages[1]], cast(CriterionArgs, second_args))

    def keeps_classifier(self, loss: DenseLoss) -> bool:
        """Whether the columns of a pretrained classifier have the same meaning for a loss as for the detector's own.

        Args:
            loss: The classification loss.
        """
        return isinstance(loss, SoftmaxLoss) if self.background else not loss.extra_logits


def _backbone(options: Mapping[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    """Build the backbone, and compute its features of an image of 64 x 64 pixels."""
    names = ("backbone", "weights_backbone", "frozen_stages", "fpn_channels")
    backbone = build_backbone(*(options[name] for name in names))
    return backbone, pyramid_of(backbone)


def _sizes(options: Mapping[str, Any]) -> dict[str, Any]:
    smallest = options["min_size"]
    return {"min_size": smallest if isinstance(smallest, int) else list(smallest), "max_size": options["max_size"]}


def _build_fcos(num_columns: int, **options: Any) -> nn.Module:
    if options["fpn_channels"] % 32:
        raise UsageError(
            "FCOS normalises 32 groups of channels: fpn_channels must be a multiple of 32, not "
            f"{options['fpn_channels']}."
        )
    backbone, features = _backbone(options)
    strides = [64 // level.shape[-1] for level in features.values()]
    generator = AnchorGenerator(tuple((stride,) for stride in strides), ((1.0,),) * len(strides))
    convs = int(check_range("LitDetector", "head_convs", options["head_convs"], 1, 4))
    head = FCOSHead(backbone.out_channels, 1, num_columns, convs)
    model: nn.Module = FCOS(backbone, num_columns, anchor_generator=generator, head=head, **_sizes(options))
    return model


def _build_ssd(num_columns: int, lite: bool = False, **options: Any) -> nn.Module:
    backbone, features = _backbone(options)
    channels, side = [level.shape[1] for level in features.values()], int(options["max_size"])
    generator = DefaultBoxGenerator([[2, 3] for _ in channels], scales=_scales(options, len(channels), side))
    numbers = generator.num_anchors_per_location()
    # group norm: the outputs of an image depend neither on its batch nor on the number of processes
    norm = partial(nn.GroupNorm, channels[0] // 8)
    head = SSDLiteHead(channels, numbers, num_columns, norm) if lite else SSDHead(channels, numbers, num_columns)
    model: nn.Module = SSD(backbone, generator, (side, side), num_columns, head=head)
    return model


def _scales(options: Mapping[str, Any], levels: int, side: int) -> list[float]:
    """Sizes of SSD's default boxes as fractions of the image size: one per level and a last one [levels + 1]."""
    sizes = options["anchor_sizes"]
    if sizes is None:
        return [0.1 + 0.8 * level / max(1, levels - 1) for level in range(levels)] + [1.0]
    check_levels(options["backbone"], sizes, levels)
    return [min(own) / side for own in sizes] + [max(sizes[-1]) / side]


def _build_faster_rcnn(num_columns: int, **options: Any) -> nn.Module:
    backbone, features = _backbone(options)
    levels = len(features)
    sizes: Sequence[Sequence[int]] = options["anchor_sizes"] or [(32 * 2**level,) for level in range(levels)]
    check_levels(options["backbone"], sizes, levels)
    generator = AnchorGenerator(tuple(tuple(s) for s in sizes), (tuple(options["aspect_ratios"]),) * levels)
    pooled = [name for name in features if name not in ("pool", "p6", "p7")]  # RoIs use the levels of the body only
    pool = MultiScaleRoIAlign(pooled, output_size=7, sampling_ratio=2)
    width = 4 * backbone.out_channels  # torchvision's 1,024 for its 256 channels
    model: nn.Module = FasterRCNN(
        backbone,
        rpn_anchor_generator=generator,
        box_roi_pool=pool,
        box_head=TwoMLPHead(backbone.out_channels * 7**2, width),
        box_predictor=FastRCNNPredictor(width, num_columns),
        **_sizes(options),
    )
    return model


_UNUSED_IN_SSD = ("aspect_ratios", "head_convs")
_ALL = (
    Network("retinanet", build_retinanet, RetinaNetAdapter),
    Network("fcos", _build_fcos, FCOSAdapter, unused=("anchor_sizes", "aspect_ratios")),
    Network("ssd", _build_ssd, SSDAdapter, 1, (300, 300), True, _UNUSED_IN_SSD),
    Network("ssdlite", partial(_build_ssd, lite=True), SSDAdapter, 1, (320, 320), True, _UNUSED_IN_SSD),
    Network("faster_rcnn", _build_faster_rcnn, FasterRCNNAdapter, 1, unused=("head_convs",)),
)
NETWORKS: Mapping[str, Network] = {network.name: network for network in _ALL}
"""The detectors that :class:`~lit_dense.LitDetector` builds, by name."""


def build_detector(
    name: str, num_columns: int, weights: str | None = None, keep_classifier: bool = True, **options: Any
) -> nn.Module:
    """Build a torchvision detector.

    Args:
        name: ``retinanet``, ``fcos``, ``ssd``, ``ssdlite`` or ``faster_rcnn``.
        num_columns: Number of columns of the classifier: the object classes, background if the detector has it, and
            extra columns of the loss.
        weights: Weights of a torchvision model, such as ``COCO_V1``.
        keep_classifier: Whether to keep the classifier of the weights if it has ``num_columns`` columns. A loss that
            gives columns another meaning needs a new one.
        options: Other options of the network; see :class:`~lit_dense.LitDetector`.

    Raises:
        UsageError: If a name is unknown or an argument does not fit.
    """
    network, backbone = NETWORKS[name], options["backbone"]
    _note_unreachable_size(network, options["min_size"], options["max_size"])
    whole = WHOLE.get(backbone)
    if whole is not None and whole.detector != name:
        raise UsageError(f"The backbone {backbone} is a torchvision model: take detector={whole.detector}.")
    if whole is not None:
        side = network.sizes[1] if network.squares else None
        return build_whole(backbone, num_columns, weights, keep_classifier, side, options)
    if weights is not None:
        names = " or ".join(model for model, known in WHOLE.items() if known.detector == name)
        raise UsageError(
            f"weights={weights!r} are those of a torchvision model: take backbone={names}, or give "
            "weights_backbone for the backbone only."
        )
    if unused := [option for option in network.unused if options[option] != NEUTRAL[option]]:
        warnings.warn(f"{name} ignores {' and '.join(unused)}.", stacklevel=2)
    return network.build(num_columns, **options)


def _note_unreachable_size(network: Network, min_size: int | Sequence[int], max_size: int) -> None:
    """Warn if a chosen ``min_size`` is larger than ``max_size``, so that no image is scaled to it."""
    least = max(min_size) if isinstance(min_size, Sequence) else min_size
    if least > max_size and min_size != network.sizes[0] and not network.squares:
        warnings.warn(
            f"min_size={least} is larger than max_size={max_size}: the longer side of each image is scaled to "
            f"{max_size} pixels, and the shorter one gets less than {least}. Set max_size too, for photographs to "
            f"about {least * 5 // 3}.",
            stacklevel=3,
        )


def known_categories(name: str, backbone: str, weights: str | None) -> list[str] | None:
    """Return the names of the classes of detector weights, in the order of columns; None without weights."""
    if weights is None or backbone not in WHOLE:
        return None
    return list(weights_of(backbone, weights).meta["categories"])[NETWORKS[name].background :]
