"""Base classes of classification losses: ``DenseLoss``, and ``SigmoidLoss`` for losses of single logits."""

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
from ..functional.fused.dual_terms import sum_with_dual_weights
from ..functional.fused.sigmoid_terms import SigmoidTerms, sum_over_classes
from ..functional.unknown_classes import hide_unknown


class DenseLoss(Component):
    """Base class of classification losses: maps logits and labels to one value per anchor.

    Subclass it, implement ``forward``, and register the class in the entry-point group ``lit_dense.losses``. If each
    logit has a loss of its own, subclass :class:`SigmoidLoss` instead: it needs less code and is several times faster.

    Attributes:
        accepts_soft_targets: Whether the loss uses ``samples.soft_targets``.
        accepts_class_weights: Whether the loss uses ``samples.class_weights``. Every loss of single logits should.
        accepts_dual_weights: Whether the loss uses ``samples.dual_weights``, as losses of single logits can whose terms
            depend on the logit alone.
        quality_scores: Whether the score of a class is trained to predict the quality of the predicted box, such as its
            IoU. A detector that multiplies scores by its own quality estimate then warns.
        extra_logits: Number of columns of the head besides one per class.
        prior: Recommended score of an object at the start of training. The head's bias is set accordingly.

    Example:
        >>> import torch
        >>> class Hinge(DenseLoss):
        ...     def forward(self, logits, labels, samples):
        ...         target = torch.nn.functional.one_hot(labels.clamp(min=-1) + 1, logits.shape[1] + 1)[:, 1:]
        ...         return (1 - logits * (2 * target - 1)).clamp(min=0).sum(1)
    """

    accepts_soft_targets: bool = False
    accepts_class_weights: bool = False
    accepts_dual_weights: bool = False
    quality_scores: bool = False
    extra_logits: int = 0
    prior: float = 0.01
    _prepared_for: int | None = None

    def __call__(self, logits: Tensor, labels: Tensor, samples: DenseSamples | None = None) -> Tensor:
        """Compute the loss of each anchor [A].

        Without ``samples`` the loss is computed from logits and labels only, and its state is not committed. To train a
        loss with state, use a :class:`~lit_dense.Criterion`, or call ``loss.commit()`` after each step.

        Args:
            logits: Output of the head [A, C + extra_logits] or [B, K, C + extra_logits].
            labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A] or [B, K].
            samples: The batch with everything else the loss may use; optional.

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
        """Prepare the loss and its nested components once; within a criterion, the criterion does this."""
        if self._prepared_for == num_classes:
            return
        self._prepared_for = num_classes
        for part in (m for m in self.modules() if isinstance(m, Component)):
            part.prepare(num_classes)
            part.check_ready()

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Compute one value per anchor, summed over classes [A].

        The criterion calls this method outside autocast and discards the values of ignored anchors. The result must be
        finite and connected to the logits even without positives or without anchors.

        Args:
            logits: Output of the head [A, C + extra_logits].
            labels: Class of each anchor, 0 to C - 1; -1 background, -2 ignored [A].
            samples: The batch with everything else the loss may use.
        """
        raise NotImplementedError

    def box_weights(self, classification: Tensor, box: Tensor, samples: DenseSamples) -> Tensor | None:
        """Return the weight of each positive's box loss, if the loss also decides the balance of class and box [P].

        The criterion calls it after both losses. A loss that returns weights has ``box_normalizer`` in ``exclusive``,
        because the weights include the divisor.

        Args:
            classification: Classification loss of each anchor, detached [A].
            box: Box loss of each positive, summed over coordinates, detached [P].
            samples: The batch.
        """
        return None

    def without_unknown(self, samples: DenseSamples) -> Tensor:
        """Return logits in which the classes that an image is not annotated for have no effect [A, C + extra_logits].

        The criterion calls it for batches with ``samples.unknown``, and passes the result to :meth:`forward`. A hidden
        logit is -50000: its score is 0, and so is its loss as a negative. A loss with a background column overrides
        this method, because an object of such a class is not background.

        Args:
            samples: The batch.
        """
        return hide_unknown(samples.logits, samples.unknown_negatives)

    def score_logits(self, logits: Tensor) -> Tensor:
        """Convert logits to those whose sigmoid is the score of each class [..., C + extra_logits] -> [..., C].

        Inference and exported models apply a sigmoid to the result.
        """
        return logits

    def prior_bias(self, num_classes: int, prior: float) -> Tensor:
        """Return the head's bias for which an untrained detector predicts the score ``prior`` [C + extra_logits]."""
        return torch.full((num_classes + self.extra_logits,), -math.log((1 - prior) / prior))


class SigmoidLoss(DenseLoss, ABC):
    """Base class of losses of single logits: a positive and a negative term, each with its derivative.

    Subclass it and implement ``sigmoid_terms``. The base class evaluates the terms in chunks of the logits. It creates
    neither one-hot targets nor a float32 copy, and computes the gradient in the same pass.

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
        """Use a method ``elements``, the name of ``sigmoid_terms`` in version 0.1.0."""
        super().__init_subclass__(**kwargs)
        if "elements" in vars(cls):
            warnings.warn(f"{cls.__name__}.elements is now called sigmoid_terms.", DeprecationWarning, stacklevel=2)
            cls.sigmoid_terms = vars(cls)["elements"]  # type: ignore[method-assign]

    @abstractmethod
    def sigmoid_terms(self, samples: DenseSamples) -> SigmoidTerms:
        """Return the positive and the negative term of the loss.

        Args:
            samples: The batch.
        """

    def pos_targets(self, samples: DenseSamples) -> Tensor | None:
        """Return the target of the logit of each positive's class, in [0, 1]; None means 1 [P]."""
        return samples.soft_targets

    def forward(self, logits: Tensor, labels: Tensor, samples: DenseSamples) -> Tensor:
        """Compute the loss of each anchor, summed over classes [A]."""
        targets, has_unknown, dual = self.pos_targets(samples), samples.unknown is not None, samples.dual_weights
        terms = self.sigmoid_terms(samples)
        if dual is not None:
            pairs = samples.positives, samples.pos_labels, dual.positive, dual.negative
            return sum_with_dual_weights(logits, labels, terms, *pairs, samples.class_weights, has_unknown)
        if targets is not None:
            targets = samples.scatter_to_anchors(targets)
        known = known_positives(labels, samples)
        return sum_over_classes(logits, labels, terms, targets, samples.class_weights, has_unknown, known)


def known_positives(labels: Tensor, samples: DenseSamples) -> Tensor | None:
    """Return the indices of the anchors with a class, if the labels are those of the samples [P]; otherwise None."""
    return samples.positives if labels is samples.labels else None
