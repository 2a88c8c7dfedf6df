"""The cells of the tutorials, which tests run, and their notebooks.

    python -m tests.builders.tutorials    # writes the notebook beside each tutorial

A tutorial is a page of docs/tutorials. Its fenced blocks are cells, by language: ``python`` is run, ``bash`` holds
commands of a terminal, and a block with ``title="NAME"`` is a file. Blocks of other languages are text. A block after
the line ``<!-- slow -->`` is run with ``--slow`` only.
"""

import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parents[2] / "docs" / "tutorials"
PAGES = sorted(FOLDER.glob("*.md"))
BLOCK = re.compile(r'(<!-- slow -->\n)?^```(\w+)(?: title="([^"]+)")?\n(.*?)^```\n', re.M | re.S)
TEXT = "markdown"


class Cell(NamedTuple):
    """Text, a file, Python or commands."""

    kind: str
    source: str
    file: str = ""
    slow: bool = False


def cells(page):
    """The cells of a page in their order."""
    text, found, end = page.read_text(encoding="utf-8"), [], 0
    for match in BLOCK.finditer(text):
        slow, language, file, source = match.groups()
        if file or language in ("python", "bash"):
            found.append(Cell(TEXT, text[end : match.start()].strip("\n")))
            found.append(Cell("file" if file else language, source.rstrip("\n"), file or "", bool(slow)))
            end = match.end()
    found.append(Cell(TEXT, text[end:].strip("\n")))
    return [cell for cell in found if cell.source]


def notebook(page):
    """The text of a page's notebook: its cells, without outputs."""
    made = []
    for number, cell in enumerate(cells(page)):
        source = cell.source
        if cell.kind == "bash":
            source = "\n".join(f"!{line}" for line in source.splitlines())
        elif cell.kind == "file":
            source = f"%%writefile {cell.file}\n{source}"
        entry = {"id": f"cell-{number}", "metadata": {}, "source": source.splitlines(keepends=True)}
        if cell.kind == TEXT:
            made.append({"cell_type": "markdown", **entry})
        else:
            made.append({"cell_type": "code", "execution_count": None, **entry, "outputs": []})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {
        "cells": made,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def write_notebooks():
    for page in PAGES:
        page.with_suffix(".ipynb").write_text(notebook(page), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    sys.exit(write_notebooks())
