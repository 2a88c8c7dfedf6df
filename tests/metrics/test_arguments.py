"""Arguments that users of torchmetrics give."""

import numpy as np
import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.metrics import DetectionMAP
from tests.builders.detection_images import NAMES, compute, make_images, pycocotools_evaluation

MANY = [(p, t, i) for p, t, i in make_images(6)]


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        (None, (1, 10, 100)),
        (11, (1, 10, 11)),
        (np.int64(1000), (1, 10, 1000)),
        ([1, 10, 1000], (1, 10, 1000)),
        ((1000, 1, 10), (1, 10, 1000)),
        ([5], (5,)),
        ([1, 2, 3, 4], (1, 2, 3, 4)),
        (torch.tensor([1, 5]), (1, 5)),
        (np.array([1, 5]), (1, 5)),
        (torch.tensor(300), (1, 10, 300)),
    ],
)
def test_max_detections__is_a_number_or_a_list(given, limits):
    metric = DetectionMAP(NAMES, max_detections=given)
    assert (metric.limits, metric.max_detections) == (limits, limits[-1])
    metric.update([], [])
    assert [key for key in metric.compute() if key[-1].isdigit() and "mar" in key] == [f"mar_{n}" for n in limits]


@pytest.mark.parametrize(
    "given",
    ["100", [], [1, 1], [0, 5], [-1], 100.0, [1, 10.5], True, [True, 5], {1: 2}, [None], 0, [[1], [2]], [NAMES]],
)
def test_max_detections__other_values_are_refused(given):
    with pytest.raises(UsageError, match=r"max_detections must be (a number of detections .* \[1, 10, 1000\]|over 10)"):
        DetectionMAP(NAMES, max_detections=given)


def test_max_detections__the_error_of_a_small_number_says_how_to_ask_for_it():
    with pytest.raises(UsageError, match=r"max_detections must be over 10, .* max_detections=\[1, 5\]"):
        DetectionMAP(NAMES, max_detections=5)
    with pytest.raises(UsageError, match=r"max_detections=\[1\]\."):
        DetectionMAP(NAMES, max_detections=1)


def test_max_detections__each_has_its_recall_and_the_last_holds_for_the_rest():
    found = compute(MANY, max_detections=[2, 3, 7])
    stats = pycocotools_evaluation(MANY, len(NAMES), max_detections=7)
    recall = stats.eval["recall"][:, :, 0]
    assert found["mar_7"] == pytest.approx(recall[..., 2][recall[..., 2] > -1].mean())
    one = compute(MANY, max_detections=[7])
    assert {name: found[name] for name in one} == one
    assert found["mar_2"] < found["mar_3"] < found["mar_7"]


def test_max_detections__lvis_has_one():
    assert DetectionMAP(NAMES, "lvis", [50]).limits == (50,)
    assert DetectionMAP(NAMES, "lvis", 5).limits == (5,)
    with pytest.raises(UsageError, match="LVIS has one limit"):
        DetectionMAP(NAMES, "lvis", [1, 10, 300])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (2, r"not the number 2. range\(2\) names 2 classes by their labels"),
        (np.int64(3), "not the number 3"),
        ("cat", r"such as \['cat', 'dog'\], not 'cat'"),
        ({0: "cat"}, "not {0: 'cat'}"),
        (1.5, "not 1.5"),
        ([{"id": 1, "name": "cat"}], "{'id': 1, 'name': 'cat'} is not a name"),
        (["cat", None], "None is not a name"),
    ],
)
def test_class_names__other_types_are_refused(names, message):
    with pytest.raises(UsageError, match=f"class_names must be a list with a name for each label.*{message}"):
        DetectionMAP(names)


def test_class_names__may_be_numbers():
    assert DetectionMAP(range(2)).class_names == ("0", "1")
    assert DetectionMAP(name for name in NAMES).class_names == tuple(NAMES)


def test_detection_map__takes_arguments_of_torchmetrics_that_it_supports():
    metric = DetectionMAP(
        NAMES,
        box_format="xyxy",
        iou_type="bbox",
        iou_thresholds=[0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95],
        rec_thresholds=torch.linspace(0, 1, 101).tolist(),
        max_detection_thresholds=[1, 10, 1000],
        class_metrics=True,
        extended_summary=False,
        average="macro",
        backend="pycocotools",
        sync_on_compute=False,
    )
    assert metric.limits == (1, 10, 1000)
    assert metric.sync_on_compute is False
    DetectionMAP(iou_type=("bbox",), iou_thresholds=None, rec_thresholds=None, class_metrics=False)


@pytest.mark.parametrize(
    ("argument", "value", "cure"),
    [
        ("box_format", "xywh", r"torchvision.ops.box_convert\(boxes, 'xywh', 'xyxy'\)"),
        ("box_format", "cxcywh", r"box_convert\(boxes, 'cxcywh', 'xyxy'\)"),
        ("iou_type", "segm", "MeanAveragePrecision of torchmetrics"),
        ("iou_type", ("bbox", "segm"), "only 'bbox'"),
        ("iou_type", None, "only 'bbox'"),
        ("iou_thresholds", "all", "map_50 and map_75"),
        ("rec_thresholds", {}, "metric.evaluation.precision_50"),
        ("class_metrics", [True], "map/<class>"),
        ("iou_thresholds", [0.5], "map_50 and map_75"),
        ("iou_thresholds", [0.3 + 0.05 * k for k in range(10)], "map_50 and map_75"),
        ("rec_thresholds", [0.1, 0.5], "metric.evaluation.precision_50"),
        ("class_metrics", "yes", "map/<class>"),
        ("extended_summary", True, "metric.evaluation"),
        ("average", "micro", "every box the label 0"),
        ("num_classes", 4, "class_names"),
    ],
)
def test_detection_map__refuses_other_arguments_of_torchmetrics_with_the_alternative(argument, value, cure):
    with pytest.raises(UsageError, match=f"DetectionMAP: {argument}=.* is not supported: .*{cure}"):
        DetectionMAP(NAMES, **{argument: value})


def test_detection_map__one_argument_of_two_names_is_given_once():
    with pytest.raises(UsageError, match="max_detection_thresholds is max_detections here"):
        DetectionMAP(NAMES, max_detections=100, max_detection_thresholds=[1, 10, 100])
    assert DetectionMAP(NAMES, max_detections=200, max_detection_thresholds=None).limits == (1, 10, 200)


def test_detection_map__unknown_arguments_are_refused():
    with pytest.raises(ValueError, match="max_detection"):
        DetectionMAP(NAMES, max_detection=3)
    with pytest.raises(UsageError, match=r"confusion_score must be in .0, 1., not 30"):
        DetectionMAP(NAMES, confusion_score=30)
