import pytest
import torch

from lit_dense.box_losses import BOX_LOSSES, GIoULoss, L1Loss, SmoothL1Loss
from tests.test_criterion import samples_of


@pytest.mark.parametrize("name", sorted(BOX_LOSSES.points))
def test_nothing_costs_nothing_and_wrong_costs_something(name):
    samples = samples_of((4,))
    loss = BOX_LOSSES.build(name)
    target = samples.pos_target_deltas if loss.space == "deltas" else samples.pos_gt_boxes
    torch.testing.assert_close(loss(target, target, samples), torch.zeros_like(loss(target, target, samples)))
    wrong = loss(target + 0.3, target, samples)
    assert wrong.shape in (target.shape, target.shape[:1])
    assert (wrong > 0).all()


def test_worked_values():
    box, target = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])
    torch.testing.assert_close(GIoULoss()(box, target, None), torch.tensor([1.079365]))
    deltas, zero = torch.tensor([[0.05, -0.5, 0.0, 2.0]]), torch.zeros(1, 4)
    torch.testing.assert_close(
        SmoothL1Loss(0.11)(deltas, zero, None)[0, :2], torch.tensor([0.011364, 0.445]), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(L1Loss()(deltas, zero, None), deltas.abs())
    torch.testing.assert_close(SmoothL1Loss(0)(deltas, zero, None), deltas.abs())
