"""Weights of the classes in the classification loss: balanced by the class counts, or given by the user."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from ..functional.balanced_classes import inverse_count_weights, mean_one
from .class_counts import ClassCounts
from .component import Component
from .errors import UsageError, check_choice, check_range, nearest

ClassWeightsLike = list[float] | dict[str, float] | str
"""``balanced``, one number for each class, or numbers by class name. Text is last: a command line tries it last."""
ClassWeightOn = Literal["positives", "columns"]
LARGEST = 1e30
"""Largest number that is accepted: sums of more would not be finite."""
SHOWN = 20
"""Largest number of class names in a message."""


class ClassWeights(Component):
    """The argument ``class_weights`` of a criterion: a weight for each class, with mean 1 over the classes that occur.

    The weights are not part of checkpoints: they are used only in training, which has the class counts and names.
    Without class counts, every class counts as one that occurs. Nothing is summed over processes, because all processes
    have the same training set.

    Args:
        weights: ``balanced``, one number for each class [C], or numbers by class name, 1 for the other classes.
        power: Power of the inverse number of boxes for ``balanced``, in [0, 1].
        on: What the weights multiply: the loss of ``positives``, or that of the ``columns`` of the logits, positives
            and negatives alike.

    Raises:
        UsageError: If an argument is out of range or unknown.
    """

    values: Tensor

    def __init__(
        self, weights: ClassWeightsLike | Sequence[float], power: float = 0.5, on: ClassWeightOn = "positives"
    ) -> None:
        super().__init__()
        self.power = check_range("criterion", "class_weight_power", power, 0, 1)
        self.on = check_choice("criterion", "class_weight_on", on, get_args(ClassWeightOn))
        self.given = _checked(weights)
        self.names: Sequence[str] | None = None
        self.instances: Tensor | None = None
        self.register_buffer("values", torch.empty(0), persistent=False)

    def prepare(self, num_classes: int) -> None:
        """Create the buffer for the classes of the head.

        Args:
            num_classes: C, number of classes.

        Raises:
            UsageError: If the argument has another number of classes.
        """
        if isinstance(self.given, list) and len(self.given) != num_classes:
            raise UsageError(
                f"class_weights has {len(self.given)} numbers, but the head has {num_classes} classes: give one number "
                "for each, or name the classes, as in {scratch: 2}."
            )
        self.values = torch.full((num_classes,), float("nan"), device=self.values.device)
        self.instances = None  # the criterion passes the counts again
        self._update()

    def receive_class_counts(self, counts: ClassCounts) -> None:
        """Take the number of boxes of each class; columns without a class have none."""
        self.instances = torch.zeros(len(self.values))
        self.instances[: len(counts.instances)] = counts.instances.float().cpu()
        self._update()

    def receive_names(self, names: Sequence[str]) -> None:
        """Take the name of each column, which finds the classes of weights that are given by name.

        Args:
            names: Name of each column; there may be fewer names than columns.

        Raises:
            UsageError: If a weight was given for a class that has no column.
        """
        if not isinstance(self.given, dict):
            return
        for name in self.given:
            if name not in names:
                known = [known for known in names if known]
                shown = ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "")
                raise UsageError(f"class_weights: unknown class {name!r}.{nearest(name, known)} Classes: {shown}.")
        self.names = list(names)
        self._update()

    def check_ready(self) -> None:
        """Check that the weights are known, which evaluation does not need.

        Raises:
            UsageError: If they are not; the message says how to provide what is missing.
        """
        if not torch.is_grad_enabled() or not self.values.isnan().any():
            return
        if isinstance(self.given, dict):
            raise UsageError(
                f"class_weights names classes ({', '.join(list(self.given)[:SHOWN])}), and the names of the head's "
                "columns are unknown: train with a data module that has categories (CocoDataModule does), or give a "
                "list with one number for each class."
            )
        raise UsageError(
            "class_weights='balanced' needs to know how often each class occurs. Train with a data module that has "
            "class_counts (CocoDataModule does), give class_counts to SwapLoss, lit_dense.patch or Criterion, or give "
            "the weights as a list with one number for each class."
        )

    def of_logits(self) -> Tensor:
        """Return the factor of each class's logits [C], or of its negative and its positive logits [2, C]."""
        return self.values if self.on == "columns" else torch.stack([torch.ones_like(self.values), self.values])

    def of_anchors(self, values: Tensor, positives: Tensor, labels: Tensor) -> Tensor:
        """Multiply the losses of positives by the weights of their classes, for losses without class weights [A].

        Args:
            values: Loss of each anchor [A].
            positives: Indices of the positives [P].
            labels: Class of each positive [P].
        """
        weights = self.values[labels].to(values.dtype)
        return values * torch.ones_like(values).index_put((positives,), weights)

    def _update(self) -> None:
        """Compute the weights, if everything that they depend on is known."""
        number = len(self.values)
        if number == 1:  # the only class has the mean weight
            self.values.fill_(1.0)
        elif self.given == "balanced":
            if self.instances is not None and number:
                self.values.copy_(inverse_count_weights(self.instances, self.power))
        elif number and (isinstance(self.given, list) or self.names is not None):
            occurs = torch.ones(number) if self.instances is None else self.instances
            weights = mean_one(self._by_column(number), occurs > 0)
            if not weights.isfinite().all():
                raise UsageError("class_weights is 0 for every class that occurs in the training set.")
            self.values.copy_(weights)

    def _by_column(self, number: int) -> Tensor:
        if isinstance(self.given, list):
            return torch.tensor(self.given, dtype=torch.float64)
        assert isinstance(self.given, dict)  # for the type checker: "balanced" has no numbers
        names = list(self.names or [])
        if len(names) > number:
            raise UsageError(
                f"class_weights: the data has {len(names)} classes, but the head has {number}: build the model with "
                f"num_classes={len(names)}, or more where labels start at 1."
            )
        by_name = [float(self.given.get(name, 1.0)) for name in names]
        return torch.tensor([*by_name, *[1.0] * (number - len(names))], dtype=torch.float64)


def _checked(weights: ClassWeightsLike | Sequence[float]) -> list[float] | dict[str, float] | str:
    """Return the weights as plain data, after checking them."""
    if isinstance(weights, str):
        if weights != "balanced":
            raise UsageError(
                f"class_weights must be balanced, a list with one number for each class, or numbers by class name, "
                f"as in {{scratch: 1, bonnet: 4}}, not {weights!r}.{nearest(weights, ['balanced'])}"
            )
        return weights
    if isinstance(weights, dict):
        return {str(name): _checked_number(name, number) for name, number in weights.items()}
    try:
        listed = list(weights)
    except TypeError as error:
        raise UsageError(f"class_weights must be balanced, a list or a dict, not {weights!r}.") from error
    numbers = [_checked_number(label, number) for label, number in enumerate(listed)]
    if numbers and not any(numbers):
        raise UsageError("class_weights is 0 for every class.")
    return numbers


def _checked_number(key: object, number: float) -> float:
    return float(check_range("criterion", f"class_weights[{key}]", number, 0, LARGEST))
