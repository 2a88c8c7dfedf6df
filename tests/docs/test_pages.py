"""The pages of docs/: their links, and the sections of the page of each method."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
METHODS = [p for kind in ("losses", "box_losses", "weighters") for p in sorted((ROOT / "docs" / kind).glob("*.md"))]
NO_METHOD = {"README.md", "iou_arguments.md"}


def anchors(text):
    """The anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages__links_lead_to_a_file_and_a_heading(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        if link.startswith("http"):
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("page", [p for p in METHODS if p.name not in NO_METHOD], ids=lambda page: page.stem)
def test_pages__of_methods_have_the_same_sections(page):
    text = page.read_text(encoding="utf-8")
    for section in ("When", "Cost", "Pitfalls", "Differences"):
        assert f"**{section}" in text, section
