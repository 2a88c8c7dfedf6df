"""Parts of self-contained pages."""

import re

from matplotlib.figure import Figure
from PIL import Image

from lit_dense.visualization.page import Table, embedded_image, embedded_svg, template, to_webp


def plot():
    figure = Figure(figsize=(2, 2))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], marker="o")
    axes.set_title("a < b")
    return figure


def test_embedded_svg__two_figures_share_no_ids_and_keep_their_references():
    first, second = (embedded_svg(plot(), name, 'the "line" & <more>') for name in ("first", "second"))
    ids = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', first))
    assert used
    assert {a or b for a, b in used} <= ids[0]
    assert first.startswith('<svg role="img" aria-label="the &#34;line&#34; &amp; &lt;more&gt;"')


def test_embedded_image__escapes_its_description():
    element = embedded_image(to_webp(Image.new("RGB", (2, 2))), '"><script>')
    assert "<script>" not in element
    assert element.startswith('<img loading="lazy" src="data:image/webp;base64,')


def test_template__extends_the_shared_page_and_escapes():
    page = template("lit_dense.visualization", "page.html").render(title="<b>")
    assert "<title>&lt;b&gt;</title>" in page
    macros = template("lit_dense.visualization", "macros.html").module
    table = macros.table(Table(["a", "b"], [["<i>", "1"], ["x", "2"]], ["note"], marked=frozenset({(1, 1)})))
    assert "&lt;i&gt;" in table
    assert re.findall(r"<td[^>]*>\d</td>", table) == ["<td>1</td>", '<td class="most">2</td>']
