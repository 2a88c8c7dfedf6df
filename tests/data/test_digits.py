import builtins
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lit_dense.core.errors import UsageError
from lit_dense.data import digits
from lit_dense.data.digits import SIZE, write_digits


def read(folder, part):
    return json.loads((folder / f"{part}.json").read_text())


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "digits"
    write_digits(folder, num_train=400, num_val=60)
    return folder


def test_write_digits__equal_seeds_write_equal_files(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_digits(tmp_path / name, seed, num_train=6, num_val=3)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert files(tmp_path / "a") != files(tmp_path / "c")


@pytest.mark.parametrize("part", ["train", "val"])
def test_write_digits__ids_and_files_agree(folder, part):
    coco = read(folder, part)
    assert [c["id"] for c in coco["categories"]] == list(range(1, 11))
    assert coco["categories"][0]["name"] == "zero"
    for key in ("images", "annotations"):
        ids = [entry["id"] for entry in coco[key]]
        assert len(set(ids)) == len(ids)
        assert all(type(i) is int for i in ids)
    assert {a["image_id"] for a in coco["annotations"]} < {i["id"] for i in coco["images"]}  # some are empty
    assert {i["file_name"] for i in coco["images"]} == {p.name for p in (folder / part).iterdir()}
    for image in coco["images"]:
        with Image.open(folder / part / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])


@pytest.mark.parametrize("part", ["train", "val"])
def test_write_digits__boxes_lie_inside_the_image_and_apart(folder, part):
    coco = read(folder, part)
    taken = {image["id"]: np.zeros((SIZE, SIZE), int) for image in coco["images"]}
    for annotation in coco["annotations"]:
        x, y, width, height = annotation["bbox"]
        assert x >= 0
        assert y >= 0
        assert min(width, height) > 0
        assert x + width <= SIZE
        assert y + height <= SIZE
        assert annotation["area"] == width * height
        assert annotation["iscrowd"] == 0
        taken[annotation["image_id"]][y : y + height, x : x + width] += 1
    assert max(mask.max() for mask in taken.values()) == 1


def test_write_digits__splits_share_no_handwritten_digit(folder):
    train, val = ({a["source"] for a in read(folder, part)["annotations"]} for part in ("train", "val"))
    assert train
    assert val
    assert not train & val


def test_write_digits__clutter_comes_from_the_splits_own_digits(tmp_path, monkeypatch):
    seen = []
    draw = digits._draw_clutter
    monkeypatch.setattr(digits, "_draw_clutter", lambda c, d, r: (seen.append(set(d.sources.tolist())), draw(c, d, r)))
    write_digits(tmp_path / "digits", num_train=1, num_val=1)
    train, val = seen
    assert not train & val


def test_write_digits__annotations_name_the_class_of_their_source(folder):
    from sklearn.datasets import load_digits

    target = load_digits().target
    assert all(target[a["source"]] == a["category_id"] - 1 for a in read(folder, "train")["annotations"])


def test_write_digits__counts_have_a_long_tail(folder):
    labels = [a["category_id"] for a in read(folder, "train")["annotations"]]
    counts = np.bincount(labels, minlength=11)[1:]
    assert (np.diff(counts) < 0).all()
    assert 22 < counts[0] / counts[-1] < 45


def test_write_digits__boxes_are_tight_around_the_ink(tmp_path, monkeypatch):
    def blank(rng):
        return np.full((SIZE, SIZE), 0.8, np.float32)

    monkeypatch.setattr(digits, "_paper", blank)
    monkeypatch.setattr(digits, "_draw_clutter", lambda canvas, digits, rng: None)
    monkeypatch.setattr(digits, "MAX_OBJECTS", 1)
    write_digits(tmp_path / "digits", num_train=30, num_val=5)
    coco = read(tmp_path / "digits", "train")
    assert coco["annotations"]
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    for annotation in coco["annotations"]:
        with Image.open(tmp_path / "digits" / "train" / names[annotation["image_id"]]) as picture:
            pixels = np.asarray(picture, np.float32) / 255
        x, y, width, height = annotation["bbox"]
        inside = pixels[y : y + height, x : x + width]
        outside = np.ones_like(pixels, bool)
        outside[y : y + height, x : x + width] = False
        assert abs(pixels[outside].mean() - 0.8) < 0.01  # no ink was left out
        for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
            assert edge.min() < pixels[outside].mean() - 0.05  # ink reaches each side


def test_write_digits__a_stopped_run_leaves_nothing(tmp_path, monkeypatch):
    write_part = digits._write_part

    def stop_at_val(root, part, *rest):
        if part == "val":
            raise KeyboardInterrupt
        write_part(root, part, *rest)

    monkeypatch.setattr(digits, "_write_part", stop_at_val)
    with pytest.raises(KeyboardInterrupt):
        write_digits(tmp_path / "digits", num_train=3, num_val=3)
    assert not any(tmp_path.iterdir())


def test_write_digits__the_same_set_may_be_written_twice_but_nothing_else_is_replaced(tmp_path):
    folder = tmp_path / "digits"
    write_digits(folder, num_train=3, num_val=2)
    before = files(folder)
    write_digits(folder, num_train=3, num_val=2)
    with pytest.raises(FileExistsError, match="has other content"):
        write_digits(folder, seed=1, num_train=3, num_val=2)
    assert files(folder) == before
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]


def test_write_digits__a_missing_scikit_learn_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_sklearn(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    with pytest.raises(UsageError, match=r"pip install \"lit-dense\[demo\]\""):
        write_digits(tmp_path / "digits")
    assert not any(tmp_path.iterdir())


def test_draw_clutter__lines_are_darker_than_the_paper(monkeypatch):
    monkeypatch.setattr(digits, "_draw", lambda *args: None)
    monkeypatch.setattr(digits, "_glyph", lambda digit, rng: digit)
    source = SimpleNamespace(images=np.ones((1, 8, 8)) * 16)
    for seed in range(8):
        canvas = np.ones((digits.SIZE, digits.SIZE), np.float32)
        digits._draw_clutter(canvas, source, np.random.default_rng(seed))
        assert canvas.max() <= 1
    assert canvas.min() < 0.95
