"""Committed files of runs: small, without paths of the machine, enough for report, intervals and calibration."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_dense.calibrators import CALIBRATORS, StoredDetections
from lit_dense.compare import committed
from lit_dense.compare.committed import Committed, changes_of, export, export_all, load_folders, portable
from lit_dense.compare.files import RECORD, RESULT, ROWS
from lit_dense.compare.plan import Run
from lit_dense.compare.results import CommittedResult, read
from lit_dense.core.errors import UsageError
from lit_dense.metrics.calibration import true_positives
from lit_dense.metrics.detection_table import DETECTION, DetectionTable
from tests.builders.coco_files import write_noise
from tests.builders.comparisons import DATA, VERSIONS, write_folder


@pytest.fixture
def out(tmp_path):
    return write_folder(tmp_path / "out", {"focal": 0.8, "bce": 0.3}, seeds=(0, 1), data=DATA, versions=VERSIONS)


def exported(out) -> list[Committed]:
    export_all(out)
    return load_folders([out / "results"])


def test_export__each_finished_run_has_two_small_files(out):
    (out / "bce" / "seed-1" / RESULT).unlink()
    assert export_all(out) == []
    found = sorted(path.name for path in (out / "results").iterdir())
    assert found == [
        f"{run}.{kind}" for run in ("bce-seed-0", "focal-seed-0", "focal-seed-1") for kind in ("json", "npz")
    ]
    assert all(path.stat().st_size < 20_000 for path in (out / "results").iterdir())


def test_export__the_file_has_numbers_configuration_versions_and_data(out):
    bce, *_ = exported(out)
    found = json.loads((out / "bce" / "seed-0" / RESULT).read_text())
    assert (bce.name, bce.seed, bce.data) == ("bce", 0, found.pop("data"))
    assert bce.found == found
    assert bce.found["versions"] == VERSIONS
    assert bce.config == {"model": {"frequency_bounds": [10, 100]}}
    assert bce.run.words == ["--config=base.yaml", "--model.loss=bce"]
    for name in ("map", "map_50"):
        assert bce.kept[name] == pytest.approx(found["numbers"][name], abs=committed.TOLERANCE)
    assert bce.kept["detections_per_image"] == 50


def test_export__a_file_that_is_up_to_date_stays_and_another_is_written_again(out):
    exported(out)
    before = {path: path.stat().st_mtime_ns for path in (out / "results").iterdir()}
    exported(out)
    assert {path: path.stat().st_mtime_ns for path in (out / "results").iterdir()} == before
    path = out / "focal" / "seed-0" / RESULT
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 99.0}))
    assert {result.found["seconds"] for result in exported(out) if result.name == "focal"} == {99.0, 3.0}
    changed = {path.stem for path in before if path.stat().st_mtime_ns != before[path]}
    assert changed == {"focal-seed-0"}


def test_export__more_detections_are_kept_where_ap_needs_them(out, monkeypatch):
    tried = []
    monkeypatch.setattr(committed, "KEPT", (1, 2, 50))
    best = DetectionTable.best_of_images
    monkeypatch.setattr(DetectionTable, "best_of_images", lambda rows, n: tried.append(n) or best(rows, n))
    export(out / "focal" / "seed-0")
    assert tried == [1, 2, 50]  # there are three in each image
    monkeypatch.setattr(committed, "KEPT", (1, 2))
    (out / "results" / "focal-seed-0.npz").unlink()
    export(out / "focal" / "seed-0")
    (found,) = load_folders([out / "results"])
    assert found.kept["detections_per_image"] is None  # all


def test_export__no_path_of_the_machine_is_left(tmp_path):
    config = {
        "data": {"root": "/home/me/sets", "background_images": ["/home/me/empty", "near/*.jpg"]},
        "model": {"weights": "/work/here/best.ckpt", "loss": "focal"},
        "trainer": {"callbacks": [{"class_path": "a.B", "init_args": {"dirpath": "/home/me/runs"}}]},
    }
    out = write_folder(tmp_path / "out", {"focal": 0.8}, seeds=(), shared=config)
    words = ["--config=/work/here/a.yaml", "--data.root=/home/me/sets", "--data.background_images=[/home/me/empty]"]
    write_folder(tmp_path / "out", {"focal": 0.8}, seeds=(0,), shared=config, data=DATA, config=config)
    run = Run("focal", 0, words, config, "/work/here")
    run.save(out)
    (result,) = exported(out)
    text = result.path.read_text()
    assert not any(part in text for part in ("/home", "/work", "me/", str(tmp_path)))
    assert result.words == ["--config=a.yaml", "--data.root=.../sets", "--data.background_images=[.../empty]"]
    assert result.config["data"]["background_images"] == [".../empty", "near/*.jpg"]
    assert result.config["model"]["weights"] == "best.ckpt"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/work/here/a.yaml", "a.yaml"),
        ("/work/here", "."),
        ("/work/hereafter/a.yaml", ".../a.yaml"),
        ("--data.root=/data with spaces/x", "--data.root=.../x"),
        ("--x=[/a/b, '/c/d']", "--x=[.../b, '.../d']"),
        ('--x={"root":/a/b, y: "/c/d"}', '--x={"root":.../b, y: ".../d"}'),
        ("C:\\Users\\me\\sets", ".../sets"),
        ("--data.root=D:\\sets\\x", "--data.root=.../x"),
        ("https://a.org/b", "https://a.org/b"),
        ("runs/compare", "runs/compare"),
        ("../near", "../near"),
        ("1/2", "1/2"),
        ("", ""),
        (3, 3),
        (None, None),
    ],
)
def test_portable__absolute_paths_are_shortened(value, kept):
    assert portable({"a": [value]}, "/work/here") == {"a": [kept]}


def test_changes_of__what_a_run_changes_and_the_common_configuration_give_its_configuration():
    shared = {"seed": 1, "model": {"loss": "focal", "lr": 1}, "data": {"a": 1}, "validations": 4}
    config = {"seed": 2, "model": {"loss": {"class_path": "ghm"}, "lr": 1, "new": None}, "data": {"a": 1}, "more": None}
    changes = changes_of(shared, config)
    assert changes == {"seed": 2, "model": {"loss": {"class_path": "ghm"}, "new": None}, "more": None}
    assert Committed(Path("x"), "a", 0, [], shared, changes, {}, None, {}).config == config


def test_committed_result__the_report_needs_no_other_file(out):
    results = exported(out)
    whole = read(out)
    found = read(out.parent / "elsewhere", "focal", results)
    assert found.names == ["focal", "bce"]
    for name in found.names:
        for seed in (0, 1):
            one, other = found.results[name][seed], whole.results[name][seed]
            assert isinstance(one, CommittedResult)
            assert one.numbers == other.numbers
            assert np.array_equal(one.tables.precision_50, other.tables.precision_50)
            assert one.tables.class_names == other.tables.class_names
            assert np.array_equal(one.image_ids(), other.image_ids())
            assert one.plots() == {}
            assert np.abs(one.resampled()["map"] - other.resampled()["map"]).max() < 1e-3
    ours, theirs = found.difference("bce"), whole.difference("bce")
    assert (ours.mean, ours.verdict) == (theirs.mean, theirs.verdict)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=5e-4)


def test_committed_result__resamples_are_kept_with_the_report_until_the_file_changes(out):
    results, report = exported(out), out.parent / "report"
    report.mkdir()
    result = read(report, "focal", results).results["focal"][0]
    first = result.resampled()["map"]
    (kept,) = report.rglob("*.npz")
    stamp = kept.stat().st_mtime_ns
    assert np.array_equal(result.resampled()["map"], first)
    assert kept.stat().st_mtime_ns == stamp
    result.arrays.write_bytes((out / "results" / "bce-seed-0.npz").read_bytes())
    assert not np.array_equal(result.resampled()["map"], first)


def test_committed_result__a_calibrator_fits_as_to_all_detections(out):
    def fitted(rows):
        index, is_true = true_positives(rows)
        scores = torch.from_numpy(rows.scores[index].astype(np.float64)).clamp(1e-7, 1 - 1e-7)
        columns = torch.from_numpy(rows.labels[index].astype(np.int64))
        ones = torch.ones(2, dtype=torch.float64)
        stored = StoredDetections(
            scores.logit(), columns, torch.from_numpy(is_true), ones, ones, [torch.zeros(0, 2)] * 2, lambda _: 0.0
        )
        return CALIBRATORS.build("temperature").fitted(stored).spec["init_args"]

    (_, _, focal, _) = exported(out)
    whole = DetectionTable.load(out / "focal" / "seed-0" / ROWS)
    kept = CommittedResult.of(focal, out).rows()
    assert (kept.kinds == DETECTION).sum() == (whole.kinds == DETECTION).sum()
    for name, value in fitted(whole).items():
        assert fitted(kept)[name] == pytest.approx(value, rel=1e-2, abs=1e-2)


def older(folder, root) -> Path:
    """A comparison of a version that did not record its data, trained on that of a folder."""
    data = {"root": str(root), "train_images": "train", "train_annotations": "train.json"}
    data |= {"val_images": "val", "val_annotations": "val.json", "val_split": 0.0, "batch_size": 2}
    return write_folder(folder, {"focal": 0.8}, seeds=(0, 1), config={"model": {}, "data": data})


def test_export_all__a_folder_of_an_earlier_version_gets_the_fingerprints_of_its_data(tmp_path):
    write_noise(tmp_path, 6, "train")
    write_noise(tmp_path, 3, "val", first_id=20)
    results = exported(older(tmp_path / "out", tmp_path))
    for result in results:
        assert [result.data[split]["images"] for split in ("train", "val")] == [6, 3]
    (tmp_path / "train.json").unlink()  # once recorded it stays
    assert exported(tmp_path / "out") == results
    assert export_all(tmp_path / "out") == []


def test_export_all__data_that_cannot_be_read_is_said_once_and_recorded_later(tmp_path):
    out = older(tmp_path / "out", tmp_path)
    (said,) = export_all(out)
    assert said.startswith("The data of focal, seed 0; focal, seed 1 is not recorded: ")
    assert "train.json" in said
    assert [result.data for result in load_folders([out / "results"])] == [None, None]
    write_noise(tmp_path, 6, "train")
    write_noise(tmp_path, 3, "val", first_id=20)
    assert all(result.data for result in exported(out))


def test_export__a_damaged_record_is_reported(out):
    (out / RECORD).write_text("{")
    with pytest.raises(UsageError, match=r"compare\.json is damaged"):
        export_all(out)


def test_load__what_is_no_result_is_refused(out, tmp_path):
    exported(out)
    for folder, said in ((tmp_path / "nowhere", "is not a folder"), (tmp_path, "has no results of runs")):
        with pytest.raises(UsageError, match=said):
            load_folders([folder])
    with pytest.raises(UsageError, match=r"Did you mean .*out/results\?"):
        load_folders([out])
    (out / RECORD).rename(tmp_path / "record")
    with pytest.raises(UsageError, match=r"Did you mean .*out/results\?"):
        load_folders([out])
    path = out / "results" / "focal-seed-0.json"
    content = json.loads(path.read_text())
    for text, said in (
        ("[]", "is not a result of lit-dense compare"),
        ("{", "is not a result of lit-dense compare"),
        ("{}", "is not a result of lit-dense compare"),
        (json.dumps({**content, "format": 2}), "has format 2; this version reads format 1"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=f"focal-seed-0.json {said}"):
            load_folders([out / "results"])
    path.write_text(json.dumps(content))
    path.with_suffix(".npz").unlink()
    with pytest.raises(UsageError, match=r"focal-seed-0.npz is missing; it belongs to focal-seed-0.json"):
        load_folders([out / "results"])
