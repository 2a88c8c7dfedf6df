"""Parts of self-contained HTML pages: tables, embedded figures and images, and the templates.

This module imports matplotlib, so other modules import it only when they write a page.
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from PIL import Image

from .figures import to_svg


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        headers: Headers of the columns; the first column is the name of the row.
        rows: The cells of each row.
        notes: Sentences below the table.
        bold: Indices of highlighted rows.
        marked: Row and column of highlighted cells.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    bold: Sequence[int] = ()
    marked: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True)
class Panel:
    """A plot of one run.

    Args:
        run: Name of the run.
        content: The HTML element of the plot.
    """

    run: str
    content: Markup


def template(package: str, name: str) -> jinja2.Template:
    """Load a template of a package; it can extend and import the templates of this package.

    Args:
        package: The package.
        name: File name of the template, without the suffix ``.jinja``. HTML is escaped.
    """
    packages = (package, "lit_dense.visualization")
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(one, "") for one in packages]),
        autoescape=name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _markdown_cell
    return environment.get_template(f"{name}.jinja")


def _markdown_cell(text: str) -> str:
    """Escape text for a Markdown table, so that it contains neither cell borders nor HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


def embedded_svg(figure: Figure, name: str, description: str) -> Markup:
    """Embed a figure in a page; matplotlib escapes its text.

    Args:
        figure: The figure.
        name: A name that no other figure of the page has. It becomes the prefix of ids, which matplotlib repeats.
        description: Text for readers who do not see the figure.
    """
    return embedded_svg_text(to_svg(figure), name, description)


def embedded_svg_text(svg: str, name: str, description: str) -> Markup:
    """Embed a figure that is rendered already; arguments and result are those of :func:`embedded_svg`.

    Args:
        svg: The ``<svg>`` element.
        name: A name that no other figure of the page has.
        description: Text for readers who do not see the figure.
    """
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))


def to_webp(picture: Image.Image, quality: int = 90) -> bytes:
    """Encode an image as WebP: a tenth of a photograph's size as PNG."""
    file = io.BytesIO()
    picture.save(file, format="WEBP", quality=quality)
    return file.getvalue()


def embedded_image(webp: bytes, description: str) -> Markup:
    """Embed a WebP image in a page."""
    data = base64.b64encode(webp).decode()
    return Markup('<img loading="lazy" src="data:image/webp;base64,{}" alt="{}">').format(data, description)
