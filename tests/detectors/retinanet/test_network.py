import warnings

import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn

from lit_dense import LitRetinaNet
from lit_dense.core.errors import UsageError
from lit_dense.detectors import attached, patch
from lit_dense.detectors.backbones import WHOLE
from lit_dense.detectors.from_arguments import build_detector
from lit_dense.detectors.retinanet.network import ASPECT_RATIOS, build_retinanet
from tests.builders.detectors import random_batch, small_retinanet

OPTIONS = {
    "weights_backbone": None,
    "frozen_stages": None,
    "fpn_channels": 256,
    "head_convs": 4,
    "anchor_sizes": None,
    "aspect_ratios": ASPECT_RATIOS,
    "min_size": 800,
    "max_size": 1333,
}


def build(num_classes, backbone, **given):
    return build_detector("retinanet", num_classes, backbone=backbone, **{**OPTIONS, **given})


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
def test_build_retinanet__a_backbone_by_name_detects_and_learns(backbone, strides):
    model = build_retinanet(3, backbone, fpn_channels=16, min_size=128, max_size=128)
    features = model.backbone(torch.zeros(1, 3, 128, 128))
    assert [128 // f.shape[-1] for f in features.values()] == strides
    target = {"boxes": torch.tensor([[10.0, 10, 60, 60]]), "labels": torch.tensor([2])}
    sum(model([torch.rand(3, 128, 128)], [target]).values()).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert model.head.classification_head.num_classes == 3


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"min_size": 1600}, "min_size=1600 is larger than max_size=1333"),
        ({"min_size": (96, 128), "max_size": 112}, "min_size=128 is larger than max_size=112"),
        ({"min_size": 128, "max_size": 128}, None),
        ({"max_size": 640}, None),  # it limits the default of min_size
    ],
)
def test_build_detector__tells_of_a_min_size_that_no_image_gets(sizes, told):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        build(2, "tiny", fpn_channels=16, head_convs=1, **sizes)
    found = [str(one.message).split(":")[0] for one in seen if "max_size" in str(one.message)]
    assert found == ([told] if told else [])


def test_frozen_stages__get_no_gradient():
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
        (
            {"backbone": "resnet18", "weights": "COCO_V1"},
            "those of a torchvision model: take backbone=retinanet_resnet50",
        ),
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
            r"anchor_sizes must have the same number of sizes for each level, .* not 1, 2, 1\.",
        ),
        ({"backbone": "tiny", "frozen_stages": 1}, "has no stages that can be frozen"),
        ({"backbone": "resnet18", "frozen_stages": 6}, "frozen_stages must be 0 to 5, not 6"),
        ({"backbone": "tiny", "fpn_channels": 12}, "fpn_channels must be a multiple of 8"),
        ({"backbone": "timm/resnett18"}, "timm has no model 'resnett18'. Did you mean"),
    ],
)
def test_build_detector__mistakes_are_explained(arguments, message):
    with pytest.raises(UsageError, match=message):
        build(2, **{"fpn_channels": 16, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"anchor_sizes": [[8]]}, "has anchors, a pyramid and a head of its own: leave anchor_sizes out, or take"),
        (
            {"fpn_channels": 128, "head_convs": 2, "aspect_ratios": [1.0], "anchor_sizes": [[8]]},
            "leave fpn_channels and head_convs and anchor_sizes and aspect_ratios out, or take backbone=resnet50",
        ),
        ({"frozen_stages": 3}, "without weights all its layers are trained: leave frozen_stages out"),
        ({"frozen_stages": 6, "weights": "COCO_V1"}, r"frozen_stages must be in \[0, 5\], not 6"),
        ({"weights": "COCO_V1", "weights_backbone": "DEFAULT"}, "leave weights_backbone out"),
        (
            {"weights": "COCO_V1", "weights_backbone": "DEFAULT", "head_convs": 2},
            "leave head_convs out, .*; weights='COCO_V1' are those of the backbone too: leave weights_backbone out",
        ),
    ],
)
def test_whole_detector__ignores_no_argument(arguments, message):
    with pytest.raises(UsageError, match=message):
        build(2, "retinanet_resnet50_fpn", **arguments)


