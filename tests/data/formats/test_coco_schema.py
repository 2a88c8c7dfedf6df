"""Decoding by schema gives what the careful reading gives, and leaves to it whatever is unusual."""

import json
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_dense.data.formats import coco as coco_format
from lit_dense.data.formats.annotations import TABLE
from lit_dense.data.formats.coco import read_coco
from lit_dense.data.formats.coco_schema import decode_coco
from lit_dense.data.problems import Problems
from tests.builders.coco_files import CATEGORIES, box_entry, image_entry, write_json

numbers = st.integers(-(2**63) + 1, 2**63 - 1)
coordinates = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000)
images = st.fixed_dictionaries(
    {"id": numbers},
    optional={
        "file_name": st.text(),
        "coco_url": st.text(),
        "width": numbers,
        "height": numbers,
        "license": st.none() | st.integers() | st.text(),
        "neg_category_ids": st.lists(numbers, max_size=2),
    },
).filter(lambda image: "file_name" in image or "coco_url" in image)
annotations = st.fixed_dictionaries(
    {"id": numbers, "image_id": numbers, "category_id": numbers, "bbox": st.lists(coordinates, min_size=4, max_size=4)},
    optional={
        "area": coordinates,
        "iscrowd": st.sampled_from([0, 1]),
        "hardness": coordinates,
        "segmentation": st.lists(st.lists(coordinates, max_size=3), max_size=2),
    },
)


def careful(path, problems, weight_key):
    with mock.patch.object(coco_format, "decode_coco", return_value=None):
        return read_coco(path, problems, weight_key)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=st.lists(images, max_size=3), annotations=st.lists(annotations, max_size=4), weighted=st.booleans())
def test_decode_coco__content_is_that_of_the_careful_reading(tmp_path, images, annotations, weighted):
    path = write_json(tmp_path / "a.json", images, annotations, info={"images": 3}, licenses=[])
    key = "hardness" if weighted else None
    problems = Problems()
    with mock.patch.object(coco_format, "decode_coco", wraps=decode_coco) as decode:
        found = read_coco(path, problems, key)
    assert decode(path, found.annotations.dtype, key) is not None
    expected = careful(path, problems, key)
    assert not problems.found
    assert (found.images, found.categories, found.weight_key) == (
        expected.images,
        expected.categories,
        expected.weight_key,
    )
    assert found.annotations.dtype == expected.annotations.dtype
    for name in found.annotations.dtype.names:
        np.testing.assert_array_equal(found.annotations[name], expected.annotations[name])


@pytest.mark.parametrize(
    "change",
    [
        {"annotations": [box_entry(1, 1, bbox=[1, 2, 3])]},
        {"annotations": [box_entry(1, 1, bbox=[1, 2, 3, "4"])]},
        {"annotations": [box_entry(1, 1, area=None)]},
        {"annotations": [box_entry(1, 1, iscrowd=True)]},
        {"annotations": [box_entry(1, 1, iscrowd=0), box_entry(2, 1, iscrowd=2)]},
        {"annotations": [box_entry(1, 1, iscrowd=-1)]},
        {"annotations": [box_entry(2**70, 1)]},
        {"annotations": [{"id": 1, "bbox": [1, 2, 3, 4]}]},
        {"annotations": ["none"]},
        {"annotations": {}},
        {"images": [{"file_name": "a.png"}]},
        {"images": [image_entry(1, width=None)]},
        {"images": [image_entry("1")]},
        {"categories": [*CATEGORIES, CATEGORIES[0]]},
        {"categories": [{"id": 1}]},
        {"categories": [{"id": 1, "name": 5}]},
    ],
    ids=str,
)
def test_decode_coco__leaves_unusual_content_to_the_careful_reading(tmp_path, change):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": CATEGORIES} | change))
    assert decode_coco(path, TABLE, None) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"images": NaN}'])
def test_decode_coco__leaves_other_json_to_the_careful_reading(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert decode_coco(path, TABLE, None) is None
    assert decode_coco(tmp_path / "none.json", TABLE, None) is None
