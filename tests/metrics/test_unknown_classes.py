"""Classes that an image is not annotated for do not count in its evaluation."""

import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.metrics import DetectionMAP
from tests.builders.detection_images import NAMES, ONE, PRED, TARGET, compute, make_images, reference, update

UNKNOWN = {0: [1], 2: [0, 3], 3: [1]}
"""Unknown labels of images by index; the others have no list."""


def images_with_lists():
    images = make_images(8)
    for index, labels in UNKNOWN.items():
        pred, target, number = images[index]
        images[index] = (pred, {**target, "unknown_labels": torch.tensor(labels)}, number)
    return images


def of_class(images, label):
    """The images that are annotated for a class."""
    return [image for index, image in enumerate(images) if label not in UNKNOWN.get(index, ())]


@pytest.mark.parametrize("backend", ["hotcoco", "pycocotools"])
def test_detection_map__each_class_is_evaluated_on_the_images_that_are_annotated_for_it(backend):
    result = compute(images_with_lists(), backend=backend)
    for label, name in enumerate(NAMES):
        expected = reference(of_class(make_images(8), label))
        for key in (f"map/{name}", f"map_50/{name}"):
            assert result[key] == pytest.approx(expected[key], abs=1e-6)
    means = [result[f"map/{name}"] for name in NAMES]
    assert result["map"] == pytest.approx(sum(means) / len(means), abs=1e-6)
    assert result["map"] != pytest.approx(compute(make_images(8))["map"], abs=1e-6)


def test_detection_map__detections_of_unknown_classes_are_in_no_curve_and_no_confusion_matrix():
    metric = DetectionMAP(["cat", "dog"])
    metric.update([{**PRED, "labels": ONE + 1}], [{**TARGET, "unknown_labels": torch.tensor([1])}], [1])
    metric.compute()
    assert metric.evaluation.confusion.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert metric.evaluation.rows.labels.tolist() == [0]


def test_detection_map__unknown_classes_have_no_name_of_their_own():
    metric = DetectionMAP()
    metric.update([{**PRED, "labels": ONE + 5}], [{**TARGET, "unknown_labels": torch.tensor([5])}])
    assert [key for key in metric.compute() if key.startswith("map/")] == ["map/0"]


def test_detection_map__with_the_lists_of_lvis():
    lists = {"neg_labels": torch.tensor([1]), "not_exhaustive_labels": torch.tensor([], dtype=torch.int64)}
    found = {}
    for name, more in {"absent": {}, "unknown": {"unknown_labels": torch.tensor([1])}}.items():
        metric = DetectionMAP(["cat", "dog"], protocol="lvis")
        box = torch.tensor([[0.0, 0, 9, 9]])
        other = {"boxes": box, "labels": ONE + 1, "neg_labels": ONE[:0], "not_exhaustive_labels": ONE[:0]}
        target, pred = {**TARGET, **lists, **more}, {**PRED, "boxes": box, "labels": ONE + 1}
        metric.update([pred] * 2, [target, other], [1, 2])
        found[name] = metric.compute()["map_50/dog"].item()
    assert found == {"absent": pytest.approx(0.5, abs=0.01), "unknown": pytest.approx(1)}


def test_detection_map__a_list_of_another_form_is_named():
    metric = DetectionMAP(["cat", "dog"])
    with pytest.raises(UsageError, match=r"targets\[0\]\['unknown_labels'\] has type torch.float32; integers"):
        metric.update([PRED], [{**TARGET, "unknown_labels": torch.tensor([1.0])}])


def computed_on(rank, shards):
    images = images_with_lists()
    metric = DetectionMAP(NAMES)
    update(metric, [images[i] for i in shards[rank]])
    return {key: value.item() for key, value in metric.compute().items()}


@pytest.mark.ddp
def test_detection_map__two_processes_equal_one(two_processes):
    expected = computed_on(0, [range(8)])
    assert two_processes(computed_on, [[1, 4, 5], [0, 2, 3, 6, 7]]) == [expected, expected]
