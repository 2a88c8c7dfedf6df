"""Under which Trainers the parts work: those of lightning.pytorch and of pytorch_lightning."""

import lightning.pytorch
import pytest
import torch

from lit_dense import CocoDataModule, DetectionMAP, LitRetinaNet, SwapLoss
from lit_dense.callbacks import DetectionPlots, EvaluationPlots, LossPlots, WeightPlots
from tests.builders.coco_files import data_arguments, write_shape_splits
from tests.builders.detectors import small_retinanet
from tests.builders.trainers import QUIET

pytorch_lightning = pytest.importorskip("pytorch_lightning")
BOTH = {"lightning.pytorch": lightning.pytorch, "pytorch_lightning": pytorch_lightning}


def module_of(base):
    """A LightningModule of one of the two."""

    class Foreign(base.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = small_retinanet()
            self.metric = DetectionMAP(class_names=["0", "1"])

        def training_step(self, batch, batch_idx):
            images, targets = batch
            return sum(self.net([image / 255 for image in images], targets).values())

        def validation_step(self, batch, batch_idx):
            images, targets = batch
            found = self.net([image / 255 for image in images])
            for of_image in found:
                of_image["labels"] = of_image["labels"] % 2
            self.metric.update(found, targets)
            return {"detections": found}

        def on_validation_epoch_end(self):
            self.log_dict({name: value for name, value in self.metric.compute().items() if "/" not in name})
            self.metric.reset()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    return Foreign()


def fit(name, folder, positional=False, epochs=1, checkpoint=None):
    """Trains; returns the weights, the state of the loss and the metrics."""
    base = BOTH[name]
    base.seed_everything(0, verbose=False)
    swap = SwapLoss("ghm", weighters="ohem")
    pictures = [LossPlots(1), WeightPlots(1), DetectionPlots(), EvaluationPlots()]
    trainer = base.Trainer(
        max_epochs=epochs, callbacks=[swap, *pictures], default_root_dir=folder, num_sanity_val_steps=0, **QUIET
    )
    data = CocoDataModule(**data_arguments(folder.parent))
    module = module_of(base)
    trainer.fit(
        module, *([data] if positional else []), **({} if positional else {"datamodule": data}), ckpt_path=checkpoint
    )
    saved = next(folder.rglob("*.ckpt")) if checkpoint is None else None
    return module.state_dict(), swap.state_dict()["criterion"], dict(trainer.callback_metrics), saved


def test_both_lightnings__parts_are_the_same_under_both(tmp_path):
    write_shape_splits(tmp_path)
    runs = {name: fit(name, tmp_path / name, positional=name == "pytorch_lightning") for name in BOTH}
    first, second = runs.values()
    for got, expected in zip(second[:3], first[:3], strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert "map" in first[2]
    for name in BOTH:
        drawn = {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*.png")}
        assert {"detections.png", "confusion.png", "precision_recall.png", "loss/step_000001.png"} <= drawn
        assert "weights/step_000001.png" in drawn
    resumed = [  # each from the checkpoint of the other
        fit(name, tmp_path / f"{name} again", epochs=2, checkpoint=other[3])
        for name, other in zip(BOTH, (second, first), strict=True)
    ]
    for got, expected in zip(resumed[1][:3], resumed[0][:3], strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert resumed[0][1]["_extra_state"]["step"] == 2 * first[1]["_extra_state"]["step"]


def test_lit_retinanet__is_refused_by_the_other_trainer_in_one_line():
    trainer = pytorch_lightning.Trainer(enable_checkpointing=False, **QUIET)
    with pytest.raises(TypeError, match=r"`model` must be a `LightningModule`.* got `LitRetinaNet`") as error:
        trainer.fit(LitRetinaNet(2, "tiny", fpn_channels=16))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", BOTH)
def test_coco_data_module__is_a_data_module_of_both(name):
    assert isinstance(CocoDataModule(demo=True), BOTH[name].LightningDataModule)
