"""What cannot be is refused, with its place; what is merely odd is not."""

import warnings

import pytest
import torch
from torchvision import tv_tensors

from lit_dense.core.errors import UsageError
from lit_dense.metrics import DetectionMAP
from tests.builders.detection_images import NAMES, PRED, TARGET

NAN, INF = float("nan"), float("inf")
RIGHT = [[10.0, 10, 60, 60], [100, 100, 190, 190]]


def compute(boxes=RIGHT, gt_boxes=RIGHT, scores=(0.9, 0.8), labels=(0, 1), names=NAMES, ids=(7,), **target):
    metric = DetectionMAP(names)
    pred = {"boxes": torch.as_tensor(boxes), "scores": torch.tensor(scores), "labels": torch.tensor(labels)}
    truth = {"boxes": torch.as_tensor(gt_boxes), "labels": torch.tensor([0, 1]), **target}
    metric.update([PRED, pred], [TARGET, truth], [1, *ids])
    return metric.compute()


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ([100.0, 100, 90, 190], r"has x2 < x1: \[100.0, 100.0, 90.0, 190.0\]"),
        ([100.0, 100, 190, 90], r"has y2 < y1: \[100.0, 100.0, 190.0, 90.0\]"),
        ([100.0, 100, 90, 90], r"has x2 < x1 and y2 < y1: "),
        ([NAN, 100, 190, 190], "is not finite: .nan, 100.0"),
        ([100.0, NAN, 190, 190], "is not finite"),
        ([100.0, 100, NAN, 190], "is not finite"),
        ([100.0, 100, 190, INF], "is not finite: .100.0, 100.0, 190.0, inf"),
        ([-INF, 100, 190, 190], "is not finite"),
    ],
)
def test_boxes__impossible_ones_are_refused(box, fault):
    boxes = [RIGHT[0], box]
    for side, given in (("preds", {"boxes": boxes}), ("targets", {"gt_boxes": boxes})):
        with pytest.raises(UsageError, match=f"DetectionMAP: row 1 of the {side} of image 7 {fault}") as error:
            compute(**given)
        assert "Boxes must be x1, y1, x2, y2 in pixels; 1 of 3 boxes" in str(error.value)
        assert ("box_convert" in str(error.value)) == ("<" in fault)


def test_boxes__one_that_is_infinite_as_float32_is_refused():
    with pytest.raises(UsageError, match="row 0 of the preds of image 7 is not finite"):
        compute(boxes=torch.tensor(RIGHT, dtype=torch.float64) * 1e300)


def test_boxes__with_a_negative_corner_are_not_taken_for_widths():
    with pytest.raises(UsageError) as error:
        compute(boxes=[[10.0, 10, -5, 20], RIGHT[1]])
    assert "box_convert" not in str(error.value)


def test_boxes__unusual_ones_are_accepted():
    assert compute([[10.0, 10, 10, 10], RIGHT[1]], [[-5.0, -5, -1, -1], RIGHT[1]])["map/dog"] == 1
    assert compute([[10, 10, 60, 60], [100, 100, 190, 190]])["map_50/dog"] == 1


@pytest.mark.parametrize("kept", ["XYWH", "CXCYWH"])
def test_boxes__of_another_declared_format_are_refused(kept):
    boxes = tv_tensors.BoundingBoxes(torch.tensor(RIGHT), format=kept, canvas_size=(200, 200))
    with pytest.raises(UsageError, match=rf"targets\[0\]\['boxes'\] are BoundingBoxes of format {kept}; XYXY is"):
        DetectionMAP().update([PRED], [{"boxes": boxes, "labels": torch.tensor([0, 1])}])


def test_boxes__of_the_right_declared_format_are_accepted():
    boxes = tv_tensors.BoundingBoxes(torch.tensor(RIGHT), format="XYXY", canvas_size=(200, 200))
    labels = torch.tensor([0, 1])
    metric = DetectionMAP(NAMES)
    metric.update([{"boxes": boxes, "labels": labels, "scores": torch.ones(2)}], [{"boxes": boxes, "labels": labels}])
    assert metric.compute()["map"] == 1


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (
            [0.9, NAN],
            "the scores of 1 of 3 detections are not a number .NaN.; the first is row 1 of the preds of image 7",
        ),
        ([3.5, -1.0], r"2 of 3 detections are not between 0 and 1; the first is row 0 of the preds of image 7, 3.5"),
        (
            [0.9, -0.1],
            "1 of 3 detections are not between 0 and 1; the first is row 1 .* -0.1. Apply a sigmoid to logits",
        ),
        ([0.9, INF], "1 of 3 detections are not between 0 and 1"),
        ([0.9, 90.0], "divide percent by 100"),
    ],
)
def test_scores__impossible_ones_are_refused(scores, message):
    with pytest.raises(UsageError, match=message):
        compute(scores=scores)


