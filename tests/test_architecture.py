"""The structure that docs/architecture.md describes: few entries at the top, imports that run one way."""

import ast
from collections import defaultdict
from pathlib import Path

import lit_dense

ROOT = Path(lit_dense.__file__).parent
FACES = {"__init__.py", "__init__.pyi", "__main__.py", "_version.py", "_moved.py", "py.typed"}
ALLOWED = {
    "functional": set(),
    "core": {"functional"},
    "visualization": {"core", "functional"},
    "metrics": {"core"},
    "normalizers": {"core"},
    "samplers": {"core"},
    "augmentations": {"core"},
    "assigners": {"core", "functional"},
    "calibrators": {"core", "functional"},
    "losses": {"core", "functional"},
    "box_losses": {"core", "functional", "losses"},
    "weighters": {"core", "functional", "assigners"},
    "criterion": {"core", "assigners", "box_losses", "calibrators", "losses", "normalizers", "weighters"},
}
ALLOWED["data"] = {"core", "samplers", "augmentations"}
ALLOWED["formats"] = {"core", "data"}
ALLOWED["detectors"] = {*ALLOWED["criterion"], "criterion", "functional"}
ALLOWED["testing"] = {*ALLOWED["detectors"], "detectors", "data", "formats"}
ALLOWED["export"] = {*ALLOWED["detectors"], "detectors"}
ALLOWED["callbacks"] = {*ALLOWED["detectors"], "detectors", "data", "metrics", "visualization"}
ALLOWED["training"] = {*ALLOWED["callbacks"], "callbacks", "export", "samplers", "augmentations"}
ALLOWED["cli"] = {*ALLOWED["training"], "training"}
ALLOWED["inference"] = {*ALLOWED["cli"], "cli"}
ALLOWED["compare"] = {*ALLOWED["cli"], "cli"}
"""What each package may import, from the lowest to the highest."""


def imports():
    """The packages and modules of lit_dense that each file imports, inside functions too."""
    found = defaultdict(set)
    for path in ROOT.rglob("*.py"):
        own = list(path.relative_to(ROOT).with_suffix("").parts)
        package = own[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            start = package[: len(package) - node.level + 1]
            module = [*start, *(node.module or "").split(".")] if node.module else start
            names = [alias.name for alias in node.names]
            targets = [[*module, name] for name in names] if _is_package(module) else [module]
            found[tuple(own)] |= {tuple(t if _is_module(t) else module) for t in targets}
    return found


def _is_package(parts):
    return ROOT.joinpath(*parts).is_dir()


def _is_module(parts):
    return ROOT.joinpath(*parts).is_dir() or ROOT.joinpath(*parts).with_suffix(".py").exists()


def test_top_of_the_package__has_few_entries():
    entries = {path.name for path in ROOT.iterdir() if path.name != "__pycache__"}
    assert len(entries - FACES) <= 24
    assert {name.removesuffix(".py") for name in entries - FACES} == ALLOWED.keys()


def test_imports__run_one_way():
    wrong = {
        f"{'/'.join(own)} imports {target[0]}"
        for own, targets in imports().items()
        for target in targets
        if len(own) > 1 or own[0] == "criterion"
        if target and target[0] not in ("_moved", "_version", own[0]) and target[0] not in ALLOWED[own[0]]
    }
    assert not wrong


def test_imports__have_no_circle_between_files():
    arrows = {own: {t for t in targets if t != own} for own, targets in imports().items()}
    done, path = set(), []

    def follow(module):
        assert module not in path, f"a circle: {[*path, module]}"
        if module in done:
            return
        path.append(module)
        for target in sorted(arrows.get(module, ())):
            follow(target)
        path.pop()
        done.add(module)

    for module in sorted(arrows):
        follow(module)


def test_files__are_short():
    long = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if len(path.read_text().splitlines()) > 450}
    assert not long
