"""The base class of adapters of set predictors: DETR and its variants, which match queries and objects one to one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.batch_format import IGNORE_BOXES
from ..core.errors import UsageError
from ..core.missing_field import MissingField
from ..core.native_divisor import NativeDivisor
from ..core.sample_fields import image_of_rows
from ..core.samples import NEGATIVE, DenseSamples
from ..criterion import Criterion
from ..functional.ignore_regions import without_ignored
from .base import DetectorAdapter
from .columns import own_scores
from .torchvision_batch import all_labels, check_labels, fields_of_targets, unknown_columns

NOMINAL_SIZE = 1024.0
"""Nominal width and height of images in pixels: these detectors give boxes as fractions of the image."""

Matches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Output:
    """Predictions of one layer for a batch, and their matches.

    Args:
        logits: Class logits of the queries [B, Q, L].
        boxes: Boxes of the queries: centre x, centre y, width and height as fractions of the image [B, Q, 4].
        matches: For each image the indices of queries and of the objects that they are matched with.
        factor: Divisor of this layer's loss over that of the last layer.
    """

    logits: Tensor
    boxes: Tensor
    matches: Matches
    factor: float = 1.0


class SetPredictionAdapter(DetectorAdapter):
    """Base class of adapters of a detector that computes its class loss from matched queries, layer by layer.

    The samples contain the outputs of all layers, including auxiliary, encoder and denoising outputs, so the criterion
    is called once per step. A row of the samples is a query of one layer. An image of the samples is an image in one
    layer, with the objects of the image. The detector keeps its matcher and its box loss.
    """

    offers = frozenset({"boxes"})

    def check(self, stage: str, criterion: Criterion) -> None:
        """Reject a criterion that does not fit the detector.

        Raises:
            UsageError: If the criterion does not fit.
        """
        name, columns, loss = type(self.detector).__name__, self.columns(stage), criterion.loss
        if criterion.box_loss_weight != 1:
            raise UsageError(
                f"box_loss_weight={criterion.box_loss_weight} has no effect: {name} keeps its own box loss, and its "
                "configuration has the weights."
            )
        if not own_scores(columns, loss):
            own = "a softmax over classes and 'no object'" if columns.scores == "softmax" else "a sigmoid of each class"
            cure = "name softmax" if columns.scores == "softmax" else "name a loss of single logits, such as focal"
            raise UsageError(
                f"{name} matches and detects by {own}, which is not what {type(loss).__name__} trains: {cure}."
            )
        super().check(stage, criterion)

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """Reject a prior, unless a subclass can set the bias of its classifiers.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"{type(self.detector).__name__}: the bias of its classifiers cannot be set. Leave prior out: the model "
            "starts from a prior of its own."
        )

    def samples(
        self,
        outputs: Sequence[Output],
        targets: Sequence[Mapping[str, Tensor]],
        native: tuple[Tensor, float],
        labels: str = "labels",
    ) -> DenseSamples:
        """Build the samples of a batch.

        Args:
            outputs: Outputs of all layers.
            targets: For each image ``boxes`` [G, 4] as fractions of the image, the classes [G], from 0, and optionally
                ``unknown_labels`` [any], the classes that the image is not annotated for.
            native: Divisor of the last layer's loss, counted on this process, and the smallest divisor.
            labels: Key of the classes in the targets.

        Raises:
            UsageError: If a label has no column.
        """
        device, images, layers = outputs[0].logits.device, len(targets), len(outputs)
        counts = [len(target[labels]) for target in targets]
        gt_labels = torch.cat([target[labels].reshape(-1) for target in targets]).long().to(device)
        columns = outputs[0].logits.shape[-1]
        check_labels(all_labels(targets, labels), columns - self.criteria[""].loss.extra_logits, 0)
        unknown = unknown_columns(targets, columns, device)
        gt_boxes = torch.cat([target["boxes"].reshape(-1, 4) for target in targets]).to(device)
        fields = fields_of_targets(targets, counts, ("boxes", labels, "masks"))
        count, least = native
        reason = f"{type(self.detector).__name__} predicts boxes of queries, not deltas of anchors"
        names = ("deltas", "anchors", "box_coder")
        missing: Any = {name: MissingField(name.replace("_", " "), reason) for name in names}
        image_of_object = image_of_rows(counts, device)
        samples = DenseSamples(
            logits=torch.cat([output.logits.flatten(0, 1) for output in outputs]),
            boxes=torch.cat([corners(output.boxes) for output in outputs]),
            matched_idxs=torch.cat(
                [
                    without_regions(matched(o, counts, layer * sum(counts)), o, targets)
                    for layer, o in enumerate(outputs)
                ]
            ),
            gt_boxes=corners(gt_boxes).repeat(layers, 1),
            gt_labels=gt_labels.repeat(layers),
            gt_image_idxs=torch.cat([image_of_object + layer * images for layer in range(layers)]),
            num_images=images * layers,
            image_idxs=torch.cat([_images(output, layer) for layer, output in enumerate(outputs)]),
            target_fields={
                name: value.to(device).repeat(layers, *[1] * (value.dim() - 1)) for name, value in fields.items()
            },
            native=NativeDivisor(
                count,
                torch.cat([torch.full((images,), output.factor, device=device) for output in outputs]),
                least,
            ),
            unknown=None if unknown is None else unknown.repeat(layers, 1),
            **missing,
        )
        vars(samples)["counts_of_images"] = [output.logits.shape[1] for output in outputs for _ in range(images)]
        return samples


