"""The page: self-contained, valid, of bounded size, and words of the data stay words."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from lit_dense.cli.analysis import pictures
from lit_dense.cli.analysis.errors import find_errors
from lit_dense.cli.analysis.page import render
from lit_dense.cli.analysis.pictures import PICTURES, false_positives, misses
from lit_dense.metrics.detection_table import DetectionTable
from lit_dense.metrics.evaluation import evaluate
from lit_dense.visualization.page import Table
from tests.metrics.test_tide import detection, found_cat, object_of, random_rows, rows_of

VOID = {"meta", "img", "br", "hr", "input", "link", "wbr"}
LIMIT = 5_000_000
"""Largest size of a page in bytes, as docs/analyze.md says."""


class Page(HTMLParser):
    """Elements, ids and attributes of a page; elements must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.ids, self.attributes, self.text, self._open = [], [], [], "", []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def blocks(image_id):
    """An image of coloured blocks."""
    generator = torch.Generator().manual_seed(image_id)
    colours = torch.randint(0, 256, (3, 12, 16), dtype=torch.uint8, generator=generator)
    return colours.repeat_interleave(40, 1).repeat_interleave(40, 2)


def noise(image_id):
    """An image that cannot be compressed."""
    return torch.randint(0, 256, (3, 480, 640), dtype=torch.uint8, generator=torch.Generator().manual_seed(image_id))


def page_of(rows, names, read=blocks):
    errors = find_errors(rows, evaluate(rows, dict(enumerate(names))))
    galleries = {"False positives": false_positives(errors, read), "Missed objects": misses(errors, read)}
    return render(errors, galleries, None, 0, "Errors of <best>.ckpt", Table(["", ""], [["checkpoint", "<best>.ckpt"]]))


@pytest.fixture(scope="module")
def html():
    return page_of(random_rows(0), ["cat", "dog", "<script>alert('x')</script>", "a&b\"'><i>", "e" * 500])


def test_render__the_page_needs_nothing_else(html):
    page = Page(html)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
            assert value.startswith(("data:image/", "#")), (tag, name, value[:60])
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.elements)
    styles = re.sub(r"url\(#[^)]*\)", "", html)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", styles)
    schemes = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert all("w3.org" in s or "purl.org" in s or "creativecommons.org" in s or "matplotlib.org" in s for s in schemes)


def test_render__ids_are_unique_and_references_exist(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    targets = [value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href") and value[0] == "#"]
    assert targets
    assert set(targets) <= set(page.ids)


def test_render__words_of_the_data_are_never_markup(html):
    page = Page(html)
    assert page.elements.count("script") == 1
    assert "i" not in page.elements
    assert "Errors of <best>.ckpt" in page.text
    assert "<script>alert('x')</script>" in page.text
    assert "e" * 60 not in page.text


def test_render__pictures_are_buttons_with_a_description(html):
    page = Page(html)
    images = [value for tag, name, value in page.attributes if tag == "img" and name == "alt" and value]
    enlarging = [v for tag, name, v in page.attributes if tag == "button" and name == "aria-label"]
    assert len(images) == len(enlarging) == 2 * PICTURES
    assert all(label.startswith("Enlarge: ") for label in enlarging)
    assert page.elements.count("svg") == 4
    assert page.elements.count("svg") == sum((t, n) == ("svg", "aria-label") for t, n, _ in page.attributes)


def test_render__of_a_perfect_and_of_an_empty_evaluation():
    perfect = Page(page_of(rows_of(*found_cat(0)), ["cat"])).text
    assert perfect.count("There are none.") == 2
    assert "No detection of score 0.3 or more is taken for another class." in perfect
    Page(page_of(rows_of(object_of()), ["cat"]))
    Page(page_of(rows_of(detection()), ["cat"]))


def test_render__images_that_cannot_be_read_are_left_out():
    assert "The images of the 1 errors cannot be read." in page_of(rows_of(object_of()), ["cat"], lambda image_id: None)


def test_pictures__stop_at_their_limit_of_bytes(monkeypatch):
    rows = random_rows(0)
    errors = find_errors(rows, evaluate(rows, dict(enumerate("abcde"))))
    whole = false_positives(errors, blocks)
    monkeypatch.setattr(pictures, "PICTURE_BYTES", 60_000)
    some = false_positives(errors, blocks)
    assert 0 < len(some.pictures) < len(whole.pictures) == PICTURES
    assert sum(len(p.image) for p in some.pictures) < 60_000 * 4 / 3 + 500 * PICTURES
    assert some.total == whole.total


def test_render__a_page_of_1203_classes_is_bounded():
    rng = np.random.default_rng(0)
    rows, number = random_rows(0, images=600), 1203
    labels = rng.integers(0, number, len(rows.labels), np.int32)
    rows = DetectionTable(rows.image_ids, rows.images, rows.boxes, labels, rows.kinds, rows.scores)
    html = page_of(rows, [f"a class with a long name, number {k}" for k in range(number)], noise)
    assert len(html.encode()) < LIMIT
    assert html.count("more are left out") == 2  # classes, confusions
