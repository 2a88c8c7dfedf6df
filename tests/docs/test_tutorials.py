"""The tutorials run as they are written, and their notebooks hold the same cells."""

import os
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest

from lit_dense.__main__ import main
from lit_dense.losses import LOSSES
from tests.builders.tutorials import PAGES, cells, notebook

LEFT = {
    "own_data": [
        "runs/mine/best.ckpt",
        "runs/mine/lightning_logs/version_0/precision_recall.png",
        "runs/predict/lightning_logs/version_0/predictions.json",
    ],
    "existing_project": ["runs/existing/loss/step_000001.png"],
}
"""Files that the tutorials name, or whose folders they name."""
LEFT_BY_SLOW = {"own_data": ["runs/compare/report.html"]}


class Session:
    """Runs the cells of one tutorial in the current folder."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.module = types.ModuleType("__main__")

    def run(self, cell):
        if cell.kind == "file":
            Path(cell.file).write_text(cell.source + "\n")
        elif cell.kind == "python":
            exec(compile(cell.source, "<cell>", "exec"), self.module.__dict__)
        elif cell.kind == "bash":
            for line in cell.source.splitlines():
                self.command(shlex.split(line))

    def command(self, words):
        if words[:2] == ["pip", "install"]:
            options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--target", "installed"]
            subprocess.run([sys.executable, "-m", "pip", "install", *options, *words[2:]], check=True)
            self.monkeypatch.syspath_prepend("installed")
            LOSSES.__dict__.pop("points", None)
        elif words[0] == "lit-dense" and "--trainer.strategy=ddp" in words:
            done = subprocess.run(
                [sys.executable, "-m", "lit_dense", *words[1:]], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr
        elif words[0] == "lit-dense":
            status = 0
            try:
                main(words[1:])
            except SystemExit as stop:
                status = stop.code
            assert not status, words
        else:
            pytest.fail(f"no way to run {words}")


@pytest.fixture
def session(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = set(sys.modules)
    environment = dict(os.environ)
    yield Session(monkeypatch)
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    for name in set(os.environ) - set(environment):  # seed_everything sets some
        del os.environ[name]
    LOSSES.__dict__.pop("points", None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tutorial__runs_and_leaves_what_it_names(page, session, request):
    slow = request.config.getoption("--slow")
    for cell in cells(page):
        if slow or not cell.slow:
            session.run(cell)
    for file in LEFT.get(page.stem, []) + slow * LEFT_BY_SLOW.get(page.stem, []):
        assert Path(file).exists(), f"{page.name} names {file}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_notebook__holds_the_cells_of_the_page(page):
    written = page.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert written == notebook(page), "write it again: python -m tests.builders.tutorials"


def test_notebooks__each_has_a_page():
    assert {path.stem for path in PAGES[0].parent.glob("*.ipynb")} == {page.stem for page in PAGES}
