"""The report of simulated runs: what it says, that it needs no other file, and that words stay words."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from lit_dense.compare import results
from lit_dense.compare.committed import export_all, load_folders
from lit_dense.compare.files import FAILURE
from lit_dense.compare.plan import Run
from lit_dense.compare.report import write
from lit_dense.compare.results import read
from lit_dense.compare.sections import costs_table, groups_table, main_table, summary
from tests.builders.comparisons import DATA, NUM_IMAGES, detections, write_folder, write_run


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Three seeds of: a baseline, one that is as good, one that is far worse."""
    return write_folder(tmp_path_factory.mktemp("out"), {"focal": 0.8, "same": 0.8, "bad": 0.3})


class Page(HTMLParser):
    """Names of the elements, and the cells of tables."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.rows, self.inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.inside = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        if self.inside:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def test_summary__separates_real_differences_from_noise(out):
    said = summary(read(out))
    assert re.fullmatch(
        r"Compared with focal \(AP 0\.\d{3}\): bad \(\N{MINUS SIGN}0\.\d{3}\) is worse; "
        r"same \([+\N{MINUS SIGN}]0\.0\d\d\) is within the noise\.",
        said,
    )


@pytest.mark.parametrize(("share", "verdict"), [(0.3, "one seed"), (0.8, "within the noise")])
def test_summary__one_seed_cannot_decide(tmp_path, share, verdict):
    found = read(write_folder(tmp_path, {"focal": 0.8, "other": share}, seeds=(0,)))
    assert main_table(found).rows[1][4] == verdict
    said = "One seed is not enough: the spread over seeds is unknown. Use at least three."
    assert summary(found).endswith(f". {said}")
    for path in write(found):
        assert said in path.read_text()


def test_summary__of_several_runs_those_of_one_seed_are_named(tmp_path):
    found = read(write_folder(tmp_path, {"focal": 0.8, "bad": 0.3, "other": 0.7}))
    assert "One seed" not in summary(found)
    for seed in (1, 2):
        (tmp_path / "other" / f"seed-{seed}" / "result.json").unlink()
    assert "One seed (of other) is not enough" in summary(read(tmp_path))


def test_read__the_difference_is_that_of_the_numbers(out):
    found = read(out)
    difference = found.difference("bad", "map_50")
    by_hand = [
        found.results["bad"][seed].numbers["map_50"] - found.results["focal"][seed].numbers["map_50"]
        for seed in (0, 1, 2)
    ]
    assert difference.mean == pytest.approx(np.mean(by_hand))
    assert difference.low < difference.mean < difference.high
    assert (found.difference("focal").mean, found.difference("focal").low, found.difference("focal").high) == (0, 0, 0)


def test_read__resamples_are_made_once_and_again_for_another_evaluation(out):
    result = read(out).results["same"][0]
    first = result.resampled()["map"]
    kept = result.folder / "resampled.npz"
    stamp = kept.stat().st_mtime_ns
    assert np.array_equal(result.resampled()["map"], first)
    assert kept.stat().st_mtime_ns == stamp
    rows = result.folder / "evaluation.npz"
    rows.write_bytes(rows.read_bytes())
    result.resampled()
    assert kept.stat().st_mtime_ns > stamp


def test_read__runs_on_other_images_have_no_interval(tmp_path):
    out = write_folder(tmp_path, {"focal": 0.8, "other": 0.3}, seeds=(0,))
    rows = detections(np.random.default_rng(0), 0.3, 2)
    shifted = type(rows)(rows.image_ids + 1, rows.images, rows.boxes, rows.labels, rows.kinds, rows.scores)
    write_run(out, "other", 0, shifted, ("cat", "dog"), (50, 5))
    assert read(out).difference("other").verdict == "not known"


def test_read__a_run_on_other_images_takes_no_interval_from_the_others(tmp_path):
    out = write_folder(tmp_path, {"other": 0.3, "focal": 0.8, "bad": 0.3})
    for seed in (0, 1, 2):
        rows = detections(np.random.default_rng([5, seed]), 0.3, 2)
        shifted = type(rows)(rows.image_ids + 1, rows.images, rows.boxes, rows.labels, rows.kinds, rows.scores)
        write_run(out, "other", seed, shifted, ("cat", "dog"), (50, 5))
    found = read(out, "focal")
    assert (found.difference("other").verdict, found.difference("bad").verdict) == ("not known", "worse")
    assert "other is validated on other images: its difference is one of measures" in summary(found)


def test_read__runs_on_other_annotations_of_the_same_images_have_no_verdict(tmp_path):
    out = write_folder(tmp_path, {"focal": 0.5, "bad": 0.1}, data=DATA)
    fewer = {**DATA, "val": {**DATA["val"], "digest": "f" * 16, "boxes": 120}}
    for seed in (0, 1, 2):
        rows = detections(np.random.default_rng([1, seed]), 0.1, 2)
        write_run(out, "bad", seed, rows, ("cat", "dog"), (50, 5), data=fewer)
    found = read(out)
    assert found.difference("bad").verdict == "not known"
    assert "bad is validated on other data, with 120 boxes instead of 180" in summary(found)
    write_run(out, "bad", 0, rows, ("cat", "dog"), (50, 5), data=DATA)
    assert read(out).difference("bad").verdict == "not known"  # one seed with other data is enough
    export_all(out)
    joined = read(tmp_path / "joined", "focal", load_folders([out / "results"]))
    assert joined.difference("bad").verdict == "not known"


def test_read__seeds_are_compared_with_the_same_seed_of_the_baseline(tmp_path):
    out = write_folder(tmp_path, {"focal": 0.8, "bad": 0.3}, data=DATA)
    fewer = {**DATA, "val": {**DATA["val"], "digest": "f" * 16, "boxes": 120}}
    for number, (name, share) in enumerate({"focal": 0.8, "bad": 0.3}.items()):
        rows = detections(np.random.default_rng([number, 1]), share, 2)
        write_run(out, name, 1, rows, ("cat", "dog"), (50, 5), data=fewer)
    found = read(out)
    assert (found.unlike, found.difference("bad").verdict) == ({}, "worse")
    write_run(out, "bad", 1, rows, ("cat", "dog"), (50, 5), data=DATA)
    assert "bad is validated on other data, with 180 boxes instead of 120" in summary(read(out))


def test_summary__without_objects_there_is_no_ap_to_compare(tmp_path):
    out = write_folder(tmp_path, {"focal": 0.8, "bad": 0.3})
    for path in out.rglob("result.json"):
        found = json.loads(path.read_text())
        found["numbers"] = dict.fromkeys(found["numbers"], -1.0)
        path.write_text(json.dumps(found))
    found = read(out)
    assert summary(found) == (
        "There is nothing to compare: focal has no AP, because its validation set has no objects."
    )
    assert main_table(found).rows[1][2:5] == ["\N{EN DASH}", "\N{EN DASH}", "no AP"]
    assert found.difference("bad") is None
    write(found)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ({"eval_protocol": "lvis"}, "eval_protocol=lvis instead of coco and eval_max_detections=300 instead of 100"),
        ({"eval_max_detections": 20}, "eval_max_detections=20 instead of 100"),
        ({"eval_max_detections": 100, "eval_protocol": "coco"}, ""),
    ],
)
def test_read__runs_with_other_rules_of_evaluation_have_no_verdict(tmp_path, model, reason):
    out = write_folder(tmp_path, {"focal": 0.8, "bad": 0.3})
    for seed in (0, 1, 2):
        rows = detections(np.random.default_rng([1, seed]), 0.3, 2)
        write_run(out, "bad", seed, rows, ("cat", "dog"), (50, 5), {"model": model})
    found = read(out)
    assert found.difference("bad").verdict == ("not known" if reason else "worse")
    assert (f"bad is evaluated with {reason}: " in summary(found)) == bool(reason)


def test_write__the_page_needs_no_other_file(out):
    page, text = write(read(out))
    html = page.read_text()
    found = Page(html)
    assert found.elements.count("svg") == 4 + 4 * 3
    # differences, curves, costs, errors; precision, confusion, scores and reliability of each run
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert not {"script", "link", "iframe"} & set(found.elements)
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert [row[0] for row in found.rows[:4]] == ["run", "focal", "same", "bad"]
    assert found.rows[0][1:5] == ["AP", "difference", "95 % interval", "verdict"]
    assert [row[4] for row in found.rows[1:4]] == ["baseline", "within the noise", "worse"]
    for said in (
        f"the {NUM_IMAGES} validation images",
        "no best checkpoint is chosen",
        "lit-dense fit --config=base.yaml",
    ):
        assert said in html
        assert said in text.read_text()


def test_write__the_text_has_the_same_tables(out):
    text = write(read(out))[1].read_text()
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
    assert len(tables) == 7  # results, AP and AP50 of classes, errors, errors of classes, costs, machine
    assert re.search(r"^\| bad \| 0\.\d{3} \(.*\| worse \|", text, re.MULTILINE)


def test_write__the_text_shows_figures_that_lie_beside_it(out, tmp_path):
    text = write(read(out))[1].read_text()
    shown = re.findall(r"!\[\w+\]\((.*)\)", text)
    assert shown == ["curves.svg", "differences.svg"]
    assert all((out / name).read_text().startswith("<svg") for name in shown)
    alone = write_folder(tmp_path, {"focal": 0.8}, seeds=(0,))
    (alone / "differences.svg").write_text("of a former report")
    assert "differences.svg" not in write(read(alone))[1].read_text()
    assert not (alone / "differences.svg").exists()


def test_write__words_of_the_user_are_never_markup(tmp_path):
    evil = "<script>alert('x')</script>"
    out = write_folder(tmp_path, {"focal": 0.8, "bce": 0.6}, seeds=(0,), classes=(evil, "a|b--><i>&$x$"))
    failed = Run("bce", 1, [f"--model.lr={evil}"], {"model": {}}, "/<script>")
    failed.save(out)
    (failed.folder(out) / FAILURE).write_text(f"ended with status 1\n{evil}\n</pre><script>")
    page, text = write(read(out))
    found = Page(page.read_text())
    assert "script" not in found.elements
    assert "i" not in found.elements
    assert evil in [row[0] for row in found.rows if row]
    assert "<script" not in re.sub(r"(?m)^    .*$", "", text.read_text())  # indented lines are code
    assert "a\\|b" in text.read_text()


def test_write__a_failed_run_and_a_stopped_one_are_marked(tmp_path):
    out = write_folder(tmp_path, {"focal": 0.8, "bce": 0.6}, seeds=(0,))
    for seed, name in ((1, "failure.txt"), (2, "last.ckpt"), (3, "nothing.txt")):
        run = Run("bce", seed, [], {}, ".")
        run.save(out)
        (run.folder(out) / name).write_text("ended with status 1\nRuntimeError: no memory")
    text = write(read(out))[1].read_text()
    assert "| bce | 1 | failed |\n| bce | 2 | stopped |\n| bce | 3 | not begun |" in text
    assert "    RuntimeError: no memory" in text


def test_write__a_folder_where_nothing_is_finished_still_has_a_report(tmp_path):
    out = write_folder(tmp_path, {"focal": 0.8}, seeds=())
    Run("focal", 0, [], {}, ".").save(out)
    page, text = write(read(out))
    assert "No run is finished yet." in page.read_text()
    assert "| focal | 0 | not begun |" in text.read_text()


def test_summary__of_a_baseline_that_is_not_finished(tmp_path):
    out = write_folder(tmp_path, {"focal": 0.8, "bce": 0.6}, seeds=(0,))
    (out / "focal" / "seed-0" / "result.json").unlink()
    found = read(out)
    assert summary(found) == "There is nothing to compare yet: the baseline is not finished."
    write(found)


def test_groups_table__groups_are_thirds_of_the_classes_by_training_boxes(tmp_path):
    classes, boxes = ("a", "b", "c"), (5, 100, 20)
    found = read(
        write_folder(tmp_path, {"focal": 0.8, "bce": 0.6}, seeds=(0, 1), classes=classes, training_boxes=boxes)
    )
    table = groups_table(found)
    assert table.headers == ["run", "frequent", "common", "rare"]
    assert "frequent: b; common: c; rare: a." in table.notes[0]
    of_b = [found.results["focal"][seed].tables.ap[1] for seed in (0, 1)]
    assert table.rows[0][1].startswith(f"{np.mean(of_b):.3f}")


def with_curve(out, name, *values):
    for path in (out / name).rglob("result.json"):
        curve = [{"step": 10 * step, "map": value, "map_50": value} for step, value in enumerate(values, 1)]
        path.write_text(json.dumps({**json.loads(path.read_text()), "curve": curve}))


def test_groups_table__classes_in_another_order_are_found_by_name(tmp_path):
    names = ("cat", "dog", "owl")
    out = write_folder(tmp_path, {"focal": 0.8, "other": 0.8}, classes=names, training_boxes=(50, 5, 1))
    rows = detections(np.random.default_rng([0, 0]), 0.8, 3)
    turned = type(rows)(rows.image_ids, rows.images, rows.boxes, 2 - rows.labels, rows.kinds, rows.scores)
    write_run(out, "other", 0, turned, names[::-1], (1, 5, 50))
    for seed in (1, 2):
        shutil.rmtree(out / "focal" / f"seed-{seed}")
        shutil.rmtree(out / "other" / f"seed-{seed}")
    first, second = groups_table(read(out)).rows
    assert first[1:] == second[1:]
    assert len(set(first[1:])) == 3


def test_summary__says_when_the_curves_have_not_become_flat(tmp_path):
    out = write_folder(tmp_path, {"focal": 0.8, "bce": 0.6, "ghm": 0.5}, seeds=(0, 1))
    with_curve(out, "focal", 0.1, 0.2, 0.3)
    with_curve(out, "bce", 0.3, 0.39, 0.395)
    found = read(out)
    assert [row[-1] for row in main_table(found).rows] == ["still rising (+33 %)", "flat", "\N{EN DASH}"]
    assert summary(found).endswith(
        " AP still rises at the end of focal, by more than 5 % over the last third of the steps: these numbers order "
        "the speed of learning, not the final quality."
    )
    with_curve(out, "bce", 0.1, 0.2, 0.3)
    assert "still rises at the end of focal and bce, by" in summary(read(out))
    for path in write(read(out)):
        assert "still rising (+33 %)" in path.read_text()
    with_curve(out, "focal", 0.3, 0.3, 0.3)
    with_curve(out, "bce", 0.3, 0.3, 0.3)
    assert "still rises" not in summary(read(out))


def test_main_table__says_that_the_runs_divide_their_losses_differently(tmp_path):
    out = write_folder(tmp_path, {"focal": 0.8, "ghm": 0.6}, seeds=(0,))
    assert not any("normalizers" in note for note in main_table(read(out)).notes)
    path = out / "ghm" / "seed-0" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "config": {"model": {"loss": "ghm"}}}))
    assert any("(image: focal; its own: ghm)" in note for note in main_table(read(out)).notes)


def test_main_table__other_numbers_of_steps_and_other_machines_are_said(tmp_path):
    out = write_folder(tmp_path, {"focal": 0.8, "bce": 0.6}, seeds=(0,))
    assert not any("--steps" in note for note in main_table(read(out)).notes)
    path = out / "bce" / "seed-0" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "steps": 20, "machine": {"device": "H100"}}))
    found = read(out)
    assert "The runs differ in their number of steps" in main_table(found).notes[-1]
    assert costs_table(found).notes[-1] == "The runs are of several machines: do not compare their times."


@pytest.mark.parametrize(("model", "limit"), [({}, 100), ({"eval_max_detections": 11}, 11)])
def test_results__resamples_count_as_many_detections_as_the_evaluation(tmp_path, monkeypatch, model, limit):
    write_folder(tmp_path, {"focal": 0.5}, seeds=(0,))
    run = tmp_path / "focal" / "seed-0" / "run.json"
    run.write_text(json.dumps({**json.loads(run.read_text()), "config": {"model": model}}))
    asked = []
    monkeypatch.setattr(results, "resampled_ap", lambda *args: asked.append(args[3]) or (np.zeros(1), np.zeros(1)))
    results.read(tmp_path).results["focal"][0].resampled()
    assert asked == [limit]


def test_figures__rows_of_charts_are_named_and_means_leave_out_missing_values():
    from lit_dense.compare import figures, report
    from lit_dense.compare.statistics import Difference

    found = {name: Difference(0.1, 0.0, 0.2, (0.1, 0.1), "better") for name in ("ghm", "bce")}
    (axes,) = figures.differences_figure(found, "focal").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ghm", "bce"]
    curves = figures.curves_figure({name: [[(1, 0.1)]] for name in "abcdefgh"}, "AP").axes[0].get_lines()
    assert len({line.get_marker() for line in curves}) == 8  # told apart without colours
    (legend,) = figures.curves_figure({name: [[(1, 0.1)]] for name in ("_a", "b")}, "AP").legends
    assert [text.get_text() for text in legend.get_texts()] == [" _a", "b"]  # matplotlib would leave "_a" out
    (left, right) = figures.costs_figure({"ghm": 0.1, "bce": 0.2}, {"ghm": 2**30, "bce": None}, "memory").axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["ghm", "bce"]
    assert {bar.get_facecolor() for axes in (left, right) for bar in axes.patches} == {to_rgba(figures.LINES[0])}
    assert report._mean([1.0, None, 3.0]) == 2
    assert report._mean([None]) is None
