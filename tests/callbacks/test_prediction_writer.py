"""The writer of predictions, called as a trainer calls it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lit_dense.callbacks import PredictionWriter, prediction_writer
from lit_dense.core.errors import UsageError
from tests.builders.trainers import CollectiveTrainer, FakeTrainer

CATEGORIES = [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]
FOUND = {
    "boxes": torch.tensor([[1.0, 2.0, 31.0, 22.5], [4.0, 5.0, 6.0, 7.0]]),
    "labels": torch.tensor([1, 0]),
    "scores": torch.tensor([0.9, 0.123456]),
}
NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}


@pytest.fixture
def said(monkeypatch):
    """What the writer logs."""
    lines = []
    for name in ("rank_zero_info", "rank_zero_warn"):
        monkeypatch.setattr(prediction_writer, name, lambda text: lines.append(text))
    return lines


def predict(
    folder, predictions=({**FOUND, "image_id": 5, "file_name": "x/y.png"},), module=None, loaders=(0,), **arguments
):
    """All predictions in one batch for each loader."""
    writer = PredictionWriter(**arguments)
    trainer, module = FakeTrainer(folder), module or SimpleNamespace(categories=CATEGORIES)
    writer.on_predict_start(trainer, module)
    images = [torch.full((3, 16, 16), 250, dtype=torch.uint8)] * len(predictions)
    for loader in loaders:
        writer.write_on_batch_end(trainer, module, list(predictions), None, (images, None), 0, loader)
    writer.on_predict_end(trainer, module)
    return writer


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_prediction_writer__writes_coco_results(tmp_path, said):
    predict(tmp_path)
    assert json.loads((tmp_path / "predictions.json").read_text()) == [
        {"image_id": 5, "file_name": "x/y.png", "category_id": 7, "bbox": [1.0, 2.0, 30.0, 20.5], "score": 0.9},
        {"image_id": 5, "file_name": "x/y.png", "category_id": 3, "bbox": [4.0, 5.0, 2.0, 2.0], "score": 0.12346},
    ]
    assert said == [f"2 detections of 1 images: {tmp_path / 'predictions.json'}"]
    assert names_in(tmp_path) == ["predictions.json"]


def test_prediction_writer__without_categories_writes_labels(tmp_path):
    predict(tmp_path, module=SimpleNamespace(categories=None))
    assert [row["category_id"] for row in json.loads((tmp_path / "predictions.json").read_text())] == [1, 0]


def test_prediction_writer__sorts_images_by_id_and_rounds_numbers(tmp_path):
    boxes = torch.tensor([[0.12345, 0.0, 1.0, 1.0]])
    images = [
        {**FOUND, "boxes": boxes, "labels": torch.tensor([0]), "scores": torch.ones(1), "image_id": i} for i in (9, 2)
    ]
    predict(tmp_path, images)
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert [row["image_id"] for row in rows] == [2, 9]
    assert rows[0]["bbox"] == [0.123, 0.0, 0.877, 1.0]


def test_prediction_writer__a_second_prediction_starts_anew(tmp_path):
    writer = predict(tmp_path)
    writer.on_predict_start(FakeTrainer(tmp_path), None)
    writer.on_predict_end(FakeTrainer(tmp_path), None)
    assert json.loads((tmp_path / "predictions.json").read_text()) == []


def test_prediction_writer__the_module_unpacks_its_batches(tmp_path):
    writer, trainer = PredictionWriter(pictures=True), FakeTrainer(tmp_path)
    module = SimpleNamespace(unpack_batch=lambda batch: (batch["images"], None))
    writer.on_predict_start(trainer, module)
    batch = {"images": [torch.zeros(3, 8, 8)]}
    writer.write_on_batch_end(trainer, module, [{**FOUND, "image_id": 1}], None, batch, 0, 0)
    writer.on_predict_end(trainer, module)
    assert names_in(tmp_path) == ["predictions.json", "predictions/1_.png"]


# Where it goes


@pytest.mark.parametrize(
    ("path", "file", "pictures"),
    [
        ("out", "out.json", "out"),
        ("out.json", "out.json", "out"),
        ("a/b/out.json", "a/b/out.json", "a/b/out"),
        ("out.v2.txt", "out.v2.txt", "out.v2"),
        ("there", "there/predictions.json", "there/predictions"),
        ("there/", "there/predictions.json", "there/predictions"),
        ("new/", "new/predictions.json", "new/predictions"),
        ("", "predictions.json", "predictions"),
        (".", "predictions.json", "predictions"),
        ("there.json", "there.json/predictions.json", "there.json/predictions"),
    ],
)
def test_prediction_writer__the_file_and_the_images_have_separate_places(tmp_path, said, path, file, pictures):
    (tmp_path / "there").mkdir()
    (tmp_path / "there.json").mkdir()
    predict(tmp_path, path=path, pictures=True)
    assert names_in(tmp_path) == sorted([file, f"{pictures}/5_y.png"])
    assert said == [f"2 detections of 1 images: {tmp_path / file}", f"Images with detections: {tmp_path / pictures}"]


def test_prediction_writer__takes_an_absolute_path_and_the_users_folder_as_they_are(tmp_path, monkeypatch):
    predict(tmp_path / "run", path=str(tmp_path / "other" / "out.json"))
    monkeypatch.setenv("HOME", str(tmp_path))
    predict(tmp_path / "run", path="~/home.json")
    predict(tmp_path / "run", path="~nobody-of-this-name.json")
    assert names_in(tmp_path) == ["home.json", "other/out.json", "run/~nobody-of-this-name.json"]


def test_prediction_writer__without_a_logger_writes_to_the_trainers_folder(tmp_path):
    writer, trainer = (
        PredictionWriter(),
        FakeTrainer(None, default_root_dir=str(tmp_path)),
    )
    writer.on_predict_start(trainer, None)
    writer.on_predict_end(trainer, None)
    assert names_in(tmp_path) == ["predictions.json"]


@pytest.mark.parametrize(
    ("path", "pictures", "reason"),
    [
        ("file/out.json", False, "Not a directory|File exists"),
        ("file.json", True, "the images' folder .*file is a file"),
        ("/proc/nowhere/out.json", False, "/proc/nowhere"),
        ("x" * 300 + ".json", False, "File name too long"),
        ("/dev/full/out.json", True, "Not a directory|File exists"),
    ],
)
def test_prediction_writer__an_impossible_path_is_an_error_before_predicting(tmp_path, path, pictures, reason):
    (tmp_path / "file").write_text("mine")
    writer = PredictionWriter(path, pictures)
    with pytest.raises(UsageError, match=f"cannot be written to --predictions.path={path}: .*({reason})") as error:
        writer.on_predict_start(FakeTrainer(tmp_path), None)
    assert "\n" not in str(error.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_prediction_writer__the_check_for_writing_leaves_nothing_and_changes_nothing(tmp_path):
    PredictionWriter("a/new.json", pictures=True).on_predict_start(FakeTrainer(tmp_path), None)
    assert names_in(tmp_path) == []
    (tmp_path / "old.json").write_text("[1]")
    PredictionWriter("old.json").on_predict_start(FakeTrainer(tmp_path), None)
    assert (tmp_path / "old.json").read_text() == "[1]"


def test_prediction_writer__makes_a_folder_again_that_was_removed_meanwhile(tmp_path):
    writer, trainer = PredictionWriter("a/out.json"), FakeTrainer(tmp_path)
    writer.on_predict_start(trainer, None)
    (tmp_path / "a").rmdir()
    writer.on_predict_end(trainer, None)
    assert names_in(tmp_path) == ["a/out.json"]


def test_prediction_writer__a_file_that_can_no_longer_be_written_goes_elsewhere(tmp_path, said, monkeypatch):
    monkeypatch.setattr(prediction_writer.tempfile, "tempdir", str(tmp_path / "spare"))
    (tmp_path / "spare").mkdir()
    writer, trainer = PredictionWriter("a/out.json"), FakeTrainer(tmp_path)
    writer.on_predict_start(trainer, None)
    (tmp_path / "a").rmdir()
    (tmp_path / "a").write_text("in the way")
    writer.write_on_batch_end(trainer, None, [{**FOUND, "image_id": 1}], None, ([torch.zeros(3, 8, 8)], None), 0, 0)
    writer.on_predict_end(trainer, None)
    (rescued,) = (tmp_path / "spare").rglob("out.json")
    assert len(json.loads(rescued.read_text())) == 2
    assert f"could not be written (File exists); the predictions are in {rescued}." in said[0]


# Pictures


def test_prediction_writer__draws_detections_of_enough_score(tmp_path):
    predict(tmp_path, pictures=True, score_thresh=0.5)
    with Image.open(tmp_path / "predictions" / "5_y.png") as picture:
        assert picture.size == (480, 480)
        image = np.asarray(picture)
    coloured = {tuple(colour) for colour in image.reshape(-1, 3).tolist()}
    assert (0x56, 0xB4, 0xE9) in coloured  # class 1
    assert (0xE6, 0x9F, 0x00) not in coloured  # class 0, of a low score


def test_prediction_writer__predictions_survive_drawing_that_fails(tmp_path, said, monkeypatch):
    def full(self, path):
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    predict(tmp_path, [{**FOUND, "image_id": 1}, {**FOUND, "image_id": 2}], pictures=True)
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 4
    assert said[-1] == "2 images could not be drawn, the first of them image 1: OSError: No space left on device."


def test_prediction_writer__predictions_survive_images_that_cannot_be_drawn(tmp_path, said):
    writer, trainer = PredictionWriter(pictures=True), FakeTrainer(tmp_path)
    writer.on_predict_start(trainer, None)
    writer.write_on_batch_end(trainer, None, [{**FOUND, "image_id": 1}], None, ([torch.zeros(0, 8, 8)], None), 0, 0)
    writer.on_predict_end(trainer, None)
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 2
    assert "1 images could not be drawn, the first of them image 1" in said[-1]


def test_prediction_writer__a_long_name_is_cut(tmp_path):
    predict(tmp_path, [{**FOUND, "image_id": 5, "file_name": "ä" * 127 + ".png"}], pictures=True)
    (picture,) = (tmp_path / "predictions").iterdir()
    assert picture.name == f"5_{'ä' * 124}.png"


@pytest.mark.parametrize("file_name", [None, ""])
def test_prediction_writer__an_image_needs_no_name(tmp_path, file_name):
    predict(tmp_path, [{**FOUND, "image_id": 5, "file_name": file_name}], pictures=True)
    assert names_in(tmp_path) == ["predictions.json", "predictions/5_.png"]


def test_prediction_writer__a_threshold_that_hides_everything_is_logged_with_a_lower_one(tmp_path, said):
    predict(tmp_path, [{**FOUND, "image_id": 1}, {**NOTHING, "image_id": 2}], pictures=True, score_thresh=0.95)
    assert said[-1] == (
        "No box is drawn: 0 of 2 detections score 0.95 or more; the best is 0.9: --predictions.score_thresh=0.7 "
        "would show some."
    )
    notes = [np.asarray(Image.open(tmp_path / "predictions" / f"{i}_.png"))[-12:, :200] for i in (1, 2)]
    assert (notes[0] == 0).any()  # black letters
    assert not (notes[1] == 0).any()


def test_prediction_writer__without_drawing_its_threshold_does_not_matter(tmp_path, said):
    predict(tmp_path, score_thresh=0.95)
    assert len(said) == 1


def test_prediction_writer__no_detection_at_all_is_explained_by_the_models_threshold(tmp_path, said):
    module = SimpleNamespace(score_thresh=0.05)
    predict(tmp_path, [{**NOTHING, "image_id": 2}], module)
    assert said[-1] == (
        "No detection reaches the model's score_thresh=0.05: --model.score_thresh=0.005 keeps detections with lower "
        "scores."
    )
    predict(tmp_path, module=module)
    assert said[-1].startswith("2 detections")


@pytest.mark.parametrize("threshold", [-0.1, 50, float("nan")])
def test_prediction_writer__refuses_a_threshold_that_no_score_can_have(threshold):
    with pytest.raises(UsageError, match=r"PredictionWriter: score_thresh must be in \[0, 1\]"):
        PredictionWriter(score_thresh=threshold)


# What comes in


def test_prediction_writer__each_loader_has_a_file_and_a_folder(tmp_path, said):
    predict(tmp_path, loaders=(0, 1, 2), path="out.txt", pictures=True)
    names = ["out.txt", "out_dataloader_idx_1.txt", "out_dataloader_idx_2.txt"]
    assert names_in(tmp_path) == sorted([*names, *(f"{Path(name).stem}/5_y.png" for name in names)])
    assert [line.split(": ")[0] for line in said] == ["2 detections of 1 images"] * 3 + ["Images with detections"]


def test_prediction_writer__repeated_ids_are_logged(tmp_path, said):
    predict(tmp_path, [{**FOUND, "image_id": 1}] * 3)
    assert said[-1] == "2 images had a repeated image_id: the file contains only the last image of each id."
    predict(tmp_path, loaders=(0, 1))  # the same ids in two loaders are two images
    assert "repeated image_id" not in said[-1]


def test_prediction_writer__predictions_without_ids_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"a prediction has no image_id.* It has boxes, labels, scores"):
        predict(tmp_path, [FOUND])


def _start(rank, folder, path):
    """The first process cannot write where it should; what the other is told."""
    trainer = CollectiveTrainer(folder, rank)
    with pytest.raises(UsageError) as error:
        PredictionWriter(path).on_predict_start(trainer, None)
    return str(error.value)


@pytest.mark.ddp
def test_prediction_writer__both_processes_stop_where_one_cannot_write(two_processes, tmp_path):
    (tmp_path / "file").write_text("")
    first, second = two_processes(_start, str(tmp_path), "file/out.json")
    assert first == second
    assert "file" in first


def _predict(rank, folder):
    trainer = CollectiveTrainer(folder, rank)
    writer = PredictionWriter(pictures=True)
    writer.on_predict_start(trainer, None)
    image = [torch.zeros(0 if rank else 3, 8, 8)]  # the second process cannot draw its own
    for image_id in range(rank, 2 + rank):
        writer.write_on_batch_end(trainer, None, [{**FOUND, "image_id": image_id}], None, (image, None), 0, 0)
    with pytest.MonkeyPatch.context() as patched:
        lines = []
        for name in ("rank_zero_info", "rank_zero_warn"):
            patched.setattr(prediction_writer, name, lines.append)
        writer.on_predict_end(trainer, None)
    return lines


@pytest.mark.ddp
def test_prediction_writer__one_process_writes_and_logs_for_both(two_processes, tmp_path):
    lines, nothing = two_processes(_predict, str(tmp_path))
    assert nothing == []
    rows = json.loads((tmp_path / "predictions.json").read_text())
    assert [row["image_id"] for row in rows] == [0, 0, 1, 1, 2, 2]
    assert "6 detections of 3 images" in lines[0]
    assert "2 images could not be drawn, the first of them image 1" in lines[2]
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("format", "name", "text"),
    [
        ("yolo", "labels/7.txt", "0 0.5 0.5 0.25 0.25\n"),
        ("yolo", "labels/7.txt", "0 0.1 0.1 0.2 0.1 0.2 0.2\n"),
        ("voc", "annotations/7.xml", "<annotation><object><name>a</name></object></annotation>"),
        ("coco", "train.json", '{"images": [], "annotations": []}'),
        ("csv", "train.csv", "image_path,xmin,ymin,xmax,ymax,label\nx.png,1,2,3,4,a\n"),
    ],
)
def test_prediction_writer__annotations_are_not_replaced(tmp_path, format, name, text):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    path = tmp_path / name if Path(name).parent == Path() else tmp_path
    with pytest.raises(UsageError, match=f"{name} would be replaced, and does not look like predictions"):
        predict(tmp_path, format=format, path=str(path))
    assert (tmp_path / name).read_text() == text


@pytest.mark.parametrize("format", ["coco", "csv", "yolo", "voc"])
def test_prediction_writer__predictions_are_replaced(tmp_path, format):
    for _ in range(2):
        predict(
            tmp_path, [{**FOUND, "image_id": 5}, {**NOTHING, "image_id": 6}], format=format, path=str(tmp_path / "p")
        )
    assert len(names_in(tmp_path)) == {"coco": 1, "csv": 1}.get(format, 3)


@pytest.mark.parametrize(
    ("source", "path", "is_refused"),
    [
        ("photos", "photos.json", True),
        ("photos", "photos/out.json", True),
        ("photos/a.png", "photos.json", True),
        ("photos/a.png", "photos/out.json", False),
        ("photos", "photos_2.json", False),
    ],
)
def test_prediction_writer__drawings_do_not_go_among_the_images(tmp_path, source, path, is_refused):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    trainer = FakeTrainer(tmp_path, datamodule=SimpleNamespace(predict=[str(tmp_path / source)]))
    writer = PredictionWriter(str(tmp_path / path), pictures=True)
    if not is_refused:
        writer.on_predict_start(trainer, SimpleNamespace())
        return
    with pytest.raises(
        UsageError, match=r"drawn images would go into .*, among the images of .*outside of this folder"
    ):
        writer.on_predict_start(trainer, SimpleNamespace())
    PredictionWriter(str(tmp_path / path)).on_predict_start(trainer, SimpleNamespace())  # nothing is drawn


def test_prediction_writer__an_error_loses_no_predictions(tmp_path, said):
    writer, trainer, module = PredictionWriter(), FakeTrainer(tmp_path), SimpleNamespace(categories=CATEGORIES)
    writer.on_predict_start(trainer, module)
    images = [torch.zeros(3, 16, 16)]
    writer.write_on_batch_end(trainer, module, [{**FOUND, "image_id": 5}], None, (images, None), 0, 0)
    writer.on_exception(trainer, module, OSError("truncated"))
    assert len(json.loads((tmp_path / "predictions.json").read_text())) == 2
    assert said[-1].startswith("The run stopped at an error (OSError): the file contains only the predictions of the f")
    (tmp_path / "predictions.json").unlink()
    writer.on_exception(trainer, module, OSError("another"))
    predict(tmp_path).on_exception(trainer, module, OSError("of a later run"))
    assert said[-1].startswith("2 detections of 1 images")


@pytest.mark.parametrize("image_id", ["a7", 1.5, torch.tensor(1.5)])
def test_prediction_writer__ids_that_are_no_integers_are_refused(tmp_path, image_id):
    with pytest.raises(UsageError, match="PredictionWriter: image_id must be an integer, not"):
        predict(tmp_path, [{**FOUND, "image_id": image_id}])
