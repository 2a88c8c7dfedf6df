"""Readers of every format report damaged files instead of raising errors."""

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lit_dense import CocoDataModule
from lit_dense.data import check
from tests.builders.format_files import write_csv, write_voc, write_yolo

PIECES = st.sampled_from(
    [b"0", b"1", b" ", b".5", b"-3", b"1e999", b"nan", b",", b";", b"\t", b"\n", b"dog", b"a.png", b'"', b"\xff",
     b"\0", b"<object>", b"</object>", b"<name>", b"<bndbox>", b"<annotation>", b"</annotation>", b"<xmin>",
     b"names:", b"- ", b"{"]
)  # fmt: skip
CONTENT = st.lists(PIECES, max_size=25).map(b"".join)
FILES = {
    "yolo": (write_yolo, "labels/train/a.txt", {"train_annotations": "data.yaml"}),
    "data.yaml": (write_yolo, "data.yaml", {"train_annotations": "data.yaml"}),
    "voc": (write_voc, "annotations/a.xml", {"train_annotations": "annotations"}),
    "classes.txt": (write_voc, "annotations/classes.txt", {"train_annotations": "annotations"}),
    "csv": (write_csv, "train.csv", {"train_annotations": "train.csv", "train_images": "images"}),
}


@pytest.mark.parametrize("kind", list(FILES))
@given(content=CONTENT)
@example(content=b"image_path,xmin,ymin,xmax,ymax,label\na.png,1e999,0,nan,-3,dog\n")
@example(content=b'image,bbox,class\na.png,[1 2 3],dog\na.png,"[1, 2, 3, 4]",dog\n')
@example(content=b"<annotation><size/><object/></annotation>")
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_check__reports_any_content(tmp_path_factory, kind, content):
    write, file, options = FILES[kind]
    root = tmp_path_factory.getbasetemp() / f"any_{kind}"
    if not root.exists():
        write(root)
    (root / file).write_bytes(content)
    report = check(CocoDataModule(root, num_workers=0, **options))
    assert report.text
