"""torchvision's detectors as a LightningModule, with optimiser, steps and metrics for any loss."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from .. import callbacks as callbacks  # so that --trainer.callbacks+= accepts their class names
from ..assigners import AssignerLike
from ..box_losses import BoxLossLike
from ..calibrators import CalibratorLike
from ..core.class_weights import ClassWeightOn, ClassWeightsLike
from ..core.errors import check_choice
from ..core.nan_guard import check_finite_weights
from ..criterion import Criterion, CriterionArgs, named_spec
from ..data.checks.thin_images import check_all_sizes
from ..detectors.attach import attach, find_detector, set_box_outputs, set_prior
from ..detectors.columns import own_scores
from ..detectors.from_arguments import NETWORKS, build_detector, known_categories
from ..losses import LossLike
from ..metrics.backends import BackendName, Protocol
from ..normalizers import NormalizerLike
from ..weighters import WeightersLike
from .checkpoint_content import check_same_number, check_same_outputs, name_of_class, replace_state, warn_of_differences
from .evaluation_settings import EvaluationSettings, check_outputs, check_precision
from .exportable import Exportable
from .learning_rates import LearningRates, refuse_finders, warn_of_ended_schedule
from .network_arguments import check_network
from .optimization import Optimization, OptimizerName, ScheduleName, build_optimizer
from .random_states import RandomStates, random_states, restore_random_states


class LitDetector(Exportable):
    """A torchvision detector, trained with any loss and any weighting.

    Subclass it to change the network (``build_model``), the format of batches (``unpack_batch``), the optimiser
    (``configure_optimizers``) or a step. Batches are ``(images, targets)``: images [3, H, W] as uint8 or as floats in
    [0, 1]; targets with ``boxes`` [G, 4] in pixels (x1 y1 x2 y2), ``labels`` [G] and, for evaluation, ``image_id``. An
    image without objects has boxes [0, 4] and is used as background.

    Args:
        detector: ``retinanet``, ``fcos``, ``ssd``, ``ssdlite`` or ``faster_rcnn``.
        num_classes: Number of object classes, by default that of the data module. Labels are 0 to num_classes - 1, even
            if the labels of the detector start at 1. torchvision's COCO weights of RetinaNet and FCOS have 91 columns,
            one per category id; column 0 and ten others are unused. Those of SSD and Faster R-CNN have 90 classes. With
            that number the pretrained classifier is kept and can predict without training; with another number a new
            classifier is trained.
        backbone: A torchvision ResNet or MobileNet, ``tiny``, ``timm/NAME``, or a torchvision model, such as
            ``retinanet_resnet50_fpn_v2`` or ``fasterrcnn_resnet50_fpn``.
        weights: Weights of a torchvision model, such as ``COCO_V1``.
        weights_backbone: Weights of the backbone, such as ``IMAGENET1K_V1`` or ``DEFAULT``; by default random weights.
        frozen_stages: Number of backbone stages that are not trained, 0 to 5; by default 2 if the backbone has weights.
        fpn_channels: Number of channels of the feature pyramid and the head, a multiple of 8 (FCOS: of 32).
        head_convs: Number of convolutions of each tower of the head, 1 to 4; only for RetinaNet and FCOS.
        anchor_sizes: Anchor sizes of each pyramid level in pixels; by default three per octave from 32 to 812, and one
            per level from 32 for Faster R-CNN. SSD uses the smallest size of each level for its default boxes; by
            default from a tenth to nine tenths of the image. FCOS ignores them.
        aspect_ratios: Aspect ratios of the anchors, height over width; only for RetinaNet and Faster R-CNN.
        min_size: Length of an image's shorter side in pixels, by default 800; from several, one is drawn for each
            training image. SSD ignores it.
        max_size: Largest length of an image's longer side in pixels, by default 1333. SSD and SSDlite scale images to
            squares of this size, by default 300 and 320.
        loss: The classification loss: a name, an object, or a dict with class_path and init_args; by default the
            detector's own, ``focal`` or ``softmax``, with SSD's hard negatives.
        box_loss: The box loss, given in the same way; by default the detector's own. RetinaNet and FCOS get the
            regression head that it needs (``dfl``).
        weighters: One weighter or a list of weighters, whose weights multiply; by default none, or SSD's hard negatives
            with SSD's own loss.
        normalizer: What the sums are divided by; by default as in torchvision.
        assigner: Matches anchors and ground-truth boxes; by default torchvision's matcher. Faster R-CNN ignores it.
        loss_weight: Factor of the classification term.
        box_loss_weight: Factor of the box term.
        class_weights: Weights of the classes in the classification loss; ``balanced`` by the number of boxes, one
            number for each class, or numbers by class name. By default all classes have weight 1.
        class_weight_power: Power of the inverse number of boxes for ``balanced``; 0.5 is the square root, 1
            the inverse, 0 weights all classes equally.
        class_weight_on: What class weights multiply; ``positives``, or whole ``columns`` of the logits with their
            negatives.
        prior: Initial score of an object, to which the classifier's bias is set unless the classifier is pretrained; by
            default the value that the loss recommends: 0.01, 0.001 for ``eql``, ``eql_v2`` and ``efl``, and 0.1 for
            ``ecm``. By default a softmax of SSD or Faster R-CNN is initialised as in torchvision.
        rpn: Arguments for the loss of Faster R-CNN's region proposal network: ``loss``, ``box_loss``, ``weighters``,
            ``normalizer``, ``loss_weight`` and ``box_loss_weight``; by default torchvision's.
        optimizer: ``adamw``, or ``sgd`` with momentum 0.9. Norms and biases have no weight decay.
        lr: Learning rate.
        backbone_lr_factor: Learning rate of the backbone over that of the other layers.
        weight_decay: Weight decay of matrices and convolutions.
        schedule: ``cosine``, ``multistep`` (a tenth at each milestone) or ``constant``, per optimiser step.
        warmup_steps: Number of optimiser steps over which the learning rate rises; at most a tenth of the run.
        milestones: Fractions of the run at which the learning rate of ``multistep`` falls.
        score_thresh: Smallest score of a prediction. Evaluation ignores it.
        eval_score_thresh: Smallest score of a detection in evaluation; low, so that it does not decide a comparison.
        nms_thresh: IoU threshold of non-maximum suppression within a class.
        topk_candidates: Largest number of candidates of each pyramid level before non-maximum suppression, over all
            classes (SSD: of each class). Several are needed for each object of an image. Faster R-CNN ignores it.
        detections_per_img: Largest number of predictions of an image. Evaluation ignores it.
        eval_detections_per_img: Largest number of detections of an image in evaluation, over all classes.
        eval_max_detections: Largest number of detections of an image and class in mAP; by default COCO's 100. If images
            have more objects, raise this and eval_detections_per_img. With ``lvis``, it is the number per image, by
            default 300.
        eval_protocol: Rules of mAP: ``coco``, or ``lvis`` for LVIS's partly annotated images.
        eval_backend: Evaluator of mAP, ``hotcoco`` or ``pycocotools``. Both give the same numbers, and hotcoco is
            faster; by default hotcoco, or pycocotools if hotcoco cannot be used.
        frequency_bounds: Largest number of training images of a rare and of a common class, for the mAP of rare, common
            and frequent classes.
        calibrator: Changes the scores in evaluation and prediction; by default none. ``lit-dense calibrate`` finds its
            numbers.
        eval_calibration_score: Smallest score of a detection in the calibration error ``ece``, such as 0.3; by default
            it is not computed.

    Attributes:
        criterion: The criterion with loss and weighters; in Faster R-CNN that of the box head.
        rpn_criterion: The criterion of Faster R-CNN's region proposal network; None for other detectors.
        categories: ``id`` and ``name`` of each column of the head, from the training data; None if unknown. The labels
            of ``module(images)`` are columns.
        data_categories: ``id`` and ``name`` of each label in batches and results, from the current data.

    Raises:
        UsageError: If a name is unknown or arguments do not fit together.

    Example:
        >>> module = LitDetector("fcos", num_classes=3, backbone="tiny", fpn_channels=32, loss="ghm")
        >>> type(module.model).__name__
        'FCOS'
    """

    detectors: ClassVar[tuple[str, ...]] = tuple(NETWORKS)
    """Accepted values of the argument ``detector``."""
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
        class_weights: ClassWeightsLike | None = None,
        class_weight_power: float = 0.5,
        class_weight_on: ClassWeightOn = "positives",
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
        calibrator: CalibratorLike | None = None,
        eval_calibration_score: float | None = None,
    ) -> None:
        super().__init__()
        check_choice(type(self).__name__, "detector", detector, self.detectors)
        self.optimization = Optimization(
            optimizer, lr, backbone_lr_factor, weight_decay, schedule, warmup_steps, milestones
        )
        check_outputs(score_thresh, nms_thresh, topk_candidates, detections_per_img)
        self.evaluation = EvaluationSettings(
            eval_score_thresh,
            eval_detections_per_img,
            eval_max_detections,
            eval_protocol,
            eval_backend,
            frequency_bounds,
            eval_calibration_score,
        )
        chosen: CriterionArgs = {
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
        network = NETWORKS[detector]
        check_network(num_classes, fpn_channels, head_convs, (min_size, max_size), anchor_sizes, aspect_ratios)
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
        with warnings.catch_warnings():  # Lightning's advice against modules as arguments: the next call replaces them
            warnings.filterwarnings("ignore", "Attribute '.*' is an instance of `nn.Module`")
            self.save_hyperparameters()
        # replaces objects among the arguments: a checkpoint contains plain data that rebuilds the same components
        self.save_hyperparameters(self._specs())
        # not read from self.hparams: under LightningCLI these contain the arguments of a subclass
        self.num_classes, self.prior = num_classes, prior
        self._requested_classes = num_classes  # None: those of the data or of a loaded checkpoint
        self.lr = lr  # callbacks such as LearningRateFinder change it
        self.score_thresh, self.detections_per_img = score_thresh, detections_per_img
        self.nms_thresh, self.topk_candidates = nms_thresh, int(topk_candidates)
        self._untrained_backbone = self._from_scratch = False
        self._first_bias: Tensor | None = None
        self._rates: LearningRates | None = None
        self._random_states: Sequence[RandomStates] = ()  # of the run that is resumed, until it starts
        names = known_categories(detector, backbone, weights)
        if names is not None and num_classes == len(names) and self.network_options["keep_classifier"]:
            self.categories = [{"id": label, "name": name} for label, name in enumerate(names, network.background)]
        if num_classes is not None:
            self.configure_model()

    def configure_model(self) -> None:
        """Build the network once the number of classes is known from the argument, the data or a checkpoint."""
        if self.num_classes is None:
            number = getattr(getattr(self._trainer, "datamodule", None), "num_classes", None)
            self.num_classes = int(number) if number else None
        if self.num_classes is None:
            return
        if "model" not in self._modules:
            self._build(self.num_classes)
        self.announce_classes()

    def _build(self, num_classes: int) -> None:
        loss, network = self.criterion.loss, NETWORKS[self.detector_name]
        self.model = self.build_model(num_classes + (network.background or loss.extra_logits))
        adapter = find_detector(self.model)
        pairs = zip(adapter.stages, (self.criterion, self.rpn_criterion), strict=False)
        criteria = {stage: criterion for stage, criterion in pairs if criterion is not None}
        for stage, criterion in criteria.items():
            if adapter.can_set_box_outputs(stage) and criterion.box_loss is not None:
                set_box_outputs(self.model, criterion.box_loss, stage)
        adapter = attach(adapter, criteria)
        self.limit_detections()
        stage = adapter.stages[0]
        columns, bias = adapter.columns(stage), adapter.class_bias(stage)
        self._first_label = columns.first_label
        # initial biases of torchvision are equal, or small and random; trained biases differ
        if bool((bias == bias[0, 0]).all()) or self._from_scratch:
            if self.prior is not None or columns.background is None or not own_scores(columns, loss):
                set_prior(adapter, stage, self.criterion, loss.prior if self.prior is None else self.prior)
            self._first_bias = adapter.class_bias(stage).clone()

    def limit_detections(self) -> None:
        """Set the limits of the network to the union of those of evaluation and prediction; each of them filters it."""
        self._adapter.limit_outputs(
            min(self.score_thresh, self.evaluation.score_thresh),
            self.nms_thresh,
            self.topk_candidates,
            max(self.detections_per_img, self.evaluation.detections_per_img),
        )

    @property
    def untrained(self) -> bool:
        """Whether the classifier has been neither trained nor loaded: its bias still has the initial value."""
        if self._first_bias is None or self.criterion.step:
            return False
        bias = self._adapter.class_bias(self._adapter.stages[0])
        return bool((bias == self._first_bias.to(bias)).all())

    @property
    def longest_side(self) -> int | None:
        """Largest length of an image's longer side in pixels; None if images are scaled to squares."""
        if "model" in self._modules:
            return super().longest_side
        return None if NETWORKS[self.detector_name].squares else int(self.network_options["max_size"])

    def build_model(self, num_classes: int) -> nn.Module:
        """Build the network; override it to use your own network.

        The constructor calls this method: set the attributes that an override needs before ``super().__init__()``. The
        module's criterion replaces the loss of the returned detector. The arguments ``score_thresh``, ``nms_thresh``,
        ``topk_candidates`` and ``detections_per_img`` (and those of evaluation) replace the limits of the network.

        Args:
            num_classes: Number of columns of the head, as torchvision counts them: the object classes; and background
                if the detector has a background column, or otherwise the extra columns of the loss.
        """
        options = self.network_options
        self._untrained_backbone = options["backbone"] != "tiny" and not (
            options["weights"] or options["weights_backbone"]
        )
        names = known_categories(self.detector_name, options["backbone"], options["weights"])
        kept = names is not None and len(names) + NETWORKS[self.detector_name].background == num_classes
        own = type(self).build_model is LitDetector.build_model  # an override may have loaded weights
        self._from_scratch = own and not (kept and options["keep_classifier"])
        return build_detector(self.detector_name, num_classes, **options)

    def setup(self, stage: str) -> None:
        """Take class names and counts from the data module.

        Raises:
            UsageError: If the loss needs class counts and the data module has none, or the precision is not supported.
        """
        check_precision(str(self.trainer.precision))
        self._stage = stage  # match_classes passes the class counts, only for training
        self.configure_model()
        self.match_classes(stage)

    def begin(self) -> None:
        """Reject data with other classes, and images that are too thin to be scaled.

        Raises:
            UsageError: If the data cannot be used.
        """
        super().begin()
        data = getattr(getattr(self.trainer, "datamodule", None), "data", None) or {}
        if (longest := self.longest_side) is not None:
            check_all_sizes(data.values(), longest)

    def on_fit_start(self) -> None:
        """Check the classes of the data; warn once if the backbone has random weights; leave the evaluation mode."""
        super().on_fit_start()
        if not self.model.training:  # after predictions; Lightning keeps the mode
            self.train()
        if self._untrained_backbone:
            self._untrained_backbone = False
            rank_zero_warn(
                f"The backbone {self.network_options['backbone']} starts from random weights and needs far more images "
                "and epochs: set --model.weights_backbone=DEFAULT to start from pretrained ones."
            )

    def on_train_start(self) -> None:
        """Update rates, schedule and random states after a checkpoint; warn if a finished run is resumed."""
        restore_random_states(self, self._random_states)
        self._random_states = ()
        if not warn_of_ended_schedule(self) and self._rates is not None:
            self._rates.start(self)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the epoch of the criteria, and update the optimiser if a callback has changed ``lr``."""
        # not at the start of an epoch: Lightning leaves that hook out where a run resumes at the end of another
        for criterion in self._named_criteria().values():
            criterion.epoch = self.current_epoch
        if self._rates is not None:
            self._rates.follow(self)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create the optimiser and a schedule that is updated at each optimiser step."""
        self.check_num_classes()
        refuse_finders(self.trainer)
        backbone: Any = self.model.backbone
        own = [group for criterion in self._named_criteria().values() for group in criterion.param_groups()]
        groups, factors = self.optimization.groups(self, getattr(backbone, "body", backbone), self.lr, own)
        self._rates = LearningRates(self.lr, factors)
        optimizer = build_optimizer(self.optimization.optimizer, groups, self.lr)
        schedule = self.optimization.schedule_of(self.trainer.estimated_stepping_batches)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, schedule), "interval": "step", "frequency": 1},
        }

    def on_train_end(self) -> None:
        """Check that the loss of the last step is finite, which a GPU has not checked yet."""
        self._adapter.nan_guard.flush()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the components and classes as plain data that rebuilds this module, even if a subclass saved objects.

        Raises:
            NonFiniteLossError: If the loss of the last step (a GPU detects it one step late) or a weight is NaN or
                infinite; the checkpoints that exist stay as they are.
        """
        self._adapter.nan_guard.flush()
        check_finite_weights(self)
        specs = {name: criterion.spec for name, criterion in self._named_criteria().items()}
        own = {"lr": self.lr, **name_of_class(self)}
        if "optimizer_states" in checkpoint:  # a trainer saves it, in all processes, and training can resume from it
            own["random"] = random_states(self)
        checkpoint["lit_dense"] = {**specs, **own, **self.classes_to_save()}
        saved = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        saved.update({name: spec for name, spec in self._specs().items() if name in saved})
        if "num_classes" in saved:
            saved["num_classes"] = self.num_classes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the classes; warn if the checkpoint was trained with other components or by another class.

        Raises:
            UsageError: If the checkpoint has another number of classes than requested, or its head other box outputs.
        """
        saved = checkpoint.get("lit_dense", {})
        number = saved.get("num_classes") or checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {}).get("num_classes")
        check_same_number(number, self._requested_classes, saved)
        specs = named_spec(saved.get("criterion", {}))
        check_same_outputs(specs.get("box_loss"), self.criterion.box_loss)
        if number not in (None, self.num_classes):
            self._modules.pop("model", None)
            self.num_classes = number
        self.configure_model()
        self.check_num_classes()
        if self._adapter.columns(self._adapter.stages[0]).background is None:  # else a head has one column more anyway
            check_same_outputs(specs.get("loss"), self.criterion.loss)
        self._untrained_backbone = False
        self.take_classes(saved)
        if self._stage and self._trainer is not None:  # the trainer loads the checkpoint after setup
            if self._stage == "fit":
                self.lr, self._random_states = saved.get("lr", self.lr), saved.get("random", ())
            self.match_classes(self._stage)
        elif "val_map" in self._modules:
            self._make_metrics()
        for owner, criterion in self._named_criteria().items():
            saved_specs = named_spec(saved.get(owner, {}))
            criterion.follow_spec(saved_specs)
            if saved_specs and saved_specs.get("calibrator") != criterion.spec["calibrator"]:
                replace_state(checkpoint["state_dict"], f"{owner}.calibrator.", criterion.calibrator)
        warn_of_differences(self, saved, {owner: c.spec for owner, c in self._named_criteria().items()})

    def _named_criteria(self) -> dict[str, Criterion]:
        """Return the criterion of each stage, by its name in checkpoints."""
        rpn = {} if self.rpn_criterion is None else {"rpn": self.rpn_criterion}
        return {"criterion": self.criterion, **rpn}

    def _specs(self) -> dict[str, Any]:
        """Return the components among the constructor's arguments as plain data."""
        return {**self.criterion.spec, "rpn": self.rpn_criterion and self.rpn_criterion.spec}
