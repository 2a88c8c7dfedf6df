"""The one place where samples, losses, weights and normalizer meet."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from .assigners import ASSIGNERS, Assigner, AssignerLike
from .box_losses import BOX_LOSSES, BoxLossLike
from .core.class_counts import ClassCounts, as_class_counts
from .core.component import Component
from .core.distributed import Reduce
from .core.errors import UsageError, check_range
from .core.registry import Registry
from .core.samples import DenseSamples
from .core.step_context import StepContext
from .losses import LOSSES, LossLike
from .normalizers import NORMALIZERS, NormalizerLike
from .weighters import WEIGHTERS, LossValues, Weighter, WeightersLike, Weights

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_never_compiled: Callable[[FunctionT], FunctionT] = torch.compiler.disable
"""For what reads a step counter: a compiler would start anew in every step. Losses are compiled by themselves."""
Observer = Callable[[DenseSamples, LossValues, Sequence[Weights]], None]


class CriterionArgs(TypedDict, total=False):
    """Arguments of a :class:`Criterion` that are chosen; what is left out or None is the detector's own."""

    loss: LossLike | None
    box_loss: BoxLossLike | None
    weighters: WeightersLike | None
    normalizer: NormalizerLike | None
    assigner: AssignerLike | None
    loss_weight: float | None
    box_loss_weight: float | None


BRINGS_OWN_NORMALIZER = {"normalizer": "the classification loss", "box_normalizer": "the box loss"}


