"""Another loss for the RetinaNet inside anybody's LightningModule."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..assigners import AssignerLike
from ..box_losses import BoxLossLike
from ..class_counts import ClassCounts
from ..criterion import Criterion
from ..errors import UsageError
from ..head import DenseHead, adopt, find_retinanet, native_box_loss, unpatch
from ..losses import LossLike
from ..normalizers import NormalizerLike
from ..weighters import WeighterLike


class SwapLoss(Callback):
    """Trains the torchvision RetinaNet inside any LightningModule with another loss; the module is left as it is.

    The model's state-dict keys stay its own: its checkpoints load where lit_dense is not installed. State of the loss
    is saved under the checkpoint's ``callbacks`` and restored on resume. After the run the model has its stock head.

    Args:
        loss: The classification loss: a name, an object, or a dict with class_path and init_args.
        box_loss: The box loss; by default the one that the model has.
        weighters: Sample weighters, whose weights multiply.
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
        weighters: Sequence[WeighterLike] = (),
        normalizer: NormalizerLike | None = None,
        assigner: AssignerLike | None = None,
        loss_weight: float = 1.0,
        box_loss_weight: float = 1.0,
        class_counts: ClassCounts | None = None,
    ) -> None:
        self._parts = (weighters, normalizer, assigner, loss_weight, box_loss_weight, class_counts)
        self._loss, self._box_loss = loss, box_loss
        self._restored: dict[str, Any] = {}
        self.criterion: Criterion | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Patch the model; the criterion is built the first time and kept."""
        detector = find_retinanet(pl_module)
        if isinstance(detector.head, DenseHead) and detector.head.criterion in set(pl_module.modules()):
            raise UsageError(f"{type(pl_module).__name__} takes loss, weighters and the rest itself: give them there.")
        first = self.criterion is None
        if self.criterion is None:
            self.criterion = Criterion(self._loss, self._box_loss or native_box_loss(detector), *self._parts)
        adopt(detector, self.criterion)
        counts = getattr(getattr(trainer, "datamodule", None), "class_counts", None)
        if counts is not None and self.criterion.class_counts is None:
            self.criterion.receive_class_counts(counts)
        if first:
            self.load_state_dict(self._restored)
        if stage == "fit":
            self.criterion.check_ready()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the model its stock head back."""
        unpatch(pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the criterion which epoch it is."""
        if self.criterion is not None:
            self.criterion.epoch = trainer.current_epoch

    def state_dict(self) -> dict[str, Any]:
        """The state of the loss."""
        return self._restored if self.criterion is None else self.criterion.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the loss; where the model is still to be patched, it is kept until then."""
        self._restored = state_dict
        if self.criterion is not None and state_dict:
            self.criterion.load_state_dict(state_dict)
