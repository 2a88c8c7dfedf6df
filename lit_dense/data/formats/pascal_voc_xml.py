"""Parsing of one of Pascal VOC's XML files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

CORNERS = ("xmin", "ymin", "xmax", "ymax")
SHAPES = ("robndbox", "polygon", "segmentation", "mask", "point", "line")
"""Elements of shapes other than an upright box."""


class VOCObject(NamedTuple):
    """An ``object`` element, as written.

    Args:
        name: The class; empty if there is none.
        corners: The texts of xmin, ymin, xmax and ymax; empty if they are missing.
        difficult: The mark; None if there is none.
        weight: The weight; None if there is none or none was asked for.
        boxes: Number of its ``bndbox`` elements; the corners are those of the first.
        shape: The element of another shape, if there is no ``bndbox``; else empty.
    """

    name: str
    corners: tuple[str, str, str, str]
    difficult: str | None = None
    weight: str | None = None
    boxes: int = 1
    shape: str = ""


class VOCFile(NamedTuple):
    """The needed content of a file, as written.

    Args:
        filename: The name of the image; empty if there is none.
        width: Width of the image; None if there is none.
        height: Height of the image; None if there is none.
        objects: The objects.
    """

    filename: str
    width: str | None
    height: str | None
    objects: list[VOCObject]


# The elements in the order in which nearly all tools write them. A file with anything else takes the slower parser.
_FILENAME = re.compile(r"<filename>([^<&]*)</filename>")
_SIZE = re.compile(r"<size>\s*<width>([^<&]*)</width>\s*<height>([^<&]*)</height>")
_OBJECT = re.compile(
    r"<object>\s*<name>([^<&]+)</name>\s*(?:<(?:pose|truncated|occluded)>[^<&]*</\w+>\s*)*"
    r"(?:<difficult>([^<&]*)</difficult>\s*)?(?:<occluded>[^<&]*</occluded>\s*)?"
    r"<bndbox>\s*<xmin>([^<&]+)</xmin>\s*<ymin>([^<&]+)</ymin>\s*<xmax>([^<&]+)</xmax>\s*<ymax>([^<&]+)</ymax>\s*"
    r"</bndbox>\s*</object>"
)


def parse_voc(path: str, weight_key: str | None = None) -> VOCFile | str:
    """Parse a file; a text describes the fault of one that cannot be used.

    Args:
        path: The file.
        weight_key: The element of an object's weight. Default: no weights are read.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (pathlib is slow for 100,000 files)
            content = file.read()
        regular = _regular(content) if weight_key is None else None
        return regular or _from_tree(ElementTree.fromstring(content), weight_key)
    except ElementTree.ParseError as error:
        line, column = error.position
        return f", line {line}, column {column + 1}: {str(error).partition(':')[0]}"
    except (OSError, ValueError, LookupError) as error:
        return f": {error}"


def _regular(content: bytes) -> VOCFile | None:
    """Parse a file of the usual form, several times faster than an XML parser; None if it has another form."""
    if b"<!" in content or b"encoding=" in content or not content.rstrip().endswith(b"</annotation>"):
        return None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return None
    objects = [VOCObject(m[0].strip(), (m[2], m[3], m[4], m[5]), m[1] or None) for m in _OBJECT.findall(text)]
    name, size = _FILENAME.search(text), _SIZE.search(text)
    if not text.lstrip("\ufeff \t\r\n").startswith("<annotation>") or len(objects) != text.lower().count("<object"):
        return None
    if name is None or size is None:
        return None
    return VOCFile(name[1].strip(), size[1], size[2], objects)


def _from_tree(root: Element, weight_key: str | None) -> VOCFile | str:
    if root.tag != "annotation":
        return f", line 1: the root element is {root.tag}, not annotation"
    size = root.find("size")
    width, height = (None if size is None else size.findtext(side) for side in ("width", "height"))
    objects = []
    for entry in root.iter():
        if not isinstance(entry.tag, str) or entry.tag.lower() != "object":  # comments have no text as tag
            continue
        boxes = entry.findall("bndbox")
        x1, y1, x2, y2 = (boxes[0].findtext(key) or "" if boxes else "" for key in CORNERS)
        weight = None if weight_key is None else entry.findtext(weight_key)
        name = (entry.findtext("name") or "").strip()
        shape = "" if boxes else next((tag for tag in SHAPES if entry.find(tag) is not None), "")
        objects.append(VOCObject(name, (x1, y1, x2, y2), entry.findtext("difficult"), weight, len(boxes), shape))
    return VOCFile((root.findtext("filename") or "").strip(), width, height, objects)


def line_of_object(path: Path, number: int) -> int:
    """Return the line, counted from 1, on which an ``object`` element of a file begins.

    Args:
        path: The XML file.
        number: The element's number, counted from 1.
    """
    try:
        content = path.read_bytes()
    except OSError:
        return 1
    starts: Iterator[re.Match[bytes]] = re.finditer(rb"<object[\s>/]", content, re.IGNORECASE)
    start = next((match.start() for index, match in enumerate(starts, start=1) if index == number), 0)
    return content.count(b"\n", 0, start) + 1
