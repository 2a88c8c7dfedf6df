import pytest
import torch

from lit_dense.core.errors import UsageError
from lit_dense.data.label_map import LabelMap, label_categories, match_labels, offered_categories, unique_names


def named(*pairs):
    return [{"id": number, "name": name} for number, name in pairs]


MODEL = named((1, "red"), (2, "blue"), (5, "green"))


@pytest.mark.parametrize(
    ("data", "columns", "notes"),
    [
        (MODEL, (0, 1, 2), []),
        (
            named((1, "blue"), (2, "red"), (5, "green")),
            (1, 0, 2),
            ["1 blue, 2 red, the model 2 blue, 1 red", "data's ids"],
        ),
        (
            named((11, "red"), (12, "blue"), (15, "green")),
            (0, 1, 2),
            ["11 red, 12 blue, 15 green, the model 1 red, 2 b"],
        ),
        (named((5, "green"), (1, "red"), (2, "blue")), (2, 0, 1), ["in another order"]),
        (named((2, "blue")), (1,), ["Of the model's 3 classes the data does not have 'red', 'green'"]),
        (named((1, "green")), (2,), ["1 green, the model 5 green", "does not have 'red', 'blue'"]),
        (named((0, ""), (1, "red"), (2, "blue"), (3, ""), (4, ""), (5, "green")), (-1, 0, 1, -1, -1, 2), []),
    ],
)
def test_match_labels__by_id_and_name(data, columns, notes):
    found = match_labels(MODEL, data, 3)
    assert found.columns == columns
    assert found.categories == data
    assert all(note in found.note for note in notes)
    assert bool(found.note) == bool(notes)
    assert "\n" not in found.note
    found.check()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (named((1, "red"), (3, "black")), r"The model does not know 'black' \(id 3\)\."),
        (named((1, "red"), (2, "yellow")), r"does not know 'yellow' \(id 2\); its id 2 is 'blue'\."),
        (named((1, "red"), (2, "bleu")), r"'bleu' \(id 2\); its id 2 is 'blue'\. Did you mean 'blue'\?"),
        (named((1, "Red")), r"'Red' \(id 1\) differs from the model's 'red' in case or spaces only"),
        (named((1, " red")), "in case or spaces only"),
        (named((1, "r ed")), "in case or spaces only"),
        (named((1, "red"), (2, "red")), "1 red, 2 red of the data are one class of the model, 1 red"),
        (
            named(*((i, f"x{i}") for i in range(30))),
            r"'x4' \(id 4\)\.( Did you mean .*)? And 25 more\. .*19 x19 and 10 more",
        ),
    ],
)
def test_match_labels__other_classes_are_refused_with_both_lists_and_the_cure(data, reason):
    found = match_labels(MODEL, data, 3)
    with pytest.raises(UsageError, match=reason) as error:
        found.check()
    said = str(error.value)
    assert "The model has 1 red, 2 blue, 5 green. The data has " in said
    assert "use the model's names in the annotation file" in said
    assert "start without the checkpoint" in said
    assert "\n" not in said
    for translate in (found.in_columns, found.in_labels):  # a hook of a subclass may have left out the check
        with pytest.raises(UsageError, match="not those of the model"):
            translate([])


def test_match_labels__classes_of_one_name_are_distinguished_by_id():
    model = named((1, "car"), (2, "car"), (3, "bus"))
    assert match_labels(model, named((2, "car"), (3, "bus")), 3).columns == (1, 2)
    assert "2 classes named 'car', none of them with the id 7" in match_labels(model, named((7, "car")), 3).problem


def test_match_labels__columns_of_torchvisions_weights_are_found_by_name():
    model = named((0, "__background__"), (1, "person"), (2, "N/A"), (3, "car"))
    for data, columns in (
        (named((1, "person"), (3, "car")), (1, 3)),
        (named((0, ""), (1, "person"), (2, ""), (3, "car")), (-1, 1, -1, 3)),
    ):
        found = match_labels(model, data, 4)
        assert (found.columns, found.note, found.problem) == (columns, "", "")


