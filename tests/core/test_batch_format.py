"""One message of the format for each way in which a batch can be another."""

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, default_collate
from torchvision import tv_tensors

from lit_dense import LitRetinaNet, patch, unpatch
from lit_dense.core.batch_format import check_format, image_name, unpack
from lit_dense.core.errors import UsageError
from lit_dense.metrics import DetectionMAP
from tests.builders.detectors import small_retinanet

IMAGE = torch.rand(3, 64, 64)
BOXES, LABELS = torch.tensor([[5.0, 5, 30, 40]]), torch.tensor([0])
TARGET = {"boxes": BOXES, "labels": LABELS}
DETECTOR = small_retinanet()
FORMAT = "Accepted is (images, targets): images a list of tensors [3, H, W], uint8 or floats in [0, 1]"


def refusal(images, targets, **arguments):
    with pytest.raises(UsageError) as error:
        check_format(DETECTOR, images, targets, **arguments)
    assert FORMAT in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("images", [[IMAGE], (IMAGE,), IMAGE[None]])
@pytest.mark.parametrize("targets", [[TARGET], (TARGET,)])
def test_unpack__takes_pairs(images, targets):
    for batch in ((images, targets), [images, targets]):
        got, given = unpack(batch)
        assert len(got) == 1
        assert torch.equal(got[0], IMAGE)
        assert given == [TARGET]


two_loaders = [DataLoader([([IMAGE], [TARGET])] * 2, batch_size=None)] * 2


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (
            default_collate([(IMAGE, TARGET)]),
            "one dict, a dict with the keys boxes, labels: the data loader stacked them",
        ),
        (default_collate([(IMAGE, {"bbox": BOXES})]), "collate_fn=lambda batch: tuple(zip(*batch))"),
        (
            {"image": IMAGE, "label": LABELS},
            "The batch is a dict with the keys image, label. For another format override",
        ),
        ({}, "The batch is an empty dict."),
        (IMAGE, "The batch is a tensor of shape [3, 64, 64] and type float32."),
        (None, "The batch is None."),
        (3, "The batch is a int."),
        ([([IMAGE], [TARGET])] * 2, "The batch is a list of 2 batches: there are several training data loaders."),
        ([([IMAGE], [TARGET])] * 3, "a list of 3 batches"),
        ([(IMAGE[None], [TARGET])], "a list of 1 batches"),
        (next(iter(CombinedLoader(two_loaders, "min_size")))[0], "a list of 2 batches"),
        (
            ([IMAGE], [TARGET], ["a.png"]),
            "The batch has 3 parts, not 2: a list of 1 items (Tensor), a list of 1 items (di",
        ),
        ((), "The batch has 0 parts, not 2: none."),
        (([IMAGE], None), "The targets are None, not a list."),
        (([IMAGE], torch.zeros(1, 5)), "The targets are a tensor of shape [1, 5] and type float32, not a list."),
        ((IMAGE, [TARGET]), "The images are a tensor of shape [3, 64, 64] and type float32, not a list."),
        (({"a": IMAGE}, [TARGET]), "The images are a dict with the keys a, not a list."),
        (
            (np.zeros((1, 3, 8, 8)), [TARGET]),
            "The images are a ndarray of shape [1, 3, 8, 8] and type float64, not a list.",
        ),
    ],
)
def test_unpack__refuses_batches_of_another_form(batch, said):
    with pytest.raises(UsageError) as error:
        unpack(batch)
    assert said in str(error.value)
    assert FORMAT in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((64, 64, 3), np.uint8), "a ndarray of shape [64, 64, 3] and type uint8. Make tensors with"),
        ([[0.0]], "a list of 1 items (list). Make tensors"),
        (
            IMAGE.permute(1, 2, 0),
            "of shape [64, 64, 3] and type float32. Its channels come last: use image.permute(2, 0, 1)",
        ),
        (torch.zeros(64, 48, 1), "Its channels come last"),
        (torch.zeros(4, 64, 64), "It has 4 channels rather than 3."),
        (IMAGE[0], "It has 2 dimensions rather than 3."),
        (IMAGE[None], "It has 4 dimensions rather than 3."),
        (IMAGE.long(), "and type int64. Give uint8 from 0 to 255, or floats from 0 to 1."),
        (torch.zeros(3, 8, 8, dtype=torch.uint16), "Give uint8"),
    ],
)
def test_check_format__refuses_images_of_another_form(image, said):
    assert f"Image 1 of the batch is {'a' if isinstance(image, list) else ''}" in refusal([IMAGE, image], None)
    assert said in refusal([IMAGE, image], None)