class Criterion(nn.Module):
    """Turns samples into the loss terms of a batch: ``sum(weight * value) / normalizer``.

    The terms are one process's share: their mean over processes is the loss of one process that holds the whole
    batch, and so is the mean of their gradients. A batch without objects, or with every anchor ignored, gives finite
    terms that are connected to the predictions.

    Args:
        loss: The classification loss: a name, an object, or a dict with class_path and init_args.
        box_loss: The box loss, given the same way; None for a detector whose boxes have a loss of their own.
        weighters: One weighter or a list of them, whose weights multiply.
        normalizer: What the sums are divided by; by default ``image``, unless a loss brings its own.
        assigner: Matches anchors and ground truths; by default the detector's own matcher does.
        loss_weight: What the classification term is multiplied by.
        box_loss_weight: What the box term is multiplied by.
        class_counts: Class frequencies of the training set, or the number of boxes of each class, for parts that need
            them.

    Attributes:
        observers: Functions called in every training step, without gradients, with samples, values of the losses and
            each weighter's answer. They are no part of spec, state, copies or pickles.

    Raises:
        UsageError: If a name is unknown, or two parts decide the same thing.
    """

    def __init__(
        self,
        loss: LossLike = "focal",
        box_loss: BoxLossLike | None = "l1",
        weighters: WeightersLike = (),
        normalizer: NormalizerLike | None = None,
        assigner: AssignerLike | None = None,
        loss_weight: float = 1.0,
        box_loss_weight: float = 1.0,
        class_counts: ClassCounts | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.loss = LOSSES.build(loss)
        self.box_loss = None if box_loss is None else BOX_LOSSES.build(box_loss)
        self.weighters = nn.ModuleList(WEIGHTERS.build_list(weighters))
        self.assigner = None if assigner is None else ASSIGNERS.build(assigner)
        chosen = None if normalizer is None else NORMALIZERS.build(normalizer)
        self._check_owners(chosen)
        self.normalizer = chosen or NORMALIZERS.build("image")
        self._normalizer_chosen = chosen is not None
        self.loss_weight = check_range("criterion", "loss_weight", loss_weight, 0)
        self.box_loss_weight = check_range("criterion", "box_loss_weight", box_loss_weight, 0)
        self.class_counts = as_class_counts(class_counts)
        self.num_classes: int | None = None
        self._checked = False
        self.step = 0
        self.epoch = 0
        self.observers: list[Observer] = []

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied."""
        return {**self.__dict__, "observers": []}

    def set_default_normalizer(self, normalizer: NormalizerLike) -> None:
        """Take a detector's own normalizer where none was chosen; a loss that brings its own keeps that.

        Args:
            normalizer: The normalizer.
        """
        if not self._normalizer_chosen:
            self.normalizer = NORMALIZERS.build(normalizer)

    @property
    def parts(self) -> Iterable[Component]:
        """Every part, nested ones included."""
        return (m for m in self.modules() if isinstance(m, Component))

    @property
    def spec(self) -> dict[str, Any]:
        """The constructor's arguments as plain data."""
        return {
            "loss": self.loss.spec,
            "box_loss": self.box_loss and self.box_loss.spec,
            "weighters": [w.spec for w in self._weighters],
            "normalizer": self.normalizer.spec if self._normalizer_chosen else None,
            "assigner": self.assigner and self.assigner.spec,
            "loss_weight": self.loss_weight,
            "box_loss_weight": self.box_loss_weight,
        }

    def follow_spec(self, saved: Mapping[str, Any] | None) -> None:
        """Take arguments that a checkpoint's spec lacks as they were when it was written.

        Args:
            saved: What :attr:`spec` was then, None where the file holds none. Parts of another class are left alone.
        """
        if saved is None:
            for any_part in self.parts:
                any_part.follow_spec({})
            return
        saved, own = named_spec(saved), self.spec
        weighters = zip(self._weighters, saved.get("weighters") or [], own["weighters"], strict=False)
        single = ("loss", "box_loss", "normalizer", "assigner")
        parts = [(getattr(self, name), saved.get(name), own[name]) for name in single]
        for part, before, now in [*parts, *weighters]:
            if before and now and before["class_path"] == now["class_path"]:
                part.follow_spec(before)

    @property
    def matcher(self) -> Assigner | None:
        """What matches anchors and ground truths in place of the detector's own: the assigner, or a weighter's."""
        return self.assigner or next((w.assigner for w in self._weighters if w.assigner is not None), None)

    def prepare(self, num_classes: int) -> None:
        """Let the parts make what depends on the number of classes; before their state is loaded.

        Args:
            num_classes: The head's classes; columns that the loss has besides are not counted.

        Raises:
            UsageError: If the criterion was trained with another number.
        """
        if self.num_classes == num_classes:
            return
        if self.num_classes is not None and self.step:
            raise UsageError(
                f"This criterion has the state of {self.num_classes} classes, and the head has {num_classes}: "
                "make another."
            )
        self.num_classes = num_classes
        for part in self.parts:
            part.prepare(num_classes)
        if self.class_counts is not None:
            self.receive_class_counts(self.class_counts)

    def receive_class_counts(self, counts: ClassCounts) -> None:
        """Tell the parts how often each class occurs.

        Args:
            counts: Class frequencies of the training set.

        Raises:
            UsageError: If there are more classes than the head has.
        """
        self.class_counts = counts
        if self.num_classes is None:
            return
        if len(counts.images) > self.num_classes:
            number, extra = len(counts.images), self.loss.extra_logits
            hint = (
                f" {type(self.loss).__name__} takes {extra} of its {self.num_classes + extra} columns: build the model "
                f"with num_classes={number + extra}."
            )
            raise UsageError(
                f"class_counts has {number} classes, but the head has {self.num_classes}.{hint if extra else ''}"
            )
        for part in self.parts:
            part.receive_class_counts(counts)

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the parts that are trained with settings of their own."""
        return [group for part in self.parts for group in part.param_groups()]

    def check_ready(self) -> None:
        """Raise an error if a part misses something without which it cannot be trained.

        Raises:
            UsageError: If one does; the message says how to give it.
        """
        for part in self.parts:
            part.check_ready()

    @property
    def _weighters(self) -> list[Weighter]:
        return [w for w in self.weighters if isinstance(w, Weighter)]

    def get_extra_state(self) -> dict[str, int]:
        """The step counter, for checkpoints."""
        return {"step": self.step, "epoch": self.epoch}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore the step counter."""
        self.step, self.epoch = state["step"], state["epoch"]

    @_never_compiled
    def forward(self, samples: DenseSamples) -> dict[str, Tensor]:
        """The loss terms of a batch: ``classification``, ``bbox_regression``, auxiliary ones and what weighters add.

        Args:
            samples: The batch. Without a context it gets that of this step, which sums over processes in training and
                in evaluation over none, for there they may hold different numbers of batches.
        """
        samples = self.in_this_step(samples)
        self.prepare(samples.num_classes)
        if not self._checked:
            self.check_ready()
            self._checked = True
        with torch.autocast(samples.device.type, enabled=False):
            samples = self._with_class_weights(self._with_soft_targets(samples))
            divisor = self.normalizer(samples)
            values = self._values(samples, divisor)
            weights = [weighter.scheduled(samples, values) for weighter in self._weighters]
            scatter_to_anchors, of_boxes = [w.classification for w in weights], [w.box for w in weights]
            terms = {
                "classification": _total(
                    values.classification, scatter_to_anchors, values.image_scales, samples.image_idxs
                )
            }
            if self.box_loss is not None:
                terms["bbox_regression"] = _total(values.box, of_boxes, values.box_scales, samples.pos_image_idxs)
            own = self.box_loss_weight / divisor  # even where the box loss brings its own normalizer
            for name, value in samples.auxiliary.items():
                terms[name] = _total(value, of_boxes, own, samples.pos_image_idxs)
            for weighter, answer in zip(self._weighters, weights, strict=True):
                self._add_extra(terms, weighter, answer.extra)
        if torch.is_grad_enabled():
            self._tell_observers(samples, values, weights)
        self._end_step()
        return terms

    def in_this_step(self, samples: DenseSamples) -> DenseSamples:
        """Samples with the context of this step and what the loss says of its columns; as they are where they have one.

        Args:
            samples: The batch.
        """
        if samples.context is not None:
            return samples
        reduce = Reduce(enabled=torch.is_grad_enabled())
        context = StepContext(reduce, self.step, self.epoch, self.class_counts)
        return samples.of_step(context, self.loss.extra_logits, self.loss.score_logits)

    def _with_class_weights(self, samples: DenseSamples) -> DenseSamples:
        if torch.is_grad_enabled():
            for weighter in self._weighters:
                if weighter.weighs_classes:
                    given = weighter.scheduled_class_weights(samples)
                    before = samples.class_weights
                    samples = samples.with_class_weights(given if before is None else before * given)
        return samples

    def _with_soft_targets(self, samples: DenseSamples) -> DenseSamples:
        for weighter in self._weighters:
            if (
                "soft_targets" in weighter.exclusive
                and (targets := weighter.scheduled_soft_targets(samples)) is not None
            ):
                return samples.with_soft_targets(targets)
        return samples

    def _values(self, samples: DenseSamples, divisor: Tensor) -> LossValues:
        classification = self.loss(samples.logits, samples.labels, samples)
        if self.box_loss is None:
            box = classification.new_zeros(len(samples.positives))
        elif self.box_loss.space == "deltas":
            box = self.box_loss(samples.pos_deltas, samples.pos_target_deltas, samples)
        else:
            box = self.box_loss(samples.pos_boxes, samples.pos_gt_boxes, samples)
        whole = torch.full_like(divisor, float(samples.reduce.world_size))
        owns_box = self.box_loss is not None and "box_normalizer" in self.box_loss.exclusive
        return LossValues(
            classification=classification.masked_fill(~samples.valid, 0.0),
            box=box.sum(1) if box.dim() == 2 else box,
            box_coordinates=box,
            image_scales=self.loss_weight * (whole if "normalizer" in self.loss.exclusive else 1 / divisor),
            box_scales=self.box_loss_weight * (whole if owns_box else 1 / divisor),
            has_box=self.box_loss is not None,
        )

    @torch.no_grad()
    def _tell_observers(self, samples: DenseSamples, values: LossValues, weights: Sequence[Weights]) -> None:
        for observer in tuple(self.observers):  # one may take itself off the list
            observer(samples, values, weights)

    def _add_extra(self, terms: dict[str, Tensor], weighter: Weighter, extra: Any) -> None:
        for name, value in extra.items():
            if name in terms:
                raise UsageError(
                    f"The weighter {type(weighter).__name__} adds a loss term {name!r} that exists already."
                )
            terms[name] = value

    def _end_step(self) -> None:
        """Commit staged state once per training step; an evaluation leaves no trace."""
        training = torch.is_grad_enabled()
        for part in self.parts:
            part.commit() if training else part.discard()
        self.step += training

    def _check_owners(self, normalizer: Component | None) -> None:
        """Two parts may not decide the same thing."""
        owners: dict[str, str] = {}
        parts: list[Component | None] = [self.loss, self.box_loss, *self._weighters, self.assigner]
        for part in filter(None, parts):
            for thing in sorted(part.exclusive):
                if thing in owners:
                    both = f"{owners[thing]} and {type(part).__name__}"
                    raise UsageError(f"{both} both decide the {thing.replace('_', ' ')}: take one of them.")
                owners[thing] = type(part).__name__
        if normalizer is not None:
            for thing in sorted(BRINGS_OWN_NORMALIZER.keys() & owners.keys()):
                raise UsageError(
                    f"{owners[thing]} brings its own normalizer for {BRINGS_OWN_NORMALIZER[thing]}, and "
                    f"{type(normalizer).__name__} was given too: leave one out."
                )
        classes = [w for w in self._weighters if w.weighs_classes]
        if classes and not self.loss.accepts_class_weights:
            raise UsageError(
                f"{type(classes[0]).__name__} weighs classes, which the loss {type(self.loss).__name__} does not heed."
            )
        soft = [w for w in self._weighters if "soft_targets" in w.exclusive]
        if soft and not self.loss.accepts_soft_targets:
            raise UsageError(
                f"{type(soft[0]).__name__} gives soft targets, which the loss {type(self.loss).__name__} does not heed."
            )


REGISTRIES: dict[str, Registry[Any]] = {
    "loss": LOSSES,
    "box_loss": BOX_LOSSES,
    "weighters": WEIGHTERS,
    "normalizer": NORMALIZERS,
    "assigner": ASSIGNERS,
}


def named_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A saved spec of a criterion with registered names in place of the import paths of version 0.1.0.

    Args:
        spec: What :attr:`Criterion.spec` gave.
    """
    return {name: REGISTRIES[name].named(value) if name in REGISTRIES else value for name, value in spec.items()}


def _total(values: Tensor, weights: Sequence[Tensor | None], scales: Tensor, image_idxs: Tensor) -> Tensor:
    """The weighted sum over anchors, each scaled as its image is."""
    for weight in weights:
        if weight is not None:
            values = values * weight
    return (values * scales.to(values.dtype)[image_idxs]).sum()
