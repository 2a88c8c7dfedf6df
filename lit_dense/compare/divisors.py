"""What each run of a comparison divides its loss by: a difference of its own, which the names of losses do not show."""

import warnings
from collections.abc import Mapping
from typing import Any, cast

from ..core.component import Component
from ..core.errors import UsageError
from ..criterion import Criterion, CriterionArgs
from ..detectors.from_arguments import NETWORKS

OWN = "its own"


def divisor_of(model: Mapping[str, Any]) -> str | None:
    """Return the name of the normalizer of the classification loss, or ``its own`` if the loss or a weighter has one.

    Args:
        model: The options of a run's model.

    Returns:
        The name; None if a component of the configuration is not installed here.
    """
    chosen = cast(CriterionArgs, {name: model.get(name) for name in CriterionArgs.__annotations__})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fit has shown them
        try:
            network = NETWORKS[model.get("detector") or "retinanet"]
            criterion, _ = network.criteria(str(model.get("backbone")), chosen, model.get("rpn"))
        except (ImportError, KeyError, UsageError):
            return None
    return OWN if _divides_itself(criterion) else _name(criterion.normalizer)


def note_on_divisors(models: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return a sentence on runs that divide their loss differently; None if all that are known are equal.

    Args:
        models: The options of the model of each run, by name.
    """
    runs: dict[str, list[str]] = {}
    for name, model in models.items():
        if divisor := divisor_of(model):
            runs.setdefault(divisor, []).append(name)
    if len(runs) < 2:
        return None
    listed = "; ".join(f"{divisor}: {', '.join(names)}" for divisor, names in runs.items())
    return (
        f"The runs have different normalizers of the classification loss ({listed}). Where images have different "
        "numbers of objects, this alone can change AP: give --model.normalizer to those that take it."
    )


def _divides_itself(criterion: Criterion) -> bool:
    return any("normalizer" in part.exclusive for part in criterion.parts)


def _name(part: Component) -> str:
    return str(part.spec["class_path"]).rpartition(".")[2]
