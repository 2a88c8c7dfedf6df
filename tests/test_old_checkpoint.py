"""A file that release 0.1.0 wrote is still loaded, evaluated and trained on.

``files/checkpoint_0_1_0.ckpt.xz`` is of that release, by ``Trainer.save_checkpoint`` after the first of 4 steps
on ``write_shapes(folder, "train")`` with batch_size=2 and seed 0:

    LitRetinaNet(num_classes=2, backbone="tiny", fpn_channels=8, head_convs=1, min_size=64, max_size=64, lr=1e-3,
        loss={"class_path": "lit_dense.losses.EqualizationLossV2", "init_args": {"gamma": 10.0}}, box_loss="giou",
        weighters=[{"class_path": "lit_dense.weighters.SWNWeighter",
                    "init_args": {"hidden": 8, "detach_features": False}}], normalizer="ema", warmup_steps=0)

Before that the backbone's convolutions were rounded to three values and the first convolutions of its pyramid set to 0,
so that weights and the optimiser's state are packed in a small file. NUMBERS are what 0.1.0 got from it.
"""

import lzma
from pathlib import Path

import pytest
import torch

from lit_dense import LitRetinaNet
from lit_dense.cli.checkpoint_file import check_checkpoint
from lit_dense.data import CocoDataModule
from lit_dense.losses import EqualizationLossV2
from lit_dense.normalizers import EMANormalizer
from lit_dense.weighters import SWNWeighter
from tests.builders.coco_files import data_arguments, write_shape_splits
from tests.builders.trainers import trainer_in

NUMBERS = {
    "val_classification": 2.57383466,
    "val_bbox_regression": 0.07212306,
    "val_map": 0.00017048,
    "val_map_50": 0.00085240,
    "val_mar_100": 0.025,
}
POSITIVE_GRADIENTS, POSITIVES, BIASES = [39.6915, 36.5931], 69.3150, -82.7361  # of its fourth step


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("old") / "checkpoint_0_1_0.ckpt"
    path.write_bytes(lzma.decompress((Path(__file__).parent / "files" / "checkpoint_0_1_0.ckpt.xz").read_bytes()))
    return path


@pytest.fixture(scope="module")
def saved(path):
    return torch.load(path, weights_only=True)


@pytest.fixture
def data(tmp_path):
    write_shape_splits(tmp_path)
    return CocoDataModule(**data_arguments(tmp_path), batch_size=2)


def test_old_checkpoint__is_loaded_with_its_parts_their_state_and_its_classes(path, saved):
    check_checkpoint(path)
    model = LitRetinaNet.load_from_checkpoint(path)
    loss, (weighter,), normalizer = model.criterion.loss, model.criterion.weighters, model.criterion.normalizer
    assert isinstance(loss, EqualizationLossV2)
    assert isinstance(weighter, SWNWeighter)
    assert isinstance(normalizer, EMANormalizer)
    assert (loss.gamma, weighter.detach_features, model.criterion.step) == (10, False, 1)
    assert (
        loss.positive_gradients.tolist() == saved["state_dict"]["criterion.loss.positive_gradients"].tolist() != [0, 0]
    )
    assert model.categories == [{"id": 3, "name": "bar"}, {"id": 7, "name": "square"}]
    assert not model.untrained
    state = model.state_dict()
    assert state.keys() == saved["state_dict"].keys()
    for name, value in saved["state_dict"].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(state[name], value, rtol=0, atol=0, msg=name)


def test_old_checkpoint__is_evaluated_with_the_same_numbers(path, data):
    model = LitRetinaNet.load_from_checkpoint(path)
    trainer = trainer_in(None)
    (found,) = trainer.validate(model, data, ckpt_path=str(path), verbose=False)
    assert {name: found[name] for name in NUMBERS} == pytest.approx(NUMBERS, rel=1e-4, abs=1e-7)


def test_old_checkpoint__training_goes_on_to_the_same_numbers(path, data):
    model = LitRetinaNet.load_from_checkpoint(path)
    trainer = trainer_in(None, max_epochs=-1, max_steps=4, limit_val_batches=0)
    trainer.fit(model, data, ckpt_path=str(path))
    assert (trainer.global_step, model.criterion.step) == (4, 4)
    (optimizer,) = trainer.optimizers
    assert {int(state["step"]) for state in optimizer.state.values()} == {4}
    assert model.criterion.loss.positive_gradients.tolist() == pytest.approx(POSITIVE_GRADIENTS, rel=1e-3)
    assert float(model.criterion.normalizer.positives) == pytest.approx(POSITIVES, rel=1e-5)
    assert float(model.model.head.classification_head.cls_logits.bias.detach().sum()) == pytest.approx(BIASES, rel=1e-4)
