"""What an evaluation finds besides COCO's numbers: curves, the confusion matrix, groups, LVIS's numbers."""

import contextlib
import io
import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_dense.metrics import DetectionMAP, DetectionTable, bootstrap, frequency_groups, resampled_ap
from lit_dense.metrics.evaluation import RECALLS, evaluate
from tests.builders.detection_images import NAMES, as_json, make_images, pycocotools_evaluation, random_rows, update


def evaluation_of(images, names=NAMES, **arguments):
    metric = DetectionMAP(names, **arguments)
    update(metric, images)
    metric.compute()
    return metric.evaluation


def image(image_id=1, found=(), objects=()):
    """Detections as (box, label, score) and objects as (box, label) or (box, label, crowd)."""
    pred = {
        "boxes": torch.tensor([box for box, _, _ in found], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([label for _, label, _ in found], dtype=torch.int64),
        "scores": torch.tensor([score for _, _, score in found], dtype=torch.float32),
    }
    target = {
        "boxes": torch.tensor([o[0] for o in objects], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([o[1] for o in objects], dtype=torch.int64),
        "iscrowd": torch.tensor([len(o) > 2 for o in objects], dtype=torch.int64),
    }
    return pred, target, image_id


A, B, FAR = (0, 0, 10, 10), (100, 0, 110, 10), (200, 200, 220, 220)


def test_evaluation__is_none_before_compute_and_reset_leaves_it():
    metric = DetectionMAP(NAMES)
    assert metric.evaluation is None
    update(metric, make_images(4))
    metric.compute()
    metric.reset()
    assert metric.evaluation is not None


def test_curves__are_pycocotools():
    images = make_images(40)
    expected = pycocotools_evaluation(images, len(NAMES)).eval
    found = evaluation_of(images)
    np.testing.assert_allclose(found.precision_50, expected["precision"][0, :, :, 0, -1].T, atol=1e-6)
    np.testing.assert_allclose(found.scores_50, expected["scores"][0, :, :, 0, -1].T, atol=1e-6)
    np.testing.assert_allclose(found.ap_50, found.precision_50.mean(1), atol=1e-6)
    assert found.precision_50.shape == (len(NAMES), len(RECALLS))


def test_curves__of_a_class_without_ground_truth_are_minus_one():
    found = evaluation_of([image(found=[(A, 1, 0.9)], objects=[(A, 0)])])
    assert (found.precision_50[1] == -1).all()
    assert (found.precision_50[0] == 0).all()


def test_confusion_matrix__of_an_image_worked_by_hand():
    picture = image(
        found=[
            (A, 0, 0.9),  # right
            (A, 0, 0.8),  # the same object again: background
            (B, 2, 0.7),  # the wrong class
            (FAR, 1, 0.6),  # nothing there
            (A, 1, 0.2),  # below the score
        ],
        objects=[(A, 0), (B, 1), ((300, 300, 310, 310), 3)],
    )
    expected = np.zeros((5, 5), int)
    expected[0, 0] = expected[1, 2] = expected[3, 4] = expected[4, 0] = expected[4, 1] = 1
    found = evaluation_of([picture])
    assert found.confusion.tolist() == expected.tolist()
    expected[4, 1] += 1  # of the low score
    assert evaluation_of([picture], confusion_score=0.1).confusion.tolist() == expected.tolist()


def test_confusion_matrix__leaves_out_detections_in_a_crowd_of_their_class():
    crowd = (100, 100, 200, 200)
    picture = image(
        found=[((110, 110, 130, 130), 0, 0.9), ((140, 140, 160, 160), 1, 0.9), (A, 0, 0.9)],
        objects=[(crowd, 0, True), (A, 0)],
    )
    expected = np.zeros((5, 5), int)
    expected[0, 0] = expected[4, 1] = 1
    assert evaluation_of([picture]).confusion.tolist() == expected.tolist()


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), score=st.sampled_from([0.05, 0.3, 0.6]))
def test_confusion_matrix__counts_every_object_and_every_detection_once(seed, score):
    images = make_images(6, seed)
    confusion = evaluation_of(images, confusion_score=score).confusion
    objects = np.concatenate([t["labels"].numpy() for _, t, _ in images])
    found = np.concatenate([p["labels"][p["scores"] >= score].numpy() for p, _, _ in images])
    assert confusion[:-1].sum(1).tolist() == np.bincount(objects, minlength=4).tolist()
    assert confusion[:, :-1].sum(0).tolist() == np.bincount(found, minlength=4).tolist()


