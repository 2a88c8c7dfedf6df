import copy
import pickle
import warnings
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.tuner import Tuner

from lit_dense import LitRetinaNet, SwapLoss
from lit_dense.core.errors import UsageError
from lit_dense.detectors import attached
from lit_dense.losses import BCELoss, GHMLoss
from lit_dense.weighters import SWNWeighter
from tests.builders.detectors import COUNTS, random_batch, small_faster_rcnn, small_retinanet
from tests.builders.lit_modules import Foreign
from tests.builders.trainers import FakeTrainer, loader, trainer_in


def fit(module, *callbacks, checkpoint=None, **arguments):
    trainer = trainer_in(None, *callbacks, **arguments)
    trainer.fit(module, loader(0, 1, 2, counts=(2, 1)), loader(0, counts=(2, 1)), ckpt_path=checkpoint)
    return trainer


def test_swap_loss__trains_the_module_with_the_loss_and_leaves_it_as_it_was():
    module, swap = Foreign(), SwapLoss("bce", normalizer="ema")
    fit(module, swap)
    assert type(swap.criterion.loss).__name__ == "BCELoss"
    assert swap.criterion.step == 3  # validation has left no trace
    assert attached(module) is None


def test_swap_loss__state_survives_a_resume_and_the_checkpoint_is_the_hosts_own(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(Foreign(), SwapLoss("focal", normalizer="ema"), saver)
    saved = torch.load(saver.best_model_path, weights_only=True)
    assert list(saved["state_dict"]) == list(Foreign().state_dict())
    Foreign().load_state_dict(saved["state_dict"])
    resumed = SwapLoss("focal", normalizer="ema")
    fit(Foreign(), resumed, checkpoint=saver.best_model_path, max_epochs=2)
    whole = SwapLoss("focal", normalizer="ema")
    fit(Foreign(), whole, max_epochs=2)
    assert resumed.criterion.step == whole.criterion.step == 6
    torch.testing.assert_close(resumed.criterion.normalizer.positives, whole.criterion.normalizer.positives)


def test_swap_loss__state_of_version_0_1_without_a_spec_keeps_the_arguments_of_its_time():
    callback = SwapLoss("ghm", "ghm_r")
    callback.setup(SimpleNamespace(), Foreign(), "fit")
    state = callback.state_dict()
    callback.load_state_dict(state)
    assert callback.criterion.loss.power == GHMLoss().power != 1
    del state["spec"]
    later = SwapLoss("ghm", "ghm_r")
    later.load_state_dict(state)
    later.setup(SimpleNamespace(), Foreign(), "fit")
    assert later.criterion.loss.power == later.criterion.box_loss.power == 1
    assert later.state_dict()["spec"]["loss"]["init_args"]["power"] == 1


def test_swap_loss__a_state_that_was_loaded_for_another_network_is_refused(tmp_path):
    first = SwapLoss("bce", normalizer="ema")
    path = tmp_path / "a.ckpt"
    fit(Foreign(), first).save_checkpoint(path)
    callback, evaluated = SwapLoss("bce", normalizer="ema", prior=0.2), Foreign()
    trainer = trainer_in(None, callback)
    trainer.validate(evaluated, loader(0, counts=(2, 1)), ckpt_path=path)
    with pytest.raises(UsageError, match="has the state of 3 training steps of another network"):
        trainer.fit(Foreign(), loader(0, counts=(2, 1)))
    trainer.fit(evaluated, loader(0, counts=(2, 1)))  # it has the weights of the checkpoint, too
    assert callback.criterion.step == 4
    continued = SwapLoss("bce", normalizer="ema")
    fit(Foreign(), continued, checkpoint=path, max_epochs=2)
    with pytest.raises(UsageError, match="has the state of 6 training steps of another network"):
        fit(Foreign(), continued)


def test_swap_loss__sets_the_prior_after_a_search_for_a_rate_with_another_network(tmp_path):
    callback, module = SwapLoss("bce", prior=0.2), Foreign()
    Tuner(trainer_in(tmp_path, callback)).lr_find(Foreign(), loader(*range(20)), num_training=4, update_attr=False)
    callback.setup(SimpleNamespace(), module, "fit")
    torch.testing.assert_close(
        module.net.head.classification_head.cls_logits.bias.sigmoid().unique(), torch.tensor([0.2])
    )


def test_swap_loss__a_component_with_the_state_of_another_run_is_refused():
    trained, fresh = GHMLoss(momentum=0.9), BCELoss()
    fit(Foreign(), SwapLoss(trained))
    with pytest.raises(UsageError, match="This GHMLoss has the state of training steps with another criterion"):
        fit(Foreign(), SwapLoss(trained))
    for _ in range(2):
        fit(Foreign(), SwapLoss(fresh))  # without state


def test_swap_loss__gradients_of_weighters_are_dropped_with_those_of_the_module():
    callback, module = SwapLoss(weighters=["swn"]), Foreign()
    trainer = FakeTrainer(None, current_epoch=0)
    callback.setup(trainer, module, "fit")
    callback.on_fit_start(trainer, module)
    parameters = list(callback.criterion.parameters())

    def with_gradients():
        for parameter in (*parameters, *module.parameters()):
            parameter.grad = torch.ones_like(parameter)

    with_gradients()
    callback.on_train_batch_start(trainer, module, None, 0)  # accumulation: they stay
    assert all(p.grad is not None for p in parameters)
    module.zero_grad()
    callback.on_train_batch_start(trainer, module, None, 0)
    assert all(p.grad is None for p in parameters)
    with_gradients()
    callback.on_before_zero_grad(trainer, module, None)
    assert all(p.grad is None for p in parameters)


def test_swap_loss__warns_of_a_teacher_that_computes_other_scores():
    module = Foreign(small_faster_rcnn())
    module.teacher = copy.deepcopy(module.net)
    other = copy.deepcopy(module)
    with pytest.warns(UserWarning, match="FasterRCNN .teacher. computes scores with a softmax, which FocalLoss"):
        SwapLoss("focal", module="net").setup(SimpleNamespace(), module, "fit")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SwapLoss("softmax", module="net").setup(SimpleNamespace(), other, "fit")


def test_swap_loss__is_pickled_after_a_run():
    callback = SwapLoss("ghm")
    fit(Foreign(), callback)
    assert pickle.loads(pickle.dumps(callback)).criterion.step == 3


def test_swap_loss__refuses_modules_that_cannot_be_swapped():
    with pytest.raises(UsageError, match="LitRetinaNet has its own arguments for the loss, weighters and other parts"):
        fit(LitRetinaNet(2, "tiny", fpn_channels=16), SwapLoss("bce"))
    module = Foreign()
    module.net = torch.nn.Linear(1, 1)
    with pytest.raises(
        UsageError,
        match=r"Foreign contains no detector that lit_dense knows \(.*retinanet.*\). It contains net: Linear",
    ):
        fit(module, SwapLoss("bce"))


@pytest.mark.parametrize(
    ("build", "first", "second", "said"),
    [
        (
            small_faster_rcnn,
            {},
            {"loss": "ghm", "stage": "roi"},
            r"SwapLoss\(\) and SwapLoss\(loss='ghm', stage='roi'\) both replace the loss of FasterRCNN, stage 'roi': "
            "keep one of them, or let one name stage 'rpn'",
        ),
        (
            small_faster_rcnn,
            {"loss": BCELoss(), "stage": "rpn"},
            {"stage": "rpn", "module": "net"},
            r"SwapLoss\(loss='BCELoss', stage='rpn'\) and SwapLoss\(stage='rpn', module='net'\) both",
        ),
        (
            small_retinanet,
            {"module": "net"},
            {"loss": "bce"},
            r"SwapLoss\(module='net'\) and SwapLoss\(loss='bce'\) both replace the loss of RetinaNet: keep one",
        ),
    ],
)
def test_swap_loss__two_callbacks_of_one_stage_are_refused(build, first, second, said):
    module = Foreign(build())
    trainer = SimpleNamespace(callbacks=[SwapLoss(**first), SwapLoss(**second)])
    for stage in ("fit", "fit"):  # and again, though the first is built by then
        trainer.callbacks[0].setup(trainer, module, stage)
        with pytest.raises(UsageError, match=said):
            trainer.callbacks[1].setup(trainer, module, stage)


def test_swap_loss__callbacks_of_two_stages_and_a_second_run_are_accepted():
    module = Foreign(small_faster_rcnn())
    trainer = SimpleNamespace(callbacks=[SwapLoss("ghm"), SwapLoss("focal", stage="rpn"), LearningRateMonitor()])
    for callback in trainer.callbacks[:2] * 2:
        callback.setup(trainer, module, "fit")
    assert {name: type(c.loss).__name__ for name, c in attached(module).criteria.items()} == {
        "roi": "GHMLoss",
        "rpn": "FocalLoss",
    }
    other = SimpleNamespace(callbacks=[SwapLoss("bce")])  # the callback of a run that ended without its teardown
    other.callbacks[0].setup(other, module, "fit")
    assert type(attached(module).criteria["roi"].loss).__name__ == "BCELoss"


def test_swap_loss__losses_with_state_of_each_class_and_with_counts(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    first = SwapLoss("eql_v2")
    fit(Foreign(), first, saver)
    resumed = SwapLoss("eql_v2")
    fit(Foreign(), resumed, checkpoint=saver.best_model_path, max_epochs=1)
    gradients = resumed.criterion.loss.negative_gradients
    assert (gradients > 0).all()
    torch.testing.assert_close(gradients, first.criterion.loss.negative_gradients)
    with pytest.raises(UsageError, match="'federated' needs to know how often each class occurs"):
        fit(Foreign(), SwapLoss("federated"))
    fit(Foreign(), SwapLoss("federated", class_counts=COUNTS))


def test_swap_loss__network_of_a_weighter_is_trained_saved_and_resumed(tmp_path):
    def run(epochs, *callbacks, checkpoint=None):
        torch.manual_seed(0)
        weighter = SWNWeighter(classification="anchor", hidden=4)
        for parameter in weighter.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        swap = SwapLoss("focal", weighters=[weighter])
        fit(Foreign(), swap, *callbacks, checkpoint=checkpoint, max_epochs=epochs)
        return swap

    start = [p.clone() for p in run(0).criterion.parameters()]
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    run(1, saver)
    saved = torch.load(saver.best_model_path, weights_only=True)
    assert list(saved["state_dict"]) == list(Foreign().state_dict())
    whole, resumed = run(2), run(2, checkpoint=saver.best_model_path)
    for before, once, twice in zip(start, whole.criterion.parameters(), resumed.criterion.parameters(), strict=True):
        assert not torch.equal(before, once)
        torch.testing.assert_close(twice, once)


def _swn_after_a_step(rank, halves):
    images, targets = random_batch((3, 1))
    mine = slice(None) if halves is None else halves[rank]
    module = Foreign()
    torch.manual_seed(rank)  # networks that start apart are made equal
    swap = SwapLoss("focal", weighters=["swn"], normalizer="batch")
    swap.setup(None, module, "validate")
    with torch.no_grad():
        for index, parameter in enumerate(swap.criterion.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) * 0.1)
    swap.on_fit_start(None, module)
    module.training_step((images[mine], targets[mine]), 0).backward()
    gradients = torch.cat([p.grad.flatten() for p in swap.criterion.parameters()])
    swap._optimizer.step = lambda: gradients.copy_(torch.cat([p.grad.flatten() for p in swap.criterion.parameters()]))
    swap.on_before_optimizer_step(SimpleNamespace(precision_plugin=None), module, None)
    return gradients


@pytest.mark.ddp
def test_swap_loss__network_of_a_weighter_gets_the_gradient_of_the_whole_batch(two_processes):
    expected = _swn_after_a_step(0, None)
    for got in two_processes(_swn_after_a_step, (slice(0, 1), slice(1, 2))):
        assert (got - expected).norm() / expected.norm() < 1e-5


class FakeScaler:
    """A GradScaler whose scale is known."""

    def get_scale(self):
        return 8.0


def swap_with_gradients(gradient, scaler=None, weighter="swn"):
    """A callback whose weighter's network has this gradient, and what its optimiser is given."""
    module = Foreign()
    swap = SwapLoss("focal", weighters=weighter)
    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=scaler), current_epoch=3)
    swap.setup(trainer, module, "fit")
    swap.on_fit_start(trainer, module)
    for parameter in swap.criterion.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    given = []
    if swap._optimizer is not None:
        swap._optimizer.step = lambda: given.extend(p.grad.unique().item() for p in swap.criterion.parameters())
    return swap, trainer, module, given


