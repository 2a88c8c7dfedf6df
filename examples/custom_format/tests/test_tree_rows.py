"""Tests the format with the kit, which checks all requirements of lit_dense; the content needs tests of your own."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tree_rows import TreeRows

from lit_dense import CocoDataModule
from lit_dense.data import check
from lit_dense.testing import check_format


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "train.trees").write_text("b.png 1 2 10 11\na.png 3 4 12 13\nb.png 20 5 8 9\n")
    return tmp_path


def test_the_kit(sample: Path) -> None:
    check_format(TreeRows(), sample=sample)


def test_the_kit_by_name(sample: Path) -> None:
    check_format({"class_path": "trees", "init_args": {"name": "oak"}}, sample=sample)


def test_faulty_rows_are_reported_with_their_line(sample: Path) -> None:
    with (sample / "train.trees").open("a") as file:
        file.write("a.png 3 4 twelve 13\na.png 38 4 12 13\n")
    text = check(CocoDataModule(sample, train_annotations="train.trees", num_workers=0)).text
    assert "train: 2 images, 4 boxes" in text
    assert "rows without an image and four numbers: 1 (dropped)\n      train.trees, line 4" in text
    assert "boxes partly outside their image: 1 (clipped)\n      train.trees, line 5 (a.png)" in text
