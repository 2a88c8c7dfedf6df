"""Words of ``lit-dense compare``: what is refused before anything is trained, and what goes to every run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lit_dense.__main__ import main as lit_dense
from lit_dense.compare.command import main, read_words
from lit_dense.compare.committed import export_all
from lit_dense.compare.provenance import read_fingerprints, versions
from lit_dense.core.errors import UsageError
from tests.builders.coco_files import write_noise
from tests.builders.comparisons import DATA, VERSIONS, detections, write_folder, write_run
from tests.builders.project_files import CONFIGS

CONFIG = str(CONFIGS / "demo.yaml")
QFL = str(CONFIGS / "recipes" / "qfl.yaml")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(*words):
    with pytest.raises(UsageError) as stop:
        main(["--config", CONFIG, "--out", "out", *words])
    assert not list(Path("out").glob("*/*"))  # nothing was begun
    return str(stop.value)


def test_read_words__separates_words_for_every_run_from_those_of_the_command():
    options, extra = read_words(
        ["--config", "a.yaml", "b.yaml", "--runs", "focal", "bce", "--model.lr", "0.1", "--data.batch_size=2"]
    )
    assert (options.config, options.runs) == (["a.yaml", "b.yaml"], ["focal", "bce"])
    assert extra == ["--model.lr", "0.1", "--data.batch_size=2"]


def test_read_words__runs_and_seeds_given_again_are_added():
    words = ["--config", "a.yaml", "--runs", "focal", "bce", "--seeds", "3", "-r", "ghm", "--seeds", "1", "2"]
    options, _ = read_words([*words, "--config", "b.yaml"])
    assert (options.config, options.runs, options.seeds) == (["a.yaml", "b.yaml"], ["focal", "bce", "ghm"], [3, 1, 2])


def test_compare__a_seed_given_twice_is_refused_before_training():
    assert "--seeds has 4 more than once" in refused(
        "--runs", "focal", "--seeds", "4", "--seeds", "0", "4", "--steps", "4"
    )


def test_compare__the_seed_is_0_by_default(monkeypatch):
    trained = []
    monkeypatch.setattr("lit_dense.compare.local_processes.train_here", lambda runs, *rest: trained.extend(runs) or [])
    main(["--config", CONFIG, "--out", "out", "--runs", "focal", "--steps", "4"])
    assert [run.seed for run in trained] == [0]


@pytest.mark.parametrize("word", ["--seed", "--seed=3", "--step=4"])
def test_read_words__a_mistyped_option_is_not_passed_on(word):
    with pytest.raises(UsageError, match=r"unknown argument.*Did you mean '--(seeds|steps)'"):
        read_words(["--config", "a.yaml", "--runs", "focal", word])


def test_read_words__an_unknown_word_is_refused():
    with pytest.raises(UsageError, match="unknown argument 'focal'"):
        read_words(["focal", "--out", "x"])
    with pytest.raises(UsageError, match="unknown argument '--optimizer=x'"):
        read_words(["--optimizer=x"])


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("focall", "Unknown loss 'focall'. Did you mean 'focal'?"),
        ("focal+pissa", "Unknown weighter 'pissa'. Did you mean 'pisa'?"),
        ("nowhere.yaml", "there is no file nowhere.yaml"),
        ("nowhere.yaml+pisa", "there is no file nowhere.yaml."),
        (f"{QFL}+pissa", "Unknown weighter 'pissa'. Did you mean 'pisa'?"),
        (f"{QFL}+", "Unknown weighter ''"),
        (f"a/b={QFL}", "not a valid name of a run"),
        ("focal", "'focal' more than once"),
        (f"Focal={QFL}", "'focal', 'Focal' more than once"),  # one folder where the file system ignores case
        ("bce+cleanliness+cleanliness", "both decide the assignment"),  # parts that do not fit together
    ],
)
def test_compare__an_impossible_run_is_refused_before_training(run, said):
    assert said in refused("--runs", "focal", run, "--steps", "4")


def test_compare__a_value_that_is_not_accepted_is_refused_before_training():
    Path("bad.yaml").write_text("model: {loss: {class_path: focal, init_args: {gama: 1}}}")
    said = refused("--runs", "focal", "bad=bad.yaml", "--steps", "4")
    assert "run 'bad'" in said
    assert "no argument 'gama'. Did you mean 'gamma'?" in said
    assert "the common configuration" in refused("--runs", "focal", "--model.nothing=1")


def test_compare__the_baseline_is_one_of_the_runs():
    assert "there is no run 'bce'; there are focal" in refused("--runs", "focal", "--steps", "4", "--baseline", "bce")


def test_compare__nothing_to_read_and_nothing_to_start_from_is_an_error():
    with pytest.raises(UsageError, match="no comparison in empty"):
        main(["--out", "empty"])
    with pytest.raises(UsageError, match="--runs needs --config"):
        main(["--runs", "focal"])
    for words in (["--config", CONFIG], ["--seeds", "7"], ["--steps", "50"]):
        with pytest.raises(UsageError, match="give --runs to train"):
            main([*words, "--out", "empty"])
    with pytest.raises(UsageError, match="give --runs"):
        main(["--config", CONFIG])
    with pytest.raises(UsageError, match="--mix-versions needs --results"):
        main(["--out", "empty", "--mix-versions"])


def test_compare__reading_trains_nothing_and_takes_another_baseline(capsys):
    out = write_folder(Path("there"), {"focal": 0.8, "bce": 0.3})
    before = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    with pytest.raises(SystemExit) as stop:
        lit_dense(["compare", "--out", "there"])
    assert stop.value.code == 0
    assert "Compared with focal" in capsys.readouterr().out
    assert main(["--out", "there", "--baseline", "bce"]) == 0
    assert "Compared with bce" in (out / "report.md").read_text()
    assert {path: path.stat().st_mtime_ns for path in out.rglob("result.json")} == before


def test_compare__help_comes_without_torch():
    code = (
        "import sys\nfrom lit_dense.compare.command import build_parser\nbuild_parser().format_help()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_read_words__a_budget_is_a_number_of_steps():
    assert read_words(["--budget", "400"])[0].steps == read_words(["--steps", "400"])[0].steps == 400


def two_machines(**differing):
    """Results of two machines, each with two seeds of two runs; returns their folders."""
    folders = []
    for machine, finders, found in (("a", {"focal": 0.8, "bce": 0.3}, {}), ("b", {"ghm": 0.8, "qfl": 0.6}, differing)):
        out = write_folder(Path(machine), finders, seeds=(0, 1), **{"data": DATA, "versions": VERSIONS, **found})
        assert export_all(out) == []
        folders.append(str((out / "results").rename(f"results_{machine}")))
    return folders


def test_compare__results_of_two_machines_give_one_report_without_their_folders(capsys):
    assert main(["--results", *two_machines(), "--baseline", "focal", "--out", "new"]) == 0
    text = Path("new/report.md").read_text()
    assert "bce (\N{MINUS SIGN}0." in capsys.readouterr().out
    for name in ("focal", "bce", "ghm", "qfl"):
        assert f"| {name} | 0." in text
    rows = [line.split(" |")[0] for line in text.splitlines() if line.endswith("| 0, 1 | \N{EN DASH} |")]
    assert rows == ["| focal", "| bce", "| ghm", "| qfl"]
    assert "lit-dense fit --config=base.yaml --model.loss=qfl" in text
    assert "in the folder of their configuration files" in text
    assert "interval" in Path("new/report.html").read_text()
    with pytest.raises(UsageError, match="--results: give --baseline, one of bce, focal, ghm, qfl"):
        main(["--results", "results_a", "results_b", "--out", "new"])
    with pytest.raises(UsageError, match="there is no run 'eql'; there are bce, focal, ghm, qfl"):
        main(["--results", "results_a", "results_b", "--out", "new", "--baseline", "eql"])


def test_compare__results_join_the_runs_of_the_folder():
    two_machines()
    assert main(["--out", "a", "--results", "results_b"]) == 0
    text = Path("a/report.md").read_text()
    assert "Comparison of focal, bce, ghm and qfl" in text
    assert "to be run in /data." in text
    assert "Compared with focal" in text


def test_compare__different_versions_are_joined_only_if_told_to(capsys):
    folders = two_machines(versions={**VERSIONS, "code": "0ther"})
    words = ["--results", *folders, "--baseline", "focal", "--out", "new"]
    with pytest.raises(UsageError, match="results of different versions are not joined: code c0de"):
        main(words)
    assert not Path("new/report.md").exists()
    assert main([*words, "--mix-versions"]) == 0
    said = "Results of different versions are joined, so a difference can come from the version: code c0de (bce seed 0,"
    for text in (capsys.readouterr().out, Path("new/report.md").read_text(), Path("new/report.html").read_text()):
        assert said in text


def test_compare__different_data_is_never_joined():
    folders = two_machines(data={**DATA, "train": {**DATA["train"], "digest": "x"}})
    with pytest.raises(UsageError, match="results of different data are not joined: the training set of results_a"):
        main(["--results", *folders, "--baseline", "focal", "--out", "new", "--mix-versions"])


def test_compare__a_folder_that_holds_several_versions_says_so(capsys):
    write_folder(Path("a"), {"focal": 0.8, "bce": 0.3}, seeds=(0,), data=DATA, versions=VERSIONS)
    write_folder(Path("a"), {"focal": 0.8}, seeds=(1,), data=DATA, versions={**VERSIONS, "code": "0ther"})
    assert main(["--out", "a"]) == 0
    assert "Results of different versions are joined" in capsys.readouterr().out


@pytest.fixture
def compare(monkeypatch):
    """Runs the command with simulated training; returns a function, which returns the runs that were trained."""
    trained = []

    def train(runs, out, jobs):
        for run in runs:
            if (run.folder(out) / "result.json").exists():
                continue
            trained.append((run.name, run.seed))
            found = {"data": read_fingerprints(run.config["data"], run.working_folder), "versions": versions()}
            rows = detections(np.random.default_rng([len(run.name), run.seed]), 0.5, 2)
            write_run(out, run.name, run.seed, rows, ("cat", "dog"), (50, 5), **found)
            run.save(out)
        return []

    def compare(*words):
        trained.clear()
        assert main(["--config", "base.yaml", "--budget", "4", *words]) == 0
        return list(trained)

    monkeypatch.setattr("lit_dense.compare.local_processes.train_here", train)
    base = {"train_images": "train", "train_annotations": "train.json", "val_images": "val"}
    base = {"data": {**base, "val_annotations": "val.json"}, "model": {"backbone": "tiny"}}
    Path("base.yaml").write_text(json.dumps(base))
    write_noise(Path(), 6, "train")
    write_noise(Path(), 3, "val", first_id=20)
    return compare


@pytest.mark.slow
def test_compare__only_runs_without_a_result_are_trained(compare):
    assert compare("--runs", "focal", "bce", "--out", "a") == [("focal", 0), ("bce", 0)]
    shutil.copytree("a/results", "kept")
    shutil.copytree("train", "elsewhere/train")
    shutil.copytree("val", "elsewhere/val")
    for name in ("train.json", "val.json"):
        shutil.move(name, f"elsewhere/{name}")
    there = ("--data.root=elsewhere", "--results", "kept", "--out", "b")
    new = [("ghm", 0), ("ghm", 1), ("focal", 1), ("bce", 1)]
    assert compare("--runs", "ghm", "focal", "bce", "--baseline", "focal", "--seeds", "0", "1", *there) == new
    assert sorted(path.stem for path in Path("b/results").glob("*.json")) == sorted(f"{n}-seed-{s}" for n, s in new)
    text = Path("b/report.md").read_text()
    assert "Compared with focal" in text
    results = text.split("## ")[1]
    assert [line.split(" | ")[0] for line in results.splitlines() if "| 0, 1 |" in line] == [
        "| ghm",
        "| focal",
        "| bce",
    ]
    assert compare("--runs", "ghm", "focal", "bce", "--seeds", "0", "1", *there) == []


def test_compare__a_baseline_may_be_among_the_results_alone(compare):
    compare("--runs", "focal", "--out", "a")
    words = ("--runs", "bce", "--out", "b", "--results", "a/results")
    assert compare(*words, "--baseline", "focal") == [("bce", 0)]
    assert "Compared with focal" in Path("b/report.md").read_text()
    assert main(["--out", "b"]) == 0
    assert "the baseline is not finished" in Path("b/report.md").read_text()
    with pytest.raises(UsageError, match="there is no run 'qfl'; there are bce, focal"):
        compare(*words, "--baseline", "qfl")


def test_compare__what_cannot_be_joined_is_refused_before_training(compare):
    compare("--runs", "focal", "--out", "a")
    more = ("--runs", "bce", "--out", "b", "--results", "a/results")
    with pytest.raises(UsageError, match=r"(?s)the common configuration differs.*model.lr: .* before, 0.5 now"):
        compare(*more, "--model.lr=0.5")
    write_noise(Path(), 7, "train")
    with pytest.raises(UsageError, match=r"set of a/results/focal-seed-0.json has 6 images .* this command 7 images"):
        compare(*more)
    assert not Path("b").exists()
