import copy
import pickle
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lit_dense.core.errors import UsageError
from lit_dense.metrics import DetectionMAP, frequency_groups
from tests.builders.detection_images import (
    BOX,
    NAMES,
    ONE,
    PRED,
    STATS,
    TARGET,
    compute,
    make_images,
    pycocotools_evaluation,
    reference,
    update,
)
from tests.builders.trainers import trainer_in

# The numbers are COCO's

SIZES = [8.0, 31.5, 32.0, 32.5, 64.0, 95.5, 96.0, 97.0]  # on both sides of 32 and 96


@st.composite
def random_images(draw):
    def rows(max_size):
        box = st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(SIZES), st.sampled_from(SIZES))
        drawn = draw(st.lists(st.tuples(box, st.integers(0, len(NAMES) - 1)), max_size=max_size))
        boxes = [[8.0 * x, 8.0 * y, 8.0 * x + w, 8.0 * y + h] for (x, y, w, h), _ in drawn]
        labels = torch.tensor([label for _, label in drawn], dtype=torch.int64)
        return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": labels}

    def column(pred, values, dtype):
        return torch.tensor([draw(st.sampled_from(values)) for _ in pred["labels"]], dtype=dtype)

    images = []
    for image_id in draw(st.lists(st.integers(0, 1000), min_size=1, max_size=4, unique=True)):
        pred, target = rows(12), rows(5)
        pred["scores"] = column(pred, [0.05, 0.3, 0.31, 0.7], torch.float32)
        if draw(st.booleans()):
            target["iscrowd"] = column(target, [0, 0, 1], torch.int64)
        if draw(st.booleans()):
            target["area"] = column(target, [0.0, 50.0, 1023.5, 1024.0, 1024.5, 9216.0, 9217.0], torch.float32)
        images.append((pred, target, image_id))
    return images


@settings(max_examples=40)
@given(images=random_images())
def test_detection_map__equals_pycocotools(images):
    assert compute(images) == pytest.approx(reference(images), abs=1e-6)


def test_detection_map__equals_pycocotools_on_many_images_at_any_coordinates():
    images = make_images(60)
    expected = reference(images)
    assert 0.1 < expected["map"] < 0.9
    assert compute(images) == pytest.approx(expected, abs=1e-6)


def test_detection_map__limit_of_detections_holds_per_class_and_can_be_raised():
    boxes = torch.arange(110.0)[:, None] * 20 + torch.tensor([0.0, 0.0, 10.0, 10.0])
    target = {"boxes": torch.cat([boxes, boxes + 5]), "labels": torch.arange(2).repeat_interleave(110)}
    pred = {**target, "scores": torch.linspace(1, 0.1, 220)}
    default = compute([(pred, target, 1)])
    assert default == pytest.approx(reference([(pred, target, 1)]), abs=1e-6)
    assert default["mar_100"] == pytest.approx(100 / 110)
    raised = compute([(pred, target, 1)], max_detections=200)
    assert (raised["map"], raised["mar_200"]) == (1, 1)
    assert "mar_100" not in raised
    stats = pycocotools_evaluation([(pred, target, 1)], 2, max_detections=200).stats
    assert (raised["map_50"], raised["mar_200"]) == pytest.approx((stats[1], stats[8]))


