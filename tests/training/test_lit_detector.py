"""LitDetector: detectors by one word, with labels, losses and limits of their own."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader

from lit_dense import LitDetector, LitRetinaNet
from lit_dense.core.errors import UsageError
from lit_dense.criterion import Criterion
from lit_dense.detectors import attached, patch
from lit_dense.detectors.from_arguments import NETWORKS
from tests.builders.detectors import NUM_CLASSES, small_ssd
from tests.builders.trainers import trainer_in

WORDS = tuple(NETWORKS)
SMALL = {"backbone": "tiny", "fpn_channels": 32, "min_size": 64, "max_size": 64, "warmup_steps": 0}


def small(word, **options):
    torch.manual_seed(0)
    return LitDetector(word, **{"num_classes": 3, **SMALL, **options})


def criteria(module):
    return [c for c in (module.criterion, module.rpn_criterion) if c is not None]


def batch():
    torch.manual_seed(1)
    images = [torch.rand(3, 64, 64), torch.rand(3, 64, 48)]
    objects = {"boxes": torch.tensor([[4.0, 4, 40, 40], [10, 20, 60, 60]]), "labels": torch.tensor([0, 2])}
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return images, [{**objects, "image_id": 1}, {**nothing, "image_id": 2}]


@pytest.mark.parametrize("word", WORDS)
def test_lit_detector__losses_by_default_are_those_that_the_adapter_names(word):
    module = small(word)
    adapter = attached(module.model)
    for stage, criterion in zip(adapter.stages, criteria(module), strict=True):
        own = Criterion(**adapter.defaults(stage)).spec
        assert {**criterion.spec, "normalizer": None} == {**own, "normalizer": None}
        assert criterion.normalizer.spec == Criterion(**adapter.defaults(stage)).normalizer.spec


@pytest.mark.parametrize("word", WORDS)
def test_lit_detector__a_step_trains_the_losses_of_the_patched_network(word):
    module = small(word, loss="ghm")
    network = copy.deepcopy(module.model)
    images, targets = batch()
    first = attached(network).columns(attached(network).stages[0]).first_label
    torch.manual_seed(2)
    expected = network(images, [{**t, "labels": t["labels"] + first} for t in targets])
    module.log = module.log_dict = lambda *args, **kwargs: None
    torch.manual_seed(2)
    loss = module.training_step((images, targets), 0)
    torch.testing.assert_close(loss, sum(expected.values()))
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("word", WORDS)
def test_lit_detector__a_class_is_found_under_its_label(word):
    module = small(word, loss="bce", score_thresh=0.0, eval_score_thresh=0.0).eval()
    adapter = attached(module.model)
    adapter.set_class_bias(torch.tensor([-9.0, -9.0, 9.0]), adapter.stages[0])
    found = module(batch()[0])[0]
    best = found["labels"][found["scores"] > 0.5]
    assert len(best)
    assert (best == 2).all()


@pytest.mark.parametrize("word", WORDS)
def test_lit_detector__training_validation_and_checkpoint(word, tmp_path):
    data = [next(zip(*batch(), strict=True))]
    loader = DataLoader(data, collate_fn=lambda rows: tuple(zip(*rows, strict=True)))
    module = small(word, loss="eql_v2")
    assert module.untrained
    trainer = trainer_in(tmp_path, max_steps=2, max_epochs=-1, num_sanity_val_steps=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, loader, loader)
    assert {"val_map", "val_loss", "train_loss"} <= trainer.callback_metrics.keys()
    assert not module.untrained
    path = tmp_path / "checkpoint.ckpt"
    trainer.save_checkpoint(path)
    again = LitDetector.load_from_checkpoint(path)
    assert again.detector_name == word
    for mine, theirs in zip(criteria(module), criteria(again), strict=True):
        assert mine.spec == theirs.spec
        torch.testing.assert_close(mine.state_dict(), theirs.state_dict())
    torch.testing.assert_close(again.state_dict(), module.state_dict())
    if word == "retinanet":
        assert type(LitRetinaNet.load_from_checkpoint(path)) is LitRetinaNet
    else:
        with pytest.raises(UsageError, match=f"LitRetinaNet: detector must be one of retinanet, not '{word}'"):
            LitRetinaNet.load_from_checkpoint(path)


@pytest.mark.parametrize("word", WORDS)
def test_lit_detector__limits_of_outputs_reach_the_network(word):
    module = small(word, score_thresh=0.2, eval_score_thresh=0.1, nms_thresh=0.7, detections_per_img=7)
    holder = module.model.roi_heads if word == "faster_rcnn" else module.model
    assert (holder.score_thresh, holder.nms_thresh, holder.detections_per_img) == (0.1, 0.7, 300)


def test_lit_detector__priors_are_those_of_the_loss_but_for_a_softmax_that_the_detector_has_itself():
    for word in WORDS:
        module = small(word, loss="bce")
        adapter = attached(module.model)
        bias = adapter.class_bias(adapter.stages[0])
        torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, 0.01))
    own, chosen = small("ssd"), small("ssd", prior=0.1)
    assert not attached(own.model).class_bias("").any()
    background = attached(chosen.model).class_bias("").softmax(-1)[:, -1]
    torch.testing.assert_close(background, torch.full_like(background, 0.9))


def test_lit_detector__the_second_stage_has_arguments_of_its_own():
    module = small("faster_rcnn", rpn={"loss": "focal", "weighters": "ohem"})
    assert type(module.criterion.loss).__name__ == "SoftmaxLoss"
    assert type(module.rpn_criterion.loss).__name__ == "FocalLoss"
    assert attached(module.model).criteria["rpn"] is module.rpn_criterion
    assert module.hparams.rpn["loss"]["class_path"] == "focal"
    with pytest.raises(UsageError, match=r"rpn: an argument must be one of loss, .*, not 'los'. Did you mean 'loss'"):
        small("faster_rcnn", rpn={"los": "focal"})
    with pytest.raises(UsageError, match=r"fcos has no region proposal network: leave rpn=.* out"):
        small("fcos", rpn={"loss": "focal"})


def test_lit_detector__refuses_arguments_that_a_detector_cannot_use():
    with pytest.warns(UserWarning, match="faster_rcnn matches .* itself: the assigner atss is ignored"):
        module = small("faster_rcnn", assigner="atss")
    assert module.criterion.assigner is None
    with pytest.warns(UserWarning, match="fcos ignores anchor_sizes and aspect_ratios"):
        small("fcos", anchor_sizes=[[8], [16], [32]], aspect_ratios=[1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small("fcos")
        small("retinanet", anchor_sizes=[[8], [16], [32]], head_convs=2)
    assert list(small("fcos", min_size=[64, 80], max_size=96).model.transform.min_size) == [64, 80]
    with pytest.raises(UsageError, match="multiple of 32, not 16"):
        small("fcos", fpn_channels=16)
    with pytest.raises(UsageError, match="anchor_sizes has 2 levels, but the backbone 'tiny' gives 3"):
        small("ssd", anchor_sizes=[[8], [16]])
    with pytest.raises(UsageError, match=r"detector must be one of retinanet, .*Did you mean 'faster_rcnn'"):
        small("faster-rcnn")
    with pytest.raises(UsageError, match="take detector=fcos"):
        small("ssd", backbone="fcos_resnet50_fpn")
    with pytest.raises(
        UsageError, match="weights='COCO_V1' are those of a torchvision model: take backbone=ssd300_vgg16"
    ):
        small("ssd", weights="COCO_V1")


def test_lit_detector__anchor_sizes_are_the_default_boxes_of_ssd():
    module = small("ssd", anchor_sizes=[[8, 11], [16, 22], [32, 48]])
    assert module.model.anchor_generator.scales == [8 / 64, 16 / 64, 32 / 64, 48 / 64]


@pytest.mark.parametrize(
    ("word", "name"),
    [
        pytest.param("fcos", "fcos_resnet50_fpn", marks=pytest.mark.slow),
        pytest.param("ssd", "ssd300_vgg16", marks=pytest.mark.slow),
        pytest.param("ssdlite", "ssdlite320_mobilenet_v3_large", marks=pytest.mark.slow),
        ("faster_rcnn", "fasterrcnn_mobilenet_v3_large_fpn"),
    ],
)
def test_lit_detector__whole_detectors_are_torchvisions(word, name, monkeypatch):
    import torchvision

    stock = torchvision.models.get_model(name, weights=None, weights_backbone=None, num_classes=91)
    enum = torchvision.models.get_model_weights(name)
    member = next(iter(enum))
    monkeypatch.setattr(type(member), "get_state_dict", lambda self, *args, **kwargs: stock.state_dict())
    classes = 91 - NETWORKS[word].background
    own = None if NETWORKS[word].background else "focal"
    module = LitDetector(word, classes, name, weights=member.name, loss=own)
    theirs = stock.state_dict()  # whose norms are not frozen, and count batches
    torch.testing.assert_close(module.model.state_dict(), {key: theirs[key] for key in module.model.state_dict()})
    assert [c["name"] for c in module.categories] == member.meta["categories"][NETWORKS[word].background :]
    assert module.categories[-1]["id"] == 90
    other = LitDetector(word, 4, name, weights=member.name)
    fresh = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=4 + NETWORKS[word].background
    )
    expected = {key: value.shape for key, value in fresh.state_dict().items()}
    for key, value in other.model.state_dict().items():
        assert value.shape == expected[key], key
    assert other.untrained


def test_patch__replaces_the_criterion_of_lit_detector():
    module = small("fcos")
    assert patch(module.model, "bce") is attached(module.model).criteria[""]


def test_lit_detector__backbones_without_a_body_have_the_rate_of_the_backbone():
    class Own(LitDetector):
        def build_model(self, num_classes):
            return small_ssd()

    module = Own("ssd", num_classes=NUM_CLASSES, lr=1e-2, backbone_lr_factor=0.1)
    module.configure_model()
    assert not hasattr(module.model.backbone, "body")
    module._trainer = SimpleNamespace(estimated_stepping_batches=10, callbacks=[], world_size=1)
    groups = module.configure_optimizers()["optimizer"].param_groups
    backbone = {id(p) for p in module.model.backbone.parameters()}
    rates = {id(p) in backbone: group["initial_lr"] for group in groups for p in group["params"]}
    assert rates == {True: pytest.approx(1e-3), False: pytest.approx(1e-2)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": "3"}, "num_classes must be a whole number, not '3'"),
        ({"num_classes": 3.0}, r"num_classes must be a whole number, not 3\.0"),
        ({"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ({"fpn_channels": "16"}, "fpn_channels must be a whole number, not '16'"),
        ({"min_size": "64"}, "min_size must be a whole number, not '64'"),
        ({"min_size": [64, 0]}, "min_size must be at least 1, not 0"),
        ({"max_size": [64]}, r"max_size must be a whole number, not \[64\]"),
        ({"anchor_sizes": [8, 16]}, r"anchor_sizes must be a list of lists of numbers.*, not 8"),
        ({"anchor_sizes": [["8"]]}, "anchor_sizes must be a list of lists of numbers"),
        ({"aspect_ratios": 1.0}, r"aspect_ratios must be a list of numbers, not 1\.0"),
        ({"aspect_ratios": [0, 1]}, r"aspect_ratios must be a list of numbers above 0, not \[0, 1\]"),
    ],
)
def test_lit_detector__numbers_of_another_kind_are_named(arguments, message):
    with pytest.raises(UsageError, match=message):
        LitDetector(**{"num_classes": 2, "backbone": "tiny"} | arguments)
