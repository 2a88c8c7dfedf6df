"""The entry point of the checks of a weighter."""

from collections.abc import Collection
from functools import partial

from ..core.class_counts import ClassCounts
from ..weighters import WEIGHTERS, WeighterLike
from . import state, values
from . import weighter_checks as own
from .check_runner import Check, run_checks
from .processes import TwoProcesses, two_processes_agree
from .weighter_subject import WeighterSubject


def check_weighter(
    weighter: WeighterLike,
    *,
    skip: Collection[str] = (),
    class_counts: ClassCounts | None = None,
    two_processes: TwoProcesses | None = None,
) -> None:
    """Check that a weighter meets all requirements of lit_dense.

    Its parameters are perturbed at random first, because a network's initial state often has no effect.

    Args:
        weighter: A weighter, a name, or a dict with class_path and init_args. It is copied and not changed.
        skip: Names of checks to skip.
        class_counts: Class counts of the training set, which also give the number of classes; by default those of five
            artificial classes, one of them without objects.
        two_processes: A function with the signature ``two_processes(function, *args)`` that returns the results of
            ``function(rank, *args)`` on two processes of one gloo group; by default two processes are started, which
            takes seconds.

    Raises:
        CheckFailure: If a check failed; the message lists the expected and the seen result, and a remedy.
        UsageError: If the weighter cannot be built, or the name of a check to skip is unknown.

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
    subject.criterion()  # raises the weighter's own errors, such as missing class counts, before the checks
    run_checks(subject.title, subject, checks, skip)
