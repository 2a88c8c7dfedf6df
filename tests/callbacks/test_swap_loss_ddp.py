"""SwapLoss for a Faster R-CNN in somebody else's module: two processes are one process with the whole batch."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from lit_dense import SwapLoss
from lit_dense.detectors import attached
from tests.builders.data_parallel import share_of
from tests.builders.detectors import gradients, random_batch, small_faster_rcnn
from tests.builders.lit_modules import Foreign

STAGES = {
    "state in roi": [{"loss": "eql_v2"}, {"stage": "rpn"}],  # torchvision's own divides by what a process drew
    "state in both": [{"loss": "eql_v2", "stage": "roi"}, {"loss": "ghm", "stage": "rpn"}],
}
SPLITS = {"even": ((2, 3), (4, 1)), "one process without objects": ((5, 2), (0,))}
STEPS = 3


def _train(share, stages):
    """Some steps, with hooks called as a trainer calls them: terms and gradients of the last, and what is saved."""
    module = Foreign(small_faster_rcnn(drawn=(10**6, 10**6)))  # all are drawn, none by chance
    callbacks = [SwapLoss(**arguments) for arguments in STAGES[stages]]
    trainer = SimpleNamespace(callbacks=callbacks, current_epoch=0)
    for hook, arguments in {"setup": ["fit"], "on_fit_start": [], "on_train_batch_start": [None, 0]}.items():
        for callback in callbacks:
            getattr(callback, hook)(trainer, module, *arguments)
    wrapped = DistributedDataParallel(module) if torch.distributed.is_initialized() else module
    for _ in range(STEPS):
        wrapped.zero_grad()
        terms = wrapped(*share)
        torch.stack(list(terms.values())).sum().backward()
    states = {callback.state_key: callback.state_dict()["criterion"] for callback in callbacks}
    terms = {name: value.detach() for name, value in terms.items()}
    slopes = gradients(module)
    for callback in callbacks:
        callback.teardown(trainer, module, "fit")
    assert attached(module) is None
    return terms, slopes, states


def _share_of(rank, split, stages):
    batch = random_batch(sum(SPLITS[split], ()), first_label=1)
    return _train(share_of(rank, SPLITS[split], *batch), stages)


@pytest.mark.ddp
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("stages", STAGES)
def test_swap_loss__two_processes_have_terms_gradients_and_state_of_one(two_processes, stages, split):
    terms, slopes, states = _train(random_batch(sum(SPLITS[split], ()), first_label=1), stages)
    answers = two_processes(_share_of, split, stages)
    for name, term in terms.items():  # data-parallel training takes the mean
        torch.testing.assert_close(sum(own[name] for own, *_ in answers) / 2, term, rtol=1e-5, atol=1e-7)
    for _, own_slopes, own_states in answers:
        assert (own_slopes - slopes).norm() / slopes.norm() < 1e-5
        assert own_states.keys() == states.keys()
        for key, state in states.items():
            tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
            assert tensors or key != next(iter(states))  # eql_v2's sums
            for name, value in tensors.items():
                torch.testing.assert_close(own_states[key][name], value, rtol=5e-5, atol=1e-7)
            assert own_states[key]["_extra_state"] == state["_extra_state"] == {"step": STEPS, "epoch": 0}
