"""Tests of what decides whether a benchmark's ratio has fallen."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def measuring():
    spec = importlib.util.spec_from_file_location("measuring", FOLDER / "measuring.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("now", "faults"), [(3.0, 0), (2.01, 0), (2.0, 1), (0.5, 1)])
def test_fallen__is_a_ratio_a_third_below_the_committed_one(measuring, now, faults):
    assert (
        len(measuring.fallen({"focal / torchvision": now, "new / peer": 1.0}, {"focal / torchvision": 3.0})) == faults
    )


def test_fallen__names_a_ratio_that_was_not_measured(measuring):
    (fault,) = measuring.fallen({}, {"focal / torchvision": 3.0})
    assert fault == "focal / torchvision: was not measured; it was 3.00. If it was renamed, run with --update."


def test_ratios__are_the_medians_that_the_benchmarks_report(measuring, tmp_path, monkeypatch):
    rows = tmp_path / "rows"
    monkeypatch.setenv(measuring.ROWS, str(rows))
    measuring.report("focal", "torchvision", [1.0, 2.0, 1.0], [4.0, 4.0, 3.0])
    assert measuring.ratios(rows) == {"focal / torchvision": 3.0}


def test_committed_ratios__are_positive_numbers():
    committed = json.loads((FOLDER / "ratios.json").read_text())
    assert len(committed) > 30
    assert all(ratio > 0 for ratio in committed.values())
