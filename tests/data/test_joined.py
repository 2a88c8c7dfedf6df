"""Several data sets as one: classes by name, and classes that a source is not annotated for."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lit_dense.augmentations import Augmentation, Picture
from lit_dense.core.errors import UsageError
from lit_dense.data import CocoDataModule, DataError, check, convert
from tests.builders.coco_files import box_entry, image_entry, write_image, write_json
from tests.builders.format_files import write_yolo

CARS = [{"id": 4, "name": "car"}, {"id": 9, "name": "dog"}]
SIGNS = [{"id": 1, "name": "sign"}, {"id": 2, "name": "car"}]


def write_source(folder, categories, classes, split="train", number=4):
    """A COCO data set in ``folder``; image i has a box of class ``classes[i % n]`` by index, or none for None."""
    images, annotations = [], []
    for index in range(number):
        write_image(folder / split / f"{index}.png", seed=len(str(folder)) + index)
        images.append(image_entry(index + 1, file_name=f"{index}.png"))
        label = classes[index % len(classes)]
        if label is not None:
            annotations.append(box_entry(index + 1, index + 1, category_id=categories[label]["id"]))
    write_json(folder / f"{split}.json", images, annotations, categories)


def coco(root, *splits, **more):
    files = {}
    for split in splits or ("train",):
        files |= {f"{split}_images": split, f"{split}_annotations": f"{split}.json"}
    return {"root": root, **files, **more}


def joined(folder, *sources, **options):
    return CocoDataModule(folder, join=list(sources), **{"num_workers": 0, "batch_size": 2, "transforms": []} | options)


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val"):
        write_source(tmp_path / "cars", CARS, [0, 1, None], split)
        write_source(tmp_path / "signs", SIGNS, [0, 0, 1], split)
    write_yolo(tmp_path / "pets")
    return tmp_path


def targets_of(loader):
    return {target["file_name"]: target for _, targets in loader for target in targets}


def test_join__classes_are_united_by_name_in_the_order_of_their_first_appearance(root):
    data = joined(root, coco("cars"), coco("signs"), {"root": "pets", "train_annotations": "data.yaml"})
    data.setup("fit")
    assert [c["name"] for c in data.categories] == ["car", "dog", "sign", "cat"]
    assert [c["id"] for c in data.categories] == [1, 2, 3, 4]
    assert data.class_counts.instances.tolist() == [2 + 1, 1 + 1, 3, 2]
    assert data.formats == {"train": "coco + yolo"}
    found = targets_of(data.train_dataloader())
    assert len(found) == 4 + 4 + 3 - 1  # an incomplete batch is dropped
    assert {name.split("/")[0] for name in found} == {"cars", "signs", "pets"}
    of_source = {"cars": [2, 3], "signs": [1, 3], "pets": [0, 2]}
    for name, target in found.items():
        assert target["unknown_labels"].tolist() == of_source[name.split("/")[0]]
        assert not set(target["labels"].tolist()) & set(target["unknown_labels"].tolist())
    labels = {name: target["labels"].tolist() for name, target in found.items()}
    assert all(labels[name] == [0] for name in ("cars/train/0.png", "signs/train/2.png") if name in labels)


def test_join__image_ids_are_unique(root):
    data = joined(root, coco("cars"), coco("signs"))
    data.setup("fit")
    assert data.data["train"].image_ids.tolist() == list(range(1, 9))
    content = json.loads((root / "signs" / "train.json").read_text())
    for entry in (*content["images"], *content["annotations"]):
        entry["id" if "file_name" in entry else "image_id"] += 100
    (root / "signs" / "train.json").write_text(json.dumps(content))
    data = joined(root, coco("cars"), coco("signs"))
    data.setup("fit")
    assert data.data["train"].image_ids.tolist() == [1, 2, 3, 4, 101, 102, 103, 104]


def test_join__a_single_source_has_the_batches_of_the_data_set_alone(root):
    alone = CocoDataModule(**coco(root / "cars"), num_workers=0, transforms=[])
    together = joined(root, coco("cars"), batch_size=4)
    for data in (alone, together):
        data.setup("fit")
    pairs = zip(alone.train_dataloader(), together.train_dataloader(), strict=True)
    for (images, targets), (same_images, same_targets) in pairs:
        assert all(torch.equal(a, b) for a, b in zip(images, same_images, strict=True))
        assert [t["labels"].tolist() for t in targets] == [t["labels"].tolist() for t in same_targets]
        assert all(not len(t["unknown_labels"]) for t in same_targets)


def test_join__rename_unites_classes_of_different_names(root):
    data = joined(root, coco("cars"), coco("signs", rename={"sign": "dog"}))
    data.setup("fit")
    assert [c["name"] for c in data.categories] == ["car", "dog"]
    assert data.class_counts.instances.tolist() == [3, 4]
    swapped = joined(root, coco("signs", rename={"sign": "car", "car": "sign"}))
    assert [c["name"] for c in swapped.categories] == ["car", "sign"]


def test_join__rename_to_one_name_unites_two_classes_of_a_source(root):
    data = joined(root, coco("cars", rename={"dog": "thing", "car": "thing"}))
    data.setup("fit")
    assert data.class_counts.instances.tolist() == [3]


def test_join__classes_that_files_list_in_vain_are_unknown(root):
    more = [*SIGNS, {"id": 3, "name": "dog"}]
    content = json.loads((root / "signs" / "train.json").read_text())
    write_json(root / "signs" / "train.json", content["images"], content["annotations"], more)
    report = check(joined(root, coco("cars"), coco("signs")))
    assert "classes that it lists without a box, and that another source has" in report.text
    assert "set not_annotated: [dog]" in report.text
    data = joined(root, coco("cars"), coco("signs", not_annotated=["dog"]))
    data.setup("fit")
    unknown = {n: t["unknown_labels"].tolist() for n, t in targets_of(data.train_dataloader()).items()}
    assert {name.split("/")[0]: labels for name, labels in unknown.items()} == {"cars": [2], "signs": [1]}
    assert "not_annotated: [dog]" not in check(data).text


def test_join__boxes_of_a_class_that_is_not_annotated_are_an_error(root):
    with pytest.raises(DataError, match=r"classes in not_annotated of cars that have boxes[^!]*dog: 1 boxes"):
        joined(root, coco("cars", not_annotated=["dog"]), coco("signs")).setup("fit")


def test_join__validation_and_test_know_the_classes_of_their_source(root):
    write_source(root / "signs", SIGNS[:1], [0], "test")  # lists fewer classes, as files without ids do
    data = joined(root, coco("cars", "train", "val"), coco("signs", "train", "test"))
    data.setup("fit")
    data.setup("test")
    found = targets_of(data.val_dataloader())
    assert {tuple(target["unknown_labels"].tolist()) for target in found.values()} == {(2,)}
    assert [t["labels"].tolist() for t in found.values()] == [[0], [1], [], [0]]
    tested = targets_of(data.test_dataloader())
    assert {tuple(target["unknown_labels"].tolist()) for target in tested.values()} == {(1,)}
    assert {name.split("/")[0] for name in tested} == {"signs"}


def test_join__a_test_file_with_new_classes_is_an_error(root):
    write_source(root / "signs", [*SIGNS, {"id": 7, "name": "tram"}], [2], "test")
    data = joined(root, coco("cars"), coco("signs", "train", "test"))
    data.setup("fit")  # does not read the test file
    assert [c["name"] for c in data.categories] == ["car", "dog", "sign"]
    with pytest.raises(DataError, match="category 4: tram here, none there"):
        data.setup("test")


def test_join__val_split_takes_images_of_all_sources(root):
    data = joined(root, coco("cars"), coco("signs"), val_split=0.5)
    data.setup("fit")
    train, val = (data.data[split].file_names for split in ("train", "val"))
    assert len(train) + len(val) == 8
    assert {name.split("/")[0] for name in val} == {"cars", "signs"}
    for target in targets_of(data.val_dataloader()).values():
        assert target["unknown_labels"].tolist() == ([2] if target["file_name"].startswith("cars") else [1])


def test_join__background_images_know_all_classes(root):
    write_image(root / "empty" / "1.png")
    data = joined(root, coco("cars"), coco("signs"), background_images="empty", batch_size=9)
    data.setup("fit")
    found = targets_of(data.train_dataloader())
    assert found[str((root / "empty" / "1.png").resolve())]["unknown_labels"].tolist() == []


def test_join__weights_are_read_from_all_sources(root):
    content = json.loads((root / "cars" / "train.json").read_text())
    content["annotations"][0]["hardness"] = 3.0
    (root / "cars" / "train.json").write_text(json.dumps(content))
    data = joined(root, coco("cars"), coco("signs"), weight_key="hardness")
    data.setup("fit")
    assert data.data["train"].weight.tolist() == [3, 1, 1, 1, 1, 1, 1]


def test_join__lists_of_lvis_and_of_sources(root):
    content = json.loads((root / "cars" / "train.json").read_text())
    for entry in content["images"]:
        entry |= {"neg_category_ids": [9], "not_exhaustive_category_ids": []}
    (root / "cars" / "train.json").write_text(json.dumps(content))
    data = joined(root, coco("cars"), coco("signs"), batch_size=8)
    data.setup("fit")
    found = targets_of(data.train_dataloader())
    assert found["cars/train/0.png"]["neg_labels"].tolist() == [1]
    assert found["signs/train/0.png"]["neg_labels"].tolist() == [0]  # it shows a sign, and no car
    assert found["signs/train/0.png"]["not_exhaustive_labels"].tolist() == []


@pytest.mark.parametrize("name", ["mosaic", "mixup", "copy_paste"])
def test_join__combined_images_are_annotated_for_the_classes_of_their_first_image(root, name):
    chosen = [{"class_path": name, "init_args": {"p": 1.0}}]
    data = joined(root, coco("cars"), coco("signs"), augmentation=chosen, batch_size=8)
    data.setup("fit")
    loader = data.train_dataloader()
    shown = set()
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        for file_name, target in targets_of(loader).items():
            source = file_name.split("/")[0]
            assert target["unknown_labels"].tolist() == {"cars": [2], "signs": [1]}[source]
            assert not set(target["labels"].tolist()) & set(target["unknown_labels"].tolist())
            shown |= {(source, label) for label in target["labels"].tolist()}
    assert shown == {("cars", 0), ("cars", 1), ("signs", 0), ("signs", 2)}
    for _ in range(8):  # without a sampler's draws
        _, target = loader.dataset[0]
        assert target["unknown_labels"].tolist() == [2]


class Dimmed(Augmentation):
    """Somebody's own augmentation, which knows nothing of unknown classes."""

    def __init__(self):
        super().__init__(1.0, 1.0)

    def forward(self, picture, partners, images, rng):
        return Picture(picture.image // 2, picture.boxes, picture.fields)


def test_join__an_augmentation_of_somebodys_own_keeps_the_unknown_classes(root):
    data = joined(root, coco("cars"), coco("signs"), augmentation=[Dimmed(), "mosaic"], batch_size=8)
    data.setup("fit")
    for file_name, target in targets_of(data.train_dataloader()).items():
        assert target["unknown_labels"].tolist() == ([2] if file_name.startswith("cars") else [1])


def test_join__the_mirror_image_of_an_unknown_class_is_unknown(root):
    sides = [{"id": 1, "name": "left"}, {"id": 2, "name": "right"}]
    write_source(root / "both", sides, [0, 1])
    write_source(root / "one", sides[:1], [0])
    sources = coco("both"), coco("one")
    data = joined(root, *sources, flip_pairs=[["left", "right"]], transforms=None, batch_size=8)
    data.setup("fit")
    found = targets_of(data.train_dataloader())
    assert found["one/train/0.png"]["unknown_labels"].tolist() == [0, 1]
    assert found["both/train/0.png"]["unknown_labels"].tolist() == []


def seen_by(root, rank, world_size):
    chosen = ["mosaic", {"class_path": "copy_paste", "init_args": {"p": 1.0}}]
    data = joined(root, coco("cars"), coco("signs"), augmentation=chosen, sampler="repeat_factor", cache="ram")
    data.batch_size = 4 // world_size
    data.setup("fit")
    data.trainer = SimpleNamespace(
        **{"world_size": world_size, "global_rank": rank, "max_epochs": 2, "max_steps": -1, "num_devices": 1},
        **{"limit_train_batches": 1.0, "accumulate_grad_batches": 1},
    )
    return [
        (int(image.long().sum()), target["image_id"], target["labels"].tolist(), target["unknown_labels"].tolist())
        for images, targets in data.train_dataloader()
        for image, target in zip(images, targets, strict=True)
    ]


def test_join__processes_together_see_the_images_of_one(root):
    together = [sample for rank in range(2) for sample in seen_by(root, rank, 2)]
    assert sorted(together) == sorted(seen_by(root, 0, 1))


def test_join__is_reported_by_check(root):
    text = check(joined(root, coco("cars", "train", "val"), coco("signs", "train", name="road signs"))).text
    assert "train: 8 images, 7 boxes" in text
    assert "  source         images      boxes  unknown classes" in text
    assert "  cars                4          3  sign\n  road signs          4          4  dog\n" in text
    assert "  class      boxes   share     images       cars  road signs\n" in text
    assert "  sign           3   42.9%          3    unknown           3\n" in text
    assert "val: 4 images, 3 boxes" in text


def test_join__names_that_differ_in_case_only_are_asked_about(root):
    report = check(joined(root, coco("cars"), coco("signs", rename={"car": "Car "})))
    assert report.ok
    assert "classes of joined data with names that differ only in case, spaces or hyphens: 1" in report.text
    assert "'car' of cars, 'Car ' of signs" in report.text
    assert "rename: {Car : car}" in report.text
    with pytest.warns(UserWarning, match="differ only in case"):
        joined(root, coco("cars"), coco("signs", rename={"car": "Car "})).setup("fit")


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], r"join is a list of sources"),
        ({"root": "cars"}, r"join is a list of sources"),
        (["cars"], r"join, source 1 is 'cars'; expected are keys and values: name, root, "),
        ([{"root": "cars"}], r"join, source 1 has no files: give it train_annotations"),
        ([coco("cars", renamed={})], r"join, source 1 has the key 'renamed'. Did you mean 'rename'\?"),
        ([coco("cars"), {"train_annotations": "a.json"}], r"join, source 2: train_annotations needs train_images"),
        ([coco(5)], r"join, source 1: root is a path, not 5"),
        ([coco("cars", rename=["a"])], r"source 1: rename gives new names to classes, such as \{auto: car\}"),
        ([coco("cars", rename={"car": None})], r"source 1: rename gives new names"),
        ([coco("cars", not_annotated="car")], r"source 1: not_annotated is a list of names"),
    ],
)
def test_join__sources_of_another_form_are_named(root, sources, message):
    with pytest.raises(UsageError, match=message):
        CocoDataModule(root, join=sources)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_images": "a"}, "join and train_images were given: with join, all files are in its sources"),
        ({"demo": True}, "join and demo were given"),
        ({"labels": "category_id"}, "join and labels=category_id were given"),
    ],
)
def test_join__does_not_go_with_other_files(root, options, message):
    with pytest.raises(UsageError, match=message):
        joined(root, coco("cars"), **options)


