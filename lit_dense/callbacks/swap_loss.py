"""A callback that replaces the loss of the detector inside any LightningModule."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from ..assigners import AssignerLike
from ..box_losses import BoxLossLike
from ..calibrators import CalibratorLike
from ..core.class_counts import ClassCounts
from ..core.class_weights import ClassWeightOn, ClassWeightsLike
from ..core.component import differing
from ..core.distributed import Reduce
from ..core.errors import UsageError
from ..core.nan_guard import check_finite_weights
from ..criterion import REGISTRIES, Criterion, CriterionArgs, named_spec
from ..data.label_map import offered_categories
from ..detectors import DetectorAdapter, attach, attached, find_detector
from ..detectors.attach import (
    adapters_with,
    build_criterion,
    check_stage,
    detach,
    detectors_inside,
    set_prior,
    warn_of_copies,
    warn_of_own_losses,
)
from ..losses import LossLike
from ..normalizers import NormalizerLike
from ..weighters import WeightersLike

UNUSED_BATCHES = 10
"""Training batches without the replaced loss after which a run is refused."""


class SwapLoss(Callback):
    """A callback that trains the detector inside a LightningModule with another loss; the module does not change.

    The detector may be any that an adapter supports: torchvision's RetinaNet, FCOS, SSD, Faster R-CNN and others. The
    model keeps its parameters, state-dict keys, forward and checkpoints. The state of the loss and of the weighters is
    saved under the checkpoint's ``callbacks`` and restored on resume. After the run the model's own loss is restored.
    If a weighter has parameters, the callback trains them with its own Adam optimiser at each step of the module's
    optimiser, with gradients averaged over processes.

    Args:
        loss: The classification loss: a name, an object, or a dict with class_path and init_args; by default the
            detector's own loss with its own weighters.
        box_loss: The box loss, given in the same way; by default the detector's own.
        weighters: One weighter or a list of weighters, whose weights multiply; by default none if a loss is given.
        normalizer: What the sums are divided by; by default the detector's own normalizer.
        assigner: Matches anchors and ground-truth boxes; by default the detector's own matcher.
        loss_weight: Factor of the classification term; by default the detector's own, or 1 if a loss is given.
        box_loss_weight: Factor of the box term; by default the detector's own.
        class_weights: Weights of the classes in the classification loss; ``balanced`` by the number of boxes, one
            number for each class, or numbers by class name. By default all classes have weight 1.
        class_weight_power: Power of the inverse number of boxes for ``balanced``; by default 0.5, the square root.
        class_weight_on: What class weights multiply; ``positives`` by default, or whole ``columns`` of the logits with
            their negatives.
        class_counts: Class counts of the training set, or the number of boxes of each class; by default those of the
            data module, if it has an attribute ``class_counts``.
        prior: Initial score of an object, to which the classifier's bias is set if training starts at the first step;
            by default the bias does not change. A checkpoint that is resumed keeps its bias.
        stage: Name of the loss to replace, if the detector has several; by default the first (``roi`` in Faster R-CNN).
            Use one callback for each stage.
        module: Path of the detector within the LightningModule, such as ``model.student``; needed if it has several.
        calibrator: Changes the scores in evaluation and prediction; by default none.

    Raises:
        UsageError: At setup, if the module contains no detector, or several; if another callback replaces the same
            loss; or if class counts are missing.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[SwapLoss("bce", normalizer="batch")], logger=False, enable_checkpointing=False)
    """

    _built: ClassVar[weakref.WeakSet[Criterion]] = weakref.WeakSet()  # by any callback; a run may end without teardown

    def __init__(
        self,
        loss: LossLike | None = None,
        box_loss: BoxLossLike | None = None,
        weighters: WeightersLike | None = None,
        normalizer: NormalizerLike | None = None,
        assigner: AssignerLike | None = None,
        loss_weight: float | None = None,
        box_loss_weight: float | None = None,
        class_weights: ClassWeightsLike | None = None,
        class_weight_power: float | None = None,
        class_weight_on: ClassWeightOn | None = None,
        class_counts: ClassCounts | Sequence[float] | None = None,
        prior: float | None = None,
        stage: str | None = None,
        module: str | None = None,
        calibrator: CalibratorLike | None = None,
    ) -> None:
        self._given: CriterionArgs = {
            "loss": loss,
            "box_loss": box_loss,
            "weighters": weighters,
            "normalizer": normalizer,
            "assigner": assigner,
            "loss_weight": loss_weight,
            "box_loss_weight": box_loss_weight,
            "class_weights": class_weights,
            "class_weight_power": class_weight_power,
            "class_weight_on": class_weight_on,
            "calibrator": calibrator,
        }
        self._class_counts, self._prior = class_counts, prior
        self.stage, self.module = stage, module
        self._restored: dict[str, Any] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self._trained: weakref.ref[torch.nn.Module] | None = None  # the network that the state belongs to
        self._step_before = 0
        self._unused_batches: int | None = 0  # None: the loss has been computed
        self.criterion: Criterion | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for pickles and copies, without the reference to the trained network."""
        return {**self.__dict__, "_trained": None}

    @property
    def state_key(self) -> str:
        """The key of the state in a checkpoint; it depends on stage and module."""
        if self.stage is None and self.module is None:
            return type(self).__qualname__
        return self._generate_state_key(stage=self.stage, module=self.module)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replace the loss; a network that the module builds in ``setup`` or ``configure_model`` is patched later."""
        if any(isinstance(module, Criterion) for module in pl_module.modules()):
            raise UsageError(
                f"SwapLoss: {type(pl_module).__name__} has its own arguments for the loss, weighters and other parts: "
                "use these instead of the callback."
            )
        self._unused_batches = 0
        if self._network_exists(pl_module):
            self._attach(trainer, pl_module, stage)

    def _network_exists(self, pl_module: LightningModule) -> bool:
        if self.module is None or self.module in dict(pl_module.named_modules()):
            return bool(detectors_inside(pl_module))
        return False

    def _find(self, pl_module: LightningModule) -> DetectorAdapter:
        """Return the adapter of the detector to patch; copies of the detector that is patched already are ignored."""
        own = adapters_with(pl_module, self.criterion)
        if self.module is None and len(own) == 1:
            others = [
                detector for detector, _ in detectors_inside(pl_module).values() if detector is not own[0].detector
            ]
            if all(attached(detector) for detector in others):
                return own[0]
        return find_detector(pl_module, self.module)

    def _attach(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, loaded: bool = False
    ) -> DetectorAdapter:
        """Attach the criterion; it is built on the first call.

        Called again when the run begins: the module may have replaced its network, or the network's head, after
        ``setup``.

        Args:
            trainer: The trainer.
            pl_module: The module.
            stage: ``fit``, ``validate``, ``test`` or ``predict``.
            loaded: Whether the network has the weights of a checkpoint.
        """
        # Lightning evaluates in inference mode; what is created there could not be trained later
        with torch.inference_mode(False), torch.enable_grad():
            adapter = self._find(pl_module)
            own_stage = check_stage(adapter, self.stage)
            self._check_alone(trainer, adapter, own_stage)
            first = self.criterion is None
            if self.criterion is None:
                warn_of_own_losses(adapter, own_stage, self._given)
                self.criterion = build_criterion(adapter.defaults(own_stage), self._given, self._class_counts)
                self._built.add(self.criterion)
            adapter = attach(adapter, {own_stage: self.criterion})
            self.criterion.to(pl_module.device)
            if own_stage == adapter.stages[0]:
                _pass_classes(getattr(trainer, "datamodule", None), self.criterion)
            if first and self._restored:
                self._restore(self.criterion)
            if stage != "fit" and self._restored:
                self._trained = weakref.ref(adapter.detector)  # whose weights the trainer has loaded as well
            elif stage == "fit":
                if first:
                    warn_of_copies(pl_module, adapter, own_stage, self.criterion)
                self.criterion.check_ready()
                if not self.criterion.step and not self._belongs_to(adapter):
                    self._trained = weakref.ref(adapter.detector)
                    if self._prior is not None and not loaded:
                        set_prior(adapter, own_stage, self.criterion, self._prior)
            return adapter

    def _belongs_to(self, adapter: DetectorAdapter) -> bool:
        return self._trained is not None and self._trained() is adapter.detector

    def _check_network(self, adapter: DetectorAdapter, loaded: bool) -> None:
        """Refuse to train a network with the state of another one; after ``setup``, which does not know the checkpoint.

        Raises:
            UsageError: If the state is not that of the network, nor of the checkpoint from which the run continues.
        """
        if not self._belongs_to(adapter) and not loaded and not self._restored:
            raise UsageError(
                f"{self._described()} has the state of {self._ready().step} training steps of another network: give "
                "each run a new SwapLoss."
            )
        self._trained = weakref.ref(adapter.detector)

    def _check_alone(self, trainer: Trainer, adapter: DetectorAdapter, stage: str) -> None:
        """Refuse to replace the loss of another callback or of ``patch``, which would no longer be trained."""
        for other in getattr(trainer, "callbacks", ()):
            taken = other is not self and isinstance(other, SwapLoss) and other.criterion is not None
            if taken and adapter.criteria.get(stage) is other.criterion:
                others = ", ".join(repr(name) for name in adapter.stages if name != stage)
                raise UsageError(
                    f"{other._described()} and {self._described()} both replace the loss of "
                    f"{type(adapter.detector).__name__}{f', stage {stage!r}' if stage else ''}: keep one of them"
                    f"{f', or let one name stage {others}' if others else ''}."
                )
        present = adapter.criteria.get(stage)
        if present is not None and present is not self.criterion and present not in self._built:
            where = f"{type(adapter.detector).__name__}{f', stage {stage!r},' if stage else ''}"
            raise UsageError(
                f"The loss of {where} has been replaced by {type(present.loss).__name__} already: leave "
                f"{self._described()} out, or call lit_dense.unpatch on the model before."
            )

    def _described(self) -> str:
        loss = self._given["loss"]
        given = {
            "loss": loss if isinstance(loss, str | Mapping | None) else type(loss).__name__,
            "stage": self.stage,
            "module": self.module,
        }
        return f"SwapLoss({', '.join(f'{name}={value!r}' for name, value in given.items() if value is not None)})"

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the loss of a network that did not exist at setup; within training it is in place."""
        if trainer.state.fn != "fit" or not adapters_with(pl_module, self.criterion):
            self._attach(trainer, pl_module, "validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the loss of a network that did not exist at setup."""
        self._attach(trainer, pl_module, "test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the loss of a network that did not exist at setup."""
        self._attach(trainer, pl_module, "predict")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the detector's own losses; a restored state was that of this run."""
        for adapter in adapters_with(pl_module, self.criterion):
            detach(adapter, [self._ready()])
        if self.criterion is not None:
            self._restored = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the detector's own losses, because Lightning does not call ``teardown`` after an exception."""
        self.teardown(trainer, pl_module, "fit")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the criterion's epoch, and note its step, to see whether the batch uses it."""
        criterion = self._ready()
        # not at the start of an epoch: Lightning leaves that hook out where a run resumes at the end of another
        criterion.epoch, self._step_before = trainer.current_epoch, criterion.step
        if self._optimizer is not None and all(p.grad is None for p in pl_module.parameters()):
            self._optimizer.zero_grad()  # the module has dropped its gradients, as with manual optimisation

    def on_before_zero_grad(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Drop gradients of the weighters' networks together with those of the module."""
        if self._optimizer is not None:
            self._optimizer.zero_grad()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Refuse a run whose first batches do not compute the replaced loss.

        Raises:
            UsageError: If none of the first 10 batches, or of the first epoch, has computed it.
        """
        if self._unused_batches is None:
            return
        if self._ready().step != self._step_before:
            self._unused_batches = None
            return
        self._unused_batches += 1
        if self._unused_batches == UNUSED_BATCHES or trainer.is_last_batch:
            raise UsageError(
                f"{self._described()}: {self._unused_batches} training batches have not computed the replaced loss. "
                f"{type(pl_module).__name__} may compute a loss of its own, its network may override compute_loss, or "
                "the network or its head was replaced after training began. Call a loss of lit_dense there, or name "
                "the detector that is trained by module=."
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Create the optimiser of the weighters' networks, and broadcast their parameters to all processes."""
        loaded = getattr(trainer, "ckpt_path", None) is not None
        self._check_network(self._attach(trainer, pl_module, "fit", loaded), loaded)
        criterion = self._ready()
        if not list(criterion.parameters()):
            return
        criterion.to(pl_module.device)
        with torch.no_grad():
            for parameter in criterion.parameters():
                parameter.copy_(Reduce().broadcast(parameter))
        groups = criterion.param_groups()
        taken = {id(p) for group in groups for p in group["params"]}
        others = [p for p in criterion.parameters() if id(p) not in taken]
        self._optimizer = torch.optim.Adam([*groups, {"params": others}] if others else groups, lr=1e-3)
        if "optimizer" in self._restored:
            self._optimizer.load_state_dict(self._restored["optimizer"])

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Train the weighters' networks together with the module."""
        trained = [p for p in self._ready().parameters() if p.grad is not None]
        if self._optimizer is None or not trained:  # a second optimiser of the module may step without a loss
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)  # does not unscale this optimiser's gradients
        scale = 1.0 if scaler is None else scaler.get_scale()
        reduce = Reduce()
        flat = [p.grad.flatten() for p in trained if p.grad is not None]
        mean = reduce.sum(torch.cat(flat)) / (reduce.world_size * scale)
        for parameter, gradient in zip(trained, mean.split([p.numel() for p in trained]), strict=True):
            parameter.grad = gradient.view_as(parameter)
        if scaler is None or bool(mean.isfinite().all()):  # after an overflow the module's step is skipped, too
            self._optimizer.step()
        self._optimizer.zero_grad()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check the last step's loss and the weights for NaN before the weights are saved."""
        self._check_last_loss(pl_module)
        check_finite_weights(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the last step's loss for NaN."""
        self._check_last_loss(pl_module)

    def _check_last_loss(self, pl_module: LightningModule) -> None:
        for adapter in adapters_with(pl_module, self.criterion):
            adapter.nan_guard.flush()

    def _ready(self) -> Criterion:
        if self.criterion is None:
            raise UsageError("SwapLoss is used before its setup: has another callback called it?")
        return self.criterion

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the loss and of the optimiser of weighters' networks."""
        if self.criterion is None:
            return self._restored
        state = {"criterion": self.criterion.state_dict(), "spec": self.criterion.spec}
        if self._optimizer is not None:
            state["optimizer"] = self._optimizer.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the loss; if the model is not patched yet, the state is kept until then."""
        self._restored = state_dict
        if self.criterion is not None and state_dict:
            self._restore(self.criterion)

    def _restore(self, criterion: Criterion) -> None:
        spec = self._restored.get("spec")
        _check_same_parts(spec, criterion.spec)
        criterion.follow_spec(spec)
        saved = {name: part for name, part in named_spec(spec or {}).items() if name in REGISTRIES}
        for name, before, now in differing(saved, criterion.spec):
            rank_zero_warn(f"The checkpoint was trained with {name} {before}; SwapLoss has {now}.")
        try:
            criterion.load_state_dict(self._restored["criterion"])
        except RuntimeError as error:  # tensors of another size
            raise UsageError(
                f"SwapLoss: the state of the checkpoint does not fit: {str(error).splitlines()[-1].strip()} Use the "
                "arguments of the checkpoint, or start a new run from the model's weights only."
            ) from error


def _pass_classes(data: Any, criterion: Criterion) -> None:
    """Pass the class names and counts that a data module offers."""
    if (categories := offered_categories(data)) is not None:
        criterion.receive_class_names([category["name"] for category in categories])
    if (counts := getattr(data, "class_counts", None)) is not None and criterion.class_counts is None:
        criterion.receive_class_counts(counts)


def _check_same_parts(saved: dict[str, Any] | None, own: dict[str, Any]) -> None:
    """Refuse the state of other parts, which cannot be loaded."""
    for name, part in named_spec(saved or {}).items():
        if name in REGISTRIES and _classes(part) != _classes(own[name]):
            raise UsageError(
                f"SwapLoss: the checkpoint was trained with {name} {_classes(part)}, and this callback has "
                f"{_classes(own[name])}. Use the same, or start a new run from the model's weights only."
            )


def _classes(spec: Any) -> Any:
    if isinstance(spec, list):
        return [_classes(item) for item in spec]
    return spec["class_path"] if isinstance(spec, dict) else None
