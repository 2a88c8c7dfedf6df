"""The checks of a weighter by name."""

from collections.abc import Collection
from functools import partial

from ..core.class_counts import ClassCounts
from ..weighters import WEIGHTERS, WeighterLike
from . import state, values
from . import weighter_checks as own
from .processes import TwoProcesses, two_processes_agree
from .report import Check, run_checks
from .weighter_subject import WeighterSubject


def check_weighter(
    weighter: WeighterLike,
    *,
    skip: Collection[str] = (),
    class_counts: ClassCounts | None = None,
    two_processes: TwoProcesses | None = None,
) -> None:
    """Hold a weighter against everything that lit_dense expects of one.

    Its parameters, if it has any, are moved at random first: what a network does is not seen where it starts.

    Args:
        weighter: A weighter, a name, or a dict with class_path and init_args. It is copied and stays what it was.
        skip: Names of checks that are not made.
        class_counts: What the weighter is told of the training set, and how many classes there are; by default five
            invented classes, one of them without objects.
        two_processes: ``two_processes(function, *args)`` returns the results of ``function(rank, *args)`` of two
            processes of one gloo group; by default two are started, which takes seconds.

    Raises:
        CheckFailure: If a check failed; the message lists what was expected, what was seen and what to do.
        UsageError: If the weighter cannot be built, or a name to skip is unknown.

    Example:
        >>> check_weighter("ohem", skip=["two_processes"])
    """
    checks: dict[str, Check[WeighterSubject]] = {
        "shape": own.shape,
        "not_negative": own.not_negative,
        "extreme_logits": own.extreme_logits,
        "half_precision": own.half_precision,
        "autocast": values.autocast,
        "hard_batches": own.hard_batches,
        "parameters": own.parameters,
        "ignored_anchors": own.ignored_anchors,
        "order_of_anchors": own.order_of_anchors,
        "order_of_images": own.order_of_images,
        "inputs_untouched": own.inputs_untouched,
        "off_in_evaluation": own.off_in_evaluation,
        "forward_keeps_state": state.forward_keeps_state,
        "evaluation_keeps_state": state.evaluation_keeps_state,
        "checkpoint": state.checkpoint,
        "copies": state.copies,
        "spec": state.spec,
        "schedule": own.schedule,
        "two_processes": partial(two_processes_agree, two_processes=two_processes),
    }
    subject = WeighterSubject(WEIGHTERS.build(weighter), class_counts)
    subject.criterion()  # what it cannot do without is said as it is
    run_checks(subject.title, subject, checks, skip)
