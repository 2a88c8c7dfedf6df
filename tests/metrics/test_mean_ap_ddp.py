"""DetectionMAP on two processes equals DetectionMAP on one that sees each image once."""

import warnings
from unittest import mock

import pytest
import torch.distributed as dist
from torch.utils.data import DistributedSampler
from torchmetrics.utilities.distributed import gather_all_tensors

from lit_dense.metrics import DetectionMAP
from tests.builders.collectives import counted_collectives
from tests.builders.detection_images import NAMES, ONE, PRED, TARGET, compute, make_images, update


def computed_on(rank, shards, with_ids=True):
    """The result of this process's share of the images, and how many collectives it took."""
    images = make_images(16)
    with counted_collectives() as calls:
        result = compute([images[i] for i in shards[rank]], with_ids=with_ids)
    return result, sum(call.call_count for call in calls)


def sampled(count):
    """The images that Lightning's sampler gives to each of two processes: padded by repeating the first."""
    samplers = [DistributedSampler(range(count), num_replicas=2, rank=rank, shuffle=False) for rank in range(2)]
    return [list(sampler) for sampler in samplers]


SHARES = {
    "equal": [range(8), range(8, 16)],
    "uneven": [range(8), range(8, 11)],
    "first empty": [[], range(5)],
    "second empty": [range(5), []],
    "sampler repeats": sampled(11),
    "no ground truth on one": [[0, 1, 2], [3, 7]],
    "nothing": [[], []],
}


@pytest.mark.ddp
@pytest.mark.parametrize("share", SHARES)
def test_detection_map__two_processes_equal_one(two_processes, share):
    shards = [list(indices) for indices in SHARES[share]]
    images = make_images(16)
    expected = compute([images[i] for i in sorted({*shards[0], *shards[1]})])
    (first, first_calls), (second, second_calls) = two_processes(computed_on, shards)
    assert first == second == expected
    assert first_calls == second_calls == 7  # whatever a process holds


@pytest.mark.ddp
def test_detection_map__processes_share_curves_and_confusion_matrix_and_the_first_has_the_rows(two_processes):
    whole = evaluated(0, [range(8)])
    first, second = two_processes(evaluated, [range(3), range(3, 8)])
    for mine in (first, second):
        assert mine.numbers == whole.numbers
        for name in ("ap", "ap_50", "precision_50", "scores_50", "confusion"):
            assert (getattr(mine, name) == getattr(whole, name)).all()
    assert first.rows.image_ids.tolist() == whole.rows.image_ids.tolist()
    assert second.rows is None


def evaluated(rank, shards):
    images = make_images(8)
    metric = DetectionMAP(NAMES)
    update(metric, [images[i] for i in shards[rank]])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The ``compute`` method")
        metric.compute()
    return metric.evaluation


@pytest.mark.ddp
def test_detection_map__two_processes_without_names_agree_on_the_classes(two_processes):
    results = two_processes(computed_without_names, [(0, 1), (2, 3)])
    assert results[0] == results[1]
    assert [*results[0]][12:] == [f"{key}/{label}" for key in ("map", "map_50") for label in range(4)]


def computed_without_names(rank, classes):
    metric = DetectionMAP()
    for i, label in enumerate(classes[rank]):
        metric.update([{**PRED, "labels": ONE + label}], [TARGET], [10 * rank + i])
    return {key: value.item() for key, value in metric.compute().items()}


@pytest.mark.ddp
def test_detection_map__images_without_ids_all_count_on_two_processes(two_processes):
    results = two_processes(computed_on, [[0, 1, 2], [0, 1]], False)
    images = make_images(3)
    expected = compute([*images, *images[:2]], with_ids=False)
    assert results[0][0] == results[1][0] == expected


@pytest.mark.ddp
def test_detection_map__failed_evaluation_raises_on_both_processes_and_reset_recovers(two_processes):
    (first, first_after), (second, second_after) = two_processes(failing_on_both)
    assert all(message.startswith("UsageError: DetectionMAP: a detection has label 9") for message in first)
    assert all(message.startswith("RuntimeError: DetectionMAP: the evaluation failed on") for message in second)
    assert first_after == second_after == compute(make_images(4))


def failing_on_both(rank):
    metric = DetectionMAP(NAMES)
    metric.update([{**PRED, "labels": ONE + 9 * rank}], [TARGET], [rank])
    messages = []
    for _ in range(2):
        with pytest.raises((ValueError, RuntimeError)) as error:
            metric.compute()
        messages.append(f"{error.typename}: {error.value}")
    metric.reset()
    update(metric, make_images(4)[2 * rank : 2 * rank + 2])
    return messages, {key: value.item() for key, value in metric.compute().items()}


@pytest.mark.ddp
def test_detection_map__a_process_goes_on_with_its_own_images_after_compute(two_processes):
    images = make_images(6)
    for halfway, end in two_processes(accumulated):
        assert halfway == compute([images[0], images[1], images[3], images[4]])["map"]
        assert end == compute(images)["map"]


def accumulated(rank):
    images = make_images(6)[3 * rank : 3 * rank + 3]
    metric = DetectionMAP(NAMES)
    update(metric, images[:2])
    halfway = metric.compute()["map"].item()
    update(metric, images[2:])
    return halfway, metric.compute()["map"].item()


@pytest.mark.ddp
def test_detection_map__forward_on_two_processes_is_the_processs_own_batch(two_processes):
    images = make_images(4)
    results = two_processes(batch_values)
    assert results == [compute([image])["map"] for image in images[:2]]


def batch_values(rank):
    pred, target, image_id = make_images(4)[rank]
    return DetectionMAP(NAMES)([pred], [target], [image_id])["map"].item()


@pytest.mark.ddp
def test_detection_map__a_backend_that_fails_stops_both_processes(two_processes):
    first, second = two_processes(failing_evaluator)
    assert first == "ValueError: no such thing"
    assert second == "RuntimeError: DetectionMAP: the evaluation failed on the first process; its error says why."


def failing_evaluator(rank):
    metric = DetectionMAP(NAMES)
    update(metric, make_images(2))
    with mock.patch("lit_dense.metrics.mean_ap.evaluate", side_effect=ValueError("no such thing")):
        try:
            metric.compute()
        except Exception as error:
            return f"{type(error).__name__}: {error}"


@pytest.mark.ddp
def test_detection_map__a_custom_gather_and_a_group_are_used(two_processes):
    for own, groups, result in two_processes(computed_in_other_ways):
        assert own == compute(make_images(6))["map"]
        assert groups == result == compute(make_images(6))["map"]


def computed_in_other_ways(rank):
    """With torchmetrics' own way to gather, with a process group, and once more with neither."""
    images, found = make_images(6), []
    group = dist.new_group([0, 1])
    for arguments in ({"dist_sync_fn": gather_all_tensors}, {"process_group": group}, {}):
        metric = DetectionMAP(NAMES, **arguments)
        update(metric, images if rank else [])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The ``compute`` method")
            found.append(metric.compute()["map"].item())
        assert isinstance(metric.images, list)  # the process's own again
    return found
