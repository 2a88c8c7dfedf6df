"""Our own formats against the kit, and the kit against formats with one fault each."""

import csv
import os
import random

import numpy as np
import pytest

from lit_dense.core.errors import UsageError
from lit_dense.formats import FORMATS, Annotations, Format, TextPlaces, Wording, table_of
from lit_dense.testing import CheckFailure, check_format
from tests.builders.format_files import write_coco, write_csv

WRITTEN = ["coco", "csv", "voc", "yolo", {"class_path": "voc", "init_args": {"first_pixel": 1}}]


@pytest.mark.parametrize("form", WRITTEN, ids=str)
def test_check_format__own_formats_pass(form):
    check_format(form)


def test_check_format__formats_that_do_not_write_pass_with_a_sample(tmp_path):
    path = write_csv(tmp_path / "csv" / "train")
    path.rename(tmp_path / "csv" / "train" / "_annotations.csv")
    check_format("roboflow", sample=tmp_path / "csv", images="train/images")
    path = write_coco(tmp_path / "lvis")
    path.write_text(path.read_text().replace('"width"', '"neg_category_ids": [], "width"'))
    check_format("lvis", sample=tmp_path / "lvis", annotations="train.json", images="images", skip=["recognition"])


def test_check_format__all_registered_formats_are_tested_here():
    assert set(FORMATS.points) == {"coco", "csv", "voc", "yolo", "roboflow", "lvis"}


def is_number(text):
    return text.replace(".", "", 1).isdecimal()


class Lines(Format):
    """Without a fault: rows of name, class, x, y, width and height."""

    def recognises(self, path):
        return path.suffix == ".rows"

    def read(self, request, problems):
        if not request.path.is_file():
            problems.add(request.path, "no such file")
            return None
        rows, lines, bad = [], [], []
        text = request.path.read_text(errors="replace")
        for number, row in enumerate(csv.reader(text.replace("\0", "?").splitlines()), start=1):
            if len(row) == 6 and all(map(is_number, row[2:])):
                rows.append((row[0], row[1], *map(float, row[2:])))
                lines.append(number)
            else:
                bad.append(f"{request.path.name}, line {number}")
        if bad:
            problems.add(request.path, "broken rows", bad, repair="dropped")
        if request.weight_key:
            problems.add(request.path, "no weights")
        return self.content(request, rows, np.array(lines, np.int64))

    def content(self, request, rows, lines):
        images = sorted({row[0] for row in rows})
        names = sorted({row[1] for row in rows})
        index = np.array([images.index(row[0]) + 1 for row in rows], np.int64)
        classes = np.array([names.index(row[1]) + 1 for row in rows], np.int64)
        boxes = np.array([row[2:] for row in rows], np.float64)
        return Annotations(
            path=request.path,
            images=[{"id": number, "file_name": name} for number, name in enumerate(images, start=1)],
            annotations=table_of(index, classes, boxes),
            categories=[{"id": number, "name": name} for number, name in enumerate(names, start=1)],
            folder=request.path.parent / "images",
            by_name=True,
            place=TextPlaces([request.path.name], np.zeros(len(rows), np.int64), lines),
            wording=Wording(sized=False),
        )


class Eager(Lines):
    def recognises(self, path):
        return True


class Raises(Lines):
    def read(self, request, problems):
        float(request.path.read_text().split(",")[2])
        return super().read(request, problems)


class Shuffles(Lines):
    def content(self, request, rows, lines):
        order = random.sample(range(len(rows)), len(rows))
        return super().content(request, [rows[i] for i in order], lines)


class Silent(Lines):
    def read(self, request, problems):
        return super().read(request._replace(weight_key=None), type(problems)())


class Misplaced(Lines):
    def content(self, request, rows, lines):
        return super().content(request, [(f"{os.sep}{row[0]}x", *row[1:]) for row in rows], lines * 0)


@pytest.fixture
def sample(tmp_path):
    write_csv(tmp_path)
    (tmp_path / "train.csv").unlink()
    rows = [f"{name}.png,dog,{x},{y},10,11" for y, (x, name) in enumerate([(1, "a"), (2, "b"), (3, "a"), (4, "c")])]
    (tmp_path / "data.rows").write_text("\n".join(rows))
    return tmp_path


def test_check_format__a_format_of_ones_own_passes(sample):
    check_format(Lines(), sample=sample)


@pytest.mark.parametrize(
    ("form", "failed"),
    [
        (Eager, {"recognition"}),
        (Raises, {"missing_file", "damaged_files"}),
        (Shuffles, {"same_again", "spec"}),
        (Silent, {"weights", "missing_file", "damaged_files"}),
        (Misplaced, {"table", "places", "data_module"}),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_check_format__each_fault_is_found(sample, form, failed):
    random.seed(1)
    with pytest.raises(CheckFailure) as caught:
        check_format(form(), sample=sample, annotations="data.rows")
    assert set(caught.value.failed) == failed
    assert form.__name__ in str(caught.value)


def test_check_format__without_a_sample_a_format_must_write(sample):
    with pytest.raises(UsageError, match="Lines cannot be written"):
        check_format(Lines())
    (sample / "data.rows").rename(sample / "data.lines")
    with pytest.raises(UsageError, match="recognises no file or folder of its sample"):
        check_format(Lines(), sample=sample)
    with pytest.raises(UsageError, match="Unknown check 'tabel'"):
        check_format("yolo", skip=["tabel"])
