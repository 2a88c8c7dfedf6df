import json
import warnings

import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image
from torchvision.transforms import v2

from lit_dense.core.errors import UsageError
from lit_dense.data import CocoDataModule, DataError, EpochSampler
from tests.builders.coco_files import CATEGORIES, box_entry, image_entry, write_json, write_noise
from tests.builders.data_modules import data_module


def image_ids(loader):
    return [target["image_id"] for _, targets in loader for target in targets]


def test_coco_data_module__from_files_to_batches(folder):
    data = data_module(folder)
    assert data.num_classes == 2
    assert data.categories == CATEGORIES
    assert data.class_counts is None
    data.setup("fit")
    assert data.class_counts.num_images == 8
    assert data.class_counts.instances.tolist() == [4, 5]
    images, targets = next(iter(data.train_dataloader()))
    assert [type(image) for image in images] == [torch.Tensor] * 2
    assert images[0].dtype == torch.uint8
    assert targets[0].keys() == {"boxes", "labels", "area", "iscrowd", "image_id", "file_name", "orig_size"}
    assert sorted(image_ids(data.train_dataloader())) == list(range(1, 9))
    assert image_ids(data.val_dataloader()) == [21, 22, 23, 24]
    assert sum(len(t["boxes"]) == 0 for _, targets in data.train_dataloader() for t in targets) >= 2


def test_coco_data_module__a_stage_reads_what_it_needs_once(folder):
    (folder / "test.json").write_text("broken")
    data = data_module(folder)
    data.setup("fit")
    (folder / "train.json").unlink()
    (folder / "val.json").unlink()
    data.setup("fit")
    data.setup("validate")
    assert image_ids(data.val_dataloader()) == [21, 22, 23, 24]
    with pytest.raises(DataError, match="not JSON"):
        data.setup("test")


