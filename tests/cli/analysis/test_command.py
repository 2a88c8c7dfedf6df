"""``lit-dense analyze``: a page about a checkpoint, equal on several processes; mistakes are one line."""

import os
import re
import subprocess
import sys

import pytest
import torch

from lit_dense.__main__ import main
from lit_dense.cli.lightning_cli import run
from tests.builders.trained import one_step
from tests.cli.analysis.test_page import Page


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A configuration, and a checkpoint of one step."""
    return one_step(tmp_path_factory.mktemp("analyze"))


def test_analyze__writes_a_page_beside_the_checkpoint(trained, capsys):
    config, checkpoint = trained
    before = torch.load(checkpoint, weights_only=True)["state_dict"]
    cli = run(["analyze", f"--config={config}", f"--ckpt_path={checkpoint}"])
    shown, path = capsys.readouterr().out, checkpoint.with_name("analysis.html")
    assert re.match(r"AP 0\.\d{3} and AP50 0\.\d{3} on 4 images with 6 objects\.", shown)
    assert f"Written to {path}" in shown
    page = Page(path.read_text(encoding="utf-8"))
    for said in ("Errors of plain.ckpt", "What the loss listens to", "of 4 validation images", str(checkpoint), "bar"):
        assert said in page.text
    assert len(page.ids) == len(set(page.ids))
    after = cli.model.state_dict()
    weights = [name for name in before if name.startswith("model.")]
    assert weights
    assert all(torch.equal(before[name], after[name]) for name in weights)  # the observed loss trains nothing


@pytest.mark.parametrize("weighter", ["ohem", "pisa"])
def test_analyze__observes_the_loss_with_its_weighter(trained, tmp_path, weighter):
    config, _ = trained
    checkpoint = tmp_path / "a.ckpt"
    arguments = [f"--config={config}", f"--model.weighters={weighter}"]
    run(["fit", *arguments]).trainer.save_checkpoint(checkpoint)
    run(["analyze", f"--config={config}", f"--ckpt_path={checkpoint}", f"--output={tmp_path / 'new' / 'page.html'}"])
    assert "What the loss listens to" in (tmp_path / "new" / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "analyze needs a trained model: give --ckpt_path=PATH."),
        (
            ["--ckpt_path={checkpoint}", "--output={folder}"],
            "analyze: output must be a file, such as {folder}/",
        ),
        (["--ckpt_path={folder}/other.ckpt"], "There is no checkpoint {folder}/other.ckpt. In its folder: plain.ckpt."),
        (["--ckpt_path={checkpoint}", "--trainer.limit_val_batches=0"], "analyze: there are no validation images."),
    ],
)
def test_analyze__mistakes_are_one_line(trained, capsys, arguments, said):
    config, checkpoint = trained
    places = {"checkpoint": checkpoint, "folder": checkpoint.parent}
    with pytest.raises(SystemExit):
        main(["analyze", f"--config={config}", *(argument.format(**places) for argument in arguments)])
    message = capsys.readouterr().err
    assert said.format(**places) in message
    assert "Traceback" not in message


@pytest.mark.slow
def test_analyze__two_processes_write_the_same_numbers(trained, tmp_path):
    config, checkpoint = trained
    shown = []
    for devices in (1, 2):
        command = [
            "analyze",
            f"--config={config}",
            f"--ckpt_path={checkpoint}",
            f"--output={tmp_path / f'{devices}.html'}",
        ]
        command += [f"--trainer.devices={devices}", "--trainer.strategy=ddp"]
        done = subprocess.run(
            [sys.executable, "-m", "lit_dense", *command],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=500,
        )
        assert done.returncode == 0, done.stderr
        shown.append(done.stdout[: done.stdout.index("Written to")])
    assert shown[0] == shown[1]
    assert shown[0].count("on 4 images") == 1  # only the first process prints
    assert "of 4 validation images" in (tmp_path / "2.html").read_text(encoding="utf-8")
