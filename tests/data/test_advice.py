"""Figures of a training set and the rules of ``lit-dense advise``."""

from pathlib import Path

import numpy as np
import pytest

from lit_dense.data import CocoData
from lit_dense.data import advice as rules
from lit_dense.data.advice import Figures, InputSize, advise, findings, measure

BALANCED = Figures(
    images=5000,
    empty_share=0.0,
    boxes=20000,
    classes=3,
    absent=0,
    imbalance=1.5,
    frequent="cat",
    rare="dog",
    rare_images=0.3,
    relative_side=0.2,
    input_side=160.0,
    small_share=0.0,
    crowded_share=0.0,
    objects_per_image=4.0,
    objects_spread=0.4,
    divided_by_image=True,
    federated=False,
    input_size=InputSize(800, 1333),
)


def made(boxes, images, categories, iscrowd=None, sizes=((100, 200), (100, 100), (50, 50))):
    """Data of three images; ``images`` are the ascending image indices of the boxes."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return CocoData(
        path=Path("train.json"),
        folder=Path(),
        categories=[{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "elk"}],
        image_ids=np.arange(len(sizes)),
        file_names=[f"{n}.png" for n in range(len(sizes))],
        sizes=np.array(sizes),
        upright=np.ones(len(sizes), bool),
        offsets=np.searchsorted(images, np.arange(len(sizes) + 1)),
        annotation_ids=np.arange(len(boxes)),
        category_ids=np.array(categories, np.int64),
        boxes=boxes,
        area=np.ones(len(boxes), np.float32),
        iscrowd=np.zeros(len(boxes), bool) if iscrowd is None else np.array(iscrowd),
    )


def topics(figures):
    return [advice.topic for advice in advise(figures)]


def runs(figures):
    return [trial.name for advice in advise(figures) for trial in advice.trials]


def test_measure__the_numbers():
    boxes = [(0, 0, 20, 20), (0, 0, 20, 10), (50, 50, 90, 90), (0, 0, 10, 10), (0, 0, 20, 20)]
    figures = measure(made(boxes, [0, 0, 0, 1, 1], [3, 3, 7, 3, 9], [False] * 4 + [True]), InputSize(200, 300))
    assert (figures.images, figures.boxes, figures.classes, figures.absent) == (3, 4, 2, 1)
    assert figures.empty_share == pytest.approx(1 / 3)
    assert (figures.imbalance, figures.frequent, figures.rare, figures.rare_images) == (3, "cat", "dog", 0.5)
    # scales 1.5 (its longer side is limited) and 2: sides 30, 21.2, 60 and 20
    assert figures.small_share == 0.75
    assert figures.input_side == pytest.approx((30 + 1.5 * 200**0.5) / 2)
    assert figures.relative_side == pytest.approx((0.1 + 20 / 20000**0.5) / 2)
    assert figures.crowded_share == 0.5  # IoU 0.5; the crowd box is not counted
    assert figures.objects_per_image == pytest.approx(4 / 3)  # 3, 1 and 0 objects
    assert figures.objects_spread == pytest.approx((14 / 9) ** 0.5 * 3 / 4)


def test_measure__squares():
    assert InputSize(320, 300, squares=True).scales(np.array([[100, 200]])).tolist() == [[3, 1.5]]


@pytest.mark.parametrize("pairs", [1, 3, 1_000_000])
def test_measure__overlaps_do_not_depend_on_chunks(monkeypatch, pairs):
    monkeypatch.setattr(rules, "CHUNK_PAIRS", pairs)
    boxes = [(0, 0, 10, 10), (0, 0, 10, 8), (30, 30, 40, 40), (0, 0, 10, 10)]
    assert measure(made(boxes, [0, 0, 0, 1], [3] * 4), InputSize(100, 100)).crowded_share == 0.5


def test_measure__overlaps_of_images_in_regular_intervals_if_there_are_too_many_pairs(monkeypatch):
    data = made([(0, 0, 9, 9), (0, 0, 9, 9), (0, 0, 9, 9), (0, 0, 9, 9)], [0, 0, 1, 2], [3] * 4)
    assert measure(data, InputSize(100, 100)).crowded_share == 0.5
    monkeypatch.setattr(rules, "MAX_PAIRS", 3)  # of 4 + 1 + 1: every second image
    assert measure(data, InputSize(100, 100)).crowded_share == pytest.approx(2 / 3)


@pytest.mark.parametrize("crowd", [True, None])
def test_measure__no_objects(crowd):
    data = made([(0, 0, 9, 9)], [0], [3], [True]) if crowd else made([], [], [])
    figures = measure(data, InputSize(100, 100))
    assert (figures.boxes, figures.empty_share, figures.imbalance) == (0, 1, 1)
    assert topics(figures) == ["empty_images", "few_images"]
    assert (figures.objects_per_image, figures.objects_spread) == (0, 0)
    assert "0 of 0 classes" in findings(figures)


def test_advise__nothing_for_balanced_data():
    assert advise(BALANCED) == []
    assert "1.5 (cat : dog): nothing points at imbalance" in findings(BALANCED)
    assert "->" not in findings(BALANCED)


def test_advise_imbalance__limit():
    assert topics(BALANCED._replace(imbalance=9.9)) == []
    figures = BALANCED._replace(imbalance=10.0, rare_images=0.01)
    assert topics(figures) == ["imbalance"]
    assert runs(figures) == ["class_weights", "class_aware", "repeat_factor"]
    assert "cat has 10 times the boxes of dog, which is in 1.0%" in advise(figures)[0].reason
    assert "10.0 (cat : dog)  -> imbalance" in findings(figures)
    sampler = advise(figures)[0].trials[2].settings["data"]["sampler"]
    assert sampler["init_args"]["threshold"] == 0.04  # sqrt(0.04 / 0.01) = 2
    assert runs(figures._replace(rare_images=0.26)) == ["class_weights", "class_aware"]


def test_advise_imbalance__a_long_tail_has_other_runs():
    figures = BALANCED._replace(imbalance=100.0, classes=50, rare_images=0.01)
    assert topics(figures) == ["long_tail"]
    assert runs(figures) == ["repeat_factor", "eql_v2", "seesaw"]
    assert topics(figures._replace(classes=49)) == ["imbalance"]
    assert topics(figures._replace(imbalance=99.0)) == ["imbalance"]


def test_advise_uneven__limit_and_models_that_divide_by_the_batch():
    assert "uneven_images" not in topics(BALANCED)
    uneven = BALANCED._replace(objects_spread=0.5)
    assert runs(uneven) == ["batch_normalizer"]
    assert "4.0 objects on average, with a standard deviation of 50% of the mean" in advise(uneven)[0].reason
    imbalanced = uneven._replace(imbalance=10.0, rare_images=0.3)
    assert runs(imbalanced) == ["batch_normalizer", "class_weights", "class_aware_batch"]
    assert advise(imbalanced)[1].trials[1].settings == {
        "data": {"sampler": "class_aware"},
        "model": {"normalizer": "batch"},
    }
    assert "uneven_images" not in topics(uneven._replace(divided_by_image=False))


def test_advise_small__limit_and_sizes():
    assert topics(BALANCED._replace(small_share=0.29)) == []
    figures = BALANCED._replace(small_share=0.3)
    assert runs(figures) == ["larger", "nwd_assigner"]
    assert advise(figures)[0].trials[0].settings == {"model": {"min_size": 1200, "max_size": 2000}}
    squares = figures._replace(input_size=InputSize(320, 320, squares=True))
    assert runs(squares) == ["nwd_assigner"]


def test_advise_crowded__limit():
    assert topics(BALANCED._replace(crowded_share=0.09)) == []
    assert runs(BALANCED._replace(crowded_share=0.1)) == ["nms_60", "simota", "dw"]


def test_advise_empty__limit():
    assert topics(BALANCED._replace(empty_share=0.49)) == []
    assert runs(BALANCED._replace(empty_share=0.5)) == ["empty_10", "empty_30"]


def test_advise_few__counts_images_with_objects():
    assert topics(BALANCED._replace(images=500)) == []
    assert runs(BALANCED._replace(images=499)) == ["copy_paste", "mosaic"]
    assert topics(BALANCED._replace(images=600, empty_share=0.4)) == ["few_images"]
    assert "mosaic" not in runs(BALANCED._replace(images=499, small_share=0.5))


def test_advise_federated__comes_first():
    figures = BALANCED._replace(federated=True, imbalance=20.0)
    assert topics(figures) == ["federated", "imbalance"]


def test_advise__sections_of_the_page_exist():
    figures = BALANCED._replace(
        images=10,
        federated=True,
        imbalance=500.0,
        small_share=1.0,
        crowded_share=1.0,
        empty_share=0.6,
        objects_spread=1.0,
    )
    page = Path(__file__).parents[2].joinpath("docs/choosing.md").read_text(encoding="utf-8")
    headings = {line[3:].lower().replace(" ", "-") for line in page.splitlines() if line.startswith("## ")}
    advised = [*advise(figures), *advise(figures._replace(classes=80))]
    assert len({advice.topic for advice in advised}) == len(rules.RULES) + 1
    assert {advice.page for advice in advised} <= headings
