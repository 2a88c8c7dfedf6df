"""Object classes of a LightningModule: kept in checkpoints, and matched with the labels of the data in use."""

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from ..core.errors import UsageError
from ..core.per_class_table import PerClassTable
from ..criterion import Criterion
from ..data.label_map import LabelMap, match_labels, offered_categories, unique_names
from ..data.training_counts import training_counts


class KnownClasses(LightningModule):
    """A module with a category id and name for each column, which its checkpoints contain.

    The columns never change. The labels of the data are matched with them at ``setup``, and again after the trainer has
    read a checkpoint. Data with other classes raises an error when the run begins.

    Attributes:
        categories: ``id`` and ``name`` of each column, from the training data; None if unknown.
        class_images: Number of training images that contain each class, in the order of columns; None if unknown.
        label_map: The match between the labels of the current data and the columns.
    """

    num_classes: int | None
    criterion: Criterion

    def __init__(self) -> None:
        super().__init__()
        self.categories: list[dict[str, Any]] | None = None
        self.class_images: list[int] | None = None
        self.label_map = LabelMap(0)
        self._stage = ""

    @property
    def data_categories(self) -> list[dict[str, Any]] | None:
        """``id`` and ``name`` of each label in batches, and in the results of validation, test and prediction steps.

        They come from the current data, or otherwise from ``categories``; None if both are unknown.
        """
        return self.label_map.categories or self.categories

    @property
    def untrained(self) -> bool:
        """Whether the classifier has neither been trained nor loaded."""
        raise NotImplementedError

    def check_num_classes(self) -> None:
        """Check that the number of classes is known.

        Raises:
            UsageError: If neither an argument nor the data module nor a checkpoint defines it.
        """
        if self.num_classes is None:
            raise UsageError(
                "LitRetinaNet needs num_classes, the number of object classes: give it, train with a data module that "
                "has an attribute num_classes, or give the checkpoint of a trained model (--ckpt_path=PATH)."
            )

    def class_names(self) -> list[str] | None:
        """Return a unique name for each label of the data; None if the names are unknown."""
        return unique_names(self.data_categories) if self.data_categories else None

    def label_images(self) -> list[int] | None:
        """Return the number of training images that contain each class, by label of the data; None if unknown."""
        if not self.class_images or not self.data_categories:
            return None
        images = self.label_map.of_labels(self.class_images) if self.label_map.num_columns else list(self.class_images)
        return images if len(images) == len(self.data_categories) else None

    def match_classes(self, stage: str) -> None:
        """Match the labels of the data with the columns, and pass the class counts to the criterion.

        A mismatch raises an error only when the run begins, because a checkpoint may be loaded before.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            UsageError: If the loss needs class counts and the data module has none.
        """
        self._stage = str(getattr(stage, "value", stage))
        data = getattr(self.trainer, "datamodule", None)
        self.label_map = match_labels(self.categories, offered_categories(data), self.num_classes or 0)
        if self._stage == "fit" and not self.label_map.problem:
            self._pass_to_criterion(data)
            self.criterion.check_ready()

    def announce_classes(self) -> None:
        """Pass the class counts to the criterion before ``setup``.

        ``EMAWeightAveraging`` copies the module before ``setup``, and evaluates with the copy's buffers.
        """
        data = getattr(self._trainer, "datamodule", None)
        if self._stage or getattr(data, "class_counts", None) is None:
            return
        self.label_map = match_labels(self.categories, offered_categories(data), self.num_classes or 0)
        if not self.label_map.problem:
            self._pass_to_criterion(data)

    def _pass_to_criterion(self, data: Any) -> None:
        if names := [str(category["name"]) for category in self.categories or self.data_categories or []]:
            self.criterion.receive_class_names(names)
        if (counts := getattr(data, "class_counts", None)) is not None:
            if self.label_map.columns is not None:
                counts = counts.in_columns(self.label_map.columns, self.num_classes)
            self.criterion.receive_class_counts(counts)
            self.class_images = counts.images.tolist()

    def classes_to_save(self) -> dict[str, Any]:
        """Return the data about the classes for a checkpoint."""
        return {"categories": self.categories, "class_images": self.class_images, "num_classes": self.num_classes}

    def take_classes(self, saved: dict[str, Any]) -> None:
        """Restore the classes from a checkpoint; values that it lacks do not change.

        Args:
            saved: The result of ``classes_to_save``; empty for a checkpoint without classes.
        """
        self.categories = saved.get("categories") or self.categories
        self.class_images = saved.get("class_images") or self.class_images

    def begin(self) -> None:
        """Reject data with other classes, log how classes are matched, and warn if untrained weights are evaluated.

        Raises:
            UsageError: If the classes of the data are not those of the model, or their number is unknown.
        """
        self.check_num_classes()
        self.label_map.check()
        if self._stage != "fit":
            self._count_for_calibrator()
        if not self.untrained:
            if self.label_map.note:
                rank_zero_info(self.label_map.note)
        elif self._stage != "fit":
            rank_zero_warn(
                "The model has not been trained and no checkpoint was loaded: its classifier has random weights, and "
                f"the results of {self._stage} are meaningless. Give --ckpt_path=PATH, or in Python ckpt_path=PATH or "
                "LitRetinaNet.load_from_checkpoint(PATH)."
            )

    def _count_for_calibrator(self) -> None:
        """Give class counts to a calibrator that lacks them, because evaluation does not read the training set."""
        calibrator = self.criterion.calibrator
        parts = calibrator.modules() if calibrator is not None else ()
        tables = [part for part in parts if isinstance(part, PerClassTable) and part.values.isnan().any()]
        counts = training_counts(getattr(self.trainer, "datamodule", None)) if tables else None
        if counts is None:  # the calibrator says what it needs
            return
        if self.label_map.columns is not None:
            counts = counts.in_columns(self.label_map.columns, self.num_classes or 0)
        for table in tables:
            table.receive_class_counts(counts)

    def on_fit_start(self) -> None:
        """Reject data with other classes, or take their names from the data if the model has none."""
        self.begin()
        self.categories = self.categories or self.data_categories
        categories = self.data_categories or []
        if len(categories) > 1 and categories[0]["name"].strip("_").lower() == "background":
            rank_zero_info("The data's class 0 is called background: it gets a column as every class does.")

    def on_validation_start(self) -> None:
        """Check the model and the data, unless ``on_fit_start`` has done so."""
        if self._stage != "fit":
            self.begin()

    def on_test_start(self) -> None:
        """Check the model and the data."""
        self.begin()

    def on_predict_start(self) -> None:
        """Check the model and the data."""
        self.begin()
