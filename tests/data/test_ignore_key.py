"""The argument ``ignore_key``: annotations that are ignore regions."""

import json

import pytest

from lit_dense import CocoDataModule
from lit_dense.data import DataError
from tests.builders.coco_files import box_entry, image_entry, write_image, write_json
from tests.builders.data_modules import data_module
from tests.builders.format_files import write_yolo

BOXES = [
    box_entry(1, 1),
    box_entry(2, 1, difficult=True),
    box_entry(3, 1, difficult=0, iscrowd=1),
    box_entry(4, 1, (20, 5, 9, 9), difficult=1),
    box_entry(5, 1, (1, 1, 9, 9), difficult=False),
]


def crowds_of(folder, boxes, **options):
    write_image(folder / "train" / "1.png")
    write_json(folder / "train.json", [image_entry(1)], boxes)
    data = data_module(folder, "train", **options)
    data.setup("fit")
    return data.data["train"].iscrowd.tolist()


# an entry without an integer id is parsed one by one
@pytest.mark.parametrize("more", [[], [box_entry("a", 1, (3, 3, 4, 4))]], ids=["fast", "entry by entry"])
@pytest.mark.filterwarnings("ignore:The data")
def test_ignore_key__marks_ignore_regions(tmp_path, more):
    boxes = [box | {"bbox": [number, 5, 9, 9]} for number, box in enumerate(BOXES)] + more
    for key, expected in (("difficult", [0, 1, 1, 1, 0]), (None, [0, 0, 1, 0, 0]), ("hard", [0, 0, 1, 0, 0])):
        assert crowds_of(tmp_path, boxes, ignore_key=key)[:5] == expected


def test_ignore_key__goes_with_weights(tmp_path):
    boxes = [box | {"bbox": [number, 5, 9, 9], "hard": 2.5} for number, box in enumerate(BOXES)]
    data = data_module(tmp_path, "train", ignore_key="difficult", weight_key="hard")
    assert crowds_of(tmp_path, boxes, ignore_key="difficult", weight_key="hard") == [0, 1, 1, 1, 0]
    data.setup("fit")
    assert set(data.data["train"].weight.tolist()) == {2.5}


@pytest.mark.parametrize("value", [2, "perhaps", [1], 0.5])
def test_ignore_key__other_values_are_errors(tmp_path, value):
    with pytest.raises(DataError, match=r"values of difficult \(ignore_key\) that are neither true nor false") as error:
        crowds_of(tmp_path, [box_entry(7, 1, difficult=value)], ignore_key="difficult")
    assert f"annotation 7 of image 1: {json.dumps(value)}" in str(error.value)


def test_ignore_key__are_in_batches_as_crowds(tmp_path):
    crowds_of(tmp_path, BOXES[:1] + BOXES[3:])
    data = data_module(tmp_path, "train", ignore_key="difficult", transforms=[], batch_size=1)
    data.setup("fit")
    ((_, (target,)),) = data.train_dataloader()
    assert target["iscrowd"].tolist() == [0, 1, 0]
    assert data.class_counts.instances.tolist() == [2, 0]


@pytest.mark.parametrize("argument", ["ignore_key", "weight_key"])
def test_ignore_key__a_key_that_no_annotation_has_is_reported(tmp_path, argument):
    with pytest.warns(
        UserWarning, match=rf"no annotation has the key 'dificult' \({argument}\) Did you mean 'difficult'"
    ):
        crowds_of(tmp_path, BOXES, **{argument: "dificult"})


def test_ignore_key__in_a_format_without_keys_is_reported(tmp_path):
    write_yolo(tmp_path)
    data = CocoDataModule(tmp_path, train_annotations="data.yaml", ignore_key="difficult")
    with pytest.warns(UserWarning, match="ignore_key='difficult' is not read: boxes of this format have no keys"):
        data.setup("fit")
