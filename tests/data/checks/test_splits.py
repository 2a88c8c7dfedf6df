import pytest

from lit_dense.data import check
from tests.builders.coco_files import box_entry, image_entry, write_image, write_json, write_noise
from tests.builders.data_modules import data_module


def test_setup__warns_of_an_evaluation_set_that_is_the_training_set(folder):
    data = data_module(folder, "train", val_annotations="train.json")
    with pytest.warns(UserWarning, match=r"The data has problems[^!]*- all images of val that are in train too: 8"):
        data.setup("fit")


def test_setup__compares_a_stage_alone_by_the_file_it_shares(folder):
    data = data_module(folder, "train", test_images="train", test_annotations="../" + folder.name + "/train.json")
    with pytest.warns(UserWarning, match="the annotations of test are those of train"):
        data.setup("test")


def test_setup__does_not_repeat_a_warning_in_a_later_stage(folder, recwarn):
    data = data_module(folder, "train", val_annotations="train.json", test_images="test", test_annotations="test.json")
    data.setup("fit")
    data.setup("validate")
    data.setup("test")
    assert len([w for w in recwarn if "The data has problems" in str(w.message)]) == 1


def test_setup__compares_a_split_that_was_read_before_too(folder):
    write_json(folder / "val.json", [image_entry(1)], [box_entry(1, 1)])
    data = data_module(folder, "train", val_images="train", val_annotations="val.json")
    data.setup("validate")
    with pytest.warns(UserWarning, match="all images of val that are in train too: 1"):
        data.setup("fit")


def test_setup__a_split_of_one_file_keeps_copies_of_an_image_together(folder):
    images, annotations = [], []
    for number in range(1, 25):
        name = f"p{number % 8}_jpg.rf.{number}.png"
        write_image(folder / "train" / name, seed=number)
        images.append(image_entry(number, file_name=name))
        annotations.append(box_entry(number, number, category_id=3 + 4 * (number % 2)))
    write_json(folder / "train.json", images, annotations)
    data = data_module(folder, "train", val_split=0.25)
    data.setup("fit")
    sources = {split: {name.split("_")[0] for name in data.data[split].file_names} for split in ("train", "val")}
    assert len(data.data["val"]) == 6
    assert not sources["train"] & sources["val"]


def test_setup__crowds_alone_stop_a_fit_with_an_error_of_one_line(folder):
    write_json(folder / "train.json", [image_entry(n) for n in (1, 2)], [box_entry(1, 1, iscrowd=1)])
    with pytest.raises(ValueError, match=r"^The data cannot be used: all boxes of train are crowds .*nothing to train"):
        data_module(folder, "train").setup("fit")


@pytest.mark.parametrize("small", [0.6, 0.3])
def test_setup__training_evaluation_and_class_counts_agree_on_small_boxes(folder, small):
    boxes = [box_entry(n, 1, (3 * n, 5, small if n % 2 else 8, 9)) for n in range(1, 9)]
    write_json(folder / "train.json", [image_entry(1)], boxes)
    for transforms in ([], None):
        data = data_module(folder, "train", val_annotations="train.json", transforms=transforms, batch_size=1)
        with pytest.warns(UserWarning, match="boxes smaller than a pixel: 4"):
            data.setup("fit")
        data.transforms = data.transforms and data.transforms.transforms[0]  # the flip: the others may crop
        assert data.class_counts.instances.sum() == 8
        for loader in (data.train_dataloader(), data.val_dataloader()):
            assert [len(target["boxes"]) for _, targets in loader for target in targets] == [8]


def test_check__finds_copies_by_content_and_fit_does_not_look_for_them(folder):
    write_noise(folder, 3, "val", first_id=1)  # the first three pictures of train again
    report = check(data_module(folder, "train", "val"))
    assert "all images of val that are in train too under another name (the files are equal): 3" in report.text
    assert "kinds of problems that are left as they are: 1" in report.text
    assert report.ok
