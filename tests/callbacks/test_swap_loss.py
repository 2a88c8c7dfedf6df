from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lit_dense import LitRetinaNet, SwapLoss
from lit_dense.detectors import attached
from lit_dense.errors import UsageError
from lit_dense.losses import GHMLoss
from lit_dense.weighters import SWNWeighter
from tests.detectors import COUNTS, random_batch, small_retinanet


class Foreign(LightningModule):
    """Knows torchvision alone, and validates in train mode under no_grad, as some projects do."""

    def __init__(self):
        super().__init__()
        self.net = small_retinanet()

    def training_step(self, batch, batch_idx):
        return torch.stack(list(self.net(*batch).values())).sum()

    def validation_step(self, batch, batch_idx):
        self.net.train()
        self.log("val", torch.stack(list(self.net(*batch).values())).sum())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def loader(batches=3):
    return DataLoader([random_batch((2, 1), seed=seed) for seed in range(batches)], batch_size=None)


def fit(module, *callbacks, checkpoint=None, **arguments):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(callbacks=list(callbacks), **{"max_epochs": 1, **quiet, **arguments})
    trainer.fit(module, loader(), loader(1), ckpt_path=checkpoint)
    return trainer


def test_the_module_trains_with_the_loss_and_is_left_as_it_was():
    module, swap = Foreign(), SwapLoss("bce", normalizer="ema")
    fit(module, swap, enable_checkpointing=False)
    assert type(swap.criterion.loss).__name__ == "BCELoss"
    assert swap.criterion.step == 3  # validation has left no trace
    assert attached(module) is None


def test_state_survives_a_resume_and_the_checkpoint_is_the_hosts_own(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(Foreign(), SwapLoss("focal", normalizer="ema"), saver)
    saved = torch.load(saver.best_model_path, weights_only=True)
    assert list(saved["state_dict"]) == list(Foreign().state_dict())
    Foreign().load_state_dict(saved["state_dict"])
    resumed = SwapLoss("focal", normalizer="ema")
    fit(Foreign(), resumed, checkpoint=saver.best_model_path, max_epochs=2, enable_checkpointing=False)
    whole = SwapLoss("focal", normalizer="ema")
    fit(Foreign(), whole, max_epochs=2, enable_checkpointing=False)
    assert resumed.criterion.step == whole.criterion.step == 6
    torch.testing.assert_close(resumed.criterion.normalizer.positives, whole.criterion.normalizer.positives)


def test_state_of_version_0_1_without_a_spec_keeps_the_arguments_of_its_time():
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


def test_modules_that_cannot_be_swapped_say_why():
    with pytest.raises(UsageError, match="LitRetinaNet takes loss, weighters and the rest itself"):
        fit(LitRetinaNet(2, "tiny", fpn_channels=16), SwapLoss("bce"), enable_checkpointing=False)
    module = Foreign()
    module.net = torch.nn.Linear(1, 1)
    with pytest.raises(
        UsageError,
        match=r"Foreign contains no detector that lit_dense knows \(.*retinanet.*\). It contains net: Linear",
    ):
        fit(module, SwapLoss("bce"), enable_checkpointing=False)


def test_losses_with_state_of_each_class_and_with_counts(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    first = SwapLoss("eql_v2")
    fit(Foreign(), first, saver)
    resumed = SwapLoss("eql_v2")
    fit(Foreign(), resumed, checkpoint=saver.best_model_path, max_epochs=1, enable_checkpointing=False)
    gradients = resumed.criterion.loss.negative_gradients
    assert (gradients > 0).all()
    torch.testing.assert_close(gradients, first.criterion.loss.negative_gradients)
    with pytest.raises(UsageError, match="'federated' needs to know how often each class occurs"):
        fit(Foreign(), SwapLoss("federated"), enable_checkpointing=False)
    fit(Foreign(), SwapLoss("federated", class_counts=COUNTS), enable_checkpointing=False)


def test_a_weighters_network_is_trained_saved_and_resumed(tmp_path):
    def run(epochs, *callbacks, checkpoint=None):
        torch.manual_seed(0)
        weighter = SWNWeighter(classification="anchor", hidden=4)
        for parameter in weighter.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        swap = SwapLoss("focal", weighters=[weighter])
        saving = bool(callbacks)
        fit(Foreign(), swap, *callbacks, checkpoint=checkpoint, max_epochs=epochs, enable_checkpointing=saving)
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
    model = small_retinanet()
    torch.manual_seed(rank)  # networks that start apart are made equal
    swap = SwapLoss("focal", weighters=["swn"], normalizer="batch")
    module = Foreign()
    module.net = model
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
def test_a_weighters_network_gets_the_gradient_of_the_whole_batch(two_processes):
    expected = _swn_after_a_step(0, None)
    for got in two_processes(_swn_after_a_step, (slice(0, 1), slice(1, 2))):
        assert (got - expected).norm() / expected.norm() < 1e-5
