import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn

from lit_dense import LitRetinaNet
from lit_dense.errors import UsageError
from lit_dense.retinanet import build_retinanet


@pytest.mark.parametrize(
    ("backbone", "strides"),
    [
        ("tiny", [8, 16, 32]),
        ("resnet18", [8, 16, 32, 64, 128]),
        ("mobilenet_v3_small", [8, 16, 32, 64, 128]),
        ("mobilenet_v2", [8, 16, 32, 64, 128]),
        ("timm/test_resnet", [8, 16, 32, 64, 128]),
    ],
)
def test_a_backbone_by_name_detects_and_learns(backbone, strides):
    model = build_retinanet(3, backbone, fpn_channels=16, min_size=128, max_size=128)
    features = model.backbone(torch.zeros(1, 3, 128, 128))
    assert [128 // f.shape[-1] for f in features.values()] == strides
    target = {"boxes": torch.tensor([[10.0, 10, 60, 60]]), "labels": torch.tensor([2])}
    sum(model([torch.rand(3, 128, 128)], [target]).values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert model.head.classification_head.num_classes == 3


def test_frozen_stages_get_no_gradient():
    model = build_retinanet(2, "resnet18", frozen_stages=3, fpn_channels=16)
    frozen = {n.split(".")[0] for n, p in model.backbone.body.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1", "layer2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet51"}, r"Unknown backbone 'resnet51'\. Did you mean 'resnet50'\? Accepted: .*timm/NAME"),
        ({"backbone": "retinanet_resnet50"}, r"Did you mean 'retinanet_resnet50_fpn'\?"),
        ({"backbone": "tinny"}, r"Did you mean 'tiny'\?"),
        ({"backbone": "resnet18", "weights_backbone": "IMAGENET_V1"}, r"Did you mean 'IMAGENET1K_V1'\?"),
        ({"backbone": "retinanet_resnet50_fpn", "weights": "COCO", "fpn_channels": 256}, r"Did you mean 'COCO_V1'\?"),
        ({"backbone": "resnet18", "weights_backbone": "V7"}, "resnet18 has no weights 'V7': take one of IMAGENET1K_V1"),
        ({"backbone": "resnet18", "weights": "COCO_V1"}, "those of a whole detector: take backbone=retinanet_resnet50"),
        (
            {"backbone": "retinanet_resnet50_fpn", "weights": "V9", "fpn_channels": 256},
            "has no weights 'V9': take one of COCO_V1",
        ),
        (
            {"backbone": "tiny", "anchor_sizes": [[8], [16]]},
            "anchor_sizes has 2 levels, but .* gives 3",
        ),
        (
            {"backbone": "tiny", "anchor_sizes": [[8], [16, 20], [32]]},
            r"anchor_sizes must have as many sizes for each level, .* not 1, 2, 1\.",
        ),
        ({"backbone": "tiny", "frozen_stages": 1}, "has no stages that can be frozen"),
        ({"backbone": "resnet18", "frozen_stages": 6}, "frozen_stages must be 0 to 5, not 6"),
        ({"backbone": "tiny", "fpn_channels": 12}, "fpn_channels must be a multiple of 8"),
        ({"backbone": "timm/resnett18"}, "timm has no model 'resnett18'. Did you mean"),
    ],
)
def test_mistakes_are_explained(arguments, message):
    with pytest.raises(UsageError, match=message):
        build_retinanet(2, **{"fpn_channels": 16, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"anchor_sizes": [[8]]}, "has anchors, a pyramid and a head of its own: leave anchor_sizes out, or take"),
        (
            {"fpn_channels": 128, "head_convs": 2, "aspect_ratios": [1.0], "anchor_sizes": [[8]]},
            "leave fpn_channels and head_convs and anchor_sizes and aspect_ratios out, or take backbone=resnet50",
        ),
        ({"frozen_stages": 3}, "without weights it is trained as a whole: leave frozen_stages out"),
        ({"frozen_stages": 6, "weights": "COCO_V1"}, r"frozen_stages must be in \[0, 5\], not 6"),
        ({"weights": "COCO_V1", "weights_backbone": "DEFAULT"}, "leave weights_backbone out"),
        (
            {"weights": "COCO_V1", "weights_backbone": "DEFAULT", "head_convs": 2},
            "leave head_convs out, .*; weights='COCO_V1' are those of the backbone too: leave weights_backbone out",
        ),
    ],
)
def test_a_whole_detector_ignores_nothing_that_it_is_given(arguments, message):
    with pytest.raises(UsageError, match=message):
        build_retinanet(2, "retinanet_resnet50_fpn", **arguments)


def test_a_whole_detector_takes_defaults_that_are_written_out():
    written = {"fpn_channels": 256, "head_convs": 4, "aspect_ratios": [0.5, 1.0, 2.0], "frozen_stages": 0}
    model = build_retinanet(2, "retinanet_resnet50_fpn", **written)
    assert all(p.requires_grad for p in model.parameters())


@pytest.fixture(scope="module")
def coco_weights(tmp_path_factory):
    """A file that torch.hub takes for torchvision's COCO weights, and the model that it holds."""
    torch.manual_seed(0)
    model = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91, min_size=64, max_size=64)
    folder = tmp_path_factory.mktemp("hub")
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(model.state_dict(), folder / "hub" / "checkpoints" / "retinanet_resnet50_fpn_coco-eeacb38b.pth")
    return folder, model


def test_coco_weights_keep_their_91_columns(coco_weights, monkeypatch):
    folder, _ = coco_weights
    monkeypatch.setenv("TORCH_HOME", str(folder))
    module = LitRetinaNet(91, "retinanet_resnet50_fpn", weights="COCO_V1", min_size=64, max_size=64, score_thresh=0.001)
    stock = retinanet_resnet50_fpn(weights="COCO_V1", min_size=64, max_size=64, score_thresh=0.001)
    image = [torch.rand(3, 64, 64)]
    (mine,), (theirs,) = module.eval()(image), stock.eval()(image)
    assert torch.equal(mine["boxes"], theirs["boxes"])
    assert torch.equal(mine["labels"], theirs["labels"])
    assert module.categories[1] == {"id": 1, "name": "person"}
    assert len(module.categories) == 91


def test_coco_weights_with_other_classes_start_a_new_classifier(coco_weights, monkeypatch):
    folder, model = coco_weights
    monkeypatch.setenv("TORCH_HOME", str(folder))
    fresh = build_retinanet(3, "retinanet_resnet50_fpn", weights="COCO_V1", min_size=64)
    assert fresh.head.classification_head.cls_logits.out_channels == 9 * 3
    assert fresh.head.classification_head.num_classes == 3
    name = "head.regression_head.bbox_reg.weight"
    assert torch.equal(fresh.state_dict()[name], model.state_dict()[name])
    assert fresh.head.classification_head.cls_logits.bias.mean() < -4
