"""The kit of lit_dense.testing: what it finds, and the names of the checks of ``check_detector``."""

import pytest

from lit_dense.testing import CheckFailure

CHECKS = [
    *("found", "steps_repeat", "own_loss", "own_detections", "random_stream", "columns", "state_dict", "copies"),
    *("removal", "steps_counted", "offers", "parts", "combinations", "prior", "memory", "autocast", "two_processes"),
]


def failure_of(check, *arguments, **how):
    """What a check of the kit says of a part that has a fault."""
    with pytest.raises(CheckFailure) as caught:
        check(*arguments, **how)
    return caught.value
