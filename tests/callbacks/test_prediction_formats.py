"""The formats of predictions, written by the callback as a trainer calls it."""

import csv
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from lit_dense.callbacks import PredictionWriter, prediction_writer
from lit_dense.callbacks.prediction_formats import folder_names
from lit_dense.core.errors import UsageError
from lit_dense.data.problems import Problems
from lit_dense.formats import FORMATS, Request
from tests.builders.trainers import CollectiveTrainer, FakeTrainer
from tests.callbacks.test_prediction_writer import CATEGORIES, FOUND, NOTHING, names_in, predict

IMAGE = {"image_id": 5, "file_name": "x/y.png", "orig_size": (50, 100)}
ROWS = [["x/y.png", "1.0", "2.0", "31.0", "22.5", "b", "0.9", "5"]]
ROWS += [["x/y.png", "4.0", "5.0", "6.0", "7.0", "a", "0.12346", "5"]]


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_csv__has_a_row_for_each_detection(tmp_path):
    predict(tmp_path, [{**FOUND, **IMAGE}, {**NOTHING, "image_id": 6, "file_name": "z.png"}], format="csv")
    assert names_in(tmp_path) == ["predictions.csv"]
    header, *rows = rows_of(tmp_path / "predictions.csv")
    assert header == ["image_path", "xmin", "ymin", "xmax", "ymax", "label", "score", "image_id"]
    assert rows == ROWS


def test_csv__can_be_read_as_annotations(tmp_path):
    predict(tmp_path, [{**FOUND, **IMAGE}], format="csv")
    problems = Problems()
    read = FORMATS.build("csv").read(Request(tmp_path / "predictions.csv", images=tmp_path), problems)
    assert not problems.found
    assert read.annotations["bbox"].tolist() == [[1, 2, 30, 20.5], [4, 5, 2, 2]]


def test_yolo__has_shares_of_the_original_image_and_the_score(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_writer, "rank_zero_info", lambda text: None)
    predict(tmp_path, [{**FOUND, **IMAGE}, {**NOTHING, "image_id": 6, "file_name": "z.png"}], format="yolo")
    assert names_in(tmp_path) == [f"predictions/{name}" for name in ("classes.txt", "labels/y.txt", "labels/z.txt")]
    assert (tmp_path / "predictions/labels/y.txt").read_text().splitlines() == [
        "1 0.160000 0.245000 0.300000 0.410000 0.9",
        "0 0.050000 0.120000 0.020000 0.040000 0.12346",
    ]
    assert (tmp_path / "predictions/labels/z.txt").read_text() == ""
    assert (tmp_path / "predictions/classes.txt").read_text() == "a\nb\n"


def test_yolo__images_of_one_name_have_separate_files(tmp_path):
    images = [{**FOUND, **IMAGE, "image_id": i, "file_name": f"{i}/Y.png"} for i in (1, 2)]
    predict(tmp_path, [*images, {**FOUND, "image_id": 3}], format="yolo")
    assert names_in(tmp_path / "predictions/labels") == ["1_Y.txt", "2_Y.txt", "3.txt"]


def test_voc__has_a_file_for_each_image(tmp_path):
    categories = [{"id": 3, "name": "a"}, {"id": 7, "name": "b<&"}]
    predict(tmp_path, [{**FOUND, **IMAGE}], SimpleNamespace(categories=categories), format="voc", path="out/")
    root = ElementTree.parse(tmp_path / "out/annotations/y.xml").getroot()
    assert [root.findtext(f"size/{side}") for side in ("width", "height")] == ["100", "50"]
    assert root.findtext("filename") == "y.png"
    assert [o.findtext("name") for o in root.iter("object")] == ["b<&", "a"]
    assert [o.findtext("score") for o in root.iter("object")] == ["0.9", "0.12346"]
    assert [value.text for value in root.find("object/bndbox")] == ["1.0", "2.0", "31.0", "22.5"]


def test_parquet__is_the_table_with_types(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    predict(tmp_path, [{**FOUND, **IMAGE}], format="parquet")
    (first, second) = parquet.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert (first["label"], first["xmax"], first["image_id"]) == ("b", 31.0, 5)
    assert second["score"] == 0.12346
    predict(tmp_path, [{**NOTHING, **IMAGE}], format="parquet")
    assert parquet.read_table(tmp_path / "predictions.parquet").num_rows == 0


def test_parquet__without_its_package_is_refused_before_prediction(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"format=parquet needs pyarrow, which is not installed: pip install") as error:
        PredictionWriter(format="parquet")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("format", "path", "message"),
    [
        ("coco", "out.csv", r"path=out.csv has the suffix of format=csv, but format=coco is written"),
        ("yolo", "out.json", r"has the suffix of format=coco, but format=yolo"),
        ("cvs", "out", r"format must be one of coco, yolo, voc, csv, parquet, not 'cvs'. Did you mean 'csv'"),
    ],
)
def test_format__that_does_not_fit_is_refused(format, path, message):
    with pytest.raises(UsageError, match=message):
        PredictionWriter(path, format=format)


