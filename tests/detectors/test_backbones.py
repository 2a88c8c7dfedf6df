import sys
from urllib.error import URLError

import pytest
import timm
import torch
from torch import nn

from lit_dense import LitRetinaNet
from lit_dense.core.errors import UsageError
from lit_dense.detectors.backbones import build_backbone


@pytest.fixture
def asked(monkeypatch):
    """What timm was asked to load; a network that is to be pretrained gets statistics of its own instead."""
    create, names = timm.create_model, []

    def without_download(name, pretrained=False, **options):
        model = create(name, **options)
        if pretrained:
            names.append(name)
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.uniform_(module.running_mean)
                    nn.init.uniform_(module.weight)
        return model

    monkeypatch.setattr(timm, "create_model", without_download)
    return names


def test_build_backbone__timm_weights_come_with_frozen_batch_norm(asked):
    torch.manual_seed(0)
    frozen = build_backbone("timm/test_resnet", "DEFAULT", None, 16).body.train()
    plain = timm.create_model("test_resnet", features_only=True, out_indices=(2, 3, 4))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    counters = {name for name in plain.state_dict() if name.endswith("num_batches_tracked")}
    assert before.keys() == plain.state_dict().keys() - counters
    plain.load_state_dict(before, strict=False)
    image = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(frozen(image), plain.eval()(image), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(frozen.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.dim() > 1 for parameter in frozen.parameters())


def test_build_backbone__without_weights_batch_norm_of_timm_is_trained(asked):
    body = build_backbone("timm/test_resnet", None, None, 16).body
    assert any(isinstance(m, nn.BatchNorm2d) for m in body.modules())
    assert not asked


@pytest.mark.parametrize(
    ("name", "weights", "loaded"),
    [
        ("resnet10t", "DEFAULT", "resnet10t"),
        ("resnet10t", "c3_in1k", "resnet10t.c3_in1k"),
        ("resnet10t.c3_in1k", "DEFAULT", "resnet10t.c3_in1k"),
        ("resnet10t.c3_in1k", "c3_in1k", "resnet10t.c3_in1k"),
    ],
)
def test_build_backbone__the_tag_of_timm_weights_is_passed_on(asked, name, weights, loaded):
    build_backbone(f"timm/{name}", weights, None, 16)
    assert asked == [loaded]


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        (
            "timm/resnet18",
            "a9_in1k",
            r"timm/resnet18 has no weights 'a9_in1k'\. Did you mean 'a\d_in1k'\? Accepted: DEFAULT, ",
        ),
        ("timm/resnet18", "IMAGENET1K_V1", "timm/resnet18 has no weights 'IMAGENET1K_V1'.* Accepted: DEFAULT, "),
        ("timm/resnet18.a1_in1k", "fb_swsl_ig1b_ft_in1k", r"'fb_swsl_ig1b_ft_in1k'\. Accepted: DEFAULT, a1_in1k\.$"),
        ("timm/resnet18.a7_in1k", None, "timm/resnet18.a7_in1k has no weights 'a7_in1k'"),
        ("tiny", "DEFAULT", "tiny has no weights 'DEFAULT': leave weights_backbone out"),
    ],
)
def test_build_backbone__weights_that_do_not_exist_are_named(asked, name, weights, message):
    with pytest.raises(UsageError, match=message):
        build_backbone(name, weights, None, 16)
    assert not asked


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("swin_tiny_patch4_window7_224", r"does not take an image of 64 pixels: Input height .* timm/resnet50"),
        ("test_vit", r"has features of strides \[.*\]; strides 8, 16 and 32 are needed"),
    ],
)
def test_build_backbone__a_model_without_a_pyramid_for_images_of_any_size_is_refused(name, message):
    with pytest.raises(UsageError, match=message):
        build_backbone(f"timm/{name}", None, None, 16)


def test_build_backbone__a_model_whose_channels_come_last_is_refused(monkeypatch):
    create = timm.create_model

    def channels_last(*arguments, **options):
        model = create(*arguments, **options)
        model.register_forward_hook(lambda module, given, features: [f.permute(0, 2, 3, 1) for f in features])
        return model

    monkeypatch.setattr(timm, "create_model", channels_last)
    with pytest.raises(UsageError, match=r"its features of an image of 64 pixels are \[\(1, 8, 8, .* not \[\(1, "):
        build_backbone("timm/test_resnet", None, None, 16)


def test_build_backbone__a_missing_timm_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r'needs timm: pip install "lit-dense\[timm\]"'):
        build_backbone("timm/resnet18", None, None, 16)


def test_lit_retinanet__weights_that_cannot_be_downloaded_are_an_error_of_one_line(monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    for options in ({"backbone": "resnet18", "weights_backbone": "DEFAULT"}, {"backbone": "retinanet_resnet50_fpn"}):
        weights = {} if "weights_backbone" in options else {"weights": "COCO_V1"}
        with pytest.raises(
            UsageError, match=r"cannot be downloaded: .*Name or service.*put the file into .*checkpoints"
        ):
            LitRetinaNet(num_classes=2, **options, **weights).configure_model()
