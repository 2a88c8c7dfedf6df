"""Worked values of assignment that sees predictions; TAL and SimOTA are those of the authors' code."""

import pytest
import torch

from lit_dense.functional.paa import fit_mixtures, separate_by_mixture
from lit_dense.functional.simota import centres_near, simota_match
from lit_dense.functional.stable_top import stable_smallest
from lit_dense.functional.task_alignment import task_aligned_match
from lit_dense.functional.wasserstein import nearest_match, wasserstein_distances
from tests.builders.assignment_vectors import BOXES, CENTRES, GT_BOXES, GT_LABELS, SCORES

MATCHED = [0, 0, -1, 1, -1, 0, 1, 1]


def tal(gt=(0, 1), **arguments):
    own = list(gt)
    given = {"alpha": 1.0, "beta": 6.0, "number": 3, **arguments}
    return task_aligned_match(SCORES, BOXES, CENTRES, GT_BOXES[own], GT_LABELS[own], **given)


def test_task_aligned_match__worked_values():
    matched, targets = tal()
    assert matched.tolist() == MATCHED
    expected = [0.363012, 0.677858, 0, 0.759999, 0, 0.902255, 0.474411, 0.476815]
    torch.testing.assert_close(targets, torch.tensor(expected), atol=2e-6, rtol=0)
    matched, targets = tal(alpha=0.5, overlap="ciou")
    assert matched.tolist() == MATCHED
    expected = [0.418429, 0.855487, 0, 0.758323, 0, 0.901680, 0.547121, 0.506655]
    torch.testing.assert_close(targets, torch.tensor(expected), atol=2e-6, rtol=0)


def test_task_aligned_match__order_of_objects_permutes_the_matches():
    (matched, targets), (other, same) = tal(), tal((1, 0))
    assert torch.equal(torch.where(matched >= 0, 1 - matched, -1), other)
    assert torch.equal(targets, same)


def test_task_aligned_match__small_object_between_centres_needs_min_side():
    gt = torch.tensor([[15.0, 15, 17, 17]])
    boxes = CENTRES.repeat(1, 2) + torch.tensor([-4.0, -4, 4, 4])
    arguments = SCORES, boxes, CENTRES, gt, torch.tensor([0])
    assert task_aligned_match(*arguments)[0].max() == -1
    boxes = boxes + torch.tensor([-4.0, -4, 4, 4])
    assert (task_aligned_match(SCORES, boxes, *arguments[2:], min_side=16.0)[0] == 0).sum() == 4


def test_task_aligned_match__ties_and_no_overlap():
    same = GT_BOXES[:1].expand(8, 4)
    scores = torch.full((8, 3), 0.01)
    matched, targets = task_aligned_match(scores, same, CENTRES, GT_BOXES[:1], GT_LABELS[:1], number=2)
    assert matched.tolist() == [0, 0, -1, -1, -1, -1, -1, -1]
    torch.testing.assert_close(targets[:2], torch.ones(2))
    matched, targets = task_aligned_match(scores, same + 500, CENTRES, GT_BOXES, GT_LABELS)
    assert matched.max() == -1
    assert targets.max() == 0
    both = GT_BOXES[[0, 0]]  # the first object takes all: overlaps are equal
    assert task_aligned_match(scores, same, CENTRES, both, GT_LABELS, number=3)[0].max() == 0


def test_task_aligned_match__metric_that_is_almost_0_still_gives_targets():
    _, targets = task_aligned_match(SCORES * 1e-6, BOXES, CENTRES, GT_BOXES, GT_LABELS)
    assert targets.max() > 0.7


def simota(scores, **arguments):
    near = centres_near(CENTRES, torch.full((8, 2), 8.0), GT_BOXES, 1.5)
    candidates = near.any(0).nonzero().squeeze(1)
    found, ious = simota_match(
        scores[candidates], BOXES[candidates], near[:, candidates], GT_BOXES, GT_LABELS, **arguments
    )
    matched = torch.full((8,), -1).index_put((candidates,), found)
    return matched, torch.zeros(8).index_put((candidates,), ious)


def test_simota_match__worked_values():
    objectness = torch.tensor([0.9, 0.8, 0.7, 0.9, 0.3, 0.9, 0.6, 0.8])
    for scores in (SCORES * objectness[:, None], SCORES):
        matched, targets = simota(scores)
        assert matched.tolist() == [0, 0, 0, 1, -1, 0, 1, 1]
        expected = [0.788732, 0.902256, 0.690141, 0.76, 0, 0.875, 0.743119, 0.721485]
        torch.testing.assert_close(targets, torch.tensor(expected), atol=2e-6, rtol=0)


