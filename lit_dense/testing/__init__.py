"""A kit that anybody's loss, weighter or detector can be held against.

:func:`check_classification_loss`, :func:`check_box_loss` and :func:`check_weighter` run a list of small checks, each
with a name, on batches made from random numbers: no detector and no data set is needed. :func:`check_detector` does the
same for the adapter of a detector. Call them from a test of your own package.
"""

from .box_loss import check_box_loss as check_box_loss
from .classification_loss import check_classification_loss as check_classification_loss
from .detector import check_detector as check_detector
from .report import CheckFailure as CheckFailure
from .weighter import check_weighter as check_weighter
