import torch

from lit_dense.functional.iou_balanced import iou_balanced_weights, weighted_sums

IOUS, COSTS = torch.tensor([0.9, 0.5, 0.7]).double(), torch.tensor([0.6, 0.3, 0.2]).double()


def weights(ious, costs, eta=1.5):
    return iou_balanced_weights(ious**eta, weighted_sums(ious**eta, costs))


def test_iou_balanced_weights__worked_values():
    expected = torch.tensor([1.276970, 0.528776, 0.875919]).double()
    torch.testing.assert_close(weights(IOUS, COSTS), expected, rtol=0, atol=5e-6)  # the authors add 1e-6 to a sum


def test_iou_balanced_weights__keep_the_sum_and_are_1_if_all_ious_are_0():
    torch.testing.assert_close((weights(IOUS, COSTS, 3.0) * COSTS).sum(), COSTS.sum())
    assert (weights(0 * IOUS, COSTS) == 1).all()
    torch.testing.assert_close(weights(IOUS, COSTS, 0.0), torch.ones(3).double())
    assert weights(IOUS[:0], COSTS[:0]).shape == (0,)
