"""Gradients of two processes against one: the promise that every loss, weighter and normalizer keeps."""

import itertools

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from lit_dense.head import patch
from tests.detectors import gradients, random_batch, small_retinanet

LOSSES = ["focal", "bce"]
BOX_LOSSES = ["l1", "smooth_l1", "giou"]
NORMALIZERS = ["image", "batch", "ema", "none"]
SPLITS = {"even": ((2, 3), (4, 1)), "one rank empty": ((5, 2), (0, 0)), "unequal": ((3, 0, 6), (1,))}


def _train(model, share, parts):
    """Two steps, so that state counts; the gradient of the second."""
    criterion = patch(model, *parts[:2], normalizer=parts[2])
    wrapped = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    for _ in range(2):
        wrapped.zero_grad()
        torch.stack(list(wrapped(*share).values())).sum().backward()
    return gradients(model), {k: v for k, v in criterion.state_dict().items() if isinstance(v, torch.Tensor)}


def _share_of(rank, split, parts):
    images, targets = random_batch(sum(SPLITS[split], ()))
    start = len(SPLITS[split][0]) if rank else 0
    stop = start + len(SPLITS[split][rank])
    return _train(small_retinanet(), (images[start:stop], targets[start:stop]), parts)


@pytest.mark.ddp
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("parts", list(itertools.product(LOSSES, BOX_LOSSES, NORMALIZERS)), ids="-".join)
def test_gradients_of_two_processes_are_those_of_one(two_processes, parts, split):
    expected, state = _train(small_retinanet(), random_batch(sum(SPLITS[split], ())), parts)
    for got, got_state in two_processes(_share_of, split, parts):
        error = (got - expected).norm() / expected.norm()
        assert error < 1e-5, f"relative difference {error:.1e}"
        torch.testing.assert_close(got_state, state)
