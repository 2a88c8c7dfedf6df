"""Functions that are compiled and run chunk by chunk."""

from lit_dense.functional import gradient_histogram
from lit_dense.functional.fused import anchor_loss


def forget_functions(monkeypatch):
    """Have every chunked function compiled anew, and leave no trace of that."""
    histograms = gradient_histogram._chunk_histogram, gradient_histogram._chunk_negatives
    for function in (anchor_loss._rows, anchor_loss._scaled_slopes, *histograms):
        monkeypatch.setattr(function, "_compiled", None)
        monkeypatch.setattr(function, "_works", True)
