"""Conformance checks for custom losses, weighters and detector adapters.

:func:`check_classification_loss`, :func:`check_box_loss` and :func:`check_weighter` run a list of small named checks on
random batches, without a detector or a data set. :func:`check_detector` does the same for a detector's adapter. Call
them from the tests of your own package.
"""

from .box_loss import check_box_loss as check_box_loss
from .check_runner import CheckFailure as CheckFailure
from .classification_loss import check_classification_loss as check_classification_loss
from .detector import check_detector as check_detector
from .weighter import check_weighter as check_weighter
