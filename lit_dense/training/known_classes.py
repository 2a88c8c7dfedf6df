"""The part of LitRetinaNet that knows what its columns stand for, and meets data that say it in another way."""

from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from ..core.errors import UsageError
from ..criterion import Criterion
from ..data.label_map import LabelMap, match_labels, offered_categories, unique_names


class KnownClasses(LightningModule):
    """A module whose columns have category ids and names, which its checkpoints keep.

    Whatever data it meets, its columns stay what they are: labels are matched with them at ``setup``, and anew when the
    trainer has read a checkpoint. Data of other classes is an error when the run begins.

    Attributes:
        categories: ``id`` and ``name`` of each column, of the data it was trained on; None if not known.
        class_images: Training images that show each class, in the order of the columns; None if not known.
        label_map: How the labels of the data in use are matched with the columns.
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
        """``id`` and ``name`` of each label in batches, and in what validation, test and prediction steps return.

        They are those of the data in use, or else ``categories``; None where neither is known.
        """
        return self.label_map.categories or self.categories

    @property
    def untrained(self) -> bool:
        """Whether the classifier has neither been trained nor loaded."""
        raise NotImplementedError

    def check_num_classes(self) -> None:
        """Raise an error if nobody has told how many classes there are.

        Raises:
            UsageError: If neither an argument nor the data nor a checkpoint has.
        """
        if self.num_classes is None:
            raise UsageError(
                "LitRetinaNet needs num_classes, the number of object classes: give it, or train with a data module "
                "that has an attribute num_classes."
            )

    def class_names(self) -> list[str] | None:
        """A name for each label of the data, all different; None where they are not known."""
        return unique_names(self.data_categories) if self.data_categories else None

    def label_images(self) -> list[int] | None:
        """Training images that show each class, in the order of the data's labels; None where they are not known."""
        if not self.class_images or not self.data_categories:
            return None
        images = self.label_map.of_labels(self.class_images) if self.label_map.num_columns else list(self.class_images)
        return images if len(images) == len(self.data_categories) else None

    def match_classes(self, stage: str) -> None:
        """Match the data's labels with the columns, and tell the criterion how often each class occurs.

        A mismatch is an error only when the run begins, for a checkpoint may follow.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``.

        Raises:
            UsageError: If the loss needs class counts that the data does not tell.
        """
        self._stage = str(getattr(stage, "value", stage))
        data = getattr(self.trainer, "datamodule", None)
        self.label_map = match_labels(self.categories, offered_categories(data), self.num_classes or 0)
        if self._stage != "fit" or self.label_map.problem:
            return
        if (counts := getattr(data, "class_counts", None)) is not None:
            if self.label_map.columns is not None:
                counts = counts.in_columns(self.label_map.columns, self.num_classes)
            self.criterion.receive_class_counts(counts)
            self.class_images = counts.images.tolist()
        self.criterion.check_ready()

    def classes_to_save(self) -> dict[str, Any]:
        """What a checkpoint keeps of the classes."""
        return {"categories": self.categories, "class_images": self.class_images, "num_classes": self.num_classes}

    def take_classes(self, saved: dict[str, Any]) -> None:
        """Take over what a checkpoint has kept of the classes; what it does not know stays.

        Args:
            saved: As ``classes_to_save`` gave it; empty for a checkpoint that knows nothing.
        """
        self.categories = saved.get("categories") or self.categories
        self.class_images = saved.get("class_images") or self.class_images

    def begin(self) -> None:
        """Refuse data of other classes; say how classes are matched, and where untrained weights are evaluated.

        Raises:
            UsageError: If the data's classes are not the model's, or nobody has told how many there are.
        """
        self.check_num_classes()
        self.label_map.check()
        if not self.untrained:
            if self.label_map.note:
                rank_zero_info(self.label_map.note)
        elif self._stage != "fit":
            rank_zero_warn(
                "The model has not been trained and no checkpoint was loaded: its classifier has random weights, and "
                f"what {self._stage} gives means nothing. Give --ckpt_path=PATH, or in Python ckpt_path=PATH or "
                "LitRetinaNet.load_from_checkpoint(PATH)."
            )

    def on_fit_start(self) -> None:
        """Refuse data of other classes, or take over what they are called."""
        self.begin()
        self.categories = self.categories or self.data_categories
        categories = self.data_categories or []
        if len(categories) > 1 and categories[0]["name"].strip("_").lower() == "background":
            rank_zero_info("The data's class 0 is called background: it gets a column as every class does.")

    def on_validation_start(self) -> None:
        """Check that there is something to evaluate, unless training does."""
        if self._stage != "fit":
            self.begin()

    def on_test_start(self) -> None:
        """Check that there is something to evaluate."""
        self.begin()

    def on_predict_start(self) -> None:
        """Check that there is something to predict with."""
        self.begin()


def check_same_number(number: int | None, asked: int | None, saved: dict[str, Any]) -> None:
    """Refuse a checkpoint of another number of classes than was asked for.

    Args:
        number: Classes of the checkpoint; None if not known.
        asked: Classes of the model; None if whatever the checkpoint has is right.
        saved: What the checkpoint has kept of the classes.

    Raises:
        UsageError: If both are known and differ.
    """
    if number is not None and asked is not None and number != asked:
        names = ", ".join(str(c["name"]) for c in saved.get("categories") or []) or "whose names it does not know"
        raise UsageError(
            f"The checkpoint has {number} classes ({names}), but num_classes={asked}: leave num_classes out, or start "
            "without the checkpoint."
        )
