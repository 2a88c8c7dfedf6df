"""The ways in, patch and SwapLoss, are the same for every detector."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule
from torchvision.models.detection import FCOS

from lit_dense import SwapLoss
from lit_dense.core.errors import UsageError
from lit_dense.detectors import attached, find_detector, patch
from tests.builders.detectors import random_batch, small_faster_rcnn, small_fcos, small_retinanet, small_ssd

TRAINER = SimpleNamespace()
every_detector = pytest.mark.parametrize("build", [small_retinanet, small_fcos, small_ssd, small_faster_rcnn])


def batch_for(detector, counts=(2, 1)):
    adapter = find_detector(detector)
    return random_batch(counts, first_label=adapter.columns(adapter.stages[0]).first_label)


def is_finite(detector):
    return all(term.isfinite() for term in detector.train()(*batch_for(detector)).values())


@pytest.mark.parametrize("build", [small_retinanet, small_fcos])
@pytest.mark.parametrize(("loss", "taken"), [("softmax", 1), ("seesaw", 2)])
def test_patch__a_loss_whose_columns_the_head_lacks_says_how_many_to_build(build, loss, taken):
    classes = 4 + taken
    model = build(num_classes=4)  # without the columns of the loss
    patch(model, loss)
    said = rf"The loss takes {taken} of its 4 columns for itself: build the model with num_classes={classes}, and leave"
    for labels in ([0, 3], [1, 3]):  # also where they seem to start at 1
        images, targets = random_batch((2,))
        targets[0]["labels"] = torch.tensor(labels)
        with pytest.raises(UsageError, match=said):
            model(images, targets)
    name = {"softmax": "SoftmaxLoss", "seesaw": "SeesawLoss"}[loss]
    said = rf"class_counts has 4 classes, .* {name} takes {taken} of its 4 columns: build .* with num_classes={classes}"
    with pytest.raises(UsageError, match=said):
        patch(build(num_classes=4), loss, class_counts=[28, 9, 3, 1])
    model = build(num_classes=classes)
    patch(model, loss, class_counts=[28, 9, 3, 1])
    assert all(term.isfinite() for term in model(*random_batch((2,))).values())


@every_detector
def test_patch__counts_may_be_lists_and_priors_numbers(build):
    patch(model := build(), "federated", class_counts=[28, 9, 3, 1])
    assert is_finite(model)
    with pytest.raises(UsageError, match="class_counts must be the number of boxes of each class"):
        patch(build(), "federated", class_counts={"cat": 3})
    with pytest.raises(UsageError, match="prior: prior must be a number, not 'low'"):
        patch(build(), "focal", prior="low")


class Teaching(LightningModule):
    """A student, and a teacher that is a copy of it."""

    def __init__(self, build):
        super().__init__()
        self.student, self.teacher = build(), build()


@every_detector
def test_swap_loss__one_of_several_detectors_is_named(build):
    module = Teaching(build)
    kind = type(module.student).__name__
    said = rf"2 detectors: student \({kind}\), teacher \({kind}\)\. Pass one of them, or name it by module="
    with pytest.raises(UsageError, match=said):
        SwapLoss("focal").setup(TRAINER, module, "fit")
    misspelt = SwapLoss("focal", module="pupil")
    misspelt.setup(TRAINER, module, "fit")  # configure_model may build it
    with pytest.raises(UsageError, match=r"has no module 'pupil'\. Detectors in it: student, teacher"):
        misspelt.on_fit_start(TRAINER, module)
    swap = SwapLoss("focal", module="student")
    swap.setup(TRAINER, module, "fit")
    swap.on_fit_start(TRAINER, module)
    assert is_finite(module.student)
    assert attached(module.teacher) is None
    is_finite(module.teacher)
    assert swap.criterion.step == 1
    swap.teardown(TRAINER, module, "fit")
    assert attached(module.student) is None


class Late(LightningModule):
    """Builds its network in configure_model, as Lightning recommends for large ones."""

    def __init__(self, build):
        super().__init__()
        self.build = build

    def configure_model(self):
        self.net = self.build()


@every_detector
def test_swap_loss__a_network_that_is_built_late_gets_loss_counts_and_prior(build):
    module, swap = Late(build), SwapLoss("federated", class_counts=[28, 9, 3, 1], prior=0.02)
    swap.setup(TRAINER, module, "fit")
    assert swap.criterion is None
    module.configure_model()
    own = build()
    swap.on_fit_start(TRAINER, module)
    assert attached(module) is not None
    assert any(not torch.equal(a, b) for a, b in zip(module.net.parameters(), own.parameters(), strict=True))
    assert is_finite(module.net)
    assert swap.criterion.step == 1


@every_detector
def test_swap_loss__another_loss_than_the_checkpoints_is_one_line(build):
    first, module = SwapLoss("focal"), Teaching(build)
    first.module = "student"
    first.setup(TRAINER, module, "fit")
    other = SwapLoss("ghm", module="student")
    other.load_state_dict(first.state_dict())
    said = "SwapLoss: the checkpoint was trained with loss focal, and this callback has ghm. Use the same"
    with pytest.raises(UsageError, match=said):
        other.setup(TRAINER, Teaching(build), "fit")


def with_boxes(targets, change):
    return [target | {"boxes": change(target["boxes"])} for target in targets]


@pytest.mark.parametrize("make", [small_retinanet, small_fcos, small_ssd, small_faster_rcnn])
def test_patch__inputs_are_checked_in_every_detector(make):
    model = make()
    patch(model)
    images, targets = random_batch((2, 1))
    first = int(make in (small_ssd, small_faster_rcnn))
    targets = [target | {"labels": target["labels"] + first} for target in targets]
    model.eval()  # as in a sanity check before training
    with pytest.warns(UserWarning, match=r"Float images must lie in \[0, 1\], and this one reaches"):
        model([255 * image for image in images])
    model.train()
    with pytest.raises(UsageError, match="All boxes of the batch lie between 0 and 1"):
        model(images, with_boxes(targets, lambda boxes: boxes / 100))
    with pytest.raises(UsageError, match=r"takes float images in \[0, 1\], and the batch has uint8: give it"):
        model([(255 * image).to(torch.uint8) for image in images], targets)
    with pytest.raises(UsageError, match=r"labels of type torch\.float32"):
        model(images, [target | {"labels": target["labels"].float()} for target in targets])
    model(images, with_boxes(targets, lambda boxes: boxes.round()))
    model.eval()(images)


@pytest.mark.parametrize("change", [{"unknown_labels": torch.tensor([True, False])}, {"ignore_boxes": torch.ones(4)}])
def test_patch__lists_of_a_target_are_checked(change):
    model = small_retinanet()
    patch(model)
    images, targets = random_batch((2,))
    with pytest.raises(UsageError, match=f"{next(iter(change))} (as a mask|that are a tensor of shape)"):
        model(images, [targets[0] | change])


def test_patch__needs_a_module():
    with pytest.raises(UsageError, match="a module that contains one, is needed, not a NoneType"):
        patch(None)
    with pytest.raises(UsageError, match="is needed, not the class FCOS"):
        patch(FCOS)


def test_patch__class_counts_have_a_number_for_each_column():
    with pytest.raises(
        UsageError, match=r"class_counts has 3 classes, but the head has 4\. Give one number for each col"
    ):
        patch(small_retinanet(4), "bce", class_weights="balanced", class_counts=[100, 10, 1])
