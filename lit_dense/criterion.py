"""The criterion: combines a loss, a box loss, weighters, a normalizer and an assigner into the loss of a batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from .assigners import ASSIGNERS, Assigner, AssignerLike
from .box_losses import BOX_LOSSES, BoxLossLike
from .calibrators import CALIBRATORS, CalibratorLike
from .core.class_counts import ClassCounts, as_class_counts
from .core.class_weights import ClassWeightOn, ClassWeights, ClassWeightsLike
from .core.component import Component
from .core.distributed import Reduce
from .core.errors import UsageError, check_range
from .core.loss_sums import image_scales, slopes_in_backward, weighted_total
from .core.recomputation import Pass, check_not_repeated
from .core.registry import Registry
from .core.roles import check_roles
from .core.samples import DenseSamples
from .core.step_context import StepContext
from .losses import LOSSES, LossLike
from .normalizers import NORMALIZERS, NormalizerLike
from .weighters import WEIGHTERS, LossValues, Weighter, WeightersLike, Weights

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_never_compiled: Callable[[FunctionT], FunctionT] = torch.compiler.disable
"""Excludes functions that read the step counter from ``torch.compile``, which would recompile them in every step."""
Observer = Callable[[DenseSamples, LossValues, Sequence[Weights]], None]
"""Called with the batch, its unweighted losses, and the weights of each weighter."""


class CriterionArgs(TypedDict, total=False):
    """Arguments of a :class:`Criterion` that are chosen; what is left out or None is the detector's own."""

    loss: LossLike | None
    box_loss: BoxLossLike | None
    weighters: WeightersLike | None
    normalizer: NormalizerLike | None
    assigner: AssignerLike | None
    loss_weight: float | None
    box_loss_weight: float | None
    class_weights: ClassWeightsLike | None
    class_weight_power: float | None
    class_weight_on: ClassWeightOn | None
    calibrator: CalibratorLike | None


