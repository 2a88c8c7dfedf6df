"""FCOS and SSD in two processes train as in one, whatever their parts."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from lit_dense.detectors import patch
from lit_dense.losses import LOSSES
from tests.builders.detectors import COUNTS, gradients, random_batch, small_fcos, small_ssd
from tests.test_data_parallel import PARTS, SPLITS

MAKE = {"fcos": small_fcos, "ssd": small_ssd}
FEW = [
    (None, None, None, None),
    ("ghm", "ghm_r", None, ()),
    ("eql_v2", "giou", "ema", ("pisa",)),
    ("qfl", "smooth_l1", None, ("ohem", "target_weights")),
]
ALL = [(name, parts) for name in MAKE for parts in PARTS if (name, parts[0]) != ("ssd", "seesaw")]  # which is refused


def _train(name, share, parts):
    """Three steps, so that state counts; the gradient of the last."""
    loss, box_loss, normalizer, weighters = parts
    extra = LOSSES.build(loss).extra_logits if loss and name == "fcos" else 0
    model = MAKE[name](4 + extra)
    criterion = patch(model, loss, box_loss, weighters, normalizer, class_counts=COUNTS)
    for index, parameter in enumerate(criterion.parameters()):
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(index))
    model.criterion = criterion  # parameters of weighters are trained, and reduced, with the model's
    wrapped = DistributedDataParallel(model) if torch.distributed.is_initialized() else model
    for _ in range(3):
        wrapped.zero_grad()
        torch.stack(list(wrapped(*share).values())).sum().backward()
    return gradients(model), {k: v for k, v in criterion.state_dict().items() if isinstance(v, torch.Tensor)}


def _batch(name, split):
    images, targets = random_batch(sum(SPLITS[split], ()), first_label=int(name == "ssd"))
    return images, [t | {"weight": torch.arange(len(t["boxes"])) + 0.5} for t in targets]


def _share_of(rank, name, split, parts):
    images, targets = _batch(name, split)
    start = len(SPLITS[split][0]) if rank else 0
    stop = start + len(SPLITS[split][rank])
    return _train(name, (images[start:stop], targets[start:stop]), parts)


def agree(two_processes, name, split, parts):
    expected, state = _train(name, _batch(name, split), parts)
    answers = two_processes(_share_of, name, split, parts)
    for got, got_state in answers:
        error = (got - expected).abs().max() / expected.abs().max()
        assert error < 1e-5, f"relative difference {error:.1e}"
        torch.testing.assert_close(got_state, state, rtol=5e-5, atol=0)  # sums in another order, three steps on
    torch.testing.assert_close(answers[0][1], answers[1][1], rtol=0, atol=0)


@pytest.mark.ddp
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("parts", FEW, ids=str)
@pytest.mark.parametrize("name", MAKE)
def test_gradients_of_two_processes_are_those_of_one(two_processes, name, parts, split):
    agree(two_processes, name, split, parts)


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("name", "parts"), ALL, ids=str)
def test_gradients_of_two_processes_are_those_of_one_with_all_parts(two_processes, name, parts, split):
    agree(two_processes, name, split, parts)
