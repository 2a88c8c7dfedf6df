"""torchvision's detectors as a LightningModule: optimiser, steps and metric. It knows no loss by name."""

from collections.abc import Sequence
from typing import Any, ClassVar

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from .. import callbacks as callbacks  # a class name then works after --trainer.callbacks+=
from ..assigners import AssignerLike
from ..box_losses import BoxLossLike
from ..core.component import agrees
from ..core.errors import check_choice
from ..criterion import Criterion, CriterionArgs, named_spec
from ..data.thin_images import check_all_sizes
from ..detectors.attach import attach, find_detector, set_prior
from ..detectors.base import own_scores
from ..detectors.build import NETWORKS, build_detector, known_categories
from ..losses import LossLike
from ..metrics.backends import BackendName, Protocol
from ..normalizers import NormalizerLike
from ..weighters import WeightersLike
from .detector_steps import DetectorSteps
from .evaluation import Evaluation, check_outputs, check_precision
from .known_classes import check_same_number
from .learning_rates import LearningRates, refuse_finders, warn_of_ended_schedule
from .optimization import Optimization, OptimizerName, ScheduleName, build_optimizer


class LitDetector(DetectorSteps):
    """A detector of torchvision's, trained with any loss and any weighting.

    To change a piece, subclass and override it: ``build_model`` (the network), ``unpack_batch`` (the format of
    batches), ``configure_optimizers``, or a step. Batches are ``(images, targets)``: images [3, H, W] as uint8 or as
    floats in [0, 1]; targets with ``boxes`` [G, 4] in pixels (x1 y1 x2 y2), ``labels`` [G] and, for evaluation,
    ``image_id``. An image without objects has boxes [0, 4] and counts as background.

    Args:
        detector: ``retinanet``, ``fcos``, ``ssd``, ``ssdlite`` or ``faster_rcnn``.
        num_classes: Number of object classes, by default that of the data module. Labels are 0 to num_classes - 1, also
            where the detector's own begin at 1. torchvision's COCO weights of RetinaNet and FCOS have 91 columns, named
            by category id, of which column 0 and ten others are unused; those of SSD and Faster R-CNN have 90. With
            that number they are kept and predict as they are; with another the classifier starts anew.
        backbone: A torchvision ResNet or MobileNet, ``tiny``, ``timm/NAME``, or a whole detector of torchvision, such
            as ``retinanet_resnet50_fpn_v2`` or ``fasterrcnn_resnet50_fpn``.
        weights: Weights of a whole detector, such as ``COCO_V1``.
        weights_backbone: Weights of the backbone, such as ``IMAGENET1K_V1`` or ``DEFAULT``.
        frozen_stages: Stages of the backbone that are not trained, 0 to 5; by default 2 where it has weights.
        fpn_channels: Channels of the feature pyramid and the head, a multiple of 8; of 32 for FCOS.
        head_convs: Convolutions of each of the head's towers, 1 to 4; of RetinaNet and FCOS.
        anchor_sizes: Anchor sizes of each pyramid level, in pixels; by default three per octave from 32 to 812, and one
            per level from 32 for Faster R-CNN. SSD takes the smallest of each level for its default boxes, by default a
            tenth to nine tenths of the image. FCOS has no use for them.
        aspect_ratios: Heights of anchors over their widths, of RetinaNet and Faster R-CNN.
        min_size: Length of an image's shorter side in pixels, by default 800; one of several is drawn for each image in
            training. SSD has no use for it.
        max_size: Largest length of the longer side, by default 1333. SSD scales images to squares of it, by default
            300, and 320 for SSDlite.
        loss: The classification loss: a name, an object, or a dict with class_path and init_args; by default the
            detector's own, ``focal`` or ``softmax``, with the hard negatives of SSD.
        box_loss: The box loss; by default the detector's own.
        weighters: One sample weighter or a list of them, whose weights multiply.
        normalizer: What the losses are divided by; by default as in torchvision.
        assigner: Matches anchors and ground truths; by default torchvision's matcher. Faster R-CNN keeps its own.
        loss_weight: What the classification loss is multiplied by.
        box_loss_weight: What the box loss is multiplied by.
        prior: Score of an object before training, which the classifier's bias is set to unless it comes with trained
            weights; by default what the loss recommends: 0.01, and 0.001 for ``eql``, ``eql_v2`` and ``efl``. A softmax
            of SSD or Faster R-CNN starts by default as in torchvision.
        rpn: Of Faster R-CNN's region proposal network any of ``loss``, ``box_loss``, ``weighters``, ``normalizer``,
            ``loss_weight`` and ``box_loss_weight``; by default its own.
        optimizer: ``adamw``, or ``sgd`` with momentum 0.9. Norms and biases have no weight decay.
        lr: Learning rate.
        backbone_lr_factor: Learning rate of the backbone over that of the rest.
        weight_decay: Weight decay of matrices and convolutions.
        schedule: ``cosine``, ``multistep`` (a tenth at each milestone) or ``constant``, per optimiser step.
        warmup_steps: Steps over which the learning rate rises; at most a tenth of the run.
        milestones: Shares of the run at which ``multistep`` falls.
        score_thresh: Smallest score of a prediction. Evaluation does not use it.
        eval_score_thresh: Smallest score that evaluation counts; low, for it must not decide a comparison.
        nms_thresh: IoU from which of two detections of a class only the better is kept.
        topk_candidates: Most boxes of each pyramid level, of all classes together, from which detections are chosen;
            several for each object that an image can have. Of each class for SSD; Faster R-CNN has its proposals.
        detections_per_img: Most predictions of an image. Evaluation does not use it.
        eval_detections_per_img: Most detections of an image that evaluation counts, of all classes together.
        eval_max_detections: Most that mAP counts of each image and class; by default COCO's 100. Where there are more
            objects than that, raise both. With ``lvis`` of each image, by default 300.
        eval_protocol: Whose rules mAP follows: ``coco``, or ``lvis`` for LVIS's partly annotated images.
        eval_backend: The evaluator of mAP: ``hotcoco`` or ``pycocotools``; by default hotcoco, and pycocotools, which
            gives the same numbers but is slower, where hotcoco cannot be used.
        frequency_bounds: Most training images of a rare and of a common class, for mAP of such classes.

    Attributes:
        criterion: Its loss and weighting; of Faster R-CNN those of the box head.
        rpn_criterion: Those of Faster R-CNN's region proposal network; None for other detectors.
        categories: ``id`` and ``name`` of each column of the head, those of the data it was trained on; None if not
            known. ``model(images)`` gives columns.
        data_categories: ``id`` and ``name`` of each label in batches and results, which are those of the data in use.

    Raises:
        UsageError: If a name is unknown or arguments do not fit together.

    Example:
        >>> module = LitDetector("fcos", num_classes=3, backbone="tiny", fpn_channels=32, loss="ghm")
        >>> type(module.model).__name__
        'FCOS'
    """

    detectors: ClassVar[tuple[str, ...]] = tuple(NETWORKS)
    """Words that ``detector`` takes."""
    model: nn.Module

    def __init__(
        self,
        detector: str = "retinanet",
        num_classes: int | None = None,
        backbone: str = "resnet50",
        weights: str | None = None,
        weights_backbone: str | None = None,
        frozen_stages: int | None = None,
        fpn_channels: int = 256,
        head_convs: int = 4,
        anchor_sizes: list[list[int]] | None = None,
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        min_size: int | list[int] | None = None,
        max_size: int | None = None,
        loss: LossLike | None = None,
        box_loss: BoxLossLike | None = None,
        weighters: WeightersLike = (),
        normalizer: NormalizerLike | None = None,
        assigner: AssignerLike | None = None,
        loss_weight: float = 1.0,
        box_loss_weight: float = 1.0,
        prior: float | None = None,
        rpn: dict[str, Any] | None = None,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-4,
        backbone_lr_factor: float = 1.0,
        weight_decay: float = 0.05,
        schedule: ScheduleName = "cosine",
        warmup_steps: int = 500,
        milestones: Sequence[float] = (0.67, 0.89),
        score_thresh: float = 0.05,
        eval_score_thresh: float = 0.001,
        nms_thresh: float = 0.5,
        topk_candidates: int = 1000,
        detections_per_img: int = 300,
        eval_detections_per_img: int = 300,
        eval_max_detections: int | None = None,
        eval_protocol: Protocol = "coco",
        eval_backend: BackendName | None = None,
        frequency_bounds: Sequence[int] = (10, 100),
    ) -> None:
        super().__init__()
        check_choice(type(self).__name__, "detector", detector, self.detectors)
        self.optimization = Optimization(
            optimizer, lr, backbone_lr_factor, weight_decay, schedule, warmup_steps, milestones
        )
        check_outputs(score_thresh, nms_thresh, topk_candidates, detections_per_img)
        self.evaluation = Evaluation(
            eval_score_thresh,
            eval_detections_per_img,
            eval_max_detections,
            eval_protocol,
            eval_backend,
            frequency_bounds,
        )
        chosen: CriterionArgs = {
            "loss": loss,
            "box_loss": box_loss,
            "weighters": weighters,
            "normalizer": normalizer,
            "assigner": assigner,
            "loss_weight": loss_weight,
            "box_loss_weight": box_loss_weight,
        }
        network = NETWORKS[detector]
        self.criterion, self.rpn_criterion = network.criteria(backbone, chosen, rpn)
        self.detector_name = detector
        self.network_options: dict[str, Any] = {
            "backbone": backbone,
            "weights": weights,
            "weights_backbone": weights_backbone,
            "frozen_stages": frozen_stages,
            "fpn_channels": fpn_channels,
            "head_convs": head_convs,
            "anchor_sizes": anchor_sizes,
            "aspect_ratios": tuple(aspect_ratios),
            "min_size": network.sizes[0] if min_size is None else min_size,
            "max_size": network.sizes[1] if max_size is None else max_size,
            "keep_classifier": network.keeps_classifier(self.criterion.loss),
        }
        self.save_hyperparameters()
        # over the objects among the arguments: a checkpoint holds plain data that rebuilds the same parts
        self.save_hyperparameters(self._specs())
        # never read back from self.hparams: under LightningCLI these hold the arguments of a subclass
        self.num_classes, self.prior = num_classes, prior
        self._asked_classes = num_classes  # None: those of the data, or of a checkpoint that is loaded
        self.lr = lr  # which callbacks look for and change
        self.score_thresh, self.detections_per_img = score_thresh, detections_per_img
        self.nms_thresh, self.topk_candidates = nms_thresh, int(topk_candidates)
        self._untrained_backbone = self._from_scratch = False
        self._first_bias: Tensor | None = None
        self._rates: LearningRates | None = None
        names = known_categories(detector, backbone, weights)
        if names is not None and num_classes == len(names) and self.network_options["keep_classifier"]:
            self.categories = [{"id": label, "name": name} for label, name in enumerate(names, network.background)]
        if num_classes is not None:
            self.configure_model()

    def configure_model(self) -> None:
        """Build the network, once, as soon as the number of classes is known: by argument, data or checkpoint."""
        if self.num_classes is None:
            number = getattr(getattr(self._trainer, "datamodule", None), "num_classes", None)
            self.num_classes = int(number) if number else None
        if self.num_classes is None or "model" in self._modules:
            return
        loss, network = self.criterion.loss, NETWORKS[self.detector_name]
        self.model = self.build_model(self.num_classes + (network.background or loss.extra_logits))
        adapter = find_detector(self.model)
        criteria = zip(adapter.stages, (self.criterion, self.rpn_criterion), strict=False)
        adapter = attach(adapter, {stage: criterion for stage, criterion in criteria if criterion is not None})
        # what evaluation and predictions need together; each keeps its own part
        adapter.limit_outputs(
            min(self.score_thresh, self.evaluation.score_thresh),
            self.nms_thresh,
            self.topk_candidates,
            max(self.detections_per_img, self.evaluation.detections_per_img),
        )
        stage = adapter.stages[0]
        columns, bias = adapter.columns(stage), adapter.class_bias(stage)
        self._first_label = columns.first_label
        # torchvision starts with equal biases, or with small random ones; trained ones differ
        if bool((bias == bias[0, 0]).all()) or self._from_scratch:
            if self.prior is not None or columns.background is None or not own_scores(columns, loss):
                set_prior(adapter, stage, self.criterion, loss.prior if self.prior is None else self.prior)
            self._first_bias = adapter.class_bias(stage).clone()

    @property
    def untrained(self) -> bool:
        """Whether the classifier has neither been trained nor loaded: its bias is what it was at the start."""
        if self._first_bias is None or self.criterion.step:
            return False
        bias = self._adapter.class_bias(self._adapter.stages[0])
        return bool((bias == self._first_bias.to(bias)).all())

    @property
    def longest_side(self) -> int | None:
        """Largest length of an image's longer side in pixels, None where images are scaled to squares."""
        if "model" in self._modules:
            return super().longest_side
        return None if NETWORKS[self.detector_name].squares else int(self.network_options["max_size"])

    def build_model(self, num_classes: int) -> nn.Module:
        """The network; override it for a backbone of your own.

        The constructor calls it: what an override needs is set before ``super().__init__()``. The module's criterion
        replaces the loss of whatever detector it returns, and the arguments ``score_thresh``, ``nms_thresh``,
        ``topk_candidates`` and ``detections_per_img`` (with those of evaluation) replace the network's.

        Args:
            num_classes: Columns of the head, as torchvision counts them: the object classes, background where the
                detector has a column of it, or else what the loss has besides.
        """
        options = self.network_options
        self._untrained_backbone = options["backbone"] != "tiny" and not (
            options["weights"] or options["weights_backbone"]
        )
        names = known_categories(self.detector_name, options["backbone"], options["weights"])
        kept = names is not None and len(names) + NETWORKS[self.detector_name].background == num_classes
        own = type(self).build_model is LitDetector.build_model  # an override may load what it likes
        self._from_scratch = own and not (kept and options["keep_classifier"])
        return build_detector(self.detector_name, num_classes, **options)

    def setup(self, stage: str) -> None:
        """Take class names and counts from the data module.

        Raises:
            UsageError: If the loss needs class counts that the data does not tell, or precision is not supported.
        """
        check_precision(str(self.trainer.precision))
        self.configure_model()
        self.match_classes(stage)

    def begin(self) -> None:
        """Refuse data of other classes, and images that vanish when they are scaled.

        Raises:
            UsageError: If the data cannot be used.
        """
        super().begin()
        data = getattr(getattr(self.trainer, "datamodule", None), "data", None) or {}
        if (longest := self.longest_side) is not None:
            check_all_sizes(data.values(), longest)

    def on_fit_start(self) -> None:
        """Meet the data's classes; warn once of a backbone that neither arguments nor a checkpoint have pretrained."""
        super().on_fit_start()
        if self._untrained_backbone:
            self._untrained_backbone = False
            rank_zero_warn(
                f"The backbone {self.network_options['backbone']} starts from random weights, and so needs far more "
                "images and epochs: set --model.weights_backbone=DEFAULT to start from pretrained ones."
            )

    def on_train_start(self) -> None:
        """Settle rate and schedule after callbacks and a checkpoint; warn where a finished run is to be continued."""
        if not warn_of_ended_schedule(self) and self._rates is not None:
            self._rates.start(self)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Follow a callback that has changed ``lr``."""
        if self._rates is not None:
            self._rates.follow(self)

    def on_train_epoch_start(self) -> None:
        """Tell the criteria which epoch it is."""
        for criterion in self._named_criteria().values():
            criterion.epoch = self.current_epoch

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser and a schedule that steps with it."""
        self.check_num_classes()
        refuse_finders(self.trainer)
        backbone: Any = self.model.backbone
        own = [group for criterion in self._named_criteria().values() for group in criterion.param_groups()]
        groups, factors = self.optimization.groups(self, getattr(backbone, "body", None), self.lr, own)
        self._rates = LearningRates(self.lr, factors)
        optimizer = build_optimizer(self.optimization.optimizer, groups, self.lr)
        schedule = self.optimization.schedule_of(self.trainer.estimated_stepping_batches)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, schedule), "interval": "step", "frequency": 1},
        }

    def on_train_end(self) -> None:
        """Look at the last step's loss."""
        self._adapter.nan_guard.flush()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what rebuilds this module as plain data: its parts, also where a subclass saved objects, and classes.

        Raises:
            NonFiniteLossError: If the last step's loss, which a GPU has told of only now, is no number.
        """
        self._adapter.nan_guard.flush()
        specs = {name: criterion.spec for name, criterion in self._named_criteria().items()}
        checkpoint["lit_dense"] = {**specs, "lr": self.lr, **self.classes_to_save()}
        saved = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        saved.update({name: part for name, part in self._specs().items() if name in saved})
        if "num_classes" in saved:
            saved["num_classes"] = self.num_classes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over the classes, and warn where the checkpoint was trained with other parts.

        Raises:
            UsageError: If the checkpoint has another number of classes than was asked for.
        """
        saved = checkpoint.get("lit_dense", {})
        number = saved.get("num_classes") or checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {}).get("num_classes")
        check_same_number(number, self._asked_classes, saved)
        if number not in (None, self.num_classes):
            self._modules.pop("model", None)
            self.num_classes = number
        self.configure_model()
        self.check_num_classes()
        self._untrained_backbone = False
        self.take_classes(saved)
        if self._stage and self._trainer is not None:  # which reads the checkpoint after setup
            self.lr = saved.get("lr", self.lr) if self._stage == "fit" else self.lr
            self.match_classes(self._stage)
        elif "val_map" in self._modules:
            self._make_metrics()
        for owner, criterion in self._named_criteria().items():
            parts = named_spec(saved.get(owner, {}))
            criterion.follow_spec(parts)
            for name, part in parts.items():
                if not agrees(part, criterion.spec[name]):
                    of_stage = f"rpn.{name}" if owner == "rpn" else name
                    rank_zero_warn(
                        f"The checkpoint was trained with {of_stage} {part}; this model has {criterion.spec[name]}."
                    )

    def _named_criteria(self) -> dict[str, Criterion]:
        """The criterion of each stage, by its name in checkpoints."""
        rpn = {} if self.rpn_criterion is None else {"rpn": self.rpn_criterion}
        return {"criterion": self.criterion, **rpn}

    def _specs(self) -> dict[str, Any]:
        """The parts among the constructor's arguments as plain data."""
        return {**self.criterion.spec, "rpn": self.rpn_criterion and self.rpn_criterion.spec}
