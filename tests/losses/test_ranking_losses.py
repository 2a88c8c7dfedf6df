"""Ranking losses in a criterion: divisor, balance with the box loss, weighters, processes."""

from dataclasses import replace

import pytest
import torch

from lit_dense.core.distributed import Reduce
from lit_dense.core.errors import UsageError
from lit_dense.core.step_context import StepContext
from lit_dense.criterion import Criterion
from lit_dense.functional.rs import rs_loss
from lit_dense.losses import LOSSES
from lit_dense.testing import check_classification_loss
from lit_dense.testing.batches import images_of, make_batch, with_leaves

RANKING = ["ap", "alrp", "rs"]
OBJECTS = (3, 0, 5, 2)
ALRP = {"class_path": "alrp", "init_args": {"balance": 5.0, "balance_steps": 2}}


def test_box_weights__of_rs_make_the_box_loss_as_large_as_the_classification_loss():
    criterion = Criterion("rs", box_loss="giou")
    terms = criterion(samples := make_batch(3, objects=OBJECTS))
    torch.testing.assert_close(terms["bbox_regression"], terms["classification"])
    values = rs_loss(samples.logits, samples.labels, samples.pos_ious)
    torch.testing.assert_close(terms["classification"], values.sum() / len(samples.positives))
    scores = samples.logits[samples.positives].sigmoid().amax(1).detach()
    boxes = criterion.box_loss(samples.pos_boxes, samples.pos_gt_boxes, samples)
    plain = (scores * boxes).sum() / scores.sum()
    torch.testing.assert_close(plain * (terms["classification"] / plain).detach(), terms["bbox_regression"])
    doubled = Criterion("rs", box_loss="giou", box_loss_weight=2.0)(samples)
    torch.testing.assert_close(doubled["bbox_regression"], 2 * terms["bbox_regression"])


def test_box_weights__of_rs_can_be_left_out():
    loss = {"class_path": "rs", "init_args": {"self_balance": False}}
    samples = make_batch(3, objects=OBJECTS)
    terms = Criterion(loss, box_loss="giou")
    with pytest.raises(UsageError, match="brings its own normalizer"):
        Criterion("rs", normalizer="batch")
    expected = Criterion("focal", box_loss="giou")(samples)["bbox_regression"]
    torch.testing.assert_close(terms(samples)["bbox_regression"], expected)


def test_box_weights__per_coordinate_losses_too():
    samples = make_batch(3, objects=OBJECTS)
    terms = Criterion("rs", box_loss="l1")(samples)
    torch.testing.assert_close(terms["bbox_regression"], terms["classification"])


def test_alrp__factor_follows_the_ratio_of_both_parts():
    criterion = Criterion(ALRP, box_loss="giou")
    parts = []
    for seed in range(3):
        factor = criterion.loss.factor.clone()
        terms = criterion(make_batch(3, objects=OBJECTS, seed=seed))
        parts.append((terms["classification"].detach(), terms["bbox_regression"].detach() / factor, factor))
    assert parts[0][2] == parts[1][2] == 5
    classes, boxes = (sum(part[index] for part in parts[:2]) for index in (0, 1))
    torch.testing.assert_close(parts[2][2], (classes + boxes) / boxes)
    with torch.no_grad():
        criterion(make_batch(3, objects=OBJECTS))
    assert criterion.loss.sums[2] == 1


@pytest.mark.parametrize("name", RANKING)
def test_ranking_losses__take_no_weights(name):
    for weighter in ("ohem", "pisa", "class_balanced"):
        with pytest.raises(UsageError, match=f"{LOSSES.load(name).__name__}"):
            Criterion(name, weighters=weighter)
    with pytest.raises(UsageError, match=r"RankSortLoss and PISAWeighter both decide the weights"):
        Criterion("rs", weighters="pisa")
    with pytest.raises(UsageError, match=r"both decide the box normalizer"):
        Criterion("rs", box_loss="ghm_r")


@pytest.mark.parametrize("name", RANKING)
def test_ranking_losses__batches_without_objects_are_finite_and_on_the_graph(name):
    samples, leaves = with_leaves(make_batch(3, objects=(0, 0)))
    terms = Criterion(name, box_loss="giou")(samples)
    total = sum(terms.values())
    assert total == 0
    for gradient in torch.autograd.grad(total, leaves, allow_unused=True):
        assert gradient is None or not gradient.any()


def test_ranking_losses__arguments_out_of_range_are_named():
    with pytest.raises(UsageError, match="rs: delta must be at least 0, not -1"):
        LOSSES.build({"class_path": "rs", "init_args": {"delta": -1}})
    with pytest.raises(UsageError, match="alrp: balance_steps must be at least 1"):
        LOSSES.build({"class_path": "alrp", "init_args": {"balance_steps": 0}})


def steps(rank, loss):
    """Terms and gradients of two steps, of all images or of one process's."""
    criterion, results = Criterion(loss, box_loss="giou"), []
    for seed, border in enumerate((1, 3)):
        samples = make_batch(3, objects=OBJECTS, seed=seed)
        if rank is not None:
            samples = images_of(samples, *((0, border), (border, 4))[rank])
        context = StepContext(Reduce(enabled=rank is not None), criterion.step)
        samples, leaves = with_leaves(replace(samples, context=context))
        terms = criterion(samples)
        gradients = torch.autograd.grad(terms["classification"] + terms["bbox_regression"], leaves, allow_unused=True)
        slopes = [torch.zeros_like(x) if g is None else g for g, x in zip(gradients, leaves, strict=True)]
        results.append((torch.stack([*terms.values()]).detach(), *slopes))
    return results


@pytest.mark.ddp
@pytest.mark.parametrize("loss", ["ap", "rs", ALRP])
def test_ranking_losses__two_processes_are_one(two_processes, loss):
    both = two_processes(steps, loss)
    for whole, first, second in zip(steps(None, loss), *both, strict=True):
        torch.testing.assert_close((first[0] + second[0]) / 2, whole[0], rtol=1e-5, atol=1e-7)
        for index in (1, 2):
            mean = torch.cat([first[index], second[index]]) / 2
            torch.testing.assert_close(mean, whole[index], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", RANKING)
def test_ranking_losses__pass_the_kit(name):
    check_classification_loss(name, skip=["gradient", "two_processes", "compiled"])
