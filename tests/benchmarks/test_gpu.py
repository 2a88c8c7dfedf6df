import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def script(name):
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))
        for other in set(sys.modules) - before:  # general names, as of this folder's losses.py
            if str(getattr(sys.modules[other], "__file__", "")).startswith(str(BENCHMARKS)):
                del sys.modules[other]


@pytest.fixture(scope="module")
def gpu():
    return script("gpu")


@pytest.fixture(scope="module")
def gpu_parts():
    return script("gpu_parts")


def test_limit__a_part_has_its_share_and_what_those_before_it_left(gpu):
    chosen = ["tests", "matching", "evaluation"]  # shares of 90, 15 and 20
    assert gpu.limit("tests", chosen, 250, 0) == pytest.approx(180)
    assert gpu.limit("matching", chosen, 250, 180) == pytest.approx(30)
    assert gpu.limit("matching", chosen, 250, 20) == pytest.approx(190)
    assert gpu.limit("evaluation", chosen, 250, 249) == pytest.approx(1)
    assert gpu.limit("evaluation", chosen, 210, 300) == 0


@pytest.mark.parametrize("quick", [False, True])
def test_limit__the_parts_together_take_the_whole_time(gpu, quick):
    parts = list(gpu.PARTS)
    assert gpu.limit(parts[-1], parts, 472, 0, quick) == pytest.approx(472)


