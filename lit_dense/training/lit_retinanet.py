"""``LitRetinaNet``: ``LitDetector`` for RetinaNet only."""

from typing import Any, ClassVar

from ..losses import LossLike
from .lit_detector import LitDetector


class LitRetinaNet(LitDetector):
    """torchvision's RetinaNet, trained with any loss and any weighting.

    To change the network, the format of batches, the optimiser or a step, override methods as in :class:`LitDetector`.

    Args:
        num_classes: Number of object classes, by default that of the data module. Labels are 0 to num_classes - 1. The
            head has num_classes columns, without a background column. torchvision's COCO weights have 91 columns, one
            per category id; column 0 and ten others are unused. With num_classes=91 the pretrained classifier is kept
            and can predict without training; with another number a new classifier is trained.
        backbone: A torchvision ResNet or MobileNet, ``tiny``, ``timm/NAME``, or a torchvision model:
            ``retinanet_resnet50_fpn`` or ``retinanet_resnet50_fpn_v2``.
        loss: The classification loss: a name, an object, or a dict with class_path and init_args.
        detector: ``retinanet``.
        options: The other arguments of :class:`LitDetector`.

    Raises:
        UsageError: If a name is unknown or arguments do not fit together.

    Example:
        >>> module = LitRetinaNet(num_classes=3, backbone="tiny", fpn_channels=16, loss="ghm")
        >>> type(module.model).__name__
        'RetinaNet'
    """

    detectors: ClassVar[tuple[str, ...]] = ("retinanet",)

    def __init__(
        self,
        num_classes: int | None = None,
        backbone: str = "resnet50",
        loss: LossLike = "focal",
        detector: str = "retinanet",
        **options: Any,
    ) -> None:
        super().__init__(detector, num_classes, backbone, loss=loss, **options)
