"""Another loss for the RetinaNet inside anybody's LightningModule."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ..assigners import AssignerLike
from ..box_losses import BoxLossLike
from ..class_counts import ClassCounts
from ..criterion import Criterion
from ..errors import UsageError
from ..head import DenseHead, adopt, find_retinanet, native_box_loss, unpatch
from ..losses import LossLike
from ..normalizers import NormalizerLike
from ..reduce import Reduce
from ..weighters import WeightersLike


class SwapLoss(Callback):
    """Trains the torchvision RetinaNet inside any LightningModule with another loss; the module is left as it is.

    The model's state-dict keys stay its own: its checkpoints load where lit_dense is not installed. State of the loss
    is saved under the checkpoint's ``callbacks`` and restored on resume. After the run the model has its stock head.
    A weighter's own network is trained by an Adam of the callback's, at each step of the module's optimiser, with
    gradients averaged over processes.

    Args:
        loss: The classification loss: a name, an object, or a dict with class_path and init_args.
        box_loss: The box loss; by default the one that the model has.
        weighters: One sample weighter or a list of them, whose weights multiply.
        normalizer: What the losses are divided by; by default the mean over images, as in torchvision.
        assigner: Matches anchors and ground truths; by default the model's own matcher.
        loss_weight: What the classification term is multiplied by.
        box_loss_weight: What the box term is multiplied by.
        class_counts: Class frequencies of the training set, for losses that need them; by default the data module's,
            if it has an attribute ``class_counts``.

    Raises:
        UsageError: At setup, if the module contains no RetinaNet, or more than one, or if class counts are missing.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[SwapLoss("bce", normalizer="batch")], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        loss: LossLike = "focal",
        box_loss: BoxLossLike | None = None,
        weighters: WeightersLike = (),
        normalizer: NormalizerLike | None = None,
        assigner: AssignerLike | None = None,
        loss_weight: float = 1.0,
        box_loss_weight: float = 1.0,
        class_counts: ClassCounts | None = None,
    ) -> None:
        self._parts = (weighters, normalizer, assigner, loss_weight, box_loss_weight, class_counts)
        self._loss, self._box_loss = loss, box_loss
        self._restored: dict[str, Any] = {}
        self._optimizer: torch.optim.Optimizer | None = None
        self.criterion: Criterion | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Patch the model; the criterion is built the first time and kept."""
        if any(isinstance(module, Criterion) for module in pl_module.modules()):
            raise UsageError(f"{type(pl_module).__name__} takes loss, weighters and the rest itself: give them there.")
        detector = find_retinanet(pl_module)
        first = self.criterion is None
        if self.criterion is None:
            self.criterion = Criterion(self._loss, self._box_loss or native_box_loss(detector), *self._parts)
        adopt(detector, self.criterion)
        counts = getattr(getattr(trainer, "datamodule", None), "class_counts", None)
        if counts is not None and self.criterion.class_counts is None:
            self.criterion.receive_class_counts(counts)
        if first and self._restored:
            self.criterion.load_state_dict(self._restored["criterion"])
        if stage == "fit":
            self.criterion.check_ready()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the model its stock head back."""
        unpatch(pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the criterion which epoch it is."""
        if self.criterion is not None:
            self.criterion.epoch = trainer.current_epoch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the optimiser of the weighters' networks, where they have any, and let all processes start alike."""
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
        if self._optimizer is None or not trained:  # a second optimiser of the module's may step without a loss
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)  # it knows nothing of this optimiser's gradients
        scale = 1.0 if scaler is None else scaler.get_scale()
        reduce = Reduce()
        flat = [p.grad.flatten() for p in trained if p.grad is not None]
        mean = reduce.sum(torch.cat(flat)) / (reduce.world_size * scale)
        for parameter, gradient in zip(trained, mean.split([p.numel() for p in trained]), strict=True):
            parameter.grad = gradient.view_as(parameter)
        if scaler is None or bool(mean.isfinite().all()):  # an overflow, for which the module's step is left out too
            self._optimizer.step()
        self._optimizer.zero_grad()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look at the last step's loss before what came of it is kept."""
        self._look_at_last_step(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the last step's loss."""
        self._look_at_last_step(pl_module)

    def _look_at_last_step(self, pl_module: LightningModule) -> None:
        if isinstance(head := find_retinanet(pl_module).head, DenseHead):
            head.finite_check.flush()

    def _ready(self) -> Criterion:
        if self.criterion is None:
            raise UsageError("SwapLoss is asked before its setup: has another callback called it?")
        return self.criterion

    def state_dict(self) -> dict[str, Any]:
        """The state of the loss, and of the optimiser of weighters' networks."""
        if self.criterion is None:
            return self._restored
        state = {"criterion": self.criterion.state_dict()}
        if self._optimizer is not None:
            state["optimizer"] = self._optimizer.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the loss; where the model is still to be patched, it is kept until then."""
        self._restored = state_dict
        if self.criterion is not None and state_dict:
            self.criterion.load_state_dict(state_dict["criterion"])