def test_simota_match__scores_of_0_and_1_are_finite():
    matched, _ = simota(torch.zeros(8, 3).index_fill(1, torch.tensor([1]), 1.0))
    assert (matched >= 0).sum() >= 2


def test_simota_match__more_objects_than_candidates():
    gt = torch.tensor([[8.0, 8, 32, 24]]).repeat(5, 1)
    near = torch.ones(5, 2, dtype=torch.bool)
    matched, _ = simota_match(SCORES[:2], BOXES[:2], near, gt, torch.zeros(5, dtype=torch.int64))
    assert matched.tolist() == [-1, 0]  # each takes one, and the first object has the lowest index
    matched, _ = simota_match(SCORES[:0], BOXES[:0], near[:, :0], gt, torch.zeros(5, dtype=torch.int64))
    assert matched.shape == (0,)


LOSSES = torch.tensor([0.10, 0.12, 0.15, 0.20, 0.22, 0.60, 0.70, 0.75, 0.90], dtype=torch.float64)


def test_fit_mixtures__worked_values():
    padded = torch.cat([LOSSES, torch.tensor([torch.inf, torch.inf])])
    rows = torch.stack([padded, padded.roll(0)])
    rows[1, :1] = 0.3
    mixture = fit_mixtures(rows[:1], torch.tensor([9]))
    torch.testing.assert_close(
        mixture.means[0], torch.tensor([0.375723, 0.458083], dtype=torch.float64), atol=1e-6, rtol=0
    )
    assert mixture.is_first[0].tolist() == [True] * 5 + [False] * 6
    both = fit_mixtures(rows, torch.tensor([9, 1]))  # rows do not depend on each other
    torch.testing.assert_close(both.means[:1], mixture.means, atol=1e-12, rtol=0)


def test_fit_mixtures__equals_scikit_learn():
    mixture = pytest.importorskip("sklearn.mixture")
    generator = torch.Generator().manual_seed(0)
    for count, scale in ((45, 1.0), (20, 8.0), (7, 0.1)):
        values = (torch.rand(count, generator=generator, dtype=torch.float64) ** 2 * scale).sort().values
        ends = values[[0, -1]].numpy().reshape(2, 1)
        fit = mixture.GaussianMixture(
            2, weights_init=[0.5, 0.5], means_init=ends, precisions_init=[[[1.0]], [[1.0]]]
        ).fit(values[:, None].numpy())
        ours = fit_mixtures(values[None], torch.tensor([count]))
        torch.testing.assert_close(ours.means[0], torch.from_numpy(fit.means_[:, 0]), atol=1e-12, rtol=0)
        density = torch.from_numpy(fit.score_samples(values[:, None].numpy()))
        torch.testing.assert_close(ours.log_density[0], density, atol=1e-12, rtol=0)
        assert ours.is_first[0].tolist() == (fit.predict(values[:, None].numpy()) == 0).tolist()


def test_separate_by_mixture__few_and_equal_losses():
    table = torch.full((3, 9), torch.inf, dtype=torch.float64)
    table[0, :1], table[1, :4], table[2] = 2.0, 0.5, LOSSES
    assert separate_by_mixture(table, torch.tensor([1, 4, 9])).tolist() == [1, 1, 5]


def test_nearest_match__worked_values():
    assert nearest_match(BOXES, GT_BOXES, 2).tolist() == [-1, 0, -1, 1, -1, 0, 1, -1]
    assert nearest_match(BOXES, GT_BOXES[:0], 2).tolist() == [-1] * 8
    assert nearest_match(BOXES[:1], GT_BOXES, 5).tolist() == [0]


def test_wasserstein_distances__equals_the_formula():
    distances = wasserstein_distances(BOXES, GT_BOXES)
    for row, gt in enumerate(GT_BOXES):
        centre = (BOXES[:, :2] + BOXES[:, 2:] - gt[:2] - gt[2:]) / 2
        size = (BOXES[:, 2:] - BOXES[:, :2]) - (gt[2:] - gt[:2])
        expected = centre.square().sum(1) + size.square().sum(1) / 4
        torch.testing.assert_close(distances[row], expected)


def test_stable_smallest__first_of_equals():
    costs = torch.tensor([[2.0, 1, 2, 2, 1], [torch.inf, 3, torch.inf, 3, 3], [torch.nan, 1, 0, 2, 3]])
    chosen = stable_smallest(costs, torch.tensor([3, 4, 1]), 4)
    assert chosen.tolist() == [
        [True, True, False, False, True],
        [False, True, False, True, True],
        [False, False, True, False, False],
    ]