@pytest.mark.parametrize("format", ["csv", "yolo", "voc"])
def test_format__without_categories_has_labels(tmp_path, format):
    predict(tmp_path, [{**FOUND, **IMAGE}], SimpleNamespace(categories=None), format=format)
    if format == "csv":
        assert [row[5] for row in rows_of(tmp_path / "predictions.csv")[1:]] == ["1", "0"]
    assert not list(tmp_path.rglob("classes.txt"))


@pytest.mark.parametrize("format", ["yolo", "csv"])
def test_format__each_loader_has_its_own_place(tmp_path, format):
    predict(tmp_path, [{**FOUND, **IMAGE}], loaders=(0, 1), format=format, path="out.v2" if format == "yolo" else None)
    name, suffix = ("out.v2", "") if format == "yolo" else ("predictions", ".csv")
    assert {p.name for p in tmp_path.iterdir()} == {f"{name}{suffix}", f"{name}_dataloader_idx_1{suffix}"}


def test_folder_format__draws_beside_its_folder_of_labels(tmp_path):
    predict(tmp_path, [{**FOUND, **IMAGE}], format="yolo", pictures=True)
    assert names_in(tmp_path) == [f"predictions/{name}" for name in ("5_y.png", "classes.txt", "labels/y.txt")]


def test_folder_format__that_cannot_be_written_is_refused_before_predicting(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"cannot be written to --predictions.path=file: .*File exists"):
        PredictionWriter("file", format="voc").on_predict_start(FakeTrainer(tmp_path), None)


def test_crops__are_in_a_folder_for_each_class(tmp_path):
    predict(tmp_path, [{**FOUND, **IMAGE}], crops=True, score_thresh=0.1)
    crops = [f"predictions/crops/{name}" for name in ("a/5_y_2.png", "b/5_y_1.png")]
    assert names_in(tmp_path) == ["predictions.json", *crops]
    with Image.open(tmp_path / crops[0]) as image:
        assert image.size == (2, 2)
    with Image.open(tmp_path / crops[1]) as image:
        assert image.size == (15, 14)  # the image has 16 pixels


def test_crops__of_a_low_score_are_not_written(tmp_path):
    predict(tmp_path, [{**FOUND, **IMAGE}], crops=True, score_thresh=0.5)
    assert names_in(tmp_path) == ["predictions.json", "predictions/crops/b/5_y_1.png"]


def test_folder_names__are_safe_and_unique():
    assert folder_names(["car", "a/b", "..", "A_B", "zebra crossing", "é"]) == [
        "car", "a_b_1", "class", "A_B_3", "zebra crossing", "é",
    ]  # fmt: skip


def _predict(rank, folder):
    trainer, writer = CollectiveTrainer(folder, rank), PredictionWriter(format="yolo")
    module = SimpleNamespace(categories=CATEGORIES)
    writer.on_predict_start(trainer, module)
    for image_id in range(rank, 2 + rank):  # the second image is repeated
        prediction = {**FOUND, **IMAGE, "image_id": image_id, "file_name": f"{image_id}.png"}
        writer.write_on_batch_end(trainer, module, [prediction], None, ([torch.zeros(3, 8, 8)], None), 0, 0)
    writer.on_predict_end(trainer, module)


@pytest.mark.ddp
def test_yolo__one_process_writes_for_both(two_processes, tmp_path):
    two_processes(_predict, str(tmp_path))
    assert names_in(tmp_path / "predictions/labels") == ["0.txt", "1.txt", "2.txt"]
    assert all(len(Path(p).read_text().splitlines()) == 2 for p in (tmp_path / "predictions/labels").iterdir())


def test_yolo__a_name_with_an_id_may_be_that_of_another_image(tmp_path):
    names = {1: "a/7.png", 4: "b/7.png", 9: "b/4_7.png"}
    predict(tmp_path, [{**FOUND, "image_id": i, "file_name": n} for i, n in names.items()], format="yolo")
    assert [n for n in names_in(tmp_path) if "labels" in n] == [
        f"predictions/labels/{n}.txt" for n in ("1_7", "4_7", "9_4_7")
    ]