def test_detection_map__false_positives_on_images_without_ground_truth_count():
    box = torch.tensor([[10.0, 10.0, 50.0, 50.0]])
    found = ({"boxes": box, "scores": torch.tensor([0.5]), "labels": torch.tensor([0])}, {"boxes": box}, 1)
    found[1]["labels"] = torch.tensor([0])
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    wrong = {"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([0])}
    assert compute([found])["map"] == 1
    assert compute([found, (wrong, empty, 2)])["map"] == pytest.approx(0.5)


def test_detection_map__class_without_ground_truth_is_minus_one_and_not_in_the_mean():
    box, one = torch.tensor([[10.0, 10.0, 50.0, 50.0]]), torch.tensor([1])
    pred = {"boxes": box.repeat(2, 1), "scores": torch.tensor([0.9, 0.8]), "labels": torch.tensor([1, 2])}
    result = compute([(pred, {"boxes": box, "labels": one}, 1)])
    assert (result["map"], result["map/dog"], result["map/bird"], result["map_50/fish"]) == (1, 1, -1, -1)


def test_detection_map__without_images_is_minus_one():
    assert set(compute([]).values()) == {-1}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    assert set(compute([({**empty, "scores": torch.zeros(0)}, empty, 1)]).values()) == {-1}


def test_detection_map__without_detections_is_zero():
    images = [({"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0)}, t, i)
              for _, t, i in make_images(3)]  # fmt: skip
    result = compute(images)
    assert (result["map"], result["mar_100"]) == (0, 0)


# What goes in and how it comes out


def test_detection_map__keys_without_names_are_the_labels_seen():
    metric = DetectionMAP()
    update(metric, make_images(5, num_classes=2))
    assert [*metric.compute()] == [*STATS, "map/0", "map/1", "map_50/0", "map_50/1"]
    assert all(value.shape == () for value in metric.compute().values())


def test_detection_map__order_of_images_and_batches_does_not_matter():
    images = make_images(12)
    shuffled = [images[i] for i in np.random.default_rng(1).permutation(len(images))]
    assert compute(images) == compute(shuffled)


def test_detection_map__images_without_ids_all_count_and_repeated_ids_count_once():
    images = make_images(6)
    metric = DetectionMAP(NAMES)
    update(metric, images)
    update(metric, images[::-1])
    with pytest.warns(UserWarning, match="6 of 12 images were left out"):
        assert {k: v.item() for k, v in metric.compute().items()} == compute(images)
    renamed = [(p, t, i + 1000) for p, t, i in images]
    in_order = sorted(images, key=lambda image: image[2]) + sorted(renamed, key=lambda image: image[2])
    assert compute(in_order, with_ids=False) == compute(images + renamed)


def test_detection_map__ids_may_be_a_tensor_and_inputs_of_any_float_and_integer_type():
    images = make_images(4)
    metric = DetectionMAP(NAMES)
    preds = [{k: v.double() if k != "labels" else v.to(torch.uint8) for k, v in p.items()} for p, _, _ in images]
    targets = [{**t, "iscrowd": torch.zeros(len(t["labels"]), dtype=torch.bool)} for _, t, _ in images]
    metric.update(preds, targets, torch.tensor([i for _, _, i in images]))
    assert metric.compute()["map"].item() == compute(images)["map"]


def test_detection_map__empty_images_may_come_as_empty_lists_made_tensors():
    images = make_images(3)
    empty = torch.tensor([])
    metric = DetectionMAP(NAMES)
    update(metric, images)
    metric.update([{"boxes": empty, "scores": empty, "labels": empty}], [{"boxes": empty, "labels": empty}], [7])
    assert metric.compute()["map"].item() == compute(images)["map"]


@pytest.mark.parametrize(
    ("preds", "targets", "ids", "message"),
    [
        ([PRED], [], None, "preds has 1 images but targets has 0"),
        (PRED, [TARGET], None, "preds must be a list with one dict"),
        ([PRED], [BOX], None, "targets must be a list with one dict"),
        ([PRED], [TARGET], [1, 2], "image_ids has 2 ids for 1 images"),
        ([PRED], [TARGET], ["a.jpg"], "image_ids must be integers, got .'a.jpg'"),
        ([PRED], [TARGET], [1.0], "image_ids must be integers"),
        ([PRED, {"boxes": BOX, "labels": ONE}], [TARGET] * 2, None, r"preds\[1\] has no 'scores'; it has 'boxes', "),
        ([PRED], [{"boxes": BOX}], None, r"targets\[0\] has no 'labels'"),
        ([{**PRED, "labels": [0]}], [TARGET], None, r"preds\[0\]\['labels'\] is a list; a tensor"),
        ([{**PRED, "labels": torch.zeros(1)}], [TARGET], None, r"preds\[0\]\['labels'\] has type torch.float32"),
        (
            [{**PRED, "scores": torch.ones(2)}],
            [TARGET],
            None,
            r"preds\[0\]\['scores'\] has shape \(2,\); \[1\] is expected: one value per box",
        ),
        ([PRED], [{**TARGET, "boxes": torch.zeros(4)}], None, r"targets\[0\]\['boxes'\] has shape \(4,\); \[N, 4\]"),
        (
            [PRED],
            [{**TARGET, "area": torch.ones(2)}],
            None,
            r"targets\[0\]\['area'\] has shape \(2,\); \[1\] is expected",
        ),
        ([PRED], [{**TARGET, "iscrowd": torch.ones(1)}], None, r"targets\[0\]\['iscrowd'\] has type torch.float32"),
    ],
)
def test_detection_map__wrong_input_is_named_and_leaves_the_metric_as_it_was(preds, targets, ids, message):
    metric = DetectionMAP()
    with pytest.raises(ValueError, match=message):
        metric.update(preds, targets, ids)
    assert metric.images == metric.boxes == metric.labels == []


def test_detection_map__label_without_a_name_is_an_error():
    metric = DetectionMAP(["cat"])
    metric.update([{**PRED, "labels": ONE + 1}], [TARGET])
    with pytest.raises(ValueError, match="a detection has label 1, but class_names names 1 classes"):
        metric.compute()


def test_detection_map__nan_score_is_an_error():
    metric = DetectionMAP()
    metric.update([{**PRED, "scores": torch.tensor([torch.nan])}], [TARGET])
    with pytest.raises(ValueError, match="the scores of 1 of 1 detections are not a number"):
        metric.compute()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "voc"}, "protocol must be 'coco' or 'lvis', got 'voc'"),
        ({"max_detections": 10}, "max_detections must be over 10"),
        ({"class_names": ["cat", "dog", "cat"]}, "repeated: cat"),
        (
            {"class_names": ["cat", "dog"], "class_images": [1]},
            "class_images has 1 numbers, and there are 2 class_names",
        ),
        ({"class_names": ["cat"], "class_images": [1], "frequency_bounds": (9, 5)}, "two ascending numbers of images"),
    ],
)
def test_detection_map__wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        DetectionMAP(**arguments)