class Criterion(nn.Module):
    """Computes the loss terms of a batch: ``sum(weight * value) / normalizer``.

    On several processes, the mean of the terms and of their gradients equals those of a single process with the whole
    batch. For a batch without objects, or with only ignored anchors, the terms are finite and connected to the
    predictions.

    Args:
        loss: The classification loss: a name, an object, or a dict with class_path and init_args.
        box_loss: The box loss, given in the same way; None for a detector that has its own box loss.
        weighters: One weighter or a list of weighters, whose weights multiply.
        normalizer: What the sums are divided by; by default ``image``. A loss with its own normalizer is not divided.
        assigner: Matches anchors and ground-truth boxes; by default the matcher of the detector is used.
        loss_weight: Factor of the classification term; at least 0.
        box_loss_weight: Factor of the box term; at least 0.
        class_weights: Weights of the classes in the classification loss; ``balanced`` by the number of boxes, one
            number for each class, or numbers by class name. They are divided by their mean over the classes that occur.
        class_weight_power: Power of the inverse number of boxes for ``balanced``; 0.5 is the square root, 1 the
            inverse, 0 weights all classes equally.
        class_weight_on: What class weights multiply; ``positives``, or whole ``columns`` of the logits with their
            negatives.
        class_counts: Class frequencies of the training set, or the number of boxes of each class. Needed only by some
            losses and weighters.
        calibrator: Changes the scores in evaluation and prediction; by default none.

    Attributes:
        observers: Functions that are called in every training step, without gradients, with the batch, its unweighted
            losses and the weights of each weighter. They are not part of spec, state, copies or pickles.
        calibrates: Whether the calibrator is used; False to see the scores without it.

    Raises:
        UsageError: If a name is unknown, or if two components conflict.
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
        class_weights: ClassWeightsLike | None = None,
        class_weight_power: float = 0.5,
        class_weight_on: ClassWeightOn = "positives",
        class_counts: ClassCounts | Sequence[float] | None = None,
        calibrator: CalibratorLike | None = None,
    ) -> None:
        super().__init__()
        self.loss = LOSSES.build(loss)
        self.box_loss = None if box_loss is None else BOX_LOSSES.build(box_loss)
        self.weighters = nn.ModuleList(WEIGHTERS.build_list(weighters))
        self.assigner = None if assigner is None else ASSIGNERS.build(assigner)
        self.calibrator = None if calibrator is None else CALIBRATORS.build(calibrator)
        chosen = None if normalizer is None else NORMALIZERS.build(normalizer)
        given = "balanced" if class_weights is None else class_weights
        weights = ClassWeights(given, class_weight_power, class_weight_on)  # checks its arguments, even if not used
        self.class_weights = None if class_weights is None else weights
        self.class_weight_power, self.class_weight_on = class_weight_power, class_weight_on
        on = None if class_weights is None else class_weight_on
        check_roles(self.loss, self.box_loss, self._weighters, self.assigner, chosen, on)
        own = None if self.matcher is None else self.matcher.default_normalizer
        self.normalizer = chosen or NORMALIZERS.build(own or "image")
        self._normalizer_chosen, self._normalizer_of_matcher = chosen is not None, own is not None
        self.loss_weight = check_range("criterion", "loss_weight", loss_weight, 0)
        self.box_loss_weight = check_range("criterion", "box_loss_weight", box_loss_weight, 0)
        self.class_counts = as_class_counts(class_counts)
        self.num_classes: int | None = None
        self._checked: set[Pass] = set()
        self.step = 0
        self.epoch = 0
        self.observers: list[Observer] = []
        self.calibrates = True

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickles and copies, without observers."""
        return {**self.__dict__, "observers": []}

    def set_default_normalizer(self, normalizer: NormalizerLike) -> None:
        """Use the default normalizer of a detector, unless one was given; losses and assigners keep their own.

        Args:
            normalizer: The default normalizer of the detector.
        """
        if not self._normalizer_chosen and not self._normalizer_of_matcher:
            self.normalizer = NORMALIZERS.build(normalizer)

    @property
    def parts(self) -> Iterable[Component]:
        """All components, including nested ones."""
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
            "class_weights": self.class_weights and self.class_weights.given,
            "class_weight_power": self.class_weight_power,
            "class_weight_on": self.class_weight_on,
            "calibrator": self.calibrator and self.calibrator.spec,
        }

    def follow_spec(self, saved: Mapping[str, Any] | None) -> None:
        """Restore the defaults of a checkpoint's version for arguments that its spec does not contain.

        Args:
            saved: The :attr:`spec` of the checkpoint; None if it has none. Components whose class differs from that of
                the checkpoint are not changed.
        """
        if saved is None:
            for any_part in self.parts:
                any_part.follow_spec({})
            return
        saved, own = named_spec(saved), self.spec
        weighters = zip(self._weighters, saved.get("weighters") or [], own["weighters"], strict=False)
        single = ("loss", "box_loss", "normalizer", "assigner", "calibrator")
        parts = [(getattr(self, name), saved.get(name), own[name]) for name in single]
        for part, before, now in [*parts, *weighters]:
            if before and now and before["class_path"] == now["class_path"]:
                part.follow_spec(before)

    @property
    def matcher(self) -> Assigner | None:
        """The assigner that replaces the detector's matcher: that of the criterion, or of a weighter; else None."""
        return self.assigner or next((w.assigner for w in self._weighters if w.assigner is not None), None)

    def prepare(self, num_classes: int) -> None:
        """Prepare all components for a number of classes; call it before their state is loaded.

        Args:
            num_classes: Number of classes of the head, without additional columns of the loss.

        Raises:
            UsageError: If the criterion was trained with other classes, or a component with another criterion.
        """
        if self.num_classes == num_classes:
            return
        if self.num_classes is not None and self.step:
            raise UsageError(
                f"This criterion has the state of {self.num_classes} classes, but the head has {num_classes}: "
                "create a new criterion."
            )
        self.num_classes = num_classes
        for part in self.parts:
            part.prepare(num_classes)
            part.check_fresh()
        if self.class_counts is not None:
            self.receive_class_counts(self.class_counts)

    def receive_class_counts(self, counts: ClassCounts) -> None:
        """Pass the class frequencies to all components.

        Args:
            counts: Class frequencies of the training set.

        Raises:
            UsageError: If there are more classes than the head has, or fewer in a list that a user gave.
        """
        self.class_counts = counts
        if self.num_classes is None:
            return
        number, extra = len(counts.images), self.loss.extra_logits
        if number > self.num_classes or (counts.is_complete and number < self.num_classes):
            hint = ""
            if number < self.num_classes:
                hint = " Give one number for each column; 0 for one without a class, such as an unused column 0."
            elif extra:
                taken = f"{extra} of its {self.num_classes + extra} columns"
                hint = f" {type(self.loss).__name__} takes {taken}: build the model with num_classes={number + extra}."
            raise UsageError(f"class_counts has {number} classes, but the head has {self.num_classes}.{hint}")
        for part in self.parts:
            part.receive_class_counts(counts)

    def receive_class_names(self, names: Sequence[str]) -> None:
        """Pass the names of the classes, which class weights by name need.

        Args:
            names: Name of each column of the head.

        Raises:
            UsageError: If a class weight was given for a class that has no column.
        """
        if self.class_weights is not None:
            self.class_weights.receive_names(names)

    def param_groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups of the components that have their own optimiser settings."""
        return [group for part in self.parts for group in part.param_groups()]

    def check_ready(self) -> None:
        """Raise an error if a component lacks information that it needs in training.

        Raises:
            UsageError: If a component is not ready; the message says how to provide the information.
        """
        for part in self.parts:
            part.check_ready()

    def score_logits(self, logits: Tensor) -> Tensor:
        """Convert logits to those whose sigmoid is the score of a detection [..., C + extra_logits] -> [..., C].

        Evaluation, prediction and exported models use it; training uses the loss's own ``score_logits``.

        Raises:
            UsageError: If the calibrator lacks class counts.
        """
        scores = self.loss.score_logits(logits)
        if self.calibrator is None or not self.calibrates:
            return scores
        self.calibrator.check_ready_once()
        calibrated: Tensor = self.calibrator(scores)
        return calibrated

    @property
    def _weighters(self) -> list[Weighter]:
        return [w for w in self.weighters if isinstance(w, Weighter)]

    def get_extra_state(self) -> dict[str, int]:
        """Return step and epoch, for checkpoints."""
        return {"step": self.step, "epoch": self.epoch}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Restore step and epoch."""
        self.step, self.epoch = state["step"], state["epoch"]

    @_never_compiled
    def forward(self, samples: DenseSamples) -> dict[str, Tensor]:
        """Compute the loss terms of a batch: ``classification``, ``bbox_regression``, auxiliary and weighters' terms.

        Args:
            samples: The batch. If it has no context, it gets the context of this step. Cross-process sums are used only
                in training, because in evaluation the processes can have different numbers of batches.
        """
        if not isinstance(samples, DenseSamples):
            raise UsageError(f"A criterion takes DenseSamples.of(logits, labels, ...), not a {type(samples).__name__}.")
        samples = self.in_this_step(samples)
        self.prepare(samples.num_classes)
        if (current := Pass.current()) not in self._checked:
            self.check_ready()
            check_not_repeated(current, self._checked)
            self._checked.add(current)
        with torch.autocast(samples.device.type, enabled=False):
            samples = self._with_class_weights(self._with_soft_targets(self._with_dual_weights(samples)))
            dual = samples.dual_weights
            divisor = self.normalizer(samples) if dual is None else dual.divisor
            values = self._with_box_weights(self._values(samples, divisor), samples)
            weights = [weighter.scheduled(samples, values) for weighter in self._weighters]
            anchor_weights, box_weights = [w.classification for w in weights], [w.box for w in weights]
            if samples.quality is not None and self.matcher is not None and self.matcher.weighs_boxes:
                box_weights.append(samples.quality)
            images, loss = (samples.image_idxs, samples.counts_of_images), values.classification
            terms = {"classification": weighted_total(loss, anchor_weights, values.image_scales, *images)}
            if self.box_loss is not None:
                images_of_boxes, scales = samples.pos_image_idxs, values.box_scales
                terms["bbox_regression"] = weighted_total(values.box, box_weights, scales, images_of_boxes)
            for name, value in samples.auxiliary.items():
                scales = self.box_loss_weight / divisor  # even if the box loss has its own normalizer
                terms[name] = weighted_total(value, box_weights, scales, samples.pos_image_idxs)
            for weighter, weighter_output in zip(self._weighters, weights, strict=True):
                self._add_extra(terms, weighter, weighter_output.extra)
        if torch.is_grad_enabled():
            self._call_observers(samples, values, weights)
        self._end_step()
        return terms

    def in_this_step(self, samples: DenseSamples) -> DenseSamples:
        """Add the step's context and the loss's columns, and hide unknown classes; unchanged if samples have a context.

        Args:
            samples: The batch.
        """
        if samples.context is not None:
            return samples
        reduce = Reduce(enabled=torch.is_grad_enabled())
        context = StepContext(reduce, self.step, self.epoch, self.class_counts)
        samples = samples.of_step(context, self.loss.extra_logits, self.loss.score_logits)
        return samples if samples.unknown is None else samples.with_logits(self.loss.without_unknown(samples))

    def _with_class_weights(self, samples: DenseSamples) -> DenseSamples:
        if torch.is_grad_enabled():
            weights = [w.scheduled_class_weights(samples) for w in self._weighters if w.weighs_classes]
            if self.class_weights is not None and self.loss.accepts_class_weights:
                weights.append(self.class_weights.of_logits())
            for factor in weights:
                before = samples.class_weights
                samples = samples.with_class_weights(factor if before is None else before * factor)
        return samples

    def _with_dual_weights(self, samples: DenseSamples) -> DenseSamples:
        for weighter in self._weighters:
            if "weights" in weighter.exclusive and torch.is_grad_enabled():
                return samples.with_dual_weights(weighter.dual_weights(samples))
        return samples

    def _with_soft_targets(self, samples: DenseSamples) -> DenseSamples:
        if samples.quality is not None:  # in evaluation too: like the matches, it is a part of the loss
            return samples.with_soft_targets(samples.quality)
        for weighter in self._weighters:
            if (
                "soft_targets" in weighter.exclusive
                and (targets := weighter.scheduled_soft_targets(samples)) is not None
            ):
                return samples.with_soft_targets(targets)
        return samples

    @_never_compiled
    @torch.no_grad()
    def losses_of_anchors(self, samples: DenseSamples) -> Tensor:
        """Compute the sum of classification and box loss of each anchor, without weights, normalizer and gradients [A].

        Nothing is summed over processes, and no state changes.

        Args:
            samples: Some anchors, with their matches.
        """
        samples = self.in_this_step(samples)
        with torch.autocast(samples.device.type, enabled=False):
            values = self._values(samples, torch.ones(samples.num_images, device=samples.device))
        for part in self.parts:
            part.discard()
        return values.classification.index_add(0, samples.positives, values.box.to(values.classification.dtype))

    def _values(self, samples: DenseSamples, divisor: Tensor) -> LossValues:
        with slopes_in_backward(torch.is_grad_enabled() and any(w.weighs_few_at(self.step) for w in self._weighters)):
            classification = self.loss(samples.logits, samples.labels, samples)
        if self.class_weights is not None and not self.loss.accepts_class_weights and torch.is_grad_enabled():
            classification = self.class_weights.of_anchors(classification, samples.positives, samples.pos_labels)
        if self.box_loss is None:
            box = classification.new_zeros(len(samples.positives))
        elif self.box_loss.space == "deltas":
            box = self.box_loss(samples.pos_deltas, samples.pos_target_deltas, samples)
        else:
            box = self.box_loss(samples.pos_boxes, samples.pos_gt_boxes, samples)
        # A loss with its own normalizer divides by sums over all processes, and the terms of processes are averaged.
        deciding = self.loss.exclusive | (frozenset() if self.box_loss is None else self.box_loss.exclusive)
        inverse, number = divisor.reciprocal(), float(samples.reduce.world_size)
        return LossValues(
            classification=classification.masked_fill(~samples.valid, 0.0),
            box=box.sum(1) if box.dim() == 2 else box,
            box_coordinates=box,
            image_scales=image_scales(inverse, number, self.loss_weight, "normalizer" in self.loss.exclusive),
            box_scales=image_scales(inverse, number, self.box_loss_weight, "box_normalizer" in deciding),
            has_box=self.box_loss is not None,
        )

    def _with_box_weights(self, values: LossValues, samples: DenseSamples) -> LossValues:
        """Multiply the box losses by the weights of a classification loss that decides the balance of both."""
        if not values.has_box or "box_normalizer" not in self.loss.exclusive:
            return values
        weights = self.loss.box_weights(values.classification.detach(), values.box.detach(), samples)
        return values if weights is None else values.with_box_weights(weights)

    @torch.no_grad()
    def _call_observers(self, samples: DenseSamples, values: LossValues, weights: Sequence[Weights]) -> None:
        for observer in tuple(self.observers):  # a copy, because an observer may remove itself
            observer(samples, values, weights)

    def _add_extra(self, terms: dict[str, Tensor], weighter: Weighter, extra: Any) -> None:
        for name, value in extra.items():
            if name in terms:
                raise UsageError(
                    f"The weighter {type(weighter).__name__} adds a loss term {name!r} that exists already."
                )
            terms[name] = value

    def _end_step(self) -> None:
        """Commit staged state after a training step; discard it after an evaluation step."""
        training = torch.is_grad_enabled()
        for part in self.parts:
            part.commit() if training else part.discard()
        self.step += training


REGISTRIES: dict[str, Registry[Any]] = {
    "loss": LOSSES,
    "box_loss": BOX_LOSSES,
    "weighters": WEIGHTERS,
    "normalizer": NORMALIZERS,
    "assigner": ASSIGNERS,
    "calibrator": CALIBRATORS,
}
"""The registry of each component, by argument of :class:`Criterion`."""


def named_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the import paths of a spec from version 0.1.0 with registered names.

    Args:
        spec: The :attr:`Criterion.spec` of a checkpoint.
    """
    return {name: REGISTRIES[name].named(value) if name in REGISTRIES else value for name, value in spec.items()}
