"""The base class of adapters of torchvision's one-stage detectors, in which one method computes the loss."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from ..assigners import Assigner, AssignInput, Assignment
from ..core.errors import UsageError
from ..core.geometry import Geometry
from ..core.samples import NEGATIVE, BoxCoder, DenseSamples
from .base import Detections, Terms
from .columns import Columns
from .ignore_regions import ScaledIgnoreRegions, without_ignored_anchors
from .input_checks import InputChecks
from .torchvision_batch import all_labels, check_labels, collect_samples, unknown_columns


class OneStageAdapter(InputChecks, ScaledIgnoreRegions):
    """Base class of adapters of a detector with ``head.compute_loss(targets, head_outputs, anchors, matched_idxs)``.

    The outputs of the head are ``cls_logits`` [B, K, L], ``bbox_regression`` [B, K, n], and outputs that a subclass
    reads, for B images with K anchors each and L columns. n is 4, unless the box loss has outputs of its own.
    """

    box_head: ClassVar[type[nn.Module] | None] = None
    """torchvision's regression head whose last layer ``bbox_reg`` can have more outputs; None if there is none."""

    offers = frozenset({"boxes", "deltas", "anchors", "geometry", "assignment", "predictions", "box_loss"})

    calibrated_stages = frozenset({""})

    def __init__(self, detector: nn.Module) -> None:
        super().__init__(detector)
        self._geometry: Geometry | None = None
        self._used = False  # whether the forward pass has computed the replaced loss

    def columns(self, stage: str) -> Columns:
        """Return one column for each class."""
        return Columns(self.detector.head.classification_head.num_classes)

    @property
    def own_box_coder(self) -> BoxCoder:
        """The detector's box coder."""
        coder: BoxCoder = self.detector.box_coder
        return coder

    @property
    def box_coder(self) -> BoxCoder:
        """The box coder of the box loss if it has outputs of its own, otherwise that of the detector."""
        return self.box_loss_coder or self.own_box_coder

    @property
    def box_loss_coder(self) -> BoxCoder | None:
        """The box coder of a box loss with outputs of its own; None for any other box loss."""
        box_loss = self.criteria[""].box_loss
        return None if box_loss is None else box_loss.box_coder

    def references(self, anchors: Tensor, geometry: Geometry | None = None) -> Tensor:
        """Return the boxes from which the box coder decodes: the anchors, or cells for a box loss with own outputs.

        Args:
            anchors: Anchors of an image [K, 4].
            geometry: Sizes of levels and images; by default those of the last batch.
        """
        if self.box_loss_coder is None:
            return anchors
        geometry = geometry or self._geometry
        if geometry is None:
            raise UsageError(f"{type(self.detector).__name__} has computed no anchors yet: call the model with images.")
        return geometry.cells(anchors)

    @property
    def _box_layer(self) -> nn.Conv2d | None:
        """The last layer of the regression head, if that is torchvision's; otherwise None."""
        head = getattr(self.detector.head, "regression_head", None)
        if self.box_head is None or getattr(type(head), "forward", None) is not self.box_head.forward:
            return None
        layer = getattr(head, "bbox_reg", None)
        return layer if isinstance(layer, nn.Conv2d) and self._anchors_of_cell else None

    @property
    def _anchors_of_cell(self) -> int:
        """Number of anchors of a cell; 0 if the classification head, which need not be torchvision's, does not tell."""
        return int(getattr(self.detector.head.classification_head, "num_anchors", 0))

    def box_outputs(self, stage: str) -> int:
        """Return the number of outputs of the head for the box of an anchor."""
        return 4 if self._box_layer is None else self._box_layer.out_channels // self._anchors_of_cell

    def can_set_box_outputs(self, stage: str) -> bool:
        """Whether the regression head is torchvision's."""
        return self._box_layer is not None

    def set_box_outputs(self, number: int, stage: str) -> None:
        """Replace the last layer of the regression head, initialised as torchvision does."""
        old = self._box_layer
        if old is None:
            super().set_box_outputs(number, stage)
            return
        channels = number * self._anchors_of_cell
        new = nn.Conv2d(old.in_channels, channels, kernel_size=3, padding=1).to(old.weight)
        nn.init.normal_(new.weight, std=0.01)
        nn.init.zeros_(new.bias)  # type: ignore[arg-type]  # it has a bias
        self.detector.head.regression_head.bbox_reg = new

    def loss_owners(self, stage: str) -> Mapping[str, Sequence[nn.Module]]:
        """Return the head and its two parts, which compute the loss."""
        head = self.detector.head
        parts = {"loss": "classification_head", "box_loss": "regression_head"}
        return {name: [head, *([getattr(head, part)] if hasattr(head, part) else [])] for name, part in parts.items()}

    def install(self) -> None:
        """Replace the head's loss; in evaluation the head gives the scores that the criterion's loss trains."""
        self.install_ignore_regions()
        self.override(self.detector.head, "compute_loss", "compute_loss")
        self.hook_inputs()
        self.hook(self.detector.head, self._convert_outputs)
        if self.box_loss_coder is not None:
            self.override(self.detector, "postprocess_detections", "postprocess_outputs")
        self.hook(self.detector.anchor_generator, self._note_geometry, pre=True)

    def hook_inputs(self) -> None:
        """Check the inputs of each batch, and that a training batch computes the replaced loss."""
        super().hook_inputs()
        self.hook(self.detector, self._note_start, pre=True)
        self.hook(self.detector, self._check_loss_is_used)

    def _note_start(self, detector: nn.Module, inputs: Any) -> None:
        self._used = False

    def _check_loss_is_used(self, detector: nn.Module, inputs: Any, outputs: Any) -> None:
        """Refuse terms of another loss, which a subclass has computed without the head's ``compute_loss``."""
        terms = isinstance(outputs, dict) and all(isinstance(v, Tensor) and v.ndim == 0 for v in outputs.values())
        if self._used or not (detector.training and terms and outputs):
            return
        raise UsageError(
            f"{type(detector).__name__} computes its training loss without calling {type(self.detector.head).__name__}."
            "compute_loss, which lit_dense has replaced: call self.head.compute_loss(...) there, or call a loss of "
            "lit_dense with logits and labels."
        )

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> Terms:
        """Compute the criterion's loss terms; replaces the method of the head.

        Raises:
            UsageError: If a label has no column.
            NonFiniteLossError: If a term is NaN or infinite.
        """
        self._used = True
        matched, quality = self.matched(targets, head_outputs, anchors, matched_idxs)
        samples = self.samples(targets, head_outputs, anchors, matched)
        if quality is not None:
            samples = samples.with_quality(torch.cat(quality)[samples.positives])
        return self.terms("", samples, targets)

    def loss_logits(self, head_outputs: dict[str, Tensor]) -> Tensor:
        """Return the class logits in the order of the loss's columns [B, K, L]."""
        return head_outputs["cls_logits"]

    @property
    def assigner(self) -> Assigner | None:
        """The assigner that replaces the detector's own matcher; None if the detector matches."""
        return self.criteria[""].matcher

    def matched(
        self,
        targets: Sequence[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: Sequence[Tensor],
        matched_idxs: Sequence[Tensor],
    ) -> tuple[Sequence[Tensor], list[Tensor] | None]:
        """Match anchors with the assigner or, without one, with the detector's matcher.

        Returns:
            For each image the matched ground truth of each anchor [K]; and the quality of each anchor [K] if the
            assigner rates positives, otherwise None.
        """
        if self.assigner is None:
            return matched_idxs, None
        assigned = [
            self._assigned(self.assigner, index, target, head_outputs, anchors[index])
            for index, target in enumerate(targets)
        ]
        matched = [a.matched_idxs if isinstance(a, Assignment) else a for a in assigned]
        if "soft_targets" not in self.assigner.exclusive:
            return matched, None
        zeros = head_outputs["cls_logits"].new_zeros
        return matched, [a.quality if isinstance(a, Assignment) else zeros(len(a)).float() for a in assigned]

    def _assigned(
        self, assigner: Assigner, index: int, target: dict[str, Tensor], outputs: dict[str, Tensor], anchors: Tensor
    ) -> Tensor | Assignment:
        """Match the anchors of an image [K, 4]; without ground truths all are background."""
        if not len(target["boxes"]):
            return torch.full((len(anchors),), NEGATIVE, device=anchors.device)
        first = self.columns("").first_label
        criterion, labels = self.criteria[""], target["labels"].long() - first
        logits, deltas = self.loss_logits(outputs)[index], outputs["bbox_regression"][index]
        references = self.references(anchors)

        unknown = unknown_columns([target], logits.shape[-1], logits.device, first)
        sizes = None if self._geometry is None else self._geometry.image_sizes[index : index + 1]

        def losses(rows: Tensor, matched: Tensor) -> Tensor:
            images = torch.zeros_like(labels), torch.zeros_like(rows)
            samples = DenseSamples(
                logits[rows].detach(),
                deltas[rows].detach(),
                anchors[rows],
                matched,
                target["boxes"].float(),
                labels,
                images[0],
                1,
                images[1],
                self.box_coder,
                known_image_sizes=sizes,
                references=references[rows],
                unknown=unknown,
            )
            return criterion.losses_of_anchors(samples)

        image = AssignInput(
            anchors,
            target["boxes"],
            labels,
            logits,
            deltas,
            self.box_coder,
            criterion.loss.score_logits,
            self._geometry,
            losses,
            criterion.step,
            references,
        )
        with torch.no_grad():
            matched: Tensor | Assignment = assigner(image)
        return matched

    def samples(
        self,
        targets: Sequence[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: Sequence[Tensor],
        matched_idxs: Sequence[Tensor],
    ) -> DenseSamples:
        """Build the samples of a batch."""
        logits, deltas = self.loss_logits(head_outputs), head_outputs["bbox_regression"]
        columns, extra = self.columns(""), self.criteria[""].loss.extra_logits
        first = columns.first_label
        if not self.batch_is_checked:
            reserved = extra if columns.background is None else 0
            check_labels(all_labels(targets) - first, logits.shape[-1] - extra, first, reserved)
        return collect_samples(
            targets,
            logits.flatten(0, 1),
            deltas.flatten(0, 1),
            anchors,
            without_ignored_anchors(matched_idxs, anchors, targets),
            first_label=first,
            box_coder=self.box_coder,
            geometry=self._geometry,
            references=None if self.box_loss_coder is None else torch.cat([self.references(a) for a in anchors]),
        )

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """Set the classifier's bias; its channels are the columns of each anchor of a cell."""
        tower = self.detector.head.classification_head
        if tower.cls_logits.bias is None:
            super().set_class_bias(bias, stage)
        with torch.no_grad():
            tower.cls_logits.bias.copy_(bias.repeat(tower.num_anchors))

    def class_bias(self, stage: str) -> Tensor:
        """Return the classifier's bias, one row per anchor of a cell [N, C + extra_logits]."""
        tower = self.detector.head.classification_head
        bias: Tensor = tower.cls_logits.bias.detach().view(tower.num_anchors, -1)
        return bias

    def limit_outputs(
        self, score_thresh: float, nms_thresh: float, topk_candidates: int, detections_per_img: int
    ) -> None:
        """Set the detector's attributes of these names."""
        detector = self.detector
        detector.score_thresh, detector.nms_thresh = score_thresh, nms_thresh
        detector.topk_candidates, detector.detections_per_img = topk_candidates, detections_per_img

    def with_scores(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert the class logits to one logit per class; its sigmoid is the score."""
        return {**outputs, "cls_logits": self.criteria[""].score_logits(outputs["cls_logits"])}

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the backbone's features of each level [B, channels, H, W].

        Args:
            images: Normalised, padded images [B, 3, H, W].
        """
        outputs = self.detector.backbone(images)
        return [outputs] if isinstance(outputs, Tensor) else list(outputs.values())

    def outputs_of(self, features: list[Tensor]) -> dict[str, Tensor]:
        """Return the outputs of the head with all columns of the loss, which the hook would convert to scores.

        Args:
            features: Features of each level [B, channels, H, W].
        """
        head = self.detector.head
        outputs: dict[str, Tensor] = type(head).forward(head, features)
        return self._per_anchor(outputs)

    candidates_per_class = False
    """Whether post-processing keeps the best candidates of each class, or of each pyramid level."""

    def class_scores(self, outputs: dict[str, Tensor]) -> Tensor:
        """Return the scores of all anchors before non-maximum suppression [B, K, C].

        Args:
            outputs: Outputs of the head, with all columns of the loss.
        """
        return self.with_scores(outputs)["cls_logits"].float().sigmoid()

    def losses_and_detections(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> tuple[Terms, Detections]:
        """Return loss terms and detections of one forward pass; torchvision's own forward gives only one of them.

        Args:
            images: Images in [0, 1], each [3, H, W].
            targets: For each image ``boxes`` [G, 4] in pixels and ``labels`` [G].
        """
        model = self.detector
        original_sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batch, resized = model.transform(images, targets)
        features = self.features(batch.tensors)
        outputs = self.outputs_of(features)
        anchors: list[Tensor] = model.anchor_generator(batch, features)
        per_level = self._geometry_of(features, batch).anchors_of_levels(len(anchors[0]))
        terms = self.detector_loss(resized, outputs, anchors, per_level)
        detections = self.detections(outputs, anchors, per_level, batch.image_sizes)
        return terms, model.transform.postprocess(detections, batch.image_sizes, original_sizes)

    @abstractmethod
    def detector_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        per_level: list[int],
    ) -> Terms:
        """Match anchors and compute the loss terms, as the detector's forward does.

        Args:
            targets: Targets of the resized images.
            head_outputs: Outputs of the head.
            anchors: Anchors of each image [K, 4].
            per_level: Number of anchors of each level of an image.
        """

    def detections(
        self,
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        per_level: list[int],
        image_sizes: list[tuple[int, int]],
    ) -> Detections:
        """Compute the detections as the detector's forward does, in pixels of the resized images.

        Args:
            head_outputs: Outputs of the head, with all columns of the loss.
            anchors: Anchors of each image [K, 4].
            per_level: Number of anchors of each level of an image.
            image_sizes: Height and width of each resized image in pixels.
        """
        outputs = {name: list(o.split(per_level, dim=1)) for name, o in self.with_scores(head_outputs).items()}
        level_anchors = [list(a.split(per_level)) for a in anchors]
        detections: Detections = self.detector.postprocess_detections(outputs, level_anchors, image_sizes)
        return detections

    def postprocess_outputs(
        self, head_outputs: dict[str, list[Tensor]], anchors: list[list[Tensor]], image_shapes: list[tuple[int, int]]
    ) -> Detections:
        """Replace ``postprocess_detections``: convert the outputs of a box loss to deltas of the detector.

        Args:
            head_outputs: Outputs of each level, [B, K, L] and [B, K, n].
            anchors: Anchors of each image and level [K, 4].
            image_shapes: Height and width of each resized image in pixels.
        """
        detector, levels = self.detector, head_outputs["bbox_regression"]
        if self.box_loss_coder is not None:
            own = torch.cat(anchors[0])
            references = self.references(own)
            boxes = [self.box_coder.decode_single(image, references) for image in torch.cat(levels, 1)]
            deltas = torch.stack([self.own_box_coder.encode_single(image, own) for image in boxes])
            levels = list(deltas.split([level.shape[1] for level in levels], 1))
        outputs = {**head_outputs, "bbox_regression": levels}
        detections: Detections = type(detector).postprocess_detections(detector, outputs, anchors, image_shapes)
        return detections

    def _convert_outputs(self, head: nn.Module, args: Any, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = self._per_anchor(outputs)
        return outputs if self.detector.training else self.with_scores(outputs)  # the head may be frozen, in eval mode

    def _per_anchor(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Join the box outputs of each anchor [B, K, n]: torchvision's heads give rows of 4 of them."""
        if self.box_loss_coder is None:
            return outputs
        number, anchors = outputs["cls_logits"].shape[:2]
        return {**outputs, "bbox_regression": outputs["bbox_regression"].reshape(number, anchors, -1)}

    def _note_geometry(self, generator: nn.Module, inputs: tuple[ImageList, Sequence[Tensor]]) -> None:
        images, features = inputs
        self._geometry = self._geometry_of(features, images)

    def _geometry_of(self, features: Sequence[Tensor], images: ImageList) -> Geometry:
        levels = [(f.shape[-2], f.shape[-1]) for f in features]
        return Geometry(levels, list(images.image_sizes), self.anchors_per_cell)

    @property
    def anchors_per_cell(self) -> Sequence[int] | None:
        """Number of anchors of a cell, for each level; None if all levels have the same number."""
        return None