def test_match_labels__a_model_without_names_takes_labels_as_they_are():
    found = match_labels(None, named((4, "a"), (7, "b")), 3)
    assert found.columns == (0, 1)
    assert "not their names" in found.note
    assert "4 a, 7 b as columns 0 to 1" in found.note
    assert (
        "3 classes, but num_classes=2: the head has no column for 'c'"
        in match_labels(None, named((1, "a"), (2, "b"), (3, "c")), 2).problem
    )


def test_match_labels__data_without_categories_use_columns():
    found = match_labels(MODEL, None, 3)
    assert (found.columns, found.categories, found.num_labels) == (None, MODEL, 3)
    assert match_labels(None, None, 4) == LabelMap(4)
    reserve = match_labels(MODEL, None, 5)  # columns that nothing was trained for have no name to be written with
    assert reserve.in_labels({"labels": torch.tensor([0, 4, 2])})["labels"].tolist() == [0, 2]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_label_map__targets_and_detections_are_translated(dtype):
    found = match_labels(MODEL, named((1, "green"), (2, "red")), 3)
    target = {
        "labels": torch.tensor([0, 1, 1], dtype=dtype),
        "neg_labels": torch.tensor([1]),
        "unknown_labels": torch.tensor([0]),
        "boxes": torch.ones(3, 4),
    }
    (moved,) = found.in_columns([target])
    assert moved["labels"].tolist() == [2, 0, 0]
    assert moved["labels"].dtype == dtype
    assert moved["neg_labels"].tolist() == [0]
    assert moved["unknown_labels"].tolist() == [2]
    assert moved["boxes"] is target["boxes"]
    assert target["labels"].tolist() == [0, 1, 1]
    detections = {"labels": torch.tensor([0, 1, 2], dtype=dtype), "scores": torch.tensor([0.9, 0.8, 0.7])}
    kept = found.in_labels(detections)
    assert kept["labels"].tolist() == [1, 0]
    torch.testing.assert_close(kept["scores"], torch.tensor([0.9, 0.7]))
    assert found.in_columns([{"labels": torch.empty(0, dtype=dtype)}])[0]["labels"].numel() == 0


def test_label_map__an_identity_changes_nothing():
    found = match_labels(MODEL, MODEL, 3)
    targets, detections = [{"labels": torch.tensor([1])}], {"labels": torch.tensor([2])}
    assert found.in_columns(targets) is targets
    assert found.in_labels(detections) is detections


def test_label_map__numbers_of_columns_are_put_in_the_order_of_labels():
    found = match_labels(MODEL, named((0, ""), (1, "green"), (2, "red")), 3)
    assert found.of_labels([10, 20, 30]) == [0, 30, 10]
    assert found.of_labels([10]) == [0, 0, 10]
    assert LabelMap(2).of_labels([10, 20]) == [10, 20]


@pytest.mark.parametrize(
    "categories", [None, [], "red", ["red", "blue"], {1: "red"}, [{"name": "red"}], [{"id": 1}], 5]
)
def test_offered_categories__other_data_modules_need_not_have_any(categories):
    class Data:
        pass

    data = Data()
    data.categories = categories
    assert offered_categories(data) is None
    assert offered_categories(None) is None
    data.categories = ({"id": 1, "name": "red", "supercategory": "colour"},)
    assert offered_categories(data) == named((1, "red"))


def test_label_categories__of_any_module():
    class Module:
        categories = MODEL

    assert label_categories(Module()) == MODEL
    Module.data_categories = named((1, "red"))
    assert label_categories(Module()) == named((1, "red"))
    assert label_categories(object()) is None


def test_unique_names__of_labels_differ():
    assert unique_names(named((1, "a"), (2, "a"), (3, ""), (4, "b"))) == ["a (1)", "a (2)", "unused 3", "b"]
