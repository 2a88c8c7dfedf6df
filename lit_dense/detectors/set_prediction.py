"""What adapters of set predictors share: DETR and its kin, which match predicted boxes and objects one to one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UsageError
from ..core.missing_field import MissingField
from ..core.sample_fields import image_of_rows
from ..core.samples import NEGATIVE, DenseSamples, NativeDivisor
from ..criterion import Criterion
from .base import DetectorAdapter, own_scores
from .torchvision_batch import check_labels, fields_of_targets

NOMINAL_SIZE = 1024.0
"""Width and height that images are taken to have, in pixels: these detectors give boxes as fractions."""

Matches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Output:
    """What one layer predicts for a batch, and what the detector matched it with.

    Args:
        logits: Class logits of the queries [B, Q, L].
        boxes: Their boxes, centre x, centre y, width, height as fractions of the image [B, Q, 4].
        matches: Per image indices of queries and of the objects that they are matched with.
        factor: What the divisor of the last layer is multiplied by for this one.
    """

    logits: Tensor
    boxes: Tensor
    matches: Matches
    factor: float = 1.0


class SetPredictionAdapter(DetectorAdapter):
    """An adapter of a detector whose class loss is computed from matched queries, layer by layer.

    Samples hold the outputs of all layers, auxiliary ones, encoder and denoising included: the criterion is called once
    in a step. A row is a query of one layer, and what is an image elsewhere is an image in one layer, with the objects
    of the image. The matches are the detector's, and so is the loss of boxes.
    """

    offers = frozenset({"boxes"})

    def check(self, stage: str, criterion: Criterion) -> None:
        """Refuse a criterion that does not fit the detector.

        Raises:
            UsageError: If it does not fit.
        """
        super().check(stage, criterion)
        name, columns, loss = type(self.detector).__name__, self.columns(stage), criterion.loss
        if criterion.box_loss_weight != 1:
            raise UsageError(
                f"box_loss_weight={criterion.box_loss_weight} has no effect: {name} keeps its own loss of boxes, whose "
                "weights are in its own configuration."
            )
        if not own_scores(columns, loss):
            own = "a softmax over classes and 'no object'" if columns.scores == "softmax" else "a sigmoid of each class"
            cure = "name softmax" if columns.scores == "softmax" else "name a loss of single logits, such as focal"
            raise UsageError(
                f"{name} matches and detects by {own}, which is not what {type(loss).__name__} trains: {cure}."
            )

    def set_class_bias(self, bias: Tensor, stage: str) -> None:
        """Refuse a prior, where a subclass does not know the classifiers.

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
        """The batch.

        Args:
            outputs: Outputs of all layers.
            targets: Per image ``boxes`` [G, 4] as fractions, and the classes [G], 0 for the first.
            native: What the last layer's loss is divided by, counted on this process, and the least to divide by.
            labels: Name of the classes in the targets.

        Raises:
            UsageError: If a label has no column.
        """
        device, images, layers = outputs[0].logits.device, len(targets), len(outputs)
        counts = [len(target[labels]) for target in targets]
        gt_labels = torch.cat([target[labels].reshape(-1) for target in targets]).long().to(device)
        check_labels(gt_labels, outputs[0].logits.shape[-1] - self.criteria[""].loss.extra_logits, 0)
        gt_boxes = torch.cat([target["boxes"].reshape(-1, 4) for target in targets]).to(device)
        fields = fields_of_targets(targets, counts, ("boxes", labels, "masks"))
        count, least = native
        why = f"{type(self.detector).__name__} predicts boxes of queries, not deltas of anchors"
        missing: Any = {what: MissingField(what.replace("_", " "), why) for what in ("deltas", "anchors", "box_coder")}
        image_of_object = image_of_rows(counts, device)
        return DenseSamples(
            logits=torch.cat([output.logits.flatten(0, 1) for output in outputs]),
            boxes=torch.cat([corners(output.boxes) for output in outputs]),
            matched_idxs=torch.cat([matched(o, counts, layer * sum(counts)) for layer, o in enumerate(outputs)]),
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
            **missing,
        )


def corners(boxes: Tensor) -> Tensor:
    """Corners x1 y1 x2 y2 in nominal pixels of boxes given as centre and size in fractions [..., 4] -> [N, 4]."""
    centre, size = boxes.reshape(-1, 4).float().mul(NOMINAL_SIZE).split(2, 1)
    return torch.cat([centre - size / 2, centre + size / 2], 1)


def matched(output: Output, counts: Sequence[int], first: int) -> Tensor:
    """Object of each query, unique over images and layers, -1 where there is none [B * Q].

    Args:
        output: What a layer predicts.
        counts: Objects of each image.
        first: Number of the layer's first object.
    """
    images, queries = output.logits.shape[:2]
    device = output.logits.device
    offsets = [first + sum(counts[:image]) for image in range(images)]
    rows = [source + image * queries for image, (source, _) in enumerate(output.matches)]
    objects = [target + offset for offset, (_, target) in zip(offsets, output.matches, strict=True)]
    idxs = torch.full((images * queries,), NEGATIVE, device=device)
    return idxs.index_put((torch.cat(rows).to(device),), torch.cat(objects).to(device))


def _images(output: Output, layer: int) -> Tensor:
    """Image of each query, counted on over layers [B * Q]."""
    images, queries = output.logits.shape[:2]
    device = output.logits.device
    return torch.arange(layer * images, (layer + 1) * images, device=device).repeat_interleave(queries)
