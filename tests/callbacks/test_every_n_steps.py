"""Which steps are observed, with hooks that are called as a trainer calls them."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lit_dense import patch
from lit_dense.callbacks.every_n_steps import EveryNSteps, product_of_weights
from lit_dense.core.errors import UsageError
from lit_dense.weighters import Weights
from tests.builders.detectors import random_batch, small_retinanet
from tests.builders.trainers import FakeTrainer


class Watch(EveryNSteps):
    """Notes what it is asked."""

    def __init__(self, every_n_steps=2):
        super().__init__(every_n_steps, "pictures", "pictures")
        self.seen, self.shown, self.autocast, self.prepared = [], [], [], 0

    def observe(self, samples, values, weights):
        self.seen.append(samples.step)
        self.autocast.append(torch.is_autocast_enabled("cpu"))

    def prepare(self, adapter):
        self.prepared += 1

    def show(self, trainer, pl_module, step):
        self.shown.append(step)


def run(watch, steps, accumulate=1, first=0):
    module = nn.ModuleDict({"net": small_retinanet()})
    criterion = patch(module)
    trainer = FakeTrainer(None, default_root_dir="runs", global_step=first)
    watch.on_train_start(trainer, module)
    for batch in range(steps * accumulate):
        trainer.global_step = first + batch // accumulate
        watch.on_train_batch_start(trainer, module, None, batch)
        with torch.autocast("cpu", torch.bfloat16):
            module["net"](*random_batch((1,)))
        watch.on_train_batch_end(trainer, module, None, None, batch)
    assert criterion.observers == []
    return trainer, module, criterion


@pytest.mark.parametrize(("every", "steps", "shown"), [(1, 3, [0, 1, 2]), (2, 5, [1, 3]), (3, 7, [2, 5]), (9, 4, [])])
def test_every_n_steps__every_nth_step_is_observed_and_shown(every, steps, shown):
    watch = Watch(every)
    run(watch, steps)
    assert watch.seen == watch.shown == shown
    assert watch.prepared == len(shown)
    assert not any(watch.autocast)


def test_every_n_steps__of_a_step_of_several_batches_the_first_is_observed():
    watch = Watch(2)
    run(watch, 4, accumulate=3)
    assert watch.shown == [1, 3]
    assert watch.seen == [3, 9]  # batches so far


def test_every_n_steps__a_resumed_run_counts_on_and_a_second_run_starts_anew():
    watch = Watch(4)
    run(watch, 3, first=3)
    assert watch.shown == [3]
    run(watch, 1, first=3)
    assert watch.shown == [3, 3]


@pytest.mark.parametrize("end", ["on_exception", "teardown"])
def test_every_n_steps__observes_nothing_after_the_end(end):
    watch = Watch(1)
    trainer, module, criterion = run(watch, 1)
    trainer.global_step = 1
    watch.on_train_batch_start(trainer, module, None, 0)
    assert len(criterion.observers) == 1
    getattr(watch, end)(trainer, module, None)
    assert criterion.observers == []
    watch.on_train_batch_end(trainer, module, None, None, 0)
    assert watch.shown == [0]


def test_every_n_steps__writes_to_the_folder_of_the_run_and_only_the_first_process_draws(tmp_path):
    module = nn.ModuleDict({"net": small_retinanet()})
    patch(module)
    watch = Watch()
    for log_dir, rank in ((str(tmp_path / "logs"), True), (None, False)):
        trainer = FakeTrainer(log_dir, default_root_dir=str(tmp_path), is_global_zero=rank)
        watch.on_train_start(trainer, module)
        assert watch._path == (tmp_path / "logs" if log_dir else tmp_path) / "pictures"
        assert watch._draws is rank


def test_every_n_steps__refuses_torchvisions_own_loss_and_impossible_arguments():
    trainer = FakeTrainer(None, default_root_dir="runs")
    message = "Watch: ModuleDict trains with RetinaNet's own loss, which cannot be observed"
    with pytest.raises(UsageError, match=message):
        Watch().on_train_start(trainer, nn.ModuleDict({"net": small_retinanet()}))
    with pytest.raises(UsageError, match="Watch: every_n_steps must be at least 1, not 0"):
        Watch(0)


def test_product_of_weights__multiplies_weights():
    values = SimpleNamespace(classification=torch.zeros(3))
    assert product_of_weights(values, []).tolist() == [1, 1, 1]
    some = Weights(classification=torch.tensor([1.0, 2, 3]))
    assert product_of_weights(values, [some, Weights(), some]).tolist() == [1, 4, 9]
