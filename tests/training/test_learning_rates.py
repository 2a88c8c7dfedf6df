import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder
from torch.optim.lr_scheduler import LambdaLR, StepLR

from lit_dense import CocoDataModule, LitRetinaNet
from lit_dense.core.errors import UsageError
from lit_dense.training.learning_rates import LearningRates, meet_length, rates_of, refuse_finders
from lit_dense.training.optimization import WarmupSchedule, parameter_groups
from tests.builders.coco_files import data_arguments, write_shapes
from tests.builders.trainers import trainer_in

FACTORS = [0.1, 1.0, None]


def make_scheduler(lr=1e-3, total=100, schedule="cosine", warmup=0):
    """A backbone, the rest, and a part with a rate of its own."""
    rates = (0.1 * lr, lr, 0.05)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": rate} for rate in rates]
    return LambdaLR(torch.optim.SGD(groups, lr=lr), WarmupSchedule(total, schedule, warmup, (0.5,)))


def group_rates(scheduler):
    return [group["lr"] for group in scheduler.optimizer.param_groups]


def step(scheduler, times=1):
    for _ in range(times):
        scheduler.optimizer.step()
        scheduler.step()


def module_of(scheduler, lr, total=100):
    trainer = SimpleNamespace(estimated_stepping_batches=total)
    return SimpleNamespace(lr_schedulers=lambda: scheduler, lr=lr, trainer=trainer)


@pytest.mark.parametrize("done", [0, 40])
def test_learning_rates__each_group_follows_the_rate_of_the_module_in_its_proportion(done):
    scheduler, expected = make_scheduler(), make_scheduler(lr=0.02)
    step(scheduler, done)
    step(expected, done)
    rates, module = LearningRates(1e-3, FACTORS), module_of(scheduler, 0.02)
    for group in scheduler.optimizer.param_groups:
        group["lr"] = 0.02  # as LearningRateFinder does to all
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            rates.follow(module)
            torch.testing.assert_close(group_rates(scheduler), group_rates(expected))
            step(scheduler)
            step(expected)
    assert [group["initial_lr"] for group in scheduler.optimizer.param_groups] == pytest.approx([0.002, 0.02, 0.05])


