"""torchvision's RetinaNet."""

from typing import Any

from torch import Tensor
from torchvision.models.detection.retinanet import RetinaNetHead

from ..stand_ins import give_back, take_over
from .base import CriterionArgs, Detections, Terms
from .head_loss import HeadLossAdapter


class RetinaNetAdapter(HeadLossAdapter):
    """torchvision's RetinaNet, of either version: focal loss over all anchors.

    While it is attached, matching, post-processing, anchors and the head's outputs are computed by faster functions
    with the same results, except where the detector has methods of its own.
    """

    detectors = ("torchvision.models.detection.retinanet.RetinaNet",)

    def defaults(self, stage: str) -> CriterionArgs:
        """Focal loss, and ``l1`` or the second version's ``giou``, as mean over images."""
        box_loss: Any = getattr(self.detector.head.regression_head, "_loss_type", "l1")
        if box_loss == "smooth_l1":
            box_loss = {"class_path": "smooth_l1", "init_args": {"beta": 1.0}}
        return {"loss": "focal", "box_loss": box_loss, "normalizer": "image"}

    def accelerate(self) -> None:
        """Put the faster functions in."""
        take_over(self.detector)

    def remove(self) -> None:
        """Give the detector its own losses and methods back."""
        give_back(self.detector)
        super().remove()

    def losses_and_detections(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> tuple[Terms, Detections]:
        """Loss terms and detections of one forward pass; torchvision's own forward gives one or the other.

        Args:
            images: Images in [0, 1], each [3, H, W].
            targets: Per image ``boxes`` [G, 4] in pixels and ``labels`` [G].
        """
        model = self.detector
        original_sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, resized = model.transform(images, targets)
        features: list[Tensor] = list(model.backbone(batch.tensors).values())
        head: RetinaNetHead = model.head
        outputs: dict[str, Tensor] = type(head).forward(head, features)  # without the hook: as the loss wants them
        anchors: list[Tensor] = model.anchor_generator(batch, features)
        terms: Terms = model.compute_loss(resized, outputs, anchors)
        cells = [f.shape[-2] * f.shape[-1] for f in features]
        per_level = [n * len(anchors[0]) // sum(cells) for n in cells]
        levels = {name: list(output.split(per_level, dim=1)) for name, output in self.with_scores(outputs).items()}
        found = model.postprocess_detections(levels, [list(a.split(per_level)) for a in anchors], batch.image_sizes)
        return terms, model.transform.postprocess(found, batch.image_sizes, original_sizes)