def test_scores__may_be_rounded_beyond_1():
    assert compute(scores=[1.00001, 0.0])["map/dog"] == 1


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 4], NAMES, "a detection has label 4, but class_names names 4 classes .labels 0 to 3.; 1 boxes"),
        ([0, -1], NAMES, "a detection has label -1, .* the first is row 1 of the preds of image 7"),
        ([0, -1], None, "a detection has label -1, but labels start at 0"),
        ([1, 1], ["a"], "label 1, but class_names names 1 classes"),
    ],
)
def test_labels__impossible_ones_are_refused(labels, names, message):
    with pytest.raises(UsageError, match=message) as error:
        compute(labels=labels, names=names)
    assert "lowered by 1" not in str(error.value)


def test_labels__that_start_at_1_are_recognised():
    metric = DetectionMAP(["cat", "dog"])
    labels = torch.tensor([1, 2])
    target = {"boxes": torch.tensor(RIGHT), "labels": labels}
    metric.update([{**target, "scores": torch.ones(2)}], [target])
    with pytest.raises(UsageError, match="labels that start at 1 must be lowered by 1"):
        metric.compute()


def test_labels__of_a_class_listed_as_absent_need_a_name_too():
    metric = DetectionMAP(NAMES, protocol="lvis")
    none = torch.zeros(0, dtype=torch.int64)
    metric.update([PRED], [{**TARGET, "neg_labels": torch.tensor([0, 9]), "not_exhaustive_labels": none}], [3])
    with pytest.raises(UsageError, match=r"ground truth has label 9.* row 1 of the neg_labels of image 3"):
        metric.compute()


@pytest.mark.parametrize("area", [-1.0, INF])
def test_areas__impossible_ones_are_refused(area):
    with pytest.raises(UsageError, match=f"row 1 of the targets of image 7 has area {area}"):
        compute(area=torch.tensor([50.0, area]))


def test_areas__nan_is_that_of_the_box():
    assert compute(area=torch.tensor([NAN, NAN]))["map_large"] == 0.0 + compute()["map_large"]


# Detections that are left out


def crowded(num_detections, metric, labels=0, image_id=5):
    boxes = torch.arange(float(num_detections))[:, None] * 20 + torch.tensor([0.0, 0, 10, 10])
    pred = {
        "boxes": boxes,
        "scores": torch.linspace(1, 0.1, num_detections),
        "labels": torch.full((num_detections,), labels) if isinstance(labels, int) else torch.tensor(labels),
    }
    none = torch.zeros(0, dtype=torch.int64)
    target = {"boxes": torch.zeros(0, 4), "labels": none, "neg_labels": none, "not_exhaustive_labels": none}
    metric.update([pred], [target], [image_id])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        metric.compute()
    return [str(w.message) for w in caught if "max_detections" in str(w.message)]


def test_max_detections__warns_once_of_detections_that_are_left_out():
    metric = DetectionMAP(NAMES, max_detections=[1, 20])
    (message,) = crowded(23, metric)
    assert "max_detections=20 leaves out 3 of 23 detections" in message
    assert "image 5, which has 23 of label 0" in message
    assert "raise max_detections (eval_max_detections of LitRetinaNet)" in message
    metric.reset()
    assert crowded(23, metric) == []


def test_max_detections__as_many_as_that_leave_nothing_out():
    assert crowded(20, DetectionMAP(NAMES, max_detections=[1, 20])) == []
    assert crowded(24, DetectionMAP(NAMES, max_detections=20), labels=[0, 1] * 12) == []
    assert crowded(0, DetectionMAP(NAMES)) == []


def test_max_detections__the_image_with_most_detections_is_named():
    metric = DetectionMAP(NAMES, max_detections=20)
    metric.update([PRED], [TARGET], [1])
    (message,) = crowded(44, metric, labels=[0] * 22 + [1] * 22, image_id=9)
    assert "leaves out 4 of 45 detections" in message
    assert "image 9, which has 22 of label 0" in message


def test_max_detections__lvis_counts_those_of_all_classes():
    (message,) = crowded(24, DetectionMAP(NAMES, "lvis", 20), labels=[0, 1] * 12)
    assert "leaves out 4 of 24 detections" in message
    assert "which has 24. Where" in message
