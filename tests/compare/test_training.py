"""Comparisons that train: a few steps of a tiny network on digits, each run in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lit_dense.compare.command import main
from lit_dense.compare.committed import load_folders
from lit_dense.compare.provenance import code_digest, read_fingerprints
from lit_dense.core.errors import UsageError
from lit_dense.data.digits import write_digits

NETWORK = {
    "backbone": "tiny",
    "fpn_channels": 16,
    "head_convs": 1,
    "anchor_sizes": [[12, 17], [24, 34], [48, 68]],
    "aspect_ratios": [1.5],
    "min_size": 96,
    "max_size": 96,
    "lr": 4e-3,
    "warmup_steps": 2,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with data and a configuration, whose checkpoints would go elsewhere."""
    folder = tmp_path_factory.mktemp("compare")
    write_digits(folder / "datasets" / "digits", num_train=40, num_val=8)
    elsewhere = {"dirpath": str(folder / "elsewhere"), "monitor": "val_map"}
    config = {
        "data": {"root": str(folder / "datasets"), "demo": True, "batch_size": 4, "num_workers": 0},
        "model": NETWORK,
        "trainer": {
            "accelerator": "cpu",
            "num_sanity_val_steps": 0,
            "callbacks": [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": elsewhere}],
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(autouse=True)
def _here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def words(*more, out, steps=6):
    return ["--config", "config.yaml", "--out", out, "--steps", str(steps), "--validations", "3", *more]


@pytest.fixture(scope="module")
def two(place) -> Path:
    """Two runs of one seed."""
    before = Path.cwd()
    os.chdir(place)
    try:
        assert main(words("--runs", "focal", "bce", out="two")) == 0
    finally:
        os.chdir(before)
    return place / "two"


def result(folder) -> dict:
    return json.loads((folder / "result.json").read_text())


def what_training_decides(found) -> tuple:
    return found["numbers"], found["curve"], found["steps"]


def test_compare__two_runs_give_a_report(two, place):
    text = (two / "report.md").read_text()
    assert "| focal | 0." in text
    assert "| bce | 0." in text
    assert "<svg" in (two / "report.html").read_text()
    found = result(two / "focal" / "seed-0")
    assert [point["step"] for point in found["curve"]] == [2, 4, 6]
    assert found["curve"][-1]["map"] == found["numbers"]["map"]
    assert found["steps"] == 6
    assert 0 < found["step_seconds"] < found["seconds"]
    assert found["memory_bytes"] > 2**26
    assert found["numbers"] != result(two / "bce" / "seed-0")["numbers"]
    assert not (place / "elsewhere").exists()
    assert found["versions"]["code"] == code_digest()
    assert [found["data"][split]["images"] for split in ("train", "val")] == [40, 8]
    kept = load_folders([two / "results"])
    assert [(one.name, one.seed) for one in kept] == [("bce", 0), ("focal", 0)]
    assert kept[1].found["numbers"] == found["numbers"]
    assert kept[1].data == found["data"] == read_fingerprints(kept[1].config["data"], str(place))
    assert str(place) not in kept[1].path.read_text()


def test_compare__plots_of_detections_and_of_the_loss_are_in_the_page(two):
    page = (two / "report.html").read_text()
    assert page.count("data:image/webp;base64,") >= 4
    assert page.index("<h2>Detections</h2>") < page.index("<h2>Loss of easy and hard samples</h2>")


def test_compare__finished_runs_are_not_made_again(two, capfd):
    before = {path: path.stat().st_mtime_ns for path in two.rglob("*") if path.suffix in (".json", ".ckpt")}
    assert main(words("--runs", "focal", "bce", out="two")) == 0
    changed = {path.name for path, stamp in before.items() if path.stat().st_mtime_ns != stamp}
    assert changed <= {"compare.json"}
    assert "started" not in capfd.readouterr().out


@pytest.mark.slow
def test_compare__the_printed_command_trains_the_same(two, place):
    described = json.loads((two / "focal" / "seed-0" / "run.json").read_text())
    log = ["--trainer.logger=lightning.pytorch.loggers.CSVLogger", f"--trainer.logger.save_dir={place / 'again'}"]
    subprocess.run([sys.executable, "-m", "lit_dense", "fit", *described["words"], *log], check=True)
    (metrics,) = (place / "again").rglob("metrics.csv")
    header, *rows = (line.split(",") for line in metrics.read_text().splitlines())
    last = [row for row in rows if row[header.index("val_map")]][-1]
    numbers = result(two / "focal" / "seed-0")["numbers"]
    assert float(last[header.index("val_map")]) == pytest.approx(numbers["map"], rel=1e-6)
    assert float(last[header.index("val_loss")]) == pytest.approx(numbers["loss"], rel=1e-6)


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "lit_dense", "compare", *arguments], stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, seconds=120):
    """What the condition finds, as soon as it finds something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
    return found


def workers(folder) -> list[int]:
    """Processes that train a run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text()
        except OSError:  # it has just ended
            continue
        if "lit_dense.compare.worker" in line and str(folder) in line:
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize("victim", ["worker", "command"])
def test_compare__a_killed_run_goes_on_to_the_same_numbers(place, victim):
    """With a loss that has state and a weighter with a network of its own, killed in the middle of an epoch."""
    whole, broken = place / f"whole-{victim}", place / f"broken-{victim}"
    assert main(words("--runs", "ghm+swn", "--seeds", "3", out=str(whole), steps=30)) == 0
    command = start(*words("--runs", "ghm+swn", "--seeds", "3", out=str(broken), steps=30))
    run = broken / "ghm+swn" / "seed-3"
    wait_for((run / "last.ckpt").exists)
    (worker,) = workers(run)
    os.kill(worker if victim == "worker" else command.pid, signal.SIGKILL)
    said = command.communicate()[1]
    wait_for(lambda: not workers(run), 20)
    assert not (run / "result.json").exists(), "it was faster than the signal"
    assert ("ended with status -9" in said) == (victim == "worker")
    assert command.returncode == (1 if victim == "worker" else -9)
    assert main(words("--runs", "ghm+swn", "--seeds", "3", out=str(broken), steps=30)) == 0
    assert what_training_decides(result(run)) == what_training_decides(result(whole / "ghm+swn" / "seed-3"))
    assert len(list((run / "log").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_compare__ctrl_c_ends_the_runs_too(place, number):
    out = place / f"stopped-{number}"
    command = start(*words("--runs", "focal", out=str(out), steps=500))
    wait_for(lambda: workers(out / "focal"))
    time.sleep(1)
    command.send_signal(number)
    said = command.communicate(timeout=60)[1]
    assert command.returncode == 130
    assert "Repeat the command to resume" in said
    assert not workers(out / "focal")


@pytest.mark.slow
def test_compare__a_run_that_fails_is_reported_and_the_others_go_on(place, capfd):
    Path("bad.yaml").write_text("model: {loss: {class_path: eql, init_args: {frequencies: [0.5]}}}")  # of ten classes
    out = place / "failing"
    assert main(words("--runs", "bad.yaml", "focal", "--baseline", "focal", "--jobs", "2", out=str(out))) == 1
    said = capfd.readouterr()
    assert "bad, seed 0: failed, ended with status 1" in said.err
    assert "the head has 10 classes" in said.err
    assert "focal, seed 0: finished" in said.out
    text = (out / "report.md").read_text()
    assert "| bad | 0 | failed |" in text
    assert "the head has 10 classes" in text
    assert "| focal | 0." in text


@pytest.mark.slow
def test_compare__a_local_ray_cluster_gives_the_same_numbers(two, place):
    pytest.importorskip("ray.tune")
    assert main(words("--runs", "focal", "bce", "--ray", "local", out=str(place / "ray"))) == 0
    for name in ("focal", "bce"):
        both = (result(folder / name / "seed-0") for folder in (two, place / "ray"))
        first, second = (what_training_decides(found) for found in both)
        assert first == second
    assert "| bce | 0." in (place / "ray" / "report.md").read_text()


@pytest.mark.slow
def test_compare__two_commands_do_not_train_in_one_folder(place):
    out = place / "both"
    command = start(*words("--runs", "focal", out=str(out)))
    wait_for(lambda: (out / "compare.json").exists())
    with pytest.raises(UsageError, match="Another lit-dense compare trains in"):
        main(words("--runs", "focal", out=str(out)))
    assert command.wait() == 0
