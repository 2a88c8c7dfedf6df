"""The divisors of the runs of a comparison."""

import pytest

from lit_dense.compare.divisors import divisor_of, note_on_divisors


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({}, "image"),
        ({"loss": "qfl", "normalizer": "batch"}, "batch"),
        ({"loss": {"class_path": "ghm", "init_args": {"bins": 10}}, "normalizer": "batch"}, "its own"),
        ({"assigner": "tal"}, "soft_targets"),
        ({"weighters": ["dw"]}, "its own"),
        ({"box_loss": "ghm_r"}, "image"),  # divides the box loss alone
        ({"detector": "fcos"}, "batch"),
        ({"detector": "faster_rcnn", "assigner": "atss"}, "sampled"),  # the assigner is ignored
        ({"loss": "not_installed"}, None),
        ({"detector": "not_installed"}, None),
    ],
)
def test_divisor_of__the_normalizer_that_is_used(recwarn, model, expected):
    assert divisor_of(model) == expected
    assert not recwarn.list


def test_note_on_divisors__only_if_runs_differ():
    assert note_on_divisors({"a": {}, "b": {"loss": "bce"}, "c": {"loss": "not_installed"}}) is None
    note = note_on_divisors({"a": {}, "b": {"loss": "ghm"}, "c": {"loss": "bce"}})
    assert note.startswith("The runs have different normalizers of the classification loss (image: a, c; its own: b).")
