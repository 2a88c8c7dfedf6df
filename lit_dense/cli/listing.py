"""``lit-dense list``: one line for each registered name, read only from package metadata and source files."""

import ast
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

GROUPS = {
    "detectors": "model.detector",
    "losses": "model.loss",
    "box_losses": "model.box_loss",
    "weighters": "model.weighters",
    "assigners": "model.assigner",
    "normalizers": "model.normalizer",
    "calibrators": "model.calibrator",
    "samplers": "data.sampler",
    "augmentations": "data.augmentation",
    "formats": "data.format",
}
"""Entry-point groups, and the argument that accepts their names."""
BUILT = ("retinanet", "fcos", "ssd", "ssdlite", "faster_rcnn")
"""Detectors that ``model.detector`` builds; the others are used through ``patch`` and ``SwapLoss``."""


def list_names() -> str:
    """Format one line for each registered name: its group, the option, the package and a short description."""
    rows = [row for group, argument in GROUPS.items() for row in _rows(group, argument)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = (
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _rows(group: str, argument: str) -> Iterator[tuple[str, str, str, str]]:
    for point in sorted(entry_points(group=f"lit_dense.{group}"), key=lambda p: p.name):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "?"
        value = f"--{argument}={point.name}"
        if group == "detectors" and point.name not in BUILT:
            value = f"patch, SwapLoss: {point.name}"
        yield group, value, package, summary(point)


def summary(point: EntryPoint) -> str:
    """Return the first docstring line of an entry point's object; empty if its source file does not contain it.

    Args:
        point: The entry point.
    """
    module, _, name = point.value.partition(":")
    return _docstring(module, name.strip(), 5)


def _docstring(module: str, name: str, depth: int) -> str:
    """Find a class in a module's file or, through at most ``depth`` imports, in another file."""
    path = _file(module)
    if path is None or depth == 0:
        return ""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _docstring(_absolute(module, path, node), alias.name, depth - 1)
    return ""


def _absolute(module: str, path: Path, node: ast.ImportFrom) -> str:
    """Return the absolute module name of a ``from ... import``."""
    if node.level == 0:
        return node.module or ""
    parts = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *filter(None, [node.module])])


def _file(module: str) -> Path | None:
    """Return the source file of a module without importing it."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    if rest:
        path = path.parent.joinpath(*rest)
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path if path.suffix == ".py" and path.exists() else None
