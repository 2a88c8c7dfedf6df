"""SwapLoss trains the network that the module trains, whenever it is built, and leaves no trace of itself."""

import copy

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.retinanet import RetinaNetHead

from lit_dense import SwapLoss, patch
from lit_dense.core.errors import UsageError
from lit_dense.detectors import attached
from tests.builders.detectors import random_batch, small_faster_rcnn, small_retinanet
from tests.builders.lit_modules import Foreign
from tests.builders.trainers import loader, trainer_in


def fit(module, *callbacks, checkpoint=None, **arguments):
    trainer = trainer_in(None, *callbacks, **{"limit_val_batches": 0} | arguments)
    trainer.fit(module, loader(0, 1, 2, counts=(2, 1)), loader(0, counts=(2, 1)), ckpt_path=checkpoint)
    return trainer


def bias_of(module):
    return float(module.net.head.classification_head.cls_logits.bias[0])


class Rebuilt(Foreign):
    """Builds a new network in configure_model each time."""

    def configure_model(self):
        self.net = small_retinanet()


class BuiltOnce(Foreign):
    """Builds its network in configure_model, if there is none."""

    def __init__(self):
        super().__init__()
        self.net = None

    def configure_model(self):
        self.net = self.net or small_retinanet()


@pytest.mark.parametrize("build", [Rebuilt, BuiltOnce])
@pytest.mark.parametrize("loss", ["focal", "ghm", "eql_v2"])
def test_swap_loss__trains_the_network_that_configure_model_builds_after_a_validation(build, loss):
    module, swap = build(), SwapLoss(loss, normalizer="ema" if loss != "ghm" else None, weighters="swn", prior=0.3)
    trainer = trainer_in(None, swap)
    trainer.validate(module, loader(0, counts=(2, 1)), verbose=False)
    trainer.fit(module, loader(0, 1, 2, counts=(2, 1)))
    assert swap.criterion.step == 3
    assert -1.5 < bias_of(module) < 0  # the prior's is -0.85, torchvision's -4.6


def test_swap_loss__trains_a_head_that_setup_replaces():
    class NewHead(Foreign):
        def setup(self, stage):
            anchors = self.net.anchor_generator.num_anchors_per_location()[0]
            self.net.head = RetinaNetHead(self.net.backbone.out_channels, anchors, num_classes=4)

    swap = SwapLoss("eql_v2")
    fit(NewHead(small_retinanet(num_classes=2)), swap)
    assert swap.criterion.step == 3


def test_swap_loss__tests_a_network_that_setup_builds_again():
    class InSetup(Foreign):
        def setup(self, stage):
            torch.manual_seed(0)
            self.net = small_faster_rcnn()

        def test_step(self, batch, batch_idx):
            self.scores = torch.cat([found["scores"] for found in self.net(batch[0])])

    module, swap = InSetup(), SwapLoss("focal")
    batches = DataLoader([random_batch((2,), first_label=1)], batch_size=None)
    trainer = trainer_in(None, swap, limit_val_batches=0)
    trainer.fit(module, batches)
    trainer.test(module, batches, verbose=False)
    alone = InSetup()
    trainer_in(None, SwapLoss("focal")).test(alone, batches, verbose=False)
    torch.testing.assert_close(module.scores, alone.scores)


@pytest.mark.parametrize("hook", ["setup", "on_fit_start", "on_train_start"])
def test_swap_loss__a_copy_of_the_network_does_not_end_the_run(hook, tmp_path):
    class Averaged(Foreign):
        def copy_network(self, stage=None):
            self.average = copy.deepcopy(self.net)

    setattr(Averaged, hook, Averaged.copy_network)
    module, swap = Averaged(), SwapLoss("ghm")
    fit(module, swap, ModelCheckpoint(tmp_path, every_n_train_steps=1))
    assert swap.criterion.step == 3
    assert attached(module.net) is None


