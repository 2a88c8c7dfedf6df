"""Conformance checks for custom losses, weighters, detector adapters and annotation formats.

:func:`check_classification_loss`, :func:`check_box_loss` and :func:`check_weighter` run a list of small named checks on
random batches, without a detector or a data set. :func:`check_detector` does the same for a detector's adapter, and
:func:`check_format` for an annotation format. Call them from the tests of your own package.
"""

from .box_loss import check_box_loss as check_box_loss
from .check_runner import CheckFailure as CheckFailure
from .classification_loss import check_classification_loss as check_classification_loss
from .detector import check_detector as check_detector
from .format import check_format as check_format
from .weighter import check_weighter as check_weighter
