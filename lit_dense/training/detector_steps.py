"""Steps of a detector in Lightning: training, validation, test and prediction, with their metrics."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn import ModuleList

from ..core.batch_format import CLASS_LISTS, Batch, check_format, unpack
from ..core.errors import UsageError
from ..core.score_threshold import keep_scores
from ..criterion import Criterion
from ..data.tiling import TILING
from ..detectors.attach import attached
from ..detectors.base import ATTRIBUTE, DetectorAdapter
from ..metrics import DetectionMAP
from ..metrics.limits import too_many_objects
from ..metrics.map_logging import log_maps
from .batch import BatchChecks, float_images, metric_targets, without_crowd
from .evaluation_settings import EvaluationSettings
from .known_classes import KnownClasses
from .optimization import check_all_trained
from .tiled_prediction import predict_in_tiles


class DetectorSteps(KnownClasses):
    """The steps of a module with a detector as ``model``, to which an adapter is attached.

    Batches have the labels of the data. They are converted to labels of the network before its forward, and the labels
    of detections are converted back.
    """

    model: nn.Module
    score_thresh: float
    detections_per_img: int
    evaluation: EvaluationSettings

    def __init__(self) -> None:
        super().__init__()
        self._warned_of_limits = False
        self._batch_checks = BatchChecks()
        self._first_label = 0  # label of the first column in the detector
        self.more_val_maps, self.more_test_maps = ModuleList(), ModuleList()

    @property
    def _num_labels(self) -> int:
        """Number of valid labels of the data."""
        return self.label_map.num_labels or self.num_classes or 0

    @property
    def longest_side(self) -> int | None:
        """Largest length of an image's longer side in pixels; None if images are scaled to squares."""
        transform: Any = self.model.transform
        return None if getattr(transform, "fixed_size", None) is not None else int(transform.max_size)

    def on_fit_start(self) -> None:
        """Check the data, and that the optimisers have the parameters of the weighters' networks.

        Raises:
            UsageError: If the data has other classes, or an optimiser of a subclass leaves out these parameters.
        """
        super().on_fit_start()
        if optimizers := getattr(self.trainer, "optimizers", ()):
            criteria = (module for module in self.modules() if isinstance(module, Criterion))
            check_all_trained((p for criterion in criteria for p in criterion.parameters()), optimizers)

    def match_classes(self, stage: str) -> None:
        """Match the labels of the data with the columns, and create the metrics for these labels.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            UsageError: If the loss needs class counts and the data module has none.
        """
        super().match_classes(stage)
        if stage != "predict" and not self.label_map.problem:
            self._make_metrics()

    def unpack_batch(self, batch: Any) -> Batch:
        """Return the images and targets of a batch; override it for another format.

        Args:
            batch: A batch of the data loader.

        Raises:
            UsageError: If the batch is not a pair of images and targets.
        """
        return unpack(batch)

    def _checked(self, batch: Any, objects: bool = True) -> Batch:
        """Unpack and check a batch, and convert its images to floats; without ``objects``, targets need no boxes."""
        images, targets = unpack(self.unpack_batch(batch))
        check_format(self.model, images, targets, objects)
        return self._batch_checks(images, targets, self._num_labels if objects else None, self.longest_side)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """Detect objects: returns ``boxes`` [N, 4], ``labels`` [N] and ``scores`` [N] for each image, best first.

        Labels are columns of the head; ``categories`` has their names.

        Args:
            images: Images [3, H, W], uint8 or float in [0, 1].
        """
        check_format(self.model, images, None)
        detections = [self._in_columns(d) for d in self.model(float_images(images))]
        return [keep_scores(d, self.score_thresh, self.detections_per_img) for d in detections]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute the sum of the loss terms, and log it."""
        images, targets = self._checked(batch)
        targets = self._of_network(without_crowd(targets))
        with self._adapter.checked_batch(self.num_classes or 0):
            terms: dict[str, Tensor] = self.model(images, targets)
        loss = torch.stack(list(terms.values())).sum()
        self.log("train_loss", loss, prog_bar=True, batch_size=len(images))
        self.log_dict({f"train_{name}": term for name, term in terms.items()}, batch_size=len(images))
        return loss

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Compute losses and detections in one forward pass; returns the detections for callbacks."""
        return {"detections": self._evaluate(batch, "val", self._maps("val")[dataloader_idx])}

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Compute losses and detections of a test batch in one forward pass; returns the detections for callbacks."""
        return {"detections": self._evaluate(batch, "test", self._maps("test")[dataloader_idx])}

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """Return the detections of each image with the fields of its target, such as ``image_id`` and ``file_name``.

        Labels are those of the data; ``data_categories`` has their names. Images whose targets have ``tiling`` (the
        side of a tile in pixels and the overlap) are predicted in tiles. ``detections_per_img`` then limits each tile.
        """
        images, targets = unpack(self.unpack_batch(batch))
        check_format(self.model, images, targets, objects=False)
        detections = predict_in_tiles(self._predict, images, targets)
        fields = [{name: value for name, value in target.items() if name != TILING} for target in targets]
        return [{**own, **detection} for own, detection in zip(fields, detections, strict=True)]

    def _predict(self, images: Any, targets: Any) -> list[dict[str, Tensor]]:
        floats, _ = self._batch_checks(images, targets, None, self.longest_side)
        return [self.label_map.in_labels(detection) for detection in self(floats)]

    def on_validation_start(self) -> None:
        """Create a metric for each additional validation loader."""
        super().on_validation_start()
        self.more_val_maps = ModuleList(self._new_metric() for _ in self.trainer.num_val_batches[1:])

    def on_test_start(self) -> None:
        """Create a metric for each additional test loader."""
        super().on_test_start()
        self.more_test_maps = ModuleList(self._new_metric() for _ in self.trainer.num_test_batches[1:])

    def on_validation_epoch_end(self) -> None:
        """Log the mAP of each validation loader, over the images of all processes."""
        log_maps(self, "val", self._maps("val"))

    def on_test_epoch_end(self) -> None:
        """Log the mAP of each test loader, over the images of all processes."""
        log_maps(self, "test", self._maps("test"))

    def _evaluate(self, batch: Any, stage: str, metric: DetectionMAP) -> list[dict[str, Tensor]]:
        images, targets = self._checked(batch)
        objects = without_crowd(targets)
        terms, detections = self._terms_and_detections(images, objects)
        logged = {f"{stage}_{name}": term for name, term in terms.items()}
        logged[f"{stage}_loss"] = torch.stack(list(terms.values())).sum()
        self.log_dict(logged, on_epoch=True, on_step=False, sync_dist=True, batch_size=len(images))
        rules = self.evaluation
        kept = [keep_scores(self._in_columns(d), rules.score_thresh, rules.detections_per_img) for d in detections]
        evaluated = [self.label_map.in_labels(d) for d in kept]
        ids = [t["image_id"] for t in targets if "image_id" in t]
        metric.update(evaluated, metric_targets(targets), ids if len(ids) == len(targets) else None)
        if not self._warned_of_limits and (warning := too_many_objects(objects, metric, rules.detections_per_img)):
            self._warned_of_limits = True
            rank_zero_warn(warning)
        return evaluated

    def terms_of(self, images: Sequence[Any], targets: Sequence[Any]) -> dict[str, Tensor]:
        """Compute the loss terms of images in evaluation mode, without logging them.

        Args:
            images: Images of a batch.
            targets: Their targets, with the labels of the data.
        """
        check_format(self.model, images, targets)
        floats, checked = self._batch_checks(images, list(targets), self._num_labels, self.longest_side)
        return self._terms_and_detections(floats, without_crowd(checked))[0]

    def _terms_and_detections(self, images: Any, objects: Any) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        with self._adapter.checked_batch(self.num_classes or 0):
            return self._adapter.losses_and_detections(images, self._of_network(objects))

    def _maps(self, stage: str) -> list[DetectionMAP]:
        """Return the metric of each loader of a stage."""
        return [getattr(self, f"{stage}_map"), *getattr(self, f"more_{stage}_maps")]

    def _make_metrics(self) -> None:
        self.val_map, self.test_map = self._new_metric(), self._new_metric()
        self.more_val_maps, self.more_test_maps = ModuleList(), ModuleList()

    def _new_metric(self) -> DetectionMAP:
        return self.evaluation.metric(self.class_names(), self.label_images()).to(self.device)

    def _of_network(self, targets: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Convert the labels of targets to those of the detector."""
        targets, first = self.label_map.in_columns(targets), self._first_label
        if not first:
            return targets
        return [{**t, **{name: t[name] + first for name in ("labels", *CLASS_LISTS) if name in t}} for t in targets]

    def _in_columns(self, detections: dict[str, Tensor]) -> dict[str, Tensor]:
        """Convert the labels of detections to columns of the head."""
        first = self._first_label
        return {**detections, "labels": detections["labels"] - first} if first else detections

    @property
    def _adapter(self) -> DetectorAdapter:
        # The search through all submodules takes a fifth of a millisecond, and this runs in each step.
        adapter: DetectorAdapter | None = vars(self.model).get(ATTRIBUTE) or attached(self.model)
        if adapter is None:
            raise UsageError("The network has its own loss again: unpatch was called. Call lit_dense.patch(model).")
        return adapter
