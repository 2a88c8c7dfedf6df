import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from lit_dense.functional.loss_distribution import NORM_BINS, VALUE_BINS
from lit_dense.visualization import evaluation_figures, figures

SIZES = [1, 3, 20, 80, 1203]


def names_of(number):
    return [f"a class with quite a long name, the one number {k}" for k in range(number)]


def evaluation(number, truth=True):
    rng = np.random.default_rng(0)
    precision = np.sort(rng.random((number, 101)))[:, ::-1]
    confusion = rng.poisson(3, (number + 1, number + 1)) + 12345 * np.eye(number + 1, dtype=int)
    if not truth:
        precision, confusion[:-1] = np.full_like(precision, -1), 0
    return precision, precision.mean(1), confusion


def loss_sums(number, levels=5, positives=True):
    rng = np.random.default_rng(0)
    counts = np.stack([rng.poisson(5, NORM_BINS) * positives, rng.poisson(1e6 * np.exp(-np.arange(NORM_BINS)))])
    spread = np.zeros((2, 2, VALUE_BINS))
    spread[:, :, 500:600] = rng.random((2, 2, 100))
    spread[:, 0] *= positives
    classes = rng.random(number + 1) * ([positives] * number + [True])
    return {
        "norm_counts": counts.astype(float),
        "before": rng.random(NORM_BINS),
        "after": rng.random(NORM_BINS) ** 9,
        "losses": spread,
        "entropies": spread[:, :, ::-1],
        "classes": classes,
        "levels": rng.random((levels, 2)) if levels else None,
    }


FIGURES = {
    **{f"curves of {k}": lambda k=k: figures.precision_recall_figure(*evaluation(k)[:2], names_of(k)) for k in SIZES},
    **{f"confusion of {k}": lambda k=k: figures.confusion_figure(evaluation(k)[2], names_of(k), 0.3) for k in SIZES},
    **{
        f"loss of {k}": lambda k=k: figures.loss_figure(200, "FocalLoss", **loss_sums(k), class_names=names_of(k))
        for k in (1, 1203)
    },
    "curves without truth": lambda: figures.precision_recall_figure(*evaluation(3, False)[:2], names_of(3)),
    "confusion without truth": lambda: figures.confusion_figure(evaluation(3, False)[2], names_of(3), 0.3),
    "loss without positives": lambda: figures.loss_figure(
        1, "FocalLoss", **loss_sums(3, positives=False), class_names=names_of(3)
    ),
    "loss without levels": lambda: figures.loss_figure(1, "FocalLoss", **loss_sums(3, 0), class_names=names_of(3)),
    "no loss": lambda: figures.loss_figure(
        1, "FocalLoss", **{k: v * 0 for k, v in loss_sums(3).items()}, class_names=names_of(3)
    ),
}


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_figures__no_text_overlaps_another_or_is_cut(figure, monkeypatch, recwarn):
    figure = figure()
    canvas, drawn, draw = FigureCanvasAgg(figure), [], Text.draw

    def note(text, renderer):
        if text.get_visible() and text.get_text().strip():
            drawn.append((text.get_text(), text.get_window_extent(renderer)))
        draw(text, renderer)

    monkeypatch.setattr(Text, "draw", note)
    canvas.draw()
    width, height = canvas.get_width_height()
    assert len(drawn) > 1
    for text, box in drawn:
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -1, text
    for (one, a), (other, b) in combinations(drawn, 2):
        shared = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(shared) < 2, (one, other)
    assert not recwarn.list


def texts(figure):
    figures.to_picture(figure)
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_to_picture__is_in_colour_and_of_the_figures_size():
    picture = figures.to_picture(FIGURES["curves of 3"]())
    assert (picture.mode, picture.size) == ("RGB", (1000, 600))
    assert len(picture.getcolors(2**20)) > 20
    assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_to_svg__can_stand_in_a_page_and_is_reproducible():
    one, other = figures.to_svg(FIGURES["confusion of 3"]()), figures.to_svg(FIGURES["confusion of 3"]())
    assert one == other
    assert ET.fromstring(one).tag.endswith("svg")


def test_precision_recall_figure__of_many_classes_the_best_and_the_worst_are_drawn_and_the_mean_is_of_all():
    precision, ap = np.repeat(np.arange(30)[:, None] / 30, 101, 1), np.arange(30) / 30
    precision[7], ap[7] = -1, -1  # no ground truth
    figure = figures.precision_recall_figure(precision, ap, [f"c{k}" for k in range(30)])
    lines = {line.get_label().split()[0]: line for line in figure.axes[0].lines}
    assert set(lines) == {f"c{k}" for k in (29, 28, 27, 26, 25, 24, 5, 4, 3, 2, 1, 0)} | {"mean"}
    assert lines["mean"].get_ydata()[0] == pytest.approx((sum(range(30)) - 7) / 30 / 29)
    assert (
        len({(line.get_color(), line.get_linestyle(), line._dash_pattern[1] is None) for line in lines.values()}) == 13
    )


def test_confusion_figure__of_many_classes_the_most_confused_are_shown_and_rows_keep_their_sum():
    confusion = np.diag(np.full(51, 5))
    confusion[40, 3] = 7
    confusion[40, 50] = 2  # missed
    confusion[40, 10] = 1
    confusion[50, 40] = 4  # false
    confusion[1, 0] = 1
    names = [f"c{k}" for k in range(50)]
    shown, counts, columns = evaluation_figures._confused(confusion, names)
    assert {0, 1, 3, 10, 40} <= set(shown.tolist())
    assert len(shown) == 20
    assert columns[-2:] == ["other classes", "background"]
    np.testing.assert_array_equal(counts.sum(1), confusion[[*shown, 50]].sum(1))
    row = dict(zip(columns, counts[list(shown).index(40)].tolist(), strict=True))
    assert (row["c40"], row["c3"], row["other classes"], row["background"]) == (5, 7, 0, 2)


def test_confusion_figure__counts_of_small_matrices_are_printed_and_background_is_named():
    found = texts(figures.confusion_figure(np.array([[7, 1, 2], [0, 9, 3], [4, 5, 0]]), ["cat", "dog"], 0.25))
    assert {"7", "1", "2", "9", "3", "4", "5", "cat", "dog", "background"} <= set(found)
    assert "0" not in found
    assert any("score from 0.25" in text for text in found)


def test_figures__names_with_dollars_and_unknown_letters_are_no_formulas(recwarn):
    found = texts(figures.precision_recall_figure(*evaluation(2)[:2], ["5$ or $6", "猫"]))
    assert any(text.startswith(r"5\$ or \$6") for text in found)
    assert not recwarn.list


def test_loss_figure__shares_are_printed_beside_their_bars():
    sums = loss_sums(2)
    sums["classes"], sums["levels"] = np.array([3.0, 1.0, 6.0]), np.array([[1.0, 2.0], [1.0, 0.0]])
    found = texts(figures.loss_figure(5, "GHMLoss", **sums, class_names=["cat", "dog"]))
    assert {"30.0 %", "10.0 %", "60.0 %", "75.0 %", "25.0 %", "cat", "dog", "background"} <= set(found)
    assert "Step 5: GHMLoss" in found


def test_callbacks__import_no_matplotlib_until_they_draw():
    code = "import sys, lit_dense.callbacks; sys.exit('lit_dense.visualization.figures' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
