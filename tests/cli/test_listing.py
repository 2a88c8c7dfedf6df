"""``lit-dense list``: what each name is, from source files alone."""

import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points

import pytest

from lit_dense.__main__ import CLOSED_PIPE
from lit_dense.cli.listing import BUILT, GROUPS, list_names, summary
from lit_dense.detectors.from_arguments import NETWORKS


def test_built__has_the_detectors_of_build_detector():
    assert set(BUILT) == set(NETWORKS)


def test_list_names__every_name_has_a_line_that_describes_it():
    lines = list_names().splitlines()
    points = [point for group in GROUPS for point in entry_points(group=f"lit_dense.{group}")]
    assert len(lines) == len(points)
    own = [line for line in lines if "  lit-dense " in line]
    assert own
    for line in own:
        assert len(line.partition("lit-dense ")[2].partition("  ")[2]) > 20, line
    assert any(
        "--model.loss=focal " in line and "Focal loss (https://arxiv.org/abs/1708.02002)" in line for line in own
    )


@pytest.mark.parametrize("group", GROUPS)
def test_summary__is_the_first_line_of_the_docstring(group):
    for point in entry_points(group=f"lit_dense.{group}"):
        if point.value.startswith("lit_dense."):
            assert summary(point) == point.load().__doc__.partition("\n")[0]


def test_summary__of_a_name_without_a_source_file_is_empty():
    for value in ("no_such_package:Loss", "sys:path", "lit_dense.losses:NoSuchLoss", "lit_dense.no_such_module:Loss"):
        assert summary(EntryPoint("x", value, "lit_dense.losses")) == ""


def test_list_names__imports_nothing_heavy():
    code = (
        "import sys; from lit_dense.cli.listing import list_names; list_names(); "
        "sys.exit(str({'torch', 'lightning', 'numpy'} & sys.modules.keys() or ''))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""


def test_main__a_reader_that_has_ended_is_no_error():
    command = [sys.executable, "-m", "lit_dense", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # as `lit-dense list | head -1` after the first line
        assert process.stderr.read() == ""
    assert process.returncode == CLOSED_PIPE
