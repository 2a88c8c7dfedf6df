"""Figures of errors: what they show, and that they are drawn without data too."""

import warnings

import numpy as np
import pytest

from lit_dense.metrics.calibration import reliability
from lit_dense.visualization.error_figures import bins_of, costs_figure, reliability_figure, scores_figure
from lit_dense.visualization.figures import to_svg


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("runs", [1, 2, 6, 13])
def test_costs_figure__a_bar_for_each_run_and_type(runs):
    figure = costs_figure({f"run {n}": {"classification": 0.1 * n, "missed": 0.0} for n in range(runs)})
    axes = figure.axes[0]
    assert [bar.get_width() for bars in axes.containers for bar in bars] == [
        pytest.approx(value) for n in range(runs) for value in (0.1 * n, 0)
    ]
    assert len({(bars[0].get_facecolor(), bars[0].get_hatch()) for bars in axes.containers}) == min(runs, 6)
    to_svg(figure)


def test_scores_figure__counts_right_and_wrong():
    true, false = bins_of(np.array([0.05, 1.0, 0.5]), (np.array([True, True, False]), np.array([False, False, True])))
    assert (true[[1, 24]].tolist(), true.sum(), false[12], false.sum()) == ([1, 1], 2, 1, 1)
    texts = [text.get_text() for text in scores_figure(true, false).axes[0].get_legend().get_texts()]
    assert texts == ["wrong: 1", "right: 2"]


@pytest.mark.parametrize("number", [0, 3])
def test_figures__of_few_or_no_detections(number):
    scores = np.linspace(0.1, 0.9, number)
    is_true = scores > 0.5
    curve = reliability(scores, is_true)
    to_svg(scores_figure(*bins_of(scores, (is_true, ~is_true))))
    figure = reliability_figure(*curve, error=curve.error)
    to_svg(figure)
    lines = figure.axes[0].get_lines()
    assert len(lines) == (2 if number else 0)
    assert number == 0 or lines[1].get_ydata().tolist() == [0, 0, 1]