def test_rows__hold_what_was_given_and_survive_a_file(tmp_path):
    images = make_images(5)
    rows = evaluation_of(images).rows
    rows.save(tmp_path / "rows.npz")
    read = DetectionTable.load(tmp_path / "rows.npz")
    assert read.image_ids.tolist() == sorted(i for _, _, i in images)
    for number, image_id in enumerate(read.image_ids):
        ((pred, target),) = [(p, t) for p, t, i in images if i == image_id]
        mine = read.images == number
        assert read.boxes[mine].tolist() == [*pred["boxes"].tolist(), *target["boxes"].tolist()]
        assert read.labels[mine].tolist() == [*pred["labels"].tolist(), *target["labels"].tolist()]


# Rare, common and frequent classes


def test_frequency_groups__follow_lvis_bounds():
    assert frequency_groups([0, 10, 11, 100, 101]) == {"rare": [0, 1], "common": [2, 3], "frequent": [4]}
    assert frequency_groups([1, 2, 3], (1, 2)) == {"rare": [0], "common": [1], "frequent": [2]}


def test_frequency_groups__ap_is_the_mean_of_the_classes_that_occur():
    images = make_images(30)
    numbers = evaluation_of(images, [*NAMES, "never seen"], class_images=[5, 7, 50, 500, 2]).numbers
    assert numbers["map_rare"] == pytest.approx((numbers["map/cat"] + numbers["map/dog"]) / 2)
    assert numbers["map_common"] == pytest.approx(numbers["map/bird"])
    assert numbers["map_frequent"] == pytest.approx(numbers["map/fish"])
    assert evaluation_of(images, class_images=[500] * 4).numbers["map_rare"] == -1


# LVIS


def federated(images, seed):
    """Images some of whose missing classes are known to be missing, and some of whose classes are annotated in part."""
    rng = np.random.default_rng(seed)
    for pred, target, image_id in images:
        there = set(target["labels"].tolist())
        absent = [c for c in range(len(NAMES)) if c not in there and rng.random() < 0.5]
        partial = [c for c in there if rng.random() < 0.4]
        lists = {"neg_labels": torch.tensor(absent).long(), "not_exhaustive_labels": torch.tensor(partial).long()}
        yield pred, {**target, **lists}, image_id


def lvis_results(images, counts, folder, max_detections=300):
    """The numbers of the package `lvis`, which reads files."""
    lvis = pytest.importorskip("lvis", exc_type=ImportError)  # it wants OpenCV, and that a library of the system
    truth, results = [], []
    for pred, target, image_id in images:
        truth += as_json(target["boxes"], target["labels"], image_id, len(truth) + 1)
        results += as_json(pred["boxes"], pred["labels"], image_id, len(results) + 1, score=pred["scores"])
    frequency = dict.fromkeys(range(len(NAMES)), "f") | {
        label: group[0] for group, labels in frequency_groups(counts).items() for label in labels
    }
    document = {
        "images": [
            {
                "id": image_id,
                "neg_category_ids": target["neg_labels"].tolist(),
                "not_exhaustive_category_ids": target["not_exhaustive_labels"].tolist(),
            }
            for _, target, image_id in images
        ],
        "categories": [{"id": label, "name": name, "frequency": frequency[label]} for label, name in enumerate(NAMES)],
        "annotations": [{**annotation, "segmentation": []} for annotation in truth],
    }
    (folder / "lvis.json").write_text(json.dumps(document))
    with contextlib.redirect_stdout(io.StringIO()), pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "float", float, raising=False)  # a name that numpy has dropped since lvis was written
        gt = lvis.LVIS(str(folder / "lvis.json"))
        evaluation = lvis.LVISEval(gt, lvis.LVISResults(gt, results, max_dets=max_detections), "bbox")
        evaluation.params.max_dets = max_detections
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluation.run()
    return evaluation.get_results()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [300, 11])
