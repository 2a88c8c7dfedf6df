"""RetinaNet as a LightningModule."""

from typing import Any, ClassVar

from ..losses import LossLike
from .lit_detector import LitDetector


class LitRetinaNet(LitDetector):
    """torchvision's RetinaNet, trained with any loss and any weighting.

    To change a piece, subclass and override it, as for :class:`LitDetector`.

    Args:
        num_classes: Number of object classes, by default that of the data module. Labels are 0 to num_classes - 1 and
            the head has as many columns: there is no background column. torchvision's COCO weights have 91 columns,
            named by category id, of which column 0 and ten others are unused: with num_classes=91 they are kept and
            predict as they are; with another number the classifier starts anew.
        backbone: A torchvision ResNet or MobileNet, ``tiny``, ``timm/NAME``, or a whole detector of torchvision:
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