# A torchmetrics metric


def test_detection_map__states_are_no_larger_than_the_input():
    images = make_images(20)
    metric = DetectionMAP(NAMES)
    update(metric, images)
    states = [rows for name in ("images", "boxes", "labels") for rows in getattr(metric, name)]
    given = sum(v.numel() * v.element_size() for pred, target, _ in images for v in (*pred.values(), *target.values()))
    assert sum(rows.numel() * rows.element_size() for rows in states) <= 1.5 * given
    assert len(states) == 3 * 7  # one of each per batch, not per image


def test_detection_map__forward_gives_the_batch_and_accumulates_without_the_graph():
    images = make_images(8)
    for pred, _, _ in images:
        pred["boxes"].requires_grad_()
    metric = DetectionMAP(NAMES)
    for part in (images[:4], images[4:]):
        preds, targets, ids = zip(*part, strict=True)
        assert metric(list(preds), list(targets), list(ids))["map"].item() == compute(part)["map"]
    assert not any(rows.requires_grad for rows in metric.boxes)
    assert metric.compute()["map"].item() == compute(images)["map"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda metric: pickle.loads(pickle.dumps(metric))])
def test_detection_map__a_copy_goes_on_from_where_it_was(copied):
    images = make_images(8)
    metric = DetectionMAP(NAMES)
    update(metric, images[:4])
    other = copied(metric)
    assert other.dist_sync_fn.__self__ is other  # what gathers its states
    update(other, images[4:])
    assert other.compute()["map"].item() == compute(images)["map"]
    assert metric.compute()["map"].item() == compute(images[:4])["map"]


class Detector(pl.LightningModule):
    def __init__(self, images):
        super().__init__()
        self.images = images
        self.metric = DetectionMAP(NAMES)

    def val_dataloader(self):
        return DataLoader(
            self.images, batch_size=3, collate_fn=lambda batch: [list(c) for c in zip(*batch, strict=True)]
        )

    def validation_step(self, batch, _):
        self.metric.update(*batch)

    def on_validation_epoch_end(self):
        self.log_dict(self.metric.compute())
        self.metric.reset()


def test_detection_map__each_validation_of_a_lightning_module_starts_anew(tmp_path):
    module = Detector(make_images(8))
    trainer = trainer_in(tmp_path)
    (first,) = trainer.validate(module, verbose=False)
    assert first == pytest.approx(compute(module.images))
    module.images = make_images(5, seed=1)
    (second,) = trainer.validate(module, verbose=False)
    assert second == pytest.approx(compute(module.images))
    assert first["map"] != second["map"]


@pytest.mark.gpu
def test_detection_map__states_and_result_live_on_the_metrics_device():
    images = make_images(8)
    metric = DetectionMAP(NAMES).to("cuda")
    update(metric, [({k: v.to("cuda") for k, v in pred.items()}, target, i) for pred, target, i in images])
    result = metric.compute()
    assert all(rows.device.type == "cuda" for rows in metric.boxes)
    assert all(value.device.type == "cuda" for value in result.values())
    assert {key: value.item() for key, value in result.items()} == compute(images)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_detection_map__half_precision_detections_do_not_round_integer_objects(half):
    boxes = torch.tensor([[1001, 1001, 1033, 1033]])
    pred = {"boxes": boxes.to(half), "labels": torch.tensor([0]), "scores": torch.tensor([0.5], dtype=half)}

    def numbers(kind):
        metric = DetectionMAP(["a"])
        metric.update([pred], [{"boxes": boxes.to(kind), "labels": torch.tensor([0]), "area": torch.tensor([1027])}])
        return {name: value.item() for name, value in metric.compute().items() if not value.dim()}

    assert numbers(torch.int64) == numbers(torch.float32)
    assert numbers(torch.int64)["map_small"] == -1  # 1027 is more than 32 * 32; in bfloat16 it would be 1024


def test_detection_map__numbers_of_images_may_be_an_array():
    for images in ([3, 40, 5000], torch.tensor([3, 40, 5000]), np.array([3, 40, 5000])):
        assert frequency_groups(images) == {"rare": [0], "common": [1], "frequent": [2]}


def test_detection_map__lists_of_classes_need_the_protocol_lvis():
    images = make_images(2)
    lists = {"neg_labels": torch.tensor([1]), "not_exhaustive_labels": torch.zeros(0, dtype=torch.int64)}
    metric = DetectionMAP(NAMES)
    with pytest.warns(UserWarning, match=r"LVIS's lists of classes .* which the protocol coco does not read"):
        metric.update([images[0][0]], [images[0][1] | lists])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.update([images[1][0]], [images[1][1] | lists])  # said once
    with pytest.raises(UsageError, match=r"has no 'neg_labels'.*data without LVIS's lists of classes has the protocol"):
        DetectionMAP(NAMES, "lvis").update([images[0][0]], [images[0][1]])