def test_lvis__equals_the_package_lvis(tmp_path, seed, limit):
    images, counts = [*federated(make_images(40, seed), seed)], [3, 40, 400, 10]
    expected = lvis_results(images, counts, tmp_path, limit)
    found = evaluation_of(images, protocol="lvis", class_images=counts, max_detections=limit).numbers
    names = {"AP": "map", "AP50": "map_50", "AP75": "map_75", "APs": "map_small", "APm": "map_medium"}
    names |= {"APl": "map_large", "APr": "map_rare", "APc": "map_common", "APf": "map_frequent"}
    names |= {f"AR@{limit}": f"mar_{limit}", f"ARs@{limit}": "mar_small", f"ARl@{limit}": "mar_large"}
    assert {name: found[name] for name in names.values()} == pytest.approx(
        {name: expected[key] for key, name in names.items()}, abs=1e-6
    )
    assert len({round(found[name], 4) for name in names.values()}) > 6


def test_lvis__needs_to_know_which_classes_are_absent():
    with pytest.raises(ValueError, match=r"targets\[0\] has no 'neg_labels'; it has 'boxes', 'labels'"):
        evaluation_of(make_images(1), protocol="lvis")


def test_lvis__ignores_detections_of_classes_that_nobody_annotated():
    picture = image(found=[(A, 0, 0.5), (FAR, 1, 0.9)], objects=[(A, 0)])
    other = image(2, found=[(FAR, 0, 0.9)], objects=[(A, 1)])
    none = {"neg_labels": torch.zeros(0, dtype=torch.int64), "not_exhaustive_labels": torch.zeros(0, dtype=torch.int64)}
    for _, target, _ in (picture, other):
        target.update(none)
    assert evaluation_of([picture, other], protocol="lvis").numbers["map/cat"] == 1
    other[1]["neg_labels"] = torch.tensor([0])
    assert evaluation_of([picture, other], protocol="lvis").numbers["map/cat"] == 0.5


# Samples of images


def test_resampled_ap__every_image_once_is_cocos_ap():
    found = evaluation_of(make_images(30))
    result = resampled_ap(found.rows, np.ones((1, 30), int), len(NAMES))
    assert (result.ap[0], result.ap_50[0]) == pytest.approx((found.numbers["map"], found.numbers["map_50"]), abs=1e-6)


def test_resampled_ap__an_image_drawn_twice_counts_as_two():
    images = make_images(20)
    rng = np.random.default_rng(0)
    for pred, _, _ in images:
        pred["scores"] = torch.tensor(rng.permutation(1000)[: len(pred["scores"])] / 1000, dtype=torch.float32)
    counts = rng.multinomial(20, np.full(20, 0.05), size=5)
    resampled = resampled_ap(evaluation_of(images).rows, counts, len(NAMES))
    in_order = sorted(images, key=lambda one: one[2])
    for sample, row in enumerate(counts):
        drawn = [(p, t) for (p, t, _), times in zip(in_order, row, strict=True) for _ in range(times)]
        stats = pycocotools_evaluation([(p, t, i) for i, (p, t) in enumerate(drawn)], len(NAMES)).stats
        assert (resampled.ap[sample], resampled.ap_50[sample]) == pytest.approx((stats[0], stats[1]), abs=1e-6)


@pytest.mark.parametrize("elements", [1, 100, 4_000_000])
def test_resampled_ap__chunks_do_not_change_numbers(monkeypatch, elements):
    monkeypatch.setattr(bootstrap, "_ELEMENTS", elements)
    rows, classes = random_rows(9)
    numbers = evaluate(rows, classes).numbers
    counts = np.ones((3, len(rows.image_ids)), int)
    result = resampled_ap(rows, counts, len(classes))
    assert result.ap == pytest.approx([numbers["map"]] * 3, abs=1e-9)
    assert result.ap_50 == pytest.approx([numbers["map_50"]] * 3, abs=1e-9)


def test_resampled_ap__detections_in_crowds_do_not_count():
    crowd, inside = (100, 100, 200, 200), (110, 110, 130, 130)
    picture = image(found=[(inside, 0, 0.95), (A, 0, 0.9)], objects=[(crowd, 0, True), (A, 0)])
    assert resampled_ap(evaluation_of([picture]).rows, np.array([[1], [3]]), len(NAMES)).ap == pytest.approx([1, 1])


def test_resampled_ap__a_sample_without_objects_is_minus_one():
    images = [image(1, [(A, 0, 0.9)], [(A, 0)]), image(2, [(A, 0, 0.95)], [])]
    result = resampled_ap(evaluation_of(images).rows, np.array([[0, 2], [1, 1]]), len(NAMES))
    assert result.ap.tolist() == [-1, 0.5]
