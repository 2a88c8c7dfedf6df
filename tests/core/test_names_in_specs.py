"""What is saved names parts by their registered names, and files of version 0.1.0 are still read."""

import pytest
import torch

from lit_dense import Criterion, LitRetinaNet
from lit_dense.core.component import agrees
from lit_dense.criterion import REGISTRIES, named_spec
from lit_dense.losses import LOSSES, FocalLoss

SPEC_OF_0_1_0 = {
    "loss": {
        "class_path": "lit_dense.losses.ghm_loss.GHMLoss",
        "init_args": {"bins": 30, "momentum": 0.75, "update": "corrected"},
    },
    "box_loss": {"class_path": "lit_dense.box_losses.l1_loss.L1Loss", "init_args": {}},
    "weighters": [],
    "normalizer": {"class_path": "lit_dense.normalizers.EMANormalizer", "init_args": {"momentum": 0.9, "initial": 50}},
    "assigner": None,
    "loss_weight": 1.0,
    "box_loss_weight": 1.0,
}


@pytest.mark.parametrize("argument", sorted(REGISTRIES))
def test_spec__every_part_is_named_by_its_registered_name(argument):
    registry = REGISTRIES[argument]
    for name in registry.points:
        part = registry.build(name)
        assert part.spec["class_path"] == name
        assert type(registry.build(part.spec)) is type(part)


class Mine(FocalLoss):
    pass


def test_spec__a_class_without_a_name_keeps_its_import_path():
    assert Mine().spec["class_path"] == f"{__name__}.Mine"
    nested = LOSSES.build({"class_path": "federated", "init_args": {"loss": Mine(gamma=1.0)}})
    assert nested.spec["init_args"]["loss"] == {
        "class_path": f"{__name__}.Mine",
        "init_args": {"alpha": 0.25, "gamma": 1.0, "pos_weight": 1.0},
    }


def test_named_spec__paths_of_0_1_0_are_names_now_also_of_modules_that_have_moved():
    named = named_spec(SPEC_OF_0_1_0)
    assert [named[n]["class_path"] for n in ("loss", "box_loss", "normalizer")] == ["ghm", "l1", "ema"]
    moved = {"class_path": "lit_dense.losses.where_it_was_once.FocalLoss", "init_args": {"gamma": 1.0}}
    assert LOSSES.build(moved).gamma == 1.0
    assert LOSSES.named(moved)["class_path"] == "focal"
    gone = {"class_path": "somebodys.package.Loss", "init_args": {}}
    assert LOSSES.named(gone) == gone


def test_lit_retinanet__a_checkpoint_of_0_1_0_is_continued_as_it_was(recwarn):
    network = {"backbone": "tiny", "fpn_channels": 8, "head_convs": 1, "min_size": 64, "max_size": 96}
    module = LitRetinaNet(2, **network, loss="ghm", normalizer=None)
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    checkpoint["lit_dense"]["criterion"] = {**SPEC_OF_0_1_0, "normalizer": None}
    module.on_load_checkpoint(checkpoint)
    assert module.criterion.loss.power == 1
    assert not [w for w in recwarn if "was trained with" in str(w.message)]


def test_agrees__ignores_arguments_that_are_newer_than_the_file():
    spec = FocalLoss(gamma=1.0).spec
    assert agrees({"class_path": "focal", "init_args": {"gamma": 1.0}}, spec)
    assert not agrees({"class_path": "focal", "init_args": {"gamma": 2.0}}, spec)
    assert not agrees({"class_path": "focal", "init_args": {"gone": 2.0}}, spec)
    assert agrees([spec], [spec])
    assert not agrees([spec], [])


def test_repr__parts_print_their_arguments():
    assert repr(FocalLoss(gamma=1.5)) == "FocalLoss(alpha=0.25, gamma=1.5, pos_weight=1.0)"
    assert "FocalLoss(alpha=0.25, gamma=2.0, pos_weight=1.0)" in repr(Criterion())


def test_criterion__a_compiled_training_loop_does_not_recompile_in_each_step():
    from torch._dynamo.testing import CompileCounter

    criterion, counter = Criterion("focal", box_loss=None), CompileCounter()
    head = torch.nn.Linear(4, 3)

    def step(features, labels):
        from lit_dense import DenseSamples

        return criterion(DenseSamples.of(head(features), labels))["classification"]

    torch._dynamo.reset()
    compiled = torch.compile(step, backend=counter)
    features, labels = torch.randn(6, 4), torch.tensor([0, -1, 2, -2, 1, -1])
    frames = []
    for _ in range(6):
        compiled(features, labels)
        frames.append(counter.frame_count)
    assert frames[1] == frames[-1]
    assert criterion.step == 6