def test_coco_data_module__problems_of_all_files_are_in_one_message(folder):
    (folder / "train.json").write_text("broken")
    content = json.loads((folder / "val.json").read_text())
    content["annotations"].append(box_entry(77, 21, (0, 0, 0, 0)))
    (folder / "val.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"train\.json\n  ! not JSON.*\n.*val\.json\n  - boxes of zero") as error:
        data_module(folder).setup("fit")
    assert str(error.value).count("not JSON") == 1


def test_coco_data_module__repairs_warn_once_and_strict_forbids_them(folder):
    for name, number in (("train", 1), ("val", 22)):
        content = json.loads((folder / f"{name}.json").read_text())
        content["annotations"].append(box_entry(77, number, (-5, 0, 10, 10)))
        (folder / f"{name}.json").write_text(json.dumps(content))
    data = data_module(folder)
    with pytest.warns(UserWarning, match="The data was repaired") as caught:
        data.setup("fit")
    assert len([w for w in caught if "repaired" in str(w.message)]) == 1
    assert str(caught[0].message).count("boxes partly outside their image: 1 (clipped)") == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup("validate")
    with pytest.raises(DataError, match="strict=True"):
        data_module(folder, strict=True).setup("fit")


def test_coco_data_module__reading_categories_first_hides_no_problem(folder):
    content = json.loads((folder / "train.json").read_text())
    content["annotations"].append(box_entry(77, 1) | {"bbox": None})
    (folder / "train.json").write_text(json.dumps(content))
    data = data_module(folder)
    assert data.num_classes == 2
    with pytest.warns(UserWarning, match="values of a wrong type: 1"):
        data.setup("fit")


def test_coco_data_module__broken_files_are_reported_when_classes_are_asked_for(folder):
    (folder / "train.json").write_text("broken")
    (folder / "val.json").unlink()
    with pytest.raises(DataError, match=r"(?s)not JSON.*no such file"):
        _ = data_module(folder).num_classes


def test_coco_data_module__categories_of_training_and_validation_are_joined_by_id(folder):
    write_noise(folder, 4, "val", [{"id": 5, "name": "bird"}, {"id": 7, "name": "dog"}])
    data = data_module(folder, "train", "val")
    assert [category["name"] for category in data.categories] == ["cat", "bird", "dog"]
    data.setup("fit")
    assert data.class_counts.instances.tolist() == [4, 0, 5]
    labels = {
        label for _, targets in data.val_dataloader() for target in targets for label in target["labels"].tolist()
    }
    assert labels == {1, 2}


def test_coco_data_module__one_id_with_two_names_is_an_error(folder):
    write_noise(folder, 4, "val", [{"id": 3, "name": "bird"}, {"id": 7, "name": "dog"}])
    with pytest.raises(DataError, match=r"category id 3: 'bird' here, 'cat' in .*train\.json"):
        data_module(folder).setup("fit")


def test_coco_data_module__one_name_with_other_ids_in_another_file_is_an_error(folder):
    """Else validation would have classes of its own, which nothing is trained on."""
    write_noise(folder, 4, "val", [{"id": 13, "name": "cat"}, {"id": 7, "name": "dog"}])
    with pytest.raises(DataError, match=r"another id than in another file: 1\n.*'cat': id 13 here, 3 in .*train\.json"):
        data_module(folder, "train", "val").setup("fit")
    twice = [{"id": 3, "name": "cat"}, {"id": 4, "name": "cat"}]
    for name in ("train", "val"):
        write_noise(folder, 4, name, twice)
    data_module(folder, "train", "val").setup("fit")


def test_coco_data_module__a_test_file_needs_known_categories(folder):
    write_noise(folder, 4, "test", [{"id": 5, "name": "bird"}, {"id": 7, "name": "hound"}])
    data_module(folder).setup("fit")
    with pytest.raises(DataError, match=r"(?s)category 5: bird here, none there.*hound here, dog there"):
        data_module(folder).setup("test")
    alone = data_module(folder, "test")
    alone.setup("test")
    assert alone.num_classes == 2


def test_coco_data_module__labels_are_the_same_whatever_stage_is_set_up(folder):
    write_noise(folder, 4, "val", [{"id": 5, "name": "bird"}, {"id": 7, "name": "dog"}])
    data = data_module(folder, "train", "val")
    data.setup("validate")
    assert [category["id"] for category in data.categories] == [3, 5, 7]


def test_coco_data_module__labels_can_be_category_ids(folder):
    data = data_module(folder, labels="category_id")
    assert data.num_classes == 8
    assert [c["name"] for c in data.categories] == ["", "", "", "cat", "", "", "", "dog"]
    assert [c["id"] for c in data.categories] == list(range(8))
    data.setup("fit")
    assert data.class_counts.instances.tolist() == [0, 0, 0, 4, 0, 0, 0, 5]
    found = {
        label for _, targets in data.train_dataloader() for target in targets for label in target["labels"].tolist()
    }
    assert found == {3, 7}


@pytest.mark.parametrize("number", [-1, 10**9])
def test_coco_data_module__ids_that_cannot_be_labels(folder, number):
    write_noise(folder, 4, "train", [{"id": number, "name": "bird"}, {"id": 7, "name": "dog"}])
    with pytest.raises(DataError, match=f"category id {number}: bird"):
        data_module(folder, "train", labels="category_id").setup("fit")
    assert data_module(folder, "train").num_classes == 2


def test_coco_data_module__splitting_one_file(folder):
    write_noise(folder, 20)
    data = data_module(folder, "train", val_split=0.25, transforms=[])
    data.setup("fit")
    train, val = image_ids(data.train_dataloader()), image_ids(data.val_dataloader())
    assert len(val) == 5
    assert sorted(train + val)[-1] == 20
    assert not set(train) & set(val)
    assert data.class_counts.num_images == 15
    again = data_module(folder, "train", val_split=0.25)
    again.setup("validate")
    assert image_ids(again.val_dataloader()) == val
    other = data_module(folder, "train", val_split=0.25, seed=1)
    other.setup("validate")
    assert image_ids(other.val_dataloader()) != val


def test_coco_data_module__one_image_cannot_be_split(folder):
    write_noise(folder, 1)
    with pytest.raises(DataError, match="too few images to split"):
        data_module(folder, "train", val_split=0.5).setup("fit")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"train_annotations": "a.json"}, "train_annotations needs train_images"),
        ({"val_images": "a"}, "val_images needs val_annotations"),
        ({"train_images": "a"}, "train_images needs train_annotations"),
        ({"val_split": 0.2}, "val_split takes images from train_annotations"),
        ({"val_split": 1.0}, r"val_split must be in \[0, 0.99\]"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"labels": "ids"}, "labels must be one of contiguous, category_id, not 'ids'"),
        ({"labels": "category_ids"}, "Did you mean 'category_id'"),
        ({"demo": True, "train_annotations": "a.json"}, "demo=True uses its own images"),
        ({"demo": True, "val_split": 0.1}, "leave out val_split"),
    ],
)
def test_coco_data_module__arguments_that_do_not_go_together(options, told):
    with pytest.raises(UsageError, match=told):
        CocoDataModule(**options)


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ("fit", "needs train_annotations to fit"),
        ("validate", "needs val_annotations, or train_annotations and val_split, to validate"),
        ("test", "needs test_annotations to test"),
        ("predict", "needs predict, test_annotations or val_annotations"),
    ],
)
def test_coco_data_module__stages_without_data(stage, told):
    with pytest.raises(UsageError, match=told):
        CocoDataModule().setup(stage)


