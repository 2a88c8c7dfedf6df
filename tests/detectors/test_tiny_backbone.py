import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from lit_dense.detectors.tiny_backbone import tiny_backbone


@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 128), (70, 50)])
def test_tiny_backbone__levels_have_strides_8_16_32(height, width):
    backbone = tiny_backbone(32)
    levels = backbone(torch.zeros(2, 3, height, width))
    shapes = [tuple(level.shape) for level in levels.values()]
    assert shapes == [(2, 32, -(-height // s), -(-width // s)) for s in (8, 16, 32)]
    assert backbone.out_channels == 32


def test_tiny_backbone__trains_and_predicts_in_a_retinanet():
    anchors = AnchorGenerator(((12, 17), (24, 34), (48, 68)), ((1.5,),) * 3)
    model = RetinaNet(tiny_backbone(16), num_classes=3, min_size=96, max_size=96, anchor_generator=anchors)
    images = [torch.rand(3, 96, 96), torch.rand(3, 96, 96)]
    targets = [
        {"boxes": torch.tensor([[10.0, 10.0, 30.0, 40.0]]), "labels": torch.tensor([1])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    sum(model(images, targets).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.backbone.parameters())
    with torch.no_grad():
        assert len(model.eval()(images)) == 2


def test_tiny_backbone__an_image_does_not_depend_on_its_batch():
    backbone = tiny_backbone().train()
    images = torch.rand(3, 3, 64, 64)
    together, alone = backbone(images), backbone(images[:1])
    for name in together:
        torch.testing.assert_close(together[name][:1], alone[name], rtol=1e-4, atol=1e-5)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules())