def test_check_format__accepts_images():
    for image in (IMAGE, (IMAGE * 255).byte(), IMAGE.half(), IMAGE.double(), IMAGE[:1], tv_tensors.Image(IMAGE)):
        check_format(DETECTOR, [image], None)
    wide = small_retinanet()
    wide.transform.image_mean = [0.5] * 5
    check_format(wide, [torch.zeros(5, 64, 64)], None)
    with pytest.raises(UsageError, match="3 channels rather than 5"):
        check_format(wide, [IMAGE], None)
    del wide.transform.image_mean  # a transform of the host's own
    check_format(wide, [IMAGE], None)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_check_format__one_mean_serves_any_number_of_channels(channels):
    detector = small_retinanet()
    detector.transform.image_mean, detector.transform.image_std = [0.0], [1.0]  # as in torchgeo
    check_format(detector, [torch.rand(channels, 64, 64)], [TARGET])
    with pytest.raises(UsageError, match="It has 2 dimensions rather than 3"):
        check_format(detector, [torch.rand(64, 64)], [TARGET])


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ([BOXES, LABELS], "The target of image 1 of the batch is a list of 2 items (Tensor), not a dict."),
        (BOXES, "is a tensor of shape [1, 4] and type float32, not a dict."),
        (None, "is None, not a dict. An image without objects has boxes [0, 4] and labels [0]."),
        ({"labels": LABELS, "image_id": 3}, "The target of image 3 has no boxes; it has labels, image_id."),
        ({"bboxes": BOXES, "labels": LABELS}, "has no boxes; it has bboxes, labels. Are they 'bboxes'?"),
        ({"boxes": BOXES, "label": LABELS}, "has no labels; it has boxes, label. Are they 'label'?"),
        ({}, "has no boxes and no labels; it has nothing."),
        (
            {**TARGET, "boxes": BOXES.numpy()},
            "has boxes that are a ndarray of shape [1, 4] and type float32, not a tensor",
        ),
        ({**TARGET, "labels": [0]}, "has labels that are a list of 1 items (int), not a tensor: use torch.as_tensor."),
        ({**TARGET, "iscrowd": [0]}, "has iscrowd that are a list of 1 items (int), not a tensor"),
        ({**TARGET, "iscrowd": torch.zeros(2)}, "has iscrowd of shape [2] for 1 boxes; expected [G]."),
        (
            {"boxes": torch.zeros(0), "labels": torch.zeros(0)},
            "boxes of shape [0] and labels of shape [0]; expected [G, 4]",
        ),
        (
            {"boxes": torch.zeros(2, 5), "labels": torch.zeros(2)},
            "boxes of shape [2, 5] and labels of shape [2]; expected",
        ),
        ({"boxes": BOXES, "labels": torch.zeros(1, 3)}, "boxes of shape [1, 4] and labels of shape [1, 3]; expected"),
        ({"boxes": BOXES, "labels": torch.tensor(0)}, "labels of shape []; expected"),
        ({"boxes": BOXES, "labels": LABELS.float()}, "has labels of type torch.float32, not whole numbers."),
        (
            {"boxes": tv_tensors.BoundingBoxes(BOXES, format="XYWH", canvas_size=(64, 64)), "labels": LABELS},
            "has boxes of the format XYWH: convert them with torchvision.transforms.v2.ConvertBoundingBoxFormat",
        ),
    ],
)
def test_check_format__refuses_targets_of_another_form(target, said):
    assert said in refusal([IMAGE, IMAGE], [TARGET, target])


def test_check_format__accepts_targets():
    boxes = tv_tensors.BoundingBoxes(BOXES, format="XYXY", canvas_size=(64, 64))
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    crowd = {**TARGET, "iscrowd": torch.zeros(1)}
    for target in ({"boxes": boxes, "labels": LABELS.byte()}, empty, crowd, {**TARGET, "boxes": BOXES.int()}):
        check_format(DETECTOR, [IMAGE], [target])


def test_check_format__needs_an_image_and_a_target_for_each():
    assert "The batch has 2 images and 1 targets." in refusal([IMAGE, IMAGE], [TARGET])
    assert "The batch has no images." in refusal([], [])


def test_check_format__targets_without_objects_are_enough_where_nothing_is_trained():
    check_format(DETECTOR, [IMAGE], [{"image_id": 3}], objects=False)
    assert "not a dict" in refusal([IMAGE], [3], objects=False)
    assert "1 images and 2 targets" in refusal([IMAGE], [{}, {}], objects=False)


@pytest.mark.parametrize("given", [7, torch.tensor(7), torch.tensor([7]), "seven"])
def test_image_name__is_the_id_of_an_image(given):
    assert image_name({"image_id": given}, 2) in ("image 7", "image [7]", "image seven")
    assert image_name({}, 2) == "image 2 of the batch"


def test_lit_retinanet__checks_the_batch_in_every_step():
    module = LitRetinaNet(2, "tiny", fpn_channels=16, head_convs=1)
    for step in (module.training_step, module.validation_step, module.test_step, module.predict_step):
        module.val_map = module.test_map = DetectionMAP()
        with pytest.raises(UsageError, match="the data loader stacked them"):
            step(default_collate([(IMAGE, TARGET)]), 0)
        with pytest.raises(UsageError, match="Its channels come last"):
            step(([IMAGE.permute(1, 2, 0)], [TARGET]), 0)
        with pytest.raises(UsageError, match="1 images and 2 targets"):
            step(([IMAGE], [TARGET, TARGET]), 0)
    with pytest.raises(UsageError, match="Its channels come last"):
        module([IMAGE.permute(1, 2, 0)])


@pytest.mark.parametrize("named", [False, True])
def test_patch__a_patched_detector_checks_its_batch(named):
    def call(images, targets=None):
        return model(images=images, targets=targets) if named else model(images, targets)

    model = small_retinanet()
    patch(model)
    with pytest.raises(UsageError, match="is a list of 2 items"):
        call([IMAGE], [[BOXES, LABELS]])
    with pytest.raises(UsageError, match="Its channels come last"):
        call([IMAGE.permute(1, 2, 0)], [TARGET])
    with pytest.raises(UsageError, match="no boxes"):
        call(IMAGE[None], [{"bbox": BOXES, "labels": LABELS}])
    with pytest.raises(AssertionError, match="targets should not be none"):  # torchvision's own
        call([IMAGE])
    assert set(call(IMAGE[None], [TARGET])) == {"classification", "bbox_regression"}
    model.eval()
    assert len(call([IMAGE])) == 1
    assert len(call([IMAGE], [{"boxes": BOXES}])) == 1
    with pytest.raises(UsageError, match="is a list of 2 items"):
        call([IMAGE], [[BOXES, LABELS]])
    unpatch(model)
    assert not model._forward_pre_hooks
    assert not model._forward_pre_hooks_with_kwargs
