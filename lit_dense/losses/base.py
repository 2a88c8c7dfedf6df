"""The base of classification losses."""

import math
import warnings
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from ..core.component import Component
from ..core.distributed import Reduce
from ..core.samples import DenseSamples
from ..core.step_context import StepContext
from ..functional.fused.sigmoid_terms import SigmoidTerms, sum_over_classes


class DenseLoss(Component):
    """A classification loss: logits and labels in, one value per anchor out.

    Subclass it, give ``forward``, and register the class in the entry-point group ``lit_dense.losses``. A loss of
    single logits is shorter as a :class:`SigmoidLoss`, which is also several times faster.

    Attributes:
        accepts_soft_targets: Whether ``samples.soft_targets`` are heeded.
        accepts_class_weights: Whether ``samples.class_weights`` are heeded, as every loss of single logits should.
        quality_scores: Whether the score of a class is trained towards the quality of the predicted box, such as its
            IoU; a detector that multiplies scores by a quality of its own warns of it.
        extra_logits: Columns that the head has beyond one per class.
        prior: Recommended probability of an object at the start of training, which the head's bias is set to.

    Example:
        >>> import torch
        >>> class Hinge(DenseLoss):
        ...     def forward(self, logits, labels, samples):
        ...         target = torch.nn.functional.one_hot(labels.clamp(min=-1) + 1, logits.shape[1] + 1)[:, 1:]
        ...         return (1 - logits * (2 * target - 1)).clamp(min=0).sum(1)
    """

    accepts_soft_targets: bool = False
    accepts_class_weights: bool = False
    quality_scores: bool = False
    extra_logits: int = 0
    prior: float = 0.01
    _prepared_for: int | None = None

    def __call__(self, logits: Tensor, labels: Tensor, samples: DenseSamples | None = None) -> Tensor:
        """The loss of each anchor [A], of logits and labels alone where no samples are given.

        Without samples nothing is committed: in training a loss with state needs a :class:`~lit_dense.Criterion`, or
        a call of ``loss.commit()`` after each step.

        Args:
            logits: Scores as the head gives them [A, C + extra_logits] or [B, K, C + extra_logits].
            labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A] or [B, K].
            samples: Everything else that is known of the batch.

        Example:
            >>> from lit_dense.losses import FocalLoss
            >>> FocalLoss()(torch.zeros(2, 3), torch.tensor([0, -1]))
            tensor([0.3033, 0.3899])
        """
        if samples is None:
            context = StepContext(Reduce(enabled=torch.is_grad_enabled()))
            samples = DenseSamples.of(logits, labels).of_step(context, self.extra_logits, self.score_logits)
            self._prepare_all(samples.num_classes)
            logits, labels = samples.logits, samples.labels
        values: Tensor = super().__call__(logits, labels, samples)
        return values

    def _prepare_all(self, num_classes: int) -> None:
        """Prepare the loss and parts inside it, once: a criterion does so where there is one."""
        if self._prepared_for == num_classes:
            return
        self._prepared_for = num_classes
        for part in (m for m in self.modules() if isinstance(m, Component)):
            part.prepare(num_classes)
            part.check_ready()

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """One value per anchor: the sum over its classes [A].

        The criterion calls it outside autocast and drops the values of ignored anchors. With no positives or no
        anchors the result must still be finite and connected to the logits.

        Args:
            logits: Scores as the head gives them [A, C + extra_logits].
            labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
            samples: Everything else that is known of the batch.
        """
        raise NotImplementedError

    def score_logits(self, logits: Tensor) -> Tensor:
        """Logits whose sigmoid is the score of each class [..., C + extra_logits] -> [..., C].

        The detector's inference and exports apply a sigmoid to what this returns.
        """
        return logits

    def prior_bias(self, num_classes: int, prior: float) -> Tensor:
        """The head's bias with which an untrained detector gives an object the score ``prior`` [C + extra_logits]."""
        return torch.full((num_classes + self.extra_logits,), -math.log((1 - prior) / prior))


class SigmoidLoss(DenseLoss, ABC):
    """A loss of single logits: an element as a yes and as a no, each with its derivative.

    Subclass it and give ``sigmoid_terms``: the rest is done by one mechanism that reads the logits in pieces, keeps no
    one-hot targets and no copy in float32, and computes the gradient in the same pass.

    Example:
        >>> class Squared(SigmoidLoss):  # (p - t) ** 2
        ...     def sigmoid_terms(self, samples):
        ...         def negative(x, labels):
        ...             p = x.sigmoid()
        ...             return p**2, 2 * p * p * (1 - p)
        ...         def positive(x, labels, targets):
        ...             value, slope = negative(-x, labels)
        ...             return value, -slope
        ...         return SigmoidTerms(negative, positive)
    """

    accepts_class_weights = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take a method ``elements``, as version 0.1.0 called it, for ``sigmoid_terms``."""
        super().__init_subclass__(**kwargs)
        if "elements" in vars(cls):
            warnings.warn(f"{cls.__name__}.elements is now called sigmoid_terms.", DeprecationWarning, stacklevel=2)
            cls.sigmoid_terms = vars(cls)["elements"]  # type: ignore[method-assign]

    @abstractmethod
    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Both branches of the loss.

        Args:
            samples: What is known of the batch.
        """

    def pos_targets(self, samples: DenseSamples) -> Tensor | None:
        """Target of each positive's own class in [0, 1], None for 1 [P]."""
        return samples.soft_targets

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """The loss of each anchor, summed over its classes [A]."""
        targets = samples.scatter_to_anchors(self.pos_targets(samples))
        return sum_over_classes(logits, labels, self.sigmoid_terms(samples), targets, samples.class_weights)