@pytest.mark.parametrize(("scaler", "expected"), [(None, 4.0), (FakeScaler(), 0.5)])
def test_swap_loss__gradient_of_a_weighter_is_without_the_scale_of_16_bit(scaler, expected):
    swap, trainer, module, given = swap_with_gradients(4.0, scaler)
    swap.on_before_optimizer_step(trainer, module, None)
    assert set(given) == {expected}
    assert all(p.grad is None for p in swap.criterion.parameters())


def test_swap_loss__a_step_that_overflows_is_left_out_and_forgotten():
    swap, trainer, module, given = swap_with_gradients(float("inf"), FakeScaler())
    swap.on_before_optimizer_step(trainer, module, None)
    assert given == []
    assert all(p.grad is None for p in swap.criterion.parameters())
    swap, trainer, module, given = swap_with_gradients(float("inf"))  # without a scaler it is the user's to see
    swap.on_before_optimizer_step(trainer, module, None)
    assert set(given) == {float("inf")}


def test_swap_loss__a_step_without_gradients_does_not_step_the_weighter():
    swap, trainer, module, given = swap_with_gradients(1.0)
    for parameter in swap.criterion.parameters():
        parameter.grad = None
    swap.on_before_optimizer_step(trainer, module, None)
    assert given == []
    swap, trainer, module, _ = swap_with_gradients(1.0, weighter="ohem")
    assert swap._optimizer is None
    swap.on_before_optimizer_step(trainer, module, None)