def test_coco_data_module__a_missing_stage_is_named_by_its_subcommand_with_those_that_exist(folder):
    told = r"needs test_annotations to test\. To measure on the validation set, validate\."
    with pytest.raises(UsageError, match=told):
        data_module(folder, "train", "val").setup(TrainerFn.TESTING)


def test_coco_data_module__training_data_without_a_box(folder):
    write_json(folder / "train.json", [image_entry(1)], [])
    data = data_module(folder, "train", "val")
    with pytest.raises(DataError, match=r"no boxes, so there is nothing to train on"):
        data.setup("fit")
    data.setup("validate")


def test_coco_data_module__a_loader_before_setup(folder):
    with pytest.raises(UsageError, match="call setup first"):
        data_module(folder).train_dataloader()


def test_coco_data_module__validation_images_are_those_of_training_by_default(folder):
    write_json(folder / "val.json", [image_entry(1)])
    data = CocoDataModule(folder, "train", "train.json", val_annotations="val.json", num_workers=0)
    data.setup("validate")
    assert image_ids(data.val_dataloader()) == [1]


def test_coco_data_module__training_without_validation(folder):
    data = data_module(folder, "train")
    data.setup("fit")
    assert data.val_dataloader() == []


def test_coco_data_module__a_batch_that_is_not_full(folder):
    data = data_module(folder, batch_size=3, eval_batch_size=2)
    data.setup("fit")
    assert [len(images) for images, _ in data.train_dataloader()] == [3, 3]
    assert [len(images) for images, _ in data.val_dataloader()] == [2, 2]
    few = data_module(folder, batch_size=30)
    few.setup("fit")
    assert [len(images) for images, _ in few.train_dataloader()] == [8]


def test_coco_data_module__augmentation_is_for_training_alone(folder):
    transforms = [v2.RandomHorizontalFlip(p=1)]
    data = data_module(folder, "train", "val", val_images="train", val_annotations="train.json", transforms=transforms)
    data.setup("fit")
    plain = {t["image_id"]: image for images, ts in data.val_dataloader() for image, t in zip(images, ts, strict=True)}
    for images, targets in data.train_dataloader():
        for image, target in zip(images, targets, strict=True):
            assert torch.equal(image, plain[target["image_id"]].flip(-1))


def test_coco_data_module__epochs_differ_and_workers_change_nothing(folder):
    def sums(workers):
        data = data_module(folder, num_workers=workers)
        data.setup("fit")
        loader = data.train_dataloader()
        assert isinstance(loader.sampler, EpochSampler)
        found = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            found.append([int(image.sum()) for images, _ in loader for image in images])
        return found

    first, second = sums(0)
    assert first != second
    assert [first, second] == sums(2)


def test_coco_data_module__the_loader_draws_nothing_from_the_global_generator(folder):
    data = data_module(folder)
    data.setup("fit")
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    for loader in (data.train_dataloader(), data.val_dataloader()):
        list(loader)
    assert torch.equal(torch.rand(1), expected)


def test_coco_data_module__predicting_on_a_data_set(folder):
    data = data_module(folder)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert [t["image_id"] for _, targets in batches for t in targets] == [31, 32, 33]
    assert batches[0][1][0] == {"image_id": 31, "file_name": "31.png", "orig_size": (30, 40)}
    only_val = data_module(folder, "train", "val")
    only_val.setup("predict")
    assert image_ids(only_val.predict_dataloader()) == [21, 22, 23, 24]


def test_coco_data_module__predicting_on_images_needs_no_annotations(folder):
    data = CocoDataModule(predict=str(folder / "val"), num_workers=0)
    data.setup("predict")
    assert data.categories == []
    targets = [target for _, targets in data.predict_dataloader() for target in targets]
    assert [target["image_id"] for target in targets] == [1, 2, 3, 4]
    assert targets[0] == {"image_id": 1, "file_name": str(folder / "val" / "21.png"), "orig_size": (30, 40)}


def test_coco_data_module__predicting_on_images_does_not_read_the_annotations_of_training(folder):
    for name in ("train", "val", "test"):
        (folder / f"{name}.json").unlink()
    data = data_module(folder, predict=[str(folder / "val" / "21.png")])
    data.setup("predict")
    assert len(image_ids(data.predict_dataloader())) == 1
    assert data.categories == []