def test_whole_detector__takes_defaults_that_are_written_out():
    written = {"fpn_channels": 256, "head_convs": 4, "aspect_ratios": [0.5, 1.0, 2.0], "frozen_stages": 0}
    model = build(2, "retinanet_resnet50_fpn", **written)
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


def test_coco_weights__keep_their_91_columns(coco_weights, monkeypatch):
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


def test_coco_weights__with_other_classes_start_a_new_classifier(coco_weights, monkeypatch):
    folder, model = coco_weights
    monkeypatch.setenv("TORCH_HOME", str(folder))
    fresh = build(3, "retinanet_resnet50_fpn", weights="COCO_V1", min_size=64)
    assert fresh.head.classification_head.cls_logits.out_channels == 9 * 3
    assert fresh.head.classification_head.num_classes == 3
    name = "head.regression_head.bbox_reg.weight"
    assert torch.equal(fresh.state_dict()[name], model.state_dict()[name])
    assert fresh.head.classification_head.cls_logits.bias.mean() < -4


def test_build_retinanet__anchors_start_at_32_pixels_and_have_three_sizes_per_octave():
    model = build_retinanet(2, "tiny", fpn_channels=16)
    assert model.anchor_generator.sizes == ((32, 40, 50), (64, 80, 101), (128, 161, 203))
    assert model.training
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(("given", "expected"), [(64, [64]), ([64, 80], [64, 80]), ((96,), [96])])
def test_build_retinanet__one_or_several_sizes_of_images(given, expected):
    model = build_retinanet(2, "tiny", fpn_channels=16, min_size=given, max_size=100)
    assert list(model.transform.min_size) == expected
    assert model.transform.max_size == 100


@pytest.mark.parametrize("head_convs", [1, 3, 4])
def test_build_retinanet__towers_have_as_many_convolutions_as_asked_for(head_convs):
    model = build_retinanet(2, "tiny", fpn_channels=16, head_convs=head_convs)
    for tower in (model.head.classification_head, model.head.regression_head):
        assert len(tower.conv) == head_convs
        norms = [m for m in tower.conv.modules() if isinstance(m, torch.nn.GroupNorm)]
        assert [n.num_groups for n in norms] == [2] * head_convs  # groups of 8 channels


@pytest.mark.parametrize("head_convs", [0, 5])
def test_build_retinanet__more_convolutions_than_torchvision_has_are_refused(head_convs):
    with pytest.raises(UsageError, match=rf"head_convs must be in \[1, 4\], not {head_convs}"):
        build_retinanet(2, "tiny", fpn_channels=16, head_convs=head_convs)


def test_losses_and_detections__are_those_of_two_passes():
    torch.manual_seed(0)
    model = build_retinanet(4, "tiny", fpn_channels=16, min_size=64, max_size=96, score_thresh=0.0).eval()
    images, targets = random_batch((2, 1))
    images = [torch.rand(3, 64, 96), torch.rand(3, 64, 80)]  # neither square nor of one size
    with torch.no_grad():
        stock = model(images)
        expected = model.train()(images, targets)
        patch(model.eval())
        terms, detections = attached(model).losses_and_detections(images, targets)
    for mine, theirs in zip(detections, stock, strict=True):
        assert len(mine["boxes"])
        for name in ("boxes", "scores", "labels"):
            torch.testing.assert_close(mine[name], theirs[name])
    assert set(terms) == set(expected)
    for name in terms:
        torch.testing.assert_close(terms[name], expected[name])


@pytest.mark.parametrize(
    ("given", "trained"),
    [
        ({"weights_backbone": "DEFAULT", "frozen_stages": 3}, 2),
        ({"weights_backbone": "DEFAULT"}, None),
        ({"weights": "COCO_V1", "frozen_stages": 0}, 5),
        ({"weights": "COCO_V1"}, None),
        ({"frozen_stages": 0}, None),
    ],
)
def test_whole_detector__trains_the_stages_that_are_not_frozen(monkeypatch, given, trained):
    seen = {}

    def noted(num_classes=2, **arguments):
        seen.update(arguments)
        return small_retinanet(num_classes)

    name = "retinanet_resnet50_fpn"
    monkeypatch.setitem(WHOLE, name, WHOLE[name]._replace(build=noted))
    build(2, "retinanet_resnet50_fpn", **given)
    assert seen["trainable_backbone_layers"] == trained
    assert (seen["weights"] is None) is ("weights" not in given)
