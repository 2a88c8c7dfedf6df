"""A plug-in that claims one name of lit_dense and one of another plug-in."""

from lit_dense import DenseLoss


class MyLoss(DenseLoss):
    """Another loss of the same name."""