def test_join__names_of_classes_that_do_not_exist_are_reported_together(root):
    sources = coco("cars", rename={"cra": "auto"}), coco("signs", not_annotated=["sing"])
    with pytest.raises(DataError) as error:
        joined(root, *sources).setup("fit")
    assert "data.join, cars\n  ! rename has classes that its files do not have: 1" in str(error.value)
    assert "'cra'. Did you mean 'car'?" in str(error.value)
    assert "'sing'. Did you mean 'sign'?" in str(error.value)
    assert "cure: its classes are sign, car" in str(error.value)


def test_join__problems_of_all_sources_are_in_one_message(root):
    (root / "cars" / "train.json").write_text("broken")
    (root / "signs" / "train.json").unlink()
    with pytest.raises(DataError) as error:
        joined(root, coco("cars"), coco("signs")).setup("fit")
    assert "not JSON" in str(error.value)
    assert "no such file" in str(error.value)
    assert "rename" not in str(error.value)


def test_join__is_converted_source_by_source(root, tmp_path):
    with pytest.raises(UsageError, match="convert the sources of join singly"):
        convert(joined(root, coco("cars"), coco("signs")), "yolo", tmp_path / "out")


def test_join__sources_of_one_root_and_absolute_roots_have_names_of_their_own(root):
    data = joined(root / "cars", coco(root / "signs"), coco("", "train"), coco("", "val"))
    data.setup("fit")
    assert data.data["train"].origins.names == (str(root / "signs"), "train.json")
    assert data.data["train"].file_names[0] == str(root / "signs" / "train" / "0.png")
    assert data.data["train"].file_names[-1] == "train/3.png"
    repeated = joined(root, coco("cars"), coco("cars"))
    repeated.setup("fit")
    assert repeated.data["train"].origins.names == ("cars", "cars (2)")


def test_join__numbers_and_words_that_yaml_reads_as_other_types(root):
    data = joined(root, coco("cars", rename={"car": 1}))
    assert [c["name"] for c in data.categories] == ["1", "dog"]


def test_origins__follow_a_selection_of_images(root):
    data = joined(root, coco("cars"), coco("signs"))
    data.setup("fit")
    part = data.data["train"].select(np.array([6, 0]))
    assert part.origins.source_idxs.tolist() == [1, 0]
    assert part.groups.of_image.tolist() == [1, 0]
    assert not (part.groups.partners & ~np.eye(2, dtype=bool)).any()
