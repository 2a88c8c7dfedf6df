"""Words of ``lit-dense compare``: what is refused before anything is trained, and what goes to every run."""

import subprocess
import sys
from pathlib import Path

import pytest

from lit_dense.__main__ import main as lit_dense
from lit_dense.compare.command import main, read_words
from lit_dense.core.errors import UsageError
from tests.builders.comparisons import write_folder
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
    with pytest.raises(UsageError, match="give --runs"):
        main(["--config", CONFIG])


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