def test_swap_loss__a_student_that_is_built_later_is_not_confused_with_its_teacher():
    class Distilled(Foreign):
        def __init__(self):
            super().__init__()
            del self.net
            self.teacher = small_retinanet()

        def configure_model(self):
            self.net = small_retinanet()

    with pytest.raises(UsageError, match=r"2 detectors: teacher .* name it by module="):
        fit(Distilled(), SwapLoss("ghm"))
    swap = SwapLoss("ghm", module="net")
    fit(Distilled(), swap)
    assert swap.criterion.step == 3


def test_swap_loss__a_run_that_never_computes_the_loss_is_refused():
    class OwnLoss(RetinaNet):
        def compute_loss(self, targets, head_outputs, anchors):
            return {"own": head_outputs["cls_logits"].square().mean()}

    class Distilled(LightningModule):
        def __init__(self):
            super().__init__()
            self.teacher, self.student = small_retinanet(), torch.nn.Linear(1, 1)

        def training_step(self, batch, batch_idx):
            return None if batch_idx == 0 else self.student.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.student.parameters(), 0.1)

    own = Foreign()
    own.net.__class__ = OwnLoss
    with pytest.raises(
        UsageError, match=r"OwnLoss computes its training loss without calling RetinaNetHead.compute_loss"
    ):
        fit(own, SwapLoss("ghm"))
    with pytest.raises(
        UsageError, match=r"3 training batches have not computed the replaced loss. Distilled may compute"
    ):
        fit(Distilled(), SwapLoss("ghm"))


def test_swap_loss__a_loss_that_few_batches_compute_is_accepted():
    class Alternating(Foreign):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) if batch_idx == 2 else next(self.parameters()).sum() * 0

    swap = SwapLoss("ghm")
    fit(Alternating(), swap)
    assert swap.criterion.step == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_swap_loss__an_interrupted_run_leaves_the_detectors_own_loss(error):
    class Broken(Foreign):
        def training_step(self, batch, batch_idx):
            raise error

    module = Broken()
    with pytest.raises((error, SystemExit)):
        fit(module, SwapLoss("ghm"))
    assert attached(module) is None


def test_swap_loss__a_loss_of_patch_stays():
    module = Foreign(small_faster_rcnn())
    own = patch(module.net, "ghm")
    swap = SwapLoss("focal", stage="rpn")
    fit_faster(module, swap)
    assert attached(module.net).criteria == {"roi": own}
    assert swap.criterion.step == own.step == 1
    with pytest.raises(UsageError, match=r"FasterRCNN, stage 'roi', has been replaced by GHMLoss already: .*unpatch"):
        fit_faster(module, SwapLoss("focal"))
    assert attached(module.net).criteria == {"roi": own}


def fit_faster(module, swap):
    trainer_in(None, swap, limit_val_batches=0).fit(
        module, DataLoader([random_batch((2,), first_label=1)], batch_size=None)
    )


def test_swap_loss__the_prior_is_for_a_network_that_starts(tmp_path):
    module, swap = Foreign(), SwapLoss("focal", prior=0.3)
    fit(module, swap)
    assert bias_of(module) == pytest.approx(-0.847, abs=0.2)
    with torch.no_grad():
        module.net.head.classification_head.cls_logits.bias.fill_(7.0)
    trainer = fit(module, swap)
    assert bias_of(module) == pytest.approx(7, abs=0.2)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    for build in (Foreign, BuiltOnce):
        saved = torch.load(tmp_path / "own.ckpt", weights_only=True)
        saved["callbacks"] = {}
        torch.save(saved, tmp_path / "stock.ckpt")
        resumed = build()
        fit(resumed, SwapLoss("focal", prior=0.3), checkpoint=tmp_path / "stock.ckpt", max_epochs=3)
        assert bias_of(resumed) == pytest.approx(7, abs=0.5)


def test_swap_loss__another_network_needs_another_callback():
    swap = SwapLoss("focal", normalizer="ema")
    fit(Foreign(), swap)
    with pytest.raises(UsageError, match=r"has the state of 3 training steps of another network: give each run a new"):
        fit(Foreign(), swap)