def corners(boxes: Tensor) -> Tensor:
    """Convert boxes from centre and size in fractions to x1 y1 x2 y2 in nominal pixels [..., 4] -> [N, 4]."""
    centre, size = boxes.reshape(-1, 4).float().mul(NOMINAL_SIZE).split(2, 1)
    half = size / 2
    return torch.cat([centre - half, centre + half], 1)


def matched(output: Output, counts: Sequence[int], first: int) -> Tensor:
    """Return the index of the object of each query over all images and layers; -1 for unmatched queries [B * Q].

    Args:
        output: Output of a layer.
        counts: Number of objects of each image.
        first: Index of the layer's first object.
    """
    images, queries = output.logits.shape[:2]
    device = output.logits.device
    offsets = [first + sum(counts[:image]) for image in range(images)]
    rows = [source + image * queries for image, (source, _) in enumerate(output.matches)]
    objects = [target + offset for offset, (_, target) in zip(offsets, output.matches, strict=True)]
    idxs = torch.full((images * queries,), NEGATIVE, device=device)
    return idxs.index_put((torch.cat(rows).to(device),), torch.cat(objects).to(device))


def without_regions(matched_idxs: Tensor, output: Output, targets: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Replace background by ignored for queries whose predicted box lies in an ignore region [B * Q].

    Args:
        matched_idxs: Index of the object of each query; -1 for unmatched queries [B * Q].
        output: Output of a layer.
        targets: For each image, optionally ``ignore_boxes`` in the format of ``boxes`` [M, 4].
    """
    if not any(IGNORE_BOXES in target for target in targets):
        return matched_idxs
    images = zip(matched_idxs.view(len(targets), -1), output.boxes.detach(), targets, strict=True)
    regions = ((idxs, boxes, target.get(IGNORE_BOXES)) for idxs, boxes, target in images)
    return torch.cat(
        [
            idxs if own is None else without_ignored(idxs, corners(boxes), corners(own.to(idxs.device)))
            for idxs, boxes, own in regions
        ]
    )


def _images(output: Output, layer: int) -> Tensor:
    """Return the image of each query, numbered consecutively over layers [B * Q]."""
    images, queries = output.logits.shape[:2]
    device = output.logits.device
    return torch.arange(layer * images, (layer + 1) * images, device=device).repeat_interleave(queries)
