"""Tests the adapter with the kit, which checks all requirements of lit_dense."""

from functools import partial

import torch
from grid_detector import GridDetector

import lit_dense
from lit_dense.testing import check_detector

MAKE = partial(GridDetector, num_classes=4)


def test_the_kit() -> None:
    check_detector("grid", MAKE, skip=["combinations"])  # takes a minute: do not skip it before you publish


def test_a_loss_by_name() -> None:
    model = torch.nn.Sequential(GridDetector(num_classes=3))
    targets = [{"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([2])}]
    lit_dense.patch(model, "ghm", weighters=["ohem"], prior=0.02)
    terms = model[0]([torch.rand(3, 64, 64)], targets)
    assert set(terms) == {"loss_cls", "loss_box"}
    lit_dense.unpatch(model)