def test_swap_loss__every_parameter_of_a_weighter_is_trained_once_with_its_settings():
    class Grouped(SWNWeighter):
        def param_groups(self):
            return [{"params": [next(self.parameters())], "lr": 0.5}]

    swap = swap_with_gradients(1.0, weighter=[Grouped(classification="anchor"), "swn"])[0]
    groups = swap._optimizer.param_groups
    trained = [p for group in groups for p in group["params"]]
    assert {id(p) for p in trained} == {id(p) for p in swap.criterion.parameters()}
    assert len(trained) == len(set(map(id, trained)))
    assert groups[0]["lr"] == 0.5
    assert groups[-1]["lr"] == 1e-3
    assert type(swap._optimizer) is torch.optim.Adam


def test_swap_loss__hooks_before_setup():
    swap, trainer = SwapLoss(), SimpleNamespace(current_epoch=3, precision_plugin=None)
    assert swap.state_dict() == {}
    with pytest.raises(UsageError, match="SwapLoss is used before its setup"):
        swap.on_before_optimizer_step(trainer, Foreign(), None)
    swap.on_fit_start(trainer, module := Foreign())  # a network that was built since then
    assert attached(module).criteria[""] is swap.criterion


def test_swap_loss__the_epoch_reaches_the_loss():
    swap, trainer, module, _ = swap_with_gradients(1.0)
    swap.on_train_batch_start(trainer, module, None, 0)
    seen = []
    swap.criterion.observers.append(lambda samples, values, weights: seen.append((samples.epoch, samples.step)))
    swap.criterion.step = 7
    module.training_step(random_batch((2, 1)), 0)
    assert seen == [(3, 7)]


