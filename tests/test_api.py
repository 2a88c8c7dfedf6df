"""The public names: importable, documented, and listed in docs/api.md, which lists no other names.

Registered names and functions of losses are listed by a rule, so that a new loss needs no row.
"""

import ast
import inspect
import re
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import lit_dense

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
PACKAGES = [
    "assigners", "augmentations", "box_losses", "calibrators", "callbacks", "data", "detectors", "formats",
    "functional", "inference", "losses", "metrics", "normalizers", "samplers", "testing", "training", "weighters",
]  # fmt: skip
GROUPS = [
    "assigners", "augmentations", "box_losses", "calibrators", "detectors", "formats", "losses", "normalizers",
    "samplers", "weighters",
]  # fmt: skip


def statements_of(path):
    return ast.parse(path.read_text(encoding="utf-8")).body


def public_face(package):
    """Names that a package's ``__init__.py`` defines, or re-exports by ``from .module import Name as Name``."""
    folder = Path(lit_dense.__file__).parent / package
    statements = statements_of(folder / "__init__.py")
    statements += [inner for node in statements if isinstance(node, ast.If) for inner in node.body + node.orelse]
    names = set()
    for node in statements:
        if isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names if alias.asname == alias.name}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return {(f"lit_dense.{package}", name) for name in names if not name.startswith("_")}


def public_names():
    return {("lit_dense", name) for name in lit_dense.__all__}.union(*map(public_face, PACKAGES))


def rows(part):
    """First and second cell of the rows of tables, without backquotes; the second cell split at commas."""
    cells = re.findall(r"^\| `(\w+)` \| (`[^|]*`) \|", part, re.M)
    return [(name, where.replace("`", "").split(", ")) for name, where in cells]


def listed():
    return [(path, name) for name, paths in rows(PAGE.read_text()) for path in paths]


def registered():
    points = [point for group in GROUPS for point in entry_points(group=f"lit_dense.{group}")]
    return [point for point in points if point.value.startswith("lit_dense.")]


def loss_functions():
    """The functions ``NAME_loss`` of the modules ``NAME``."""
    folder = Path(lit_dense.__file__).parent / "functional"
    return sorted(
        node.name
        for file in folder.glob("*.py")
        for node in statements_of(file)
        if isinstance(node, ast.FunctionDef) and node.name == f"{file.stem}_loss"
    )


@pytest.mark.parametrize(("path", "name"), sorted(public_names()))
def test_public_name__is_importable_and_has_a_docstring(path, name):
    value = getattr(import_module(path), name)
    if inspect.isfunction(value) or (isinstance(value, type) and value.__module__.startswith("lit_dense")):
        generated = f"{name}("  # dataclasses and named tuples without a docstring get one that lists their fields
        assert not (value.__doc__ or generated).startswith(generated), f"{path}.{name} has no docstring"


def test_page__lists_each_public_name_once_and_no_other():
    assert set(listed()) - public_names() == set(), "listed in docs/api.md and not public"
    assert public_names() - set(listed()) == set(), "public and not listed in docs/api.md"
    assert len(listed()) == len(set(listed()))


def test_page__rows_of_tables_are_all_read():
    text = PAGE.read_text()
    table_rows = [row for row in text.splitlines() if row.startswith("|") and row[:3] != "|--" and row[:6] != "| name"]
    assert len(rows(text)) == len(table_rows)


def test_page__names_the_packages():
    words = re.findall(r"`(?:lit_dense\.)?(\w+)`", PAGE.read_text().split("* the [registered names]")[0])
    assert sorted(set(words) - {"lit_dense"}) == PACKAGES


@pytest.mark.parametrize("point", registered(), ids=lambda point: f"{point.group}.{point.name}")
def test_registered_name__is_a_documented_class_of_its_group(point):
    group = import_module(point.group)
    own = point.load()
    assert getattr(group, point.attr) is own
    assert own.__doc__
    if point.group != "lit_dense.detectors":  # which has modules of these names
        assert getattr(group, point.name) is own


@pytest.mark.parametrize("name", loss_functions())
def test_loss_function__is_importable_and_has_a_docstring(name):
    assert getattr(import_module("lit_dense.functional"), name).__doc__
