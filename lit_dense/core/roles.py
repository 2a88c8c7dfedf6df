"""Check that the components of a criterion do not contradict each other."""

from collections.abc import Sequence
from typing import Any

from .component import Component
from .errors import UsageError

BRINGS_OWN_NORMALIZER = {"normalizer": "the classification loss", "box_normalizer": "the box loss"}
"""Entries of ``exclusive`` of components that normalise a term themselves, and the term."""


def check_roles(
    loss: Any,
    box_loss: Component | None,
    weighters: Sequence[Any],
    assigner: Component | None,
    normalizer: Component | None,
    class_weight_on: str | None = None,
) -> None:
    """Raise an error if two components decide the same thing, or if one has no effect because of another.

    Args:
        loss: The classification loss.
        box_loss: The box loss; None if the criterion has none.
        weighters: The weighters.
        assigner: The assigner; None for the detector's own matcher.
        normalizer: The normalizer that was given; None if none was given.
        class_weight_on: What class weights multiply; None if there are none.

    Raises:
        UsageError: If components conflict; the message names both.
    """
    owners: dict[str, str] = {}
    for part in filter(None, [loss, box_loss, *weighters, assigner]):
        for role in sorted(part.exclusive):
            if role in owners:
                both = f"{owners[role]} and {type(part).__name__}"
                raise UsageError(f"{both} both decide the {role.replace('_', ' ')}: use only one of them.")
            owners[role] = type(part).__name__
    for part in [loss, *weighters]:
        others = [w for w in weighters if w is not part]
        if "weights" in part.exclusive and others:
            both = f"{type(part).__name__} and {type(others[0]).__name__}"
            raise UsageError(f"{both} both decide the weights: use only one of them.")
    terms = BRINGS_OWN_NORMALIZER if box_loss is not None else {"normalizer": BRINGS_OWN_NORMALIZER["normalizer"]}
    if normalizer is not None and terms.keys() <= owners.keys():
        bring = " and ".join(f"{owners[role]} brings its own normalizer for {term}" for role, term in terms.items())
        raise UsageError(f"{bring}, so {type(normalizer).__name__} has nothing to divide: remove it.")
    _check_outputs(loss, weighters, assigner, class_weight_on)


def _check_outputs(
    loss: Any, weighters: Sequence[Any], assigner: Component | None, class_weight_on: str | None
) -> None:
    """Raise an error if the loss does not use what another component computes for it."""
    name = type(loss).__name__
    if class_weight_on == "columns" and not loss.accepts_class_weights:
        raise UsageError(
            f"class_weight_on='columns' needs a loss of single logits, and {name} has none: use "
            "class_weight_on='positives', which weights positives by their class."
        )
    of_classes = [w for w in weighters if w.weighs_classes]
    if of_classes and not loss.accepts_class_weights:
        raise UsageError(f"{type(of_classes[0]).__name__} weights classes, which the loss {name} does not use.")
    dual = [w for w in weighters if "weights" in w.exclusive]
    if dual and not loss.accepts_dual_weights:
        raise UsageError(
            f"{type(dual[0]).__name__} gives the positive and the negative term of a logit separate weights, which the "
            f"loss {name} does not use: take a loss of single logits that does, such as focal, asl or bce."
        )
    soft = [p for p in filter(None, [*weighters, assigner]) if "soft_targets" in p.exclusive]
    if soft and not loss.accepts_soft_targets:
        raise UsageError(f"{type(soft[0]).__name__} gives soft targets, which the loss {name} does not use.")
