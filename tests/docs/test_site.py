"""The pages that the documentation site generates (mkdocs_hooks.py)."""

import importlib.util
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest.importorskip("griffe", reason="of the extra docs")
pytest.importorskip("mkdocs", reason="of the extra docs")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hooks():
    specification = importlib.util.spec_from_file_location("mkdocs_hooks", ROOT / "mkdocs_hooks.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_registered__are_the_entry_points_of_the_package(hooks):
    groups = {group: sorted(points) for group, points in hooks.registered().items()}
    for group, names in groups.items():
        assert names == sorted(p.name for p in entry_points(group=group) if p.value.startswith("lit_dense."))
    assert "lit_dense.losses" in groups


def test_reference__documents_every_public_name_once(hooks):
    text = "\n".join(hooks.reference().values())
    paths = {path for names in hooks.public_names().values() for name, path in names.items() if name != "__version__"}
    documented = [line.removeprefix("::: ") for line in text.splitlines() if line.startswith("::: lit_dense.")]
    assert len(documented) == len(set(documented))
    missing = {
        path for path in paths - set(documented) if not any(d.endswith(path.rpartition(".")[2]) for d in documented)
    }
    assert missing == set()
    assert "lit_dense.losses.focal_loss.FocalLoss" in documented
    assert "lit_dense.functional.focal.focal_loss" in documented


@pytest.mark.parametrize(
    ("link", "source", "expected"),
    [
        ("docs/data.md#files", "README.md", "data.md#files"),
        ("../data.md", "docs/losses/focal.md", "../data.md"),
        ("../configs/coco.yaml", "docs/data.md", "repository/configs/coco.yaml.md"),
        ("../../examples/custom_loss", "docs/losses/efl.md", "../repository/examples/custom_loss.md"),
        ("../README.md", "docs/data.md", "index.md"),
        ("../CHANGELOG.md", "docs/data.md", "changelog.md"),
        ("nowhere.md", "docs/data.md", "nowhere.md"),
        ("https://arxiv.org/abs/1", "docs/data.md", "https://arxiv.org/abs/1"),
        ("../../../outside.md", "docs/data.md", "../../../outside.md"),
    ],
)
def test_link__leads_to_a_page_of_the_site(hooks, link, source, expected):
    page = hooks.PAGES.get(source, source.removeprefix("docs/"))
    assert hooks.rewritten(f"[a]({link}) and [b](x.md)", source, page) == f"[a]({expected}) and [b](x.md)"


def test_page_of_a_folder__shows_its_readme_and_every_file(hooks):
    text = hooks.page_of("examples/custom_loss")
    assert text.startswith("# A loss of your own")
    assert "(../../testing.md)" in text
    for name in ("hinge_loss.py", "pyproject.toml", "tests/test_hinge_loss.py"):
        assert f"## {name}\n\n````" in text
    assert "pyc" not in text