@pytest.mark.parametrize("hook", ["on_train_end", "on_save_checkpoint"])
def test_swap_loss__the_loss_of_the_last_step_is_checked(hook):
    swap, trainer, module, _ = swap_with_gradients(1.0)
    looked = []
    attached(module).nan_guard.flush = lambda: looked.append(1)
    getattr(swap, hook)(trainer, module, *([{}] if hook == "on_save_checkpoint" else []))
    assert looked == [1]
    swap.teardown(trainer, module, "fit")
    assert type(module.net.head).__name__ == "RetinaNetHead"
    getattr(swap, hook)(trainer, module, *([{}] if hook == "on_save_checkpoint" else []))  # nothing to look at


def test_swap_loss__counts_are_those_given_else_those_of_the_data():
    trainer = SimpleNamespace(datamodule=SimpleNamespace(class_counts=COUNTS))
    swap = SwapLoss("federated")
    swap.setup(trainer, Foreign(), "fit")
    assert swap.criterion.class_counts is COUNTS
    own = type(COUNTS)(COUNTS.instances + 1, COUNTS.images + 1, num_images=2000)
    swap = SwapLoss("federated", class_counts=own)
    swap.setup(trainer, Foreign(), "fit")
    assert swap.criterion.class_counts is own
    swap = SwapLoss("federated")
    swap.setup(SimpleNamespace(), Foreign(), "validate")  # counts are asked for where something is trained
    with pytest.raises(UsageError, match="'federated' needs to know how often"):
        swap.setup(SimpleNamespace(), Foreign(), "fit")


