"""LVIS's files: no file names, and lists of classes that an image lacks or has in part."""

import json

import pytest
import torch

from lit_dense import CocoDataModule
from lit_dense.data import DataError
from tests.builders.coco_files import data_arguments, write_shapes
from tests.builders.lit_modules import SmallRetinaNet
from tests.builders.trainers import trainer_in


@pytest.fixture
def folder(tmp_path):
    """Training and validation files as LVIS writes them; categories 3 (label 0) and 7 (label 1)."""
    for split in ("train", "val"):
        path = write_shapes(tmp_path, split)
        content = json.loads(path.read_text())
        for entry in content["images"]:
            entry["coco_url"] = f"http://images.cocodataset.org/{split}/{entry.pop('file_name')}"
            there = {a["category_id"] for a in content["annotations"] if a["image_id"] == entry["id"]}
            entry["neg_category_ids"] = sorted({3, 7} - there)
            entry["not_exhaustive_category_ids"] = sorted(there)[:1]
        path.write_text(json.dumps(content))
    return tmp_path


def module_of(folder, **options):
    return CocoDataModule(**{**data_arguments(folder), "train_images": ".", "val_images": "."} | options)


def change(folder, **lists):
    path = folder / "val.json"
    content = json.loads(path.read_text())
    content["images"][1].update(lists)
    path.write_text(json.dumps(content))


def test_lvis__targets_have_labels_that_are_absent_or_not_exhaustive(folder):
    data = module_of(folder)
    data.setup("validate")
    for _, targets in data.val_dataloader():
        for target in targets:
            there = set(target["labels"].tolist())
            assert set(target["neg_labels"].tolist()) == {0, 1} - there
            assert target["not_exhaustive_labels"].tolist() == sorted(there)[:1]


def test_lvis__a_split_keeps_the_lists_of_its_images(folder):
    data = module_of(folder, val_images=None, val_annotations=None, val_split=0.5)
    data.setup("fit")
    whole = module_of(folder)
    whole.setup("fit")
    lists = {t["image_id"]: t["neg_labels"].tolist() for _, ts in whole.train_dataloader() for t in ts}
    seen = {t["image_id"]: t["neg_labels"].tolist() for _, ts in data.val_dataloader() for t in ts}
    assert len(seen) == 2
    assert seen == {image_id: lists[image_id] for image_id in seen}


def test_lvis__unknown_categories_in_the_lists_are_reported_and_left_out(folder):
    change(folder, neg_category_ids=[3, 99, 7], not_exhaustive_category_ids="7")
    with pytest.warns(UserWarning, match="lists of categories with unknown ones"):
        (data := module_of(folder)).setup("validate")
    targets = [t for _, ts in data.val_dataloader() for t in ts]
    assert targets[1]["neg_labels"].tolist() == [0, 1]
    assert targets[1]["not_exhaustive_labels"].tolist() == []
    with pytest.raises(DataError, match=r"neg_category_ids is \[3, 99, 7\]"):
        module_of(folder, strict=True).setup("validate")


def test_lvis__files_without_the_lists_have_no_such_targets(tmp_path):
    write_shapes(tmp_path, "val")
    data = CocoDataModule(val_images="val", val_annotations="val.json", root=tmp_path, num_workers=0)
    data.setup("validate")
    assert all("neg_labels" not in t for _, targets in data.val_dataloader() for t in targets)


@pytest.mark.parametrize("protocol", ["coco", "lvis"])
def test_lvis__a_run_reports_rare_common_and_frequent_classes(folder, protocol):
    torch.manual_seed(0)
    module = SmallRetinaNet(2, eval_protocol=protocol, frequency_bounds=(1, 2))
    trainer = trainer_in(folder, enable_checkpointing=True)
    data = module_of(folder)
    trainer.fit(module, data)
    images = data.class_counts.images.tolist()
    for group, there in zip(
        ("rare", "common", "frequent"), (min(images) <= 1, 2 in images, max(images) > 2), strict=True
    ):
        assert (trainer.callback_metrics[f"val_map_{group}"] >= 0) == there
    assert ("val_mar_1" in trainer.callback_metrics) == (protocol == "coco")
    expected = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val_map")}
    # evaluated later, the groups are those of the training set, which is not read then
    path = trainer.checkpoint_callback.best_model_path
    (found,) = trainer_in(folder).validate(SmallRetinaNet(2, eval_protocol=protocol, frequency_bounds=(1, 2)),
                               module_of(folder), ckpt_path=path, verbose=False)  # fmt: skip
    assert {k: found[k] for k in expected} == pytest.approx(expected)