def test_learning_rates__a_rate_that_was_followed_is_part_of_the_checkpoint():
    scheduler, resumed = make_scheduler(), make_scheduler()
    LearningRates(1e-3, FACTORS).follow(module_of(scheduler, 0.02))
    step(scheduler, 7)
    resumed.optimizer.load_state_dict(scheduler.optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    for _ in range(3):
        assert group_rates(resumed) == group_rates(scheduler)
        step(scheduler)
        step(resumed)


def test_learning_rates__warns_once_of_rates_that_the_schedule_will_undo():
    scheduler = make_scheduler()
    rates, module = LearningRates(1e-3, FACTORS), module_of(scheduler, 1e-3)
    scheduler.optimizer.param_groups[1]["lr"] = 0.3
    with pytest.warns(UserWarning, match=r"0\.3, 0\.05\], which the schedule replaces .* set the module's lr"):
        rates.follow(module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates.follow(module)


def test_learning_rates__another_schedule_is_left_alone():
    scheduler = make_scheduler()
    other = StepLR(scheduler.optimizer, 1)
    before = group_rates(other)
    for found in (other, None, [scheduler, other]):
        rates = LearningRates(1e-3, FACTORS)
        rates.start(module_of(found, 0.5))
        rates.follow(module_of(found, 0.5))
    assert group_rates(other) == before


def test_learning_rates__an_impossible_rate_is_an_error():
    with pytest.raises(UsageError, match="lr must be at least 0, not -1"):
        LearningRates(1e-3, FACTORS).follow(module_of(make_scheduler(), -1.0))


@pytest.mark.parametrize("schedule", ["cosine", "multistep", "constant"])
def test_meet_length__a_schedule_that_has_not_begun_takes_the_length_of_the_run(schedule):
    """BatchSizeFinder changes it after the schedule was made."""
    scheduler, expected = (make_scheduler(total=total, schedule=schedule, warmup=30) for total in (100, 400))
    meet_length(scheduler, 400)
    for _ in range(400):
        assert group_rates(scheduler) == group_rates(expected)
        step(scheduler)
        step(expected)


@pytest.mark.parametrize(
    ("schedule", "total", "told"),
    [
        ("cosine", 400, "made for 100 optimiser steps .* the run has 400: after step 100 the learning rate"),
        ("multistep", 50, "the run has 50: the run ends before it does"),
        ("constant", 400, None),
        ("cosine", 100, None),
    ],
)
def test_meet_length__a_schedule_that_goes_on_stays_with_a_warning(schedule, total, told):
    scheduler = make_scheduler(schedule=schedule)
    step(scheduler, 10)
    before = rates_of(scheduler)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        LearningRates(1e-3, FACTORS).start(module_of(scheduler, 1e-3, total))
    assert len(caught) == (told is not None)
    if told:
        with pytest.warns(UserWarning, match=told):
            meet_length(scheduler, total)
    assert rates_of(scheduler) == before


def test_parameter_groups__know_their_proportion_at_any_rate():
    body, head, own = (torch.nn.Linear(2, 2) for _ in range(3))
    given = [{"params": list(own.parameters()), "lr": 0.05}]
    for lr in (0.0, 0.1):
        groups, factors = parameter_groups([body, head, own], body, lr, 0.2, 0.01, given)
        assert factors == [0.2, 0.2, 1.0, 1.0, None]
        assert [g["lr"] for g in groups] == pytest.approx([lr * 0.2, lr * 0.2, lr, lr, 0.05])


class Run:
    """A trainer that has read a checkpoint."""

    ckpt_path = "last.ckpt"

    def __init__(self, callbacks):
        self.callbacks = callbacks


@pytest.mark.parametrize("finder", [LearningRateFinder, BatchSizeFinder])
def test_refuse_finders__a_search_does_not_replace_a_checkpoint(finder):
    trainer = SimpleNamespace(callbacks=[finder()], ckpt_path="last.ckpt")
    with pytest.raises(UsageError, match=f"{finder.__name__} would make Lightning forget .* leave it out to go on"):
        refuse_finders(trainer)
    model = LitRetinaNet(2, backbone="tiny", fpn_channels=16, head_convs=1)
    model.trainer = run = Run([finder()])
    with pytest.raises(UsageError, match=finder.__name__):
        model.configure_optimizers()
    del run
    refuse_finders(SimpleNamespace(callbacks=[finder()], ckpt_path=None))
    refuse_finders(SimpleNamespace(callbacks=[], ckpt_path="last.ckpt"))


class NotedRates(Callback):
    """Notes the rates of each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])


class Halving(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        pl_module.lr *= 0.5


@pytest.fixture
def fit(tmp_path):
    write_shapes(tmp_path, "train")

    def run(*callbacks, ckpt_path=None, **options):
        network = {"backbone": "tiny", "fpn_channels": 16, "head_convs": 1, "min_size": 64, "max_size": 64}
        arguments = {name: value for name, value in data_arguments(tmp_path).items() if not name.startswith("val")}
        model = LitRetinaNet(**network, schedule="constant", warmup_steps=0, weighters=["swn"], backbone_lr_factor=0.1)
        trainer = trainer_in(tmp_path, *callbacks, **options)
        trainer.fit(model, CocoDataModule(**arguments, batch_size=2, transforms=[]), ckpt_path=ckpt_path)
        return model, trainer

    return run


def test_lit_retinanet__the_rate_that_a_finder_finds_is_trained_with_and_resumed(fit, tmp_path):
    noted = NotedRates()
    finder = LearningRateFinder(num_training_steps=20, min_lr=1e-5, max_lr=1e-1)
    model, trainer = fit(finder, noted, max_epochs=12)
    assert model.lr == finder.optimal_lr.suggestion() != 1e-4
    own = model.criterion.param_groups()[0]["lr"]
    expected = [model.lr * 0.1, model.lr * 0.1, model.lr, model.lr, own]
    assert len(noted.seen) == 24
    assert all(rates == pytest.approx(expected) for rates in noted.seen)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = NotedRates()
    resumed, _ = fit(again, max_epochs=13, ckpt_path=tmp_path / "a.ckpt")
    assert again.seen == [noted.seen[-1]] * 2
    assert resumed.lr == model.lr


def test_lit_retinanet__a_callback_that_changes_lr_takes_effect_also_after_a_resume(fit, tmp_path):
    whole, first, second = NotedRates(), NotedRates(), NotedRates()
    fit(Halving(), whole, max_epochs=4)
    _, trainer = fit(Halving(), first, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    fit(Halving(), second, max_epochs=4, ckpt_path=tmp_path / "a.ckpt")
    assert first.seen + second.seen == whole.seen
    assert whole.seen[-1][-2] == pytest.approx(1e-4 / 16)
