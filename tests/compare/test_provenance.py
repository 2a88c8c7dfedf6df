"""Digests of code and data: equal for equal content, on every machine."""

import inspect
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lit_dense import CocoDataModule
from lit_dense.compare import provenance
from lit_dense.compare.provenance import READ_BY, code_digest, fingerprint, read_fingerprints, versions
from lit_dense.compare.recorder import Recorder
from lit_dense.core.errors import UsageError
from lit_dense.data.origins import Origins
from tests.builders.coco_data import images_showing
from tests.builders.coco_files import CATEGORIES, write_noise


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two files, whose digest is computed again for each change."""
    for name in ("losses/a.py", "compare/provenance.py", "visualization/b.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x = 1\n")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "compare" / "provenance.py"))
    return tmp_path


def test_code_digest__is_that_of_the_files_that_decide_numbers(package):
    digest = code_digest.__wrapped__
    first = digest()
    assert len(first) == 16
    (package / "losses" / "a.py").write_bytes(b"x = 1\r\n")
    (package / "visualization" / "b.py").write_text("x = 2\n")
    (package / "losses" / "notes.txt").write_text("x")
    assert digest() == first
    (package / "losses" / "a.py").write_text("x = 2\n")
    changed = digest()
    (package / "losses" / "a.py").write_text("x = 1\n")
    (package / "losses" / "a.py").rename(package / "losses" / "c.py")
    assert len({first, changed, digest()}) == 3


def test_versions__of_an_interrupted_run_name_every_code():
    assert versions()["code"] == code_digest()
    assert versions(["a", "b"])["code"] == "a+b"
    assert {"python", "lit-dense", "torch", "torchvision", "lightning", "numpy"} < versions().keys()


def trainer_with(**splits):
    return SimpleNamespace(datamodule=SimpleNamespace(data=splits), default_root_dir="runs/focal/seed-0")


def resumed(state):
    recorder = Recorder()
    recorder.load_state_dict(state)
    return recorder


def test_recorder__notes_the_code_of_each_part_of_a_run(monkeypatch):
    first = Recorder()
    first.on_train_start(None, None)
    state = first.state_dict()
    again = resumed(state)
    again.on_train_start(None, None)
    assert again.codes == [code_digest()]
    monkeypatch.setattr("lit_dense.compare.recorder.code_digest", lambda: "other")
    again.on_train_start(None, None)
    assert again.codes == [code_digest(), "other"]
    assert resumed({name: value for name, value in state.items() if name != "codes"}).codes == ["not recorded"]


def test_recorder__refuses_to_go_on_with_other_data():
    train, val = images_showing([0, 1], [2], crowds=[]), images_showing([0], crowds=[])
    first = Recorder()
    first.on_fit_start(trainer_with(train=train, val=val), None)
    state = first.state_dict()
    again = resumed(state)
    again.on_fit_start(trainer_with(train=train, val=val), None)
    assert again.data == first.data
    with pytest.raises(
        UsageError, match=r"The val set has changed .* delete runs/focal/seed-0 to begin this run again"
    ):
        resumed(state).on_fit_start(trainer_with(train=train, val=train), None)
    with pytest.raises(UsageError, match="The val set has changed"):
        resumed(state).on_fit_start(trainer_with(train=train), None)
    before = {name: value for name, value in state.items() if name != "data"}  # a checkpoint of a former version
    resumed(before).on_fit_start(trainer_with(train=train, val=train), None)


def test_fingerprint__changes_with_whatever_training_sees():
    data = images_showing([0, 1], [2], crowds=[])
    first = fingerprint(data)
    assert (first["images"], first["boxes"]) == (2, 3)
    others = [
        replace(data, categories=[*data.categories, {"id": 99, "name": "x"}]),
        replace(data, file_names=["other.png", *data.file_names[1:]]),
        replace(data, boxes=data.boxes + np.float32(1)),
        replace(data, area=data.area + np.float32(1)),
        replace(data, iscrowd=~data.iscrowd),
        replace(data, category_ids=data.category_ids[::-1].copy()),
        replace(data, weight=np.ones(3, np.float32)),
        data.select(np.array([1, 0])),
        replace(data, origins=Origins(("a",), np.zeros(2, np.int64), (np.array([5]),))),
        replace(data, origins=Origins(("a",), np.zeros(2, np.int64), (np.array([6]),))),
    ]
    assert len({one["digest"] for one in [first, *map(fingerprint, others)]}) == len(others) + 1


def test_fingerprint__does_not_depend_on_folders_or_annotation_ids(tmp_path):
    data = images_showing([0, 1], [2], crowds=[])
    moved = replace(data, path=tmp_path / "x.json", folder=tmp_path, annotation_ids=data.annotation_ids + 5)
    assert fingerprint(moved) == fingerprint(data)
    names = ["C:\\sets\\empty\\1.png", "a\\2.png"], ["/home/me/1.png", "a/2.png"]
    one, other = (fingerprint(replace(data, file_names=list(some))) for some in names)
    assert one == other


def test_read_fingerprints__a_copy_elsewhere_is_the_same_data_and_other_image_files_are_seen(tmp_path):
    write_noise(tmp_path / "one", 5)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    options = {"train_images": "train", "train_annotations": "train.json", "val_split": 0.4, "seed": 1, "batch_size": 9}
    first = read_fingerprints({**options, "root": "one"}, str(tmp_path))
    assert first == read_fingerprints({**options, "root": str(tmp_path / "two")}, "/")
    assert first["train"]["images"] + first["val"]["images"] == 5
    assert first["train"]["image_bytes"] > 1000
    for path in (tmp_path / "two" / "train").iterdir():
        path.write_bytes(path.read_bytes() + b"more")
    second = read_fingerprints({**options, "root": "two"}, str(tmp_path))
    assert second["train"]["image_bytes"] == first["train"]["image_bytes"] + 4 * first["train"]["images"]
    assert second["train"]["digest"] == first["train"]["digest"]
    assert read_fingerprints({**options, "seed": 2, "root": "two"}, str(tmp_path)) != second


def test_read_fingerprints__missing_files_are_an_error_and_no_data_is_none(tmp_path):
    options = {"train_images": "train", "train_annotations": "train.json", "root": "nowhere"}
    with pytest.raises(UsageError, match=r"train\.json"):
        read_fingerprints(options, str(tmp_path))
    assert read_fingerprints({}, str(tmp_path)) == {}


def test_read_by__names_every_option_that_decides_which_data_is_read():
    options = set(inspect.signature(CocoDataModule).parameters)
    of_other_splits = {"test_images", "test_annotations", "predict"}
    of_loading = {"batch_size", "eval_batch_size", "num_workers", "pin_memory", "cache", "cache_gib", "strict"}
    of_training = {"transforms", "augmentation", "flip_pairs", "sampler", "empty_share"}
    assert options - of_other_splits - of_loading - of_training - {"tile", "tile_overlap"} == set(READ_BY)


def test_read_fingerprints__of_joined_data_know_what_each_source_is_annotated_for(tmp_path):
    for name in ("one", "two"):
        write_noise(tmp_path / name, 4)

    def join(**second):
        files = {"train_images": "train", "train_annotations": "train.json"}
        return read_fingerprints(
            {"join": [{"root": "one", **files}, {"root": "two", **files, **second}]}, str(tmp_path)
        )

    first = join()
    assert first["train"]["images"] == 8
    assert join(name="named") == first
    assert join(rename={CATEGORIES[0]["name"]: "other"})["train"]["digest"] != first["train"]["digest"]
    assert join(rename={CATEGORIES[0]["name"]: CATEGORIES[0]["name"]}) == first