def test_swap_loss__state_is_restored_before_and_after_setup():
    trainer = SimpleNamespace()
    first = SwapLoss("focal", normalizer="ema")
    first.setup(trainer, Foreign(), "fit")
    first.criterion.step = 5
    state = first.state_dict()
    assert set(state) == {"criterion", "spec"}
    early = SwapLoss("focal", normalizer="ema")
    early.load_state_dict(state)
    assert early.state_dict() == state
    early.setup(trainer, Foreign(), "fit")
    assert early.criterion.step == 5
    early.criterion.step = 6
    early.setup(trainer, Foreign(), "fit")  # of a second fit in the same process
    assert early.criterion.step == 6
    late = SwapLoss("focal", normalizer="ema")
    late.setup(trainer, Foreign(), "fit")
    late.load_state_dict(state)
    assert late.criterion.step == 5
    late.load_state_dict({})
    assert late.criterion.step == 5


def test_swap_loss__the_box_loss_is_the_models_own_unless_another_is_given():
    for given, expected in ((None, "GIoULoss"), ("l1", "L1Loss")):
        swap = SwapLoss("focal", box_loss=given)
        swap.setup(SimpleNamespace(), Foreign(small_retinanet(box_loss="giou")), "validate")
        assert type(swap.criterion.box_loss).__name__ == expected


def test_swap_loss__one_weighter_needs_no_list():
    swap = SwapLoss(weighters="pisa")
    swap.setup(SimpleNamespace(), Foreign(), "validate")
    assert [type(w).__name__ for w in swap.criterion.weighters] == ["PISAWeighter"]


def test_swap_loss__a_module_without_a_network_yet_gets_the_same_message():
    with pytest.raises(UsageError, match="LitRetinaNet has its own arguments for the loss, weighters and other parts"):
        SwapLoss("bce").setup(SimpleNamespace(), LitRetinaNet(), "fit")


def test_swap_loss__other_arguments_than_those_of_the_checkpoint_are_told():
    saved, module = SwapLoss({"class_path": "ghm", "init_args": {"bins": 30}}), Foreign()
    saved.setup(FakeTrainer("."), module, "fit")
    state = saved.state_dict()
    other = SwapLoss({"class_path": "ghm", "init_args": {"bins": 10}})
    other.load_state_dict(state)
    with (
        pytest.warns(UserWarning, match=r"trained with loss .*'bins': 30.*; SwapLoss has .*'bins': 10"),
        pytest.raises(
            UsageError, match=r"does not fit: size mismatch for loss\..* Use the arguments of the checkpoint"
        ),
    ):
        other.setup(FakeTrainer("."), Foreign(), "fit")
    focal = SwapLoss({"class_path": "focal", "init_args": {"gamma": 2.0}})
    focal.setup(FakeTrainer("."), Foreign(), "fit")
    changed = SwapLoss({"class_path": "focal", "init_args": {"gamma": 0.0}})
    changed.load_state_dict(focal.state_dict())
    with pytest.warns(UserWarning, match=r"'gamma': 2\.0.*; SwapLoss has .*'gamma': 0\.0"):
        changed.setup(FakeTrainer("."), Foreign(), "fit")
