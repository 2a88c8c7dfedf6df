"""The files around the code: the site lists every page, workflows name commands that exist, the changelog is kept."""

import os
import re
import shlex
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml

import lit_dense

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GENERATED = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}
GENERATED |= {"contributing.md": "CONTRIBUTING.md", "security.md": "SECURITY.md"}
"""Pages of the site that are files of the repository (mkdocs_hooks.py)."""
REFERENCE = re.compile(r"reference/(lit_dense(?:\.\w+)?)\.md")
WITH_A_PAGE = ["losses", "box_losses", "weighters"]
WITH_A_SECTION = {
    "assigners": "assigners",
    "augmentations": "augmentation",
    "calibrators": "calibrators",
    "formats": "data",
    "normalizers": "normalizers",
    "samplers": "samplers",
}
"""Page of each group of parts that have a section."""
TOOLS = {"git", "mike", "mypy", "pip", "python", "ruff"}
"""Commands of the workflows that are no files of the repository."""


class SiteLoader(yaml.SafeLoader):
    """Reads mkdocs.yml, in which Python objects are named by tags."""


SiteLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)


def site():
    return yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), SiteLoader)


def navigation(entry):
    """The pages of a part of the navigation, in order; a folder stands for its pages."""
    if isinstance(entry, str):
        if entry.endswith("/") and entry != "reference/":
            return sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / entry).glob("*.md"))
        return [entry]
    return [page for inner in (entry.values() if isinstance(entry, dict) else entry) for page in navigation(inner)]


def registered(group):
    return sorted(p.name for p in entry_points(group=f"lit_dense.{group}") if p.value.startswith("lit_dense."))


def steps(workflow):
    content = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    return [step for job in content["jobs"].values() for step in job["steps"]]


def commands(workflow):
    """The words of every command of a workflow."""
    lines = [line for step in steps(workflow) for line in step.get("run", "").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True)) and "=" not in words[0]]


def test_navigation__lists_every_page_of_docs_once():
    listed = navigation(site()["nav"])
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert pages - set(listed) == set(), "not in nav of mkdocs.yml"
    assert len(listed) == len(set(listed))


def test_navigation__lists_only_pages_that_exist():
    others = {page for page in navigation(site()["nav"]) if not (DOCS / page).exists()}
    assert all((ROOT / source).is_file() for source in GENERATED.values())
    assert others == {"reference/", *GENERATED}


@pytest.mark.parametrize("group", WITH_A_PAGE)
def test_navigation__has_the_page_of_each_registered_part(group):
    pages = {page for page in navigation(site()["nav"]) if page.startswith(f"{group}/")}
    assert {f"{group}/{name}.md" for name in registered(group)} - pages == set()


@pytest.mark.parametrize("group", WITH_A_SECTION)
def test_page__has_each_registered_part(group):
    text = (DOCS / f"{WITH_A_SECTION[group]}.md").read_text(encoding="utf-8")
    assert [name for name in registered(group) if f"`{name}`" not in text and f"# {name}" not in text] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow__names_commands_that_exist(workflow):
    content = yaml.safe_load(workflow.read_text(encoding="utf-8"))
    assert content["name"] == workflow.stem
    assert content[True]  # YAML 1.1 reads the key `on` as true
    for command, *words in commands(workflow):
        if "/" in command:
            assert os.access(ROOT / command, os.X_OK), f"{command} is no command"
        else:
            assert command in TOOLS, command
        for word in words:
            if word.endswith(".py"):
                assert (ROOT / word).is_file(), word


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow__installs_extras_that_exist(workflow):
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = re.findall(r"\.\[([\w,]+)\]", workflow.read_text(encoding="utf-8") + (ROOT / ".ci/run").read_text())
    for extra in {extra for group in named for extra in group.split(",")}:
        assert re.search(rf"^{extra} = \[", text, re.M), f"no extra {extra}"


def test_workflows__are_the_four_of_the_project():
    assert [path.stem for path in WORKFLOWS] == ["benchmarks", "docs", "release", "tests"]


def test_tests_workflow__covers_each_python_of_the_classifiers_and_each_system():
    content = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8"))
    matrix = content["jobs"]["newest"]["strategy"]["matrix"]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert matrix["python"] == re.findall(r"Programming Language :: Python :: (3\.\d+)", text)
    systems = {*matrix["os"], *(entry["os"] for entry in matrix["include"])}
    assert systems == {"ubuntu-latest", "windows-latest", "macos-latest"}
    assert ".ci/oldest" in [words[0] for words in commands(ROOT / ".github/workflows/tests.yml")]


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem)
def test_issue_template__is_a_form(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.stem != "config":
        assert {"name", "description", "body"} <= set(content)
        ids = [field["id"] for field in content["body"]]
        assert len(ids) == len(set(ids))


def test_pre_commit__runs_commands_that_exist():
    content = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entries = [shlex.split(hook["entry"]) for repo in content["repos"] for hook in repo["hooks"]]
    assert {entry[0] for entry in entries} <= TOOLS


def test_changelog__begins_with_unreleased_and_has_known_sections():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## (.+)$", text, re.M)
    assert releases[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", release) for release in releases[1:])
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Fixed",
        "Removed",
        "Security",
    }


def test_citation__has_the_version_of_the_package():
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert content["cff-version"] == "1.2.0"
    assert content["version"] == lit_dense.__version__
    assert content["title"]
    assert content["authors"]


def test_contributing__names_folders_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:lit_dense|tests|docs)/[\w/.]+)`", text)
    real = [path for path in named if not re.search("NAME|METHOD", path)]
    assert [path for path in real if not (ROOT / path).exists()] == []
    assert [path for path in named if not (ROOT / path).parent.is_dir()] == []
    groups = re.findall(r"`lit_dense\.(\w+)` \|", text)
    assert sorted(groups) == sorted([*WITH_A_PAGE, *WITH_A_SECTION, "detectors"])
