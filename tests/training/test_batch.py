"""What is done to images and targets, and checks of their values."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from lit_dense.core.batch_format import check_format
from lit_dense.core.errors import UsageError
from lit_dense.training.batch import (
    check_targets,
    float_images,
    metric_targets,
    warn_of_range,
    without_crowd,
)

BOXES = torch.tensor([[1.0, 1, 5, 5], [2, 2, 9, 9]])
TARGET = {
    "boxes": BOXES,
    "labels": torch.tensor([0, 1]),
    "image_id": 3,
    "weight": torch.tensor([0.5, 2.0]),
    "scale": torch.tensor(2.0),
    "names": ["a", "b"],
}


def test_float_images__scales_bytes_and_not_floats():
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1)
    floats = torch.rand(3, 1, 1, dtype=torch.float64)
    (scaled, kept) = float_images([image, floats])
    assert scaled.dtype is kept.dtype is torch.float32
    torch.testing.assert_close(scaled.flatten(), torch.tensor([0, 0.2, 1]))
    torch.testing.assert_close(kept, floats.float(), rtol=0, atol=0)
    assert image.flatten().tolist() == [0, 51, 255]


def test_without_crowd__crowd_boxes_are_left_out_with_all_their_fields():
    first = {**TARGET, "iscrowd": torch.tensor([0, 1]), "area": torch.tensor([16.0, 49.0])}
    second = {**TARGET, "iscrowd": torch.tensor([0, 0])}
    kept, whole, plain = without_crowd([first, second, TARGET])
    assert kept["boxes"].tolist() == [[1, 1, 5, 5]]
    assert (kept["labels"].tolist(), kept["weight"].tolist(), kept["area"].tolist()) == ([0], [0.5], [16])
    assert (kept["image_id"], kept["scale"], kept["names"]) == (3, 2.0, ["a", "b"])
    assert kept["iscrowd"].tolist() == [0]
    assert whole["boxes"].tolist() == BOXES.tolist()
    assert plain is TARGET
    assert len(first["boxes"]) == 2
    assert kept["ignore_boxes"].tolist() == [[2, 2, 9, 9]]
    assert whole["ignore_boxes"].shape == (0, 4)
    given = {**first, "ignore_boxes": torch.tensor([[0.0, 0, 3, 3]])}
    assert without_crowd([given])[0]["ignore_boxes"].tolist() == [[2, 2, 9, 9], [0, 0, 3, 3]]


def test_without_crowd__targets_without_crowds_stay_as_they_are():
    plain = [TARGET, {**TARGET, "iscrowd": torch.tensor([0, 0])}]
    for targets in (plain, plain[:1], []):
        assert all(a is b for a, b in zip(without_crowd(targets), targets, strict=True))


def test_metric_targets__have_what_the_metric_takes_and_no_more():
    given = {**TARGET, "iscrowd": torch.zeros(2), "area": torch.ones(2), "neg_labels": [1], "not_exhaustive_labels": []}
    (taken,) = metric_targets([given])
    assert set(taken) == {"boxes", "labels", "iscrowd", "area", "neg_labels", "not_exhaustive_labels"}
    assert set(metric_targets([TARGET])[0]) == {"boxes", "labels"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"labels": torch.tensor([0, 2])},
            "image 3 has label 2, but the head takes labels 0 to 1. Column 0 is a class",
        ),
        ({"labels": torch.tensor([-1, 0])}, "image 3 has label -1"),
        (
            {"boxes": torch.tensor([[1.0, 1, 5, 5], [2, 2, 2, 9]])},
            "image 3 has a box without area: [2.0, 2.0, 2.0, 9.0]",
        ),
        (
            {"boxes": torch.tensor([[1.0, 1, 5, 1], [2, 2, 3, 9]])},
            "image 3 has a box without area: [1.0, 1.0, 5.0, 1.0]",
        ),
        ({"boxes": torch.tensor([[1.0, 1, 5, 5], [2, 2, float("inf"), 9]])}, "image 3 has a box without area"),
        ({"boxes": torch.tensor([[1.0, 1, 5, 5], [2, float("nan"), 4, 9]])}, "image 3 has a box without area"),
    ],
)
def test_check_targets__values_that_cannot_be_trained_on_are_named(change, said):
    good = {**TARGET, "image_id": 1}
    with pytest.raises(UsageError) as error:
        check_targets([good, {**TARGET, **change}], 2)
    assert said in str(error.value)


def test_check_targets__values_that_can_be_trained_on_are_accepted():
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    for targets in (
        [],
        [empty],
        [TARGET, empty],
        [{**TARGET, "boxes": BOXES.int()}, {**TARGET, "boxes": BOXES.half()}],
    ):
        check_targets(targets, 2)


def test_check_targets__normalised_boxes_are_distinguished_from_small_ones():
    normalised = {**TARGET, "boxes": BOXES / 64}
    with pytest.raises(UsageError, match=r"lie between 0 and 1, as normalised boxes do; the first is \[0.0156"):
        check_targets([normalised, normalised], 2)
    corner = {"boxes": torch.tensor([[0.0, 0, 1, 1]]), "labels": torch.tensor([0])}
    for targets in ([normalised, TARGET], [corner]):
        check_targets(targets, 2)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.0, 255.0, "this one reaches 255: give uint8, or divide by 255"),
        (0.0, 2.5, "reaches 2.5"),
        (-2.1, 1.9, "this one has -2.1: the detector normalises itself"),
        (-0.05, 2.0, None),
        (0.0, 1.0, None),
    ],
)
def test_warn_of_range__floats_in_another_range(low, high, said):
    image = torch.tensor([low, 0.5, high]).reshape(3, 1, 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_range([torch.full((3, 1, 1), 0.5), image])
    assert [said in str(w.message) for w in caught] == ([] if said is None else [True])


def test_warn_of_range__bytes_have_no_range(recwarn):
    warn_of_range([torch.full((3, 1, 1), 255, dtype=torch.uint8), torch.zeros(3, 0, 4)])
    assert not recwarn.list


def test_check_format__targets_are_named_by_their_file():
    detector = SimpleNamespace(transform=SimpleNamespace(image_mean=[0.0] * 3))
    target = {"boxes": torch.zeros(0, 4), "image_id": 7, "file_name": "a.png"}
    with pytest.raises(UsageError, match=r"image 7 \(a\.png\) has no labels"):
        check_format(detector, [torch.zeros(3, 8, 8)], [target])
