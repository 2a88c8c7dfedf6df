"""The package under examples/custom_format, installed as anybody's is."""

import json

import pytest

from tests.builders.coco_files import write_image
from tests.builders.example_packages import ran

pytestmark = pytest.mark.slow


def test_custom_format__its_own_tests_pass(installed):
    source, environment = installed("custom_format")
    assert "3 passed" in ran(["pytest", "-q", "-p", "no:cacheprovider", str(source / "tests")], source, environment)


def test_custom_format__is_listed_recognised_and_converted(installed, tmp_path):
    _, environment = installed("custom_format")
    assert "--data.format=trees" in ran(["lit_dense", "list"], tmp_path, environment)
    write_image(tmp_path / "photos" / "a.png")
    (tmp_path / "train.trees").write_text("a.png 1 2 10 11\n")
    words = ["--data.train_annotations=train.trees", "--data.train_images=photos", "--data.format=trees"]
    ran(["lit_dense", "convert", "--to=coco", "--out=out", *words, "--data.format.name=oak"], tmp_path, environment)
    content = json.loads((tmp_path / "out" / "annotations" / "train.json").read_text())
    assert [entry["bbox"] for entry in content["annotations"]] == [[1, 2, 10, 11]]
    assert content["categories"] == [{"id": 1, "name": "oak"}]