def test_coco_data_module__unreadable_images_to_predict_on_are_reported_together(folder):
    (folder / "val" / "bad.png").write_text("no image")
    (folder / "val" / "worse.jpg").touch()
    paths = [str(folder / "val"), str(folder / "gone.png")]
    with pytest.raises(DataError, match=r"paths without an image: 1\n.*gone\.png") as error:
        CocoDataModule(predict=paths).setup("predict")
    assert "unreadable image files: 2 (dropped)" in str(error.value)
    assert "bad.png: not an image" in str(error.value)
    data = CocoDataModule(predict=paths[0], num_workers=0)
    with pytest.warns(UserWarning, match="unreadable image files: 2"):
        data.setup("predict")
    assert len(image_ids(data.predict_dataloader())) == 4
    with pytest.raises(DataError, match="strict=True"):
        CocoDataModule(predict=paths[0], strict=True).setup("predict")
    with pytest.raises(DataError, match="no image that can be used"):
        CocoDataModule(predict=str(folder / "val" / "bad.png")).setup("predict")


def test_coco_data_module__an_exif_turned_image_is_predicted_on_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    data = CocoDataModule(predict=str(tmp_path), num_workers=0)
    data.setup("predict")
    images, targets = next(iter(data.predict_dataloader()))
    assert images[0].shape == (3, 40, 30)
    assert targets[0]["orig_size"] == (40, 30)


def fake_digits(folder):
    for name, number in (("train", 6), ("val", 3)):
        write_noise(folder, number, name)


def test_demo__is_made_once_in_its_folder(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "lit_dense.data.digits.write_digits", lambda folder: (calls.append(folder), fake_digits(folder))
    )
    data = CocoDataModule(tmp_path, demo=True, num_workers=0, batch_size=2)
    assert data.num_classes == 2  # before Lightning calls prepare_data
    data.prepare_data()
    data.setup("fit")
    assert calls == [tmp_path / "digits"]
    assert len(image_ids(data.val_dataloader())) == 3


def test_demo__another_process_may_make_it_first(tmp_path, monkeypatch):
    def faster(folder):
        fake_digits(folder)
        raise FileExistsError(folder)

    monkeypatch.setattr("lit_dense.data.digits.write_digits", faster)
    assert CocoDataModule(tmp_path, demo=True).num_classes == 2


def test_demo__a_folder_with_other_files_is_none(tmp_path, monkeypatch):
    def refuse(folder):
        raise FileExistsError(folder)

    monkeypatch.setattr("lit_dense.data.digits.write_digits", refuse)
    with pytest.raises(FileExistsError):
        CocoDataModule(tmp_path, demo=True).prepare_data()


def test_coco_data_module__two_processes_see_the_batches_of_one(folder):
    first, second = (batches_of(folder, rank, 2) for rank in range(2))
    alone = batches_of(folder, 0, 1)
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [sorted(batch) for batch in alone]
    assert len(alone) == 4
    assert alone[:2] != alone[2:]


class Processes:
    """What the data module asks a trainer."""

    def __init__(self, rank, world_size):
        self.global_rank, self.world_size = rank, world_size


def batches_of(folder, rank, world_size):
    data = data_module(folder, batch_size=4 // world_size)
    data.trainer = Processes(rank, world_size)
    data.setup("fit")
    loader = data.train_dataloader()
    found = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for images, targets in loader:
            found.append([(t["image_id"], int(i.sum())) for i, t in zip(images, targets, strict=True)])
    return found


@pytest.mark.shared_data
def test_coco_data_module__real_data_is_repaired(bccd):
    files = {f"{split}_annotations": f"annotations/{split}.json" for split in ("train", "val", "test")}
    data = CocoDataModule(bccd, "images", num_workers=0, **files)
    with pytest.warns(UserWarning, match=r"annotation 2288 of image 171 .* has zero width") as caught:
        data.setup("fit")
    assert "annotation 3692" in str(caught[0].message)
    data.setup("test")
    assert [len(data.data[split]) for split in ("train", "val", "test")] == [205, 87, 72]
    assert [len(data.data[split].boxes) for split in ("train", "val", "test")] == [2804, 1137, 945]
    assert [category["name"] for category in data.categories] == ["RBC", "WBC", "Platelets"]
    with pytest.raises(DataError, match="zero width and zero height"):
        CocoDataModule(bccd, "images", strict=True, **files).setup("fit")
