"""A module whose box loss has outputs of its own: its head, its checkpoints and its images in tiles."""

import pytest
import torch
from lightning.pytorch import Trainer

from lit_dense import LitDetector
from lit_dense.core.errors import UsageError
from lit_dense.data.tiling import TILING
from tests.builders.detectors import random_batch, small_retinanet

SHORT = {"class_path": "dfl", "init_args": {"reg_max": 7, "iou_loss": "ciou"}}


def small(detector="retinanet", box_loss="dfl", **more):
    torch.manual_seed(0)
    return LitDetector(
        detector,
        **{"num_classes": 3, "backbone": "tiny", "fpn_channels": 32, "min_size": 64, "max_size": 64, **more},
        box_loss=box_loss,
    )


@pytest.fixture
def checkpoint(tmp_path):
    def save(module):
        trainer = Trainer(accelerator="cpu", logger=False, barebones=True)
        trainer.strategy.connect(module)
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        return tmp_path / "a.ckpt"

    return save


@pytest.mark.parametrize("detector", ["retinanet", "fcos"])
@pytest.mark.parametrize(("box_loss", "bins"), [("dfl", 17), (SHORT, 8), ("giou", 1)])
def test_lit_detector__a_checkpoint_rebuilds_the_head(detector, box_loss, bins, checkpoint):
    module = small(detector, box_loss).eval()
    layer = module.model.head.regression_head.bbox_reg
    assert layer.out_channels % (4 * bins) == 0
    path = checkpoint(module)
    again = LitDetector.load_from_checkpoint(path).eval()
    torch.testing.assert_close(again.state_dict(), module.state_dict())
    images = random_batch()[0]
    with torch.no_grad():
        torch.testing.assert_close(again(images), module(images))


@pytest.mark.parametrize(
    ("saved", "chosen", "said"),
    [
        ("dfl", "l1", r"has 68 outputs for the box of an anchor \(box_loss=dfl, reg_max=16\), but box_loss=l1 needs 4"),
        (
            "giou",
            "dfl",
            r"has 4 outputs .* \(box_loss=giou\), but box_loss=dfl, reg_max=16 needs 68: leave box_loss out",
        ),
        (SHORT, "dfl", r"has 32 outputs .* \(box_loss=dfl, reg_max=7\), but box_loss=dfl, reg_max=16 needs 68"),
    ],
)
def test_lit_detector__a_checkpoint_of_another_box_width_is_refused(saved, chosen, said, checkpoint):
    path = checkpoint(small(box_loss=saved))
    with pytest.raises(UsageError, match=said):
        LitDetector.load_from_checkpoint(path, box_loss=chosen)
    with pytest.raises(UsageError, match=said):  # the number of classes is that of the checkpoint
        small(box_loss=chosen, num_classes=None).on_load_checkpoint(torch.load(path, weights_only=True))


@pytest.mark.parametrize(
    ("saved", "chosen", "said"),
    [
        (
            "seesaw",
            "focal",
            r"has 2 columns besides those of classes \(loss=seesaw\), but loss=focal needs 0: leave loss",
        ),
        ("focal", "softmax", r"has 0 columns .* \(loss=focal\), but loss=softmax needs 1"),
    ],
)
def test_lit_detector__a_checkpoint_of_other_class_columns_is_refused(saved, chosen, said, checkpoint):
    path = checkpoint(small(loss=saved))
    with pytest.raises(UsageError, match=said):
        LitDetector.load_from_checkpoint(path, loss=chosen)


def test_lit_detector__a_head_with_background_has_the_same_columns_with_every_loss(checkpoint):
    path = checkpoint(small("ssd", "smooth_l1", loss="softmax"))
    with pytest.warns(UserWarning, match="The checkpoint was trained with loss"):
        assert LitDetector.load_from_checkpoint(path, loss="focal").criterion.spec["loss"]["class_path"] == "focal"


def test_lit_detector__a_checkpoint_of_an_unknown_box_loss_is_loaded_as_before(checkpoint):
    module = small(box_loss="giou")
    path = checkpoint(module)
    content = torch.load(path, weights_only=True)
    content["lit_dense"]["criterion"]["box_loss"] = {"class_path": "of_another_package", "init_args": {}}
    with pytest.warns(UserWarning, match="The checkpoint was trained with box_loss .*of_another_package"):
        module.on_load_checkpoint(content)


class Own(LitDetector):
    """A module with a network of its own."""

    def build_model(self, num_classes):
        return small_retinanet(num_classes)


def test_build_model__a_network_of_a_subclass_gets_the_outputs_of_the_loss():
    module = Own(num_classes=4, box_loss="dfl", max_size=64)
    assert module.model.head.regression_head.bbox_reg.out_channels == 4 * 68
    assert Own(num_classes=4, box_loss="giou", max_size=64).model.head.regression_head.bbox_reg.out_channels == 16


@pytest.mark.parametrize("detector", ["ssd", "ssdlite", "faster_rcnn"])
def test_lit_detector__other_detectors_refuse(detector):
    with pytest.raises(UsageError, match=r"DFLLoss needs 68 outputs .* gives 4: take another box loss, such as giou"):
        small(detector)
    if detector == "faster_rcnn":
        with pytest.raises(UsageError, match=r"DFLLoss needs 68 .*\(stage 'rpn'\) gives 4"):
            small(detector, "giou", rpn={"box_loss": "dfl"})


@torch.no_grad()
def test_predict_step__tiles_have_decoded_boxes():
    module = small(score_thresh=0.0).eval()
    layer, coder = module.model.head.regression_head.bbox_reg, module.criterion.box_loss.box_coder
    torch.nn.init.zeros_(layer.weight)  # boxes of one stride to each side
    layer.bias.data = coder.outputs_of(torch.ones(1, 4)).repeat(1, layer.out_channels // 68).flatten()
    found = module.predict_step(([torch.rand(3, 64, 100)], [{TILING: (64, 16)}]), 0)[0]
    sides = (found["boxes"][:, 2:] - found["boxes"][:, :2]).unique()
    assert len(found["boxes"]) > 10
    assert found["boxes"][:, 2].max() > 64
    assert {8.0, 16.0} <= {round(float(side), 3) for side in sides}