def test_run__what_has_no_time_left_is_written_as_skipped_and_a_failure_ends_nothing(gpu_parts, monkeypatch):
    def measure(item, device, left):
        if item["loss"] == "bad":
            raise RuntimeError("no kernel\nand more")
        return {"ms": 1.0}

    monkeypatch.setitem(gpu_parts.MEASURES, "losses", measure)
    clock = iter([7, 8, 9, 10])
    monkeypatch.setattr(gpu_parts, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    rows: list = []
    items = [{"loss": name} for name in ("focal", "bad", "bce", "ghm")]
    gpu_parts.run("losses", items, "cpu", 10, rows.append)
    assert rows == [
        {"item": {"loss": "focal"}, "result": {"ms": 1.0}},
        {"item": {"loss": "bad"}, "error": "RuntimeError: no kernel"},
        {"item": {"loss": "bce"}, "result": {"ms": 1.0}},
        {"item": {"loss": "ghm"}, "skipped": "out of time"},
    ]


def test_section__says_what_a_part_that_was_cut_off_did_not_measure(gpu, tmp_path):
    items = [{"loss": name, "images": 8} for name in ("focal", "bad", "bce", "ghm")]
    rows = [
        {"plan": items},
        {"item": items[0], "result": {"ms": 1.23456}},
        {"item": items[1], "error": "RuntimeError: no kernel"},
        {"item": items[2], "skipped": "out of time"},
    ]
    path = tmp_path / "losses.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + '\n{"item": {"loss"')
    text = gpu.section("losses", "out of time", *gpu.read_rows(path))
    assert "| focal | 8 | 1.23 |" in text
    assert "- bad, 8 images: RuntimeError: no kernel" in text
    assert "Not measured (2 of 4): bce, 8 images; ghm, 8 images." in text
    assert gpu.read_rows(tmp_path / "none.jsonl") == ([], [])


def loss_row(name, ms, **more):
    size = {"images": 8, "anchors": 1000, "classes": 80, "dtype": "bfloat16"} | more
    return {"item": {"loss": name, **size}, "result": {"ms": ms}}


def test_with_ratios__compares_rows_of_the_same_size(gpu):
    rows = [loss_row("copy", 1.0), loss_row("torchvision focal", 12.0), loss_row("focal", 4.0)]
    rows += [loss_row("focal", 5.0, images=16)]
    copy, _, focal, other = gpu.with_ratios(rows)
    assert (focal["over copy"], focal["less time than torchvision focal"]) == (4.0, 3.0)
    assert copy["GB/s"] == pytest.approx(2 * 8 * 1000 * 80 * 2 / 1e-3 / 1e9)
    assert "over copy" not in other
    steps = [
        {"item": {"model": name, "images": 8}, "result": {"ms": ms}} for name, ms in (("torchvision", 6), ("a", 3))
    ]
    assert gpu.with_ratios(steps)[1]["less time than torchvision"] == 2


def test_findings__names_slow_losses_other_numbers_recompilations_and_failures(gpu):
    rows = [loss_row("copy", 1.0), loss_row("torchvision focal", 12.0), loss_row("focal", 4.0), loss_row("bce", 2.0)]
    assert gpu.findings("losses", rows) == [
        "losses, focal bfloat16: the call 4.0 times the copy of the logits (8 images, 80 classes)"
    ]
    for row, kernels in zip(rows, (0.5, 8.0, 2.5, 1.0), strict=True):
        row["result"]["kernels, ms"] = kernels
    assert gpu.findings("losses", rows) == [
        "losses, focal bfloat16: kernels 5.0 times the copy of the logits (8 images, 80 classes)"
    ]

    def agreement(**result):
        good = {"compile s": 3.0, "graphs": 2, "recompilations": 0, "agrees": True}
        return gpu.findings("agreement", [{"item": {"loss": "bce", "dtype": "float32"}, "result": good | result}])

    assert agreement() == []
    for result, words in (
        ({"compile s": 61.0}, "compiled for 61 s"),
        ({"recompilations": 2}, "recompiled 2 times"),
        ({"agrees": False}, "compiled and plain numbers differ"),
        ({"graphs": 0}, "nothing was compiled"),
    ):
        assert agreement(**result) == [f"agreement, bce float32: {words}"]
    tests = {"failed": 1, "failed tests": ["tests/a.py::test_b"], "cut off": True}
    assert [line.split(": ")[1] for line in gpu.findings("tests", [{"item": {"tests": "all"}, "result": tests}])] == [
        "failed",
        "its time ran out; the tests after that were not run",
    ]


def test_outcomes__of_output_that_was_cut_off(gpu_parts):
    output = """
tests/a.py::test_a PASSED                    [ 20%]
tests/a.py::test_b[torch.float32-x y] PASSED [ 40%]
tests/a.py::test_c FAILED                    [ 60%]
tests/a.py::test_d SKIPPED (needs a device)  [ 80%]
tests/b.py::test_e """
    assert gpu_parts.outcomes(output) == {
        "passed": 2,
        "failed": 1,
        "skipped": 1,
        "failed tests": ["tests/a.py::test_c"],
    }
    several = """
[gw0] [ 20%] PASSED tests/a.py::test_a
tests/a.py::test_c
[gw1] [ 40%] PASSED tests/a.py::test_b[torch.float32-x y]
[gw1] [ 60%] FAILED tests/a.py::test_c
[gw0] [ 80%] SKIPPED tests/a.py::test_d
tests/b.py::test_e """
    assert gpu_parts.outcomes(several) == gpu_parts.outcomes(output)
    assert gpu_parts.outcomes("ERROR tests/b.py - ImportError: x")["failed tests"] == ["tests/b.py"]


@pytest.mark.parametrize("quick", [False, True])
def test_plan__every_part_has_items_that_differ(gpu, gpu_parts, quick):
    assert list(gpu.PARTS) == list(gpu_parts.MEASURES)
    for part in gpu.PARTS:
        items = gpu_parts.plan(part, "cuda", quick)
        assert items
        assert len({json.dumps(item) for item in items}) == len(items)


@pytest.mark.parametrize("largest", [0, 1, 15, 16, 37, 70])
def test_largest_batch__is_found_to_within_a_few_images(gpu_parts, largest):
    tried = []

    def fits(images):
        tried.append(images)
        return images <= largest

    assert min(largest, 64) - 4 < gpu_parts.largest_batch(fits, 16, 4, 64) <= min(largest, 64)
    assert max(tried) <= 64
    assert gpu_parts.largest_batch(fits) == largest
