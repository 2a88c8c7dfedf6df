"""Outlines of objects in the training set, read where an augmentation uses them."""

import numpy as np
import pytest

from lit_dense.data import CocoDataModule
from tests.builders.coco_files import CATEGORIES, box_entry, image_entry, write_image, write_json
from tests.builders.format_files import BOXES, write_label, write_yolo

TRIANGLE = [4.0, 3.0, 20.0, 3.0, 12.0, 18.0]


def coco(root, annotations, **options):
    write_image(root / "images" / "1.png")
    write_json(root / "a.json", [image_entry(1)], annotations, CATEGORIES)
    return data_of(root, train_images="images", train_annotations="a.json", **options)


def data_of(root, augmentation="copy_paste", **options):
    data = CocoDataModule(root, augmentation=[augmentation], num_workers=0, **options)
    data.setup("fit")
    return data.data["train"]


def test_outlines__of_coco_follow_their_boxes(tmp_path):
    crowd = {"size": [30, 40], "counts": [0, 3, 1197]}
    entries = [
        box_entry(1, 1, segmentation=[TRIANGLE]),
        box_entry(2, 1, (0, 0, 0, 0), segmentation=[[1, 1, 2, 2, 3, 1]]),  # dropped
        box_entry(1, 1, (1, 1, 9, 9), segmentation=crowd, iscrowd=1),  # an id that is used twice
        box_entry(4, 1, (2, 2, 9, 9)),
    ]
    with pytest.warns(UserWarning, match="repaired"):
        assert coco(tmp_path, entries).outlines == [[TRIANGLE], crowd, None]


@pytest.mark.parametrize("irregular", [{}, {"iscrowd": False}])  # decoded by schema, and entry by entry
def test_outlines__are_read_only_if_they_are_used(tmp_path, irregular):
    entries = [box_entry(1, 1, segmentation=[TRIANGLE], **irregular)]
    without = {"class_path": "copy_paste", "init_args": {"masks": False}}
    assert coco(tmp_path, entries).outlines == [[TRIANGLE]]
    assert coco(tmp_path, entries, augmentation=without).outlines is None
    assert coco(tmp_path, entries, augmentation="mosaic").outlines is None


def test_outlines__of_yolo_are_in_pixels(tmp_path):
    path = write_yolo(tmp_path)
    write_label(tmp_path, "b.png", "0 0.1 0.1 0.5 0.1 0.3 0.6\n1 0.5 0.5 0.2 0.2\n")
    data = data_of(tmp_path, train_annotations=path.name)
    boxes_before = len(BOXES["a.png"])
    assert data.outlines[:boxes_before] == [None, None]
    assert data.outlines[boxes_before] == [pytest.approx([4, 3, 20, 3, 12, 18])]
    assert data.outlines[boxes_before + 1 :] == [None]
    assert data.boxes[boxes_before].tolist() == pytest.approx([4, 3, 20, 18])


def test_outlines__of_joined_sources(tmp_path):
    write_image(tmp_path / "coco" / "1.png")
    write_json(tmp_path / "coco" / "a.json", [image_entry(1)], [box_entry(1, 1, segmentation=[TRIANGLE])], CATEGORIES)
    write_yolo(tmp_path / "yolo")
    sources = [
        {"root": "coco", "train_images": ".", "train_annotations": "a.json"},
        {"root": "yolo", "train_annotations": "data.yaml"},
    ]
    assert data_of(tmp_path, join=sources).outlines == [[TRIANGLE], None, None, None]


def test_outlines__follow_a_selection_of_images(tmp_path):
    path = write_yolo(tmp_path)
    write_label(tmp_path, "b.png", "0 0.1 0.1 0.5 0.1 0.3 0.6\n")
    data = data_of(tmp_path, train_annotations=path.name)
    assert data.select(np.array([1])).outlines == [[pytest.approx([4, 3, 20, 3, 12, 18])]]
