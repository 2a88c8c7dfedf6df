"""Random batches for checks, made without a detector."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import cached_property

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder

from ..box_losses import BoxLoss
from ..core.class_counts import ClassCounts
from ..core.geometry import Geometry
from ..core.samples import IGNORED, NEGATIVE, DenseSamples
from ..core.step_context import StepContext

LEVELS = ((5, 6), (2, 5))
SIZE = 128
EXTREMES = (50.0, 1e4, float("inf"))
DERIVED = tuple(name for name, value in vars(DenseSamples).items() if isinstance(value, cached_property))

INVENTED_COUNTS = ClassCounts(
    instances=torch.tensor([900, 90, 9, 1, 0]), images=torch.tensor([400, 80, 5, 1, 0]), num_images=1000
)


def make_batch(
    num_classes: int,
    extra_logits: int = 0,
    objects: Sequence[int] = (3, 0, 5, 0),
    seed: int = 0,
    levels: Sequence[tuple[int, int]] = LEVELS,
    per_object: int = 3,
    class_counts: ClassCounts | None = None,
    box_loss: BoxLoss | None = None,
) -> DenseSamples:
    """Make a random batch; an eighth of the anchors is ignored, and the targets have a field ``weight``.

    Args:
        num_classes: Number of classes C.
        extra_logits: Columns of the logits beyond one per class.
        objects: Number of objects of each image.
        seed: Seed of all random numbers.
        levels: Height and width of each pyramid level in cells, with one anchor per cell.
        per_object: Positive anchors of each object.
        class_counts: Class counts in the samples' context.
        box_loss: Box loss whose outputs the samples have in place of deltas; by default they have 4 deltas.
    """
    generator = torch.Generator().manual_seed(seed)
    per_image = sum(h * w for h, w in levels)
    anchors = _boxes(len(objects) * per_image, generator)
    gt_boxes = _boxes(sum(objects), generator)
    matched = torch.full((len(anchors),), NEGATIVE)
    first = 0
    for image, count in enumerate(objects):
        order = torch.randperm(per_image, generator=generator) + image * per_image
        taken = order[: count * per_object]
        matched[taken] = torch.arange(first, first + count).repeat_interleave(per_object)
        matched[order[len(taken) : len(taken) + per_image // 8]] = IGNORED
        noise = 3 * torch.randn(len(taken), 4, generator=generator).clamp(-2, 2)
        anchors[taken] = gt_boxes[matched[taken]] + noise
        first += count
    coder = None if box_loss is None else box_loss.box_coder
    outputs = 4 if box_loss is None else box_loss.box_outputs
    return with_derived(
        DenseSamples(
            logits=2 * torch.randn(len(anchors), num_classes + extra_logits, generator=generator),
            deltas=0.3 * torch.randn(len(anchors), outputs, generator=generator),
            anchors=anchors,
            matched_idxs=matched,
            gt_boxes=gt_boxes,
            gt_labels=torch.randint(num_classes, (sum(objects),), generator=generator),
            gt_image_idxs=torch.arange(len(objects)).repeat_interleave(torch.tensor(objects)),
            num_images=len(objects),
            image_idxs=torch.arange(len(objects)).repeat_interleave(per_image),
            box_coder=coder or BoxCoder(weights=(1.0, 1.0, 1.0, 1.0)),
            references=None if coder is None else _cells(anchors),
            geometry=Geometry(levels, [(SIZE, SIZE)] * len(objects)),
            context=StepContext(class_counts=class_counts),
            extra_logits=extra_logits,
            target_fields={"weight": torch.rand(sum(objects), generator=generator) + 0.5},
        )
    )


def _boxes(number: int, generator: torch.Generator) -> Tensor:
    low = torch.rand(number, 2, generator=generator) * SIZE * 0.6
    return torch.cat([low, low + 16 + torch.rand(number, 2, generator=generator) * SIZE * 0.25], 1)


def _cells(anchors: Tensor) -> Tensor:
    """Return squares of 8 pixels around the centres of anchors [A, 4]."""
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    return torch.cat([centres - 4, centres + 4], 1)


def with_derived(samples: DenseSamples) -> DenseSamples:
    """Compute all derived (cached) properties of samples."""
    for name in DERIVED:
        getattr(samples, name)
    return samples


def with_logits(samples: DenseSamples, logits: Tensor) -> DenseSamples:
    """Replace the logits [A, L] of samples; the cached properties of the original are kept."""
    other = replace(samples, logits=logits)
    other.__dict__.update({name: getattr(samples, name) for name in DERIVED})
    return other


def with_leaves(samples: DenseSamples) -> tuple[DenseSamples, tuple[Tensor, Tensor]]:
    """Return samples with logits and deltas computed from leaves of the graph, as by a network, and the leaves."""
    logits, deltas = (t.detach().clone().requires_grad_() for t in (samples.logits, samples.deltas))
    return with_derived(replace(samples, logits=logits.clone(), deltas=deltas.clone())), (logits, deltas)


def all_ignored(samples: DenseSamples) -> DenseSamples:
    """Return samples with all anchors ignored."""
    return with_derived(replace(samples, matched_idxs=torch.full_like(samples.matched_idxs, IGNORED)))


def images_of(samples: DenseSamples, first: int, last: int) -> DenseSamples:
    """Select the samples of the images ``first`` to ``last - 1``, as on a process with these images."""
    rows = ((samples.image_idxs >= first) & (samples.image_idxs < last)).nonzero().squeeze(1)
    here = (samples.gt_image_idxs >= first) & (samples.gt_image_idxs < last)
    offset = int((samples.gt_image_idxs < first).sum())
    matched = samples.matched_idxs[rows]
    return with_derived(
        replace(
            samples,
            logits=samples.logits[rows],
            deltas=samples.deltas[rows],
            anchors=samples.anchors[rows],
            matched_idxs=torch.where(matched >= 0, matched - offset, matched),
            gt_boxes=samples.gt_boxes[here],
            gt_labels=samples.gt_labels[here],
            gt_image_idxs=samples.gt_image_idxs[here] - first,
            num_images=last - first,
            image_idxs=samples.image_idxs[rows] - first,
            geometry=Geometry(LEVELS, [(SIZE, SIZE)] * (last - first)),
            target_fields={name: value[here] for name, value in samples.target_fields.items()},
            **{name: getattr(samples, name)[rows] for name in _optional(samples)},
            unknown=None if samples.unknown is None else samples.unknown[first:last],
        )
    )


def _optional(samples: DenseSamples) -> tuple[str, ...]:
    """Return the names of the optional fields with a row for each anchor that the samples have."""
    return () if samples.references is None else ("references",)


def shuffled(samples: DenseSamples, seed: int = 0) -> tuple[DenseSamples, Tensor]:
    """Shuffle the anchors within each level of each image; also returns the order [A]."""
    generator = torch.Generator().manual_seed(seed)
    block = samples.image_idxs * len(LEVELS) + samples.level_idxs
    order = torch.randperm(len(block), generator=generator)
    order = order[block[order].argsort(stable=True)]
    names = ("logits", "deltas", "anchors", "matched_idxs", "image_idxs", *_optional(samples))
    rows = {name: getattr(samples, name)[order] for name in names}
    return with_derived(replace(samples, **rows)), order


def in_order(samples: DenseSamples, images: Sequence[int]) -> tuple[DenseSamples, Tensor]:
    """Reorder the images of samples; also returns the order of the anchors [A]."""
    rows = torch.cat([samples.rows_of(image) for image in images])
    place = torch.tensor(images).argsort()
    objects = place[samples.gt_image_idxs].argsort(stable=True)
    matched = samples.matched_idxs[rows]
    changes = {name: getattr(samples, name)[rows] for name in ("logits", "deltas", "anchors", *_optional(samples))}
    changes["matched_idxs"] = torch.where(matched >= 0, objects.argsort()[matched.clamp(min=0)], matched)
    changes |= {name: getattr(samples, name)[objects] for name in ("gt_boxes", "gt_labels")}
    changes["gt_image_idxs"] = place[samples.gt_image_idxs][objects]
    fields = {name: value[objects] for name, value in samples.target_fields.items()}
    return with_derived(replace(samples, **changes, target_fields=fields)), rows


def extreme_logits(samples: DenseSamples) -> Iterator[tuple[str, Tensor]]:
    """Yield named logits of 0, 50, 1e4 and infinity with both signs, for correct and wrong predictions."""
    signs = {"all": torch.ones_like(samples.logits), "right": torch.full_like(samples.logits, -1.0)}
    signs["right"][samples.positives, samples.pos_labels] = 1.0
    signs["mixed"] = torch.where(samples.logits > 0, 1.0, -1.0)
    yield "0", torch.zeros_like(samples.logits)
    for size in EXTREMES:
        for name, sign in signs.items():
            yield f"+{size:g} ({name})", torch.where(sign > 0, size, -size)
            yield f"-{size:g} ({name})", torch.where(sign > 0, -size, size)


def tensors_of(samples: DenseSamples) -> dict[str, Tensor]:
    """Return every tensor of samples, given or derived, by name."""
    names = [*(f.name for f in fields(samples)), *DERIVED]
    tensors = {name: value for name in names if isinstance(value := getattr(samples, name), Tensor)}
    return tensors | {f"target_fields[{name!r}]": value for name, value in samples.target_fields.items()}
