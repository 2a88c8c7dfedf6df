"""The box loss ``dfl``: its two terms, its coder, and the arguments that it refuses."""

import pytest
import torch
from torchvision.ops import generalized_box_iou_loss

from lit_dense.box_losses import BOX_LOSSES
from lit_dense.box_losses.dfl_loss import DFLLoss
from lit_dense.core.distribution_coder import DistributionCoder
from lit_dense.core.errors import UsageError
from lit_dense.core.samples import DenseSamples
from lit_dense.criterion import Criterion

CELLS = torch.tensor([[4.0, 4, 12, 12], [32, 16, 48, 32]])
BOXES = torch.tensor([[0.0, 2, 40, 12], [30, -6, 60, 90]])


def test_dfl__is_the_giou_loss_of_the_decoded_box_and_the_mean_over_the_sides():
    loss = DFLLoss()
    outputs = torch.randn(2, 68, generator=torch.Generator().manual_seed(0)).requires_grad_()
    distances = loss.box_coder.encode_single(BOXES, CELLS)
    values = loss(outputs, distances)
    # the authors' code: boxes by a matrix product with 0 to 16, GIoU times 2, four cross-entropies times 0.25 / 4
    decoded = (outputs.view(8, 17).softmax(1) @ torch.arange(17.0)).view(2, 4)
    centres, sides = (CELLS[:, :2] + CELLS[:, 2:]) / 2, (CELLS[:, 2:] - CELLS[:, :2])
    boxes = torch.cat([centres - decoded[:, :2] * sides, centres + decoded[:, 2:] * sides], 1)
    torch.testing.assert_close(loss.box_coder.decode_single(outputs, CELLS), boxes)
    clamped = distances.clamp(0, 15.9).view(8)
    left = clamped.long()
    log_p = outputs.view(8, 17).log_softmax(1)
    near = [log_p.gather(1, (left + step).unsqueeze(1)).squeeze(1) for step in (0, 1)]
    sides_loss = -(near[0] * (left + 1 - clamped) + near[1] * (clamped - left)).view(2, 4).sum(1)
    expected = 2 * generalized_box_iou_loss(boxes, BOXES) + 0.25 * sides_loss / 4
    torch.testing.assert_close(values, expected)
    for mine, theirs in zip(
        *(torch.autograd.grad(v.sum(), outputs, retain_graph=True) for v in (values, expected)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_dfl__weights_and_the_number_of_bins():
    outputs, distances = torch.randn(3, 4 * 8), torch.rand(3, 4) * 7
    iou, dfl, both = (
        DFLLoss("diou", 7, *weights)(outputs, distances) for weights in ((1.0, 0.0), (0.0, 1.0), (3.0, 0.5))
    )
    torch.testing.assert_close(3 * iou + 0.5 * dfl, both)
    assert DFLLoss().box_outputs == 68  # 17 bins for reg_max=16, as in the authors' code
    assert DFLLoss(reg_max=15).box_outputs == 64  # Ultralytics' reg_max=16


@pytest.mark.parametrize("iou_loss", ["iou", "ciou", "eiou", "siou", "wiou"])
def test_dfl__the_loss_of_the_expected_box_does_not_depend_on_the_unit(iou_loss):
    loss = DFLLoss(iou_loss, dfl_weight=0.0, iou_weight=1.0).eval()
    outputs = torch.randn(2, 68, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        values = loss(outputs, loss.box_coder.encode_single(BOXES, CELLS))
        in_pixels = BOX_LOSSES.build(iou_loss)(loss.box_coder.decode_single(outputs, CELLS), BOXES)
    torch.testing.assert_close(values, in_pixels)


def test_distribution_coder__outputs_of_distances_decode_to_them():
    coder = DistributionCoder(17)
    inside = BOXES.clamp(min=0)
    distances = coder.encode_single(inside, CELLS)
    assert distances[0].tolist() == [1, 0.75, 4, 0.5]
    torch.testing.assert_close(coder.decode_single(coder.outputs_of(distances), CELLS), inside, rtol=0, atol=1e-4)
    far = coder.decode_single(coder.outputs_of(torch.full((2, 4), 99.0)), CELLS)
    torch.testing.assert_close(far[:, 2:] - far[:, :2], 32 * (CELLS[:, 2:] - CELLS[:, :2]))
    half = coder.decode_single(torch.randn(2, 68).half(), CELLS)
    assert half.dtype == torch.float32


def test_dfl__of_a_custom_head():
    coder = DFLLoss().box_coder
    outputs = coder.outputs_of(coder.encode_single(BOXES.clamp(min=0), CELLS)).requires_grad_()
    samples = DenseSamples.of(
        torch.randn(2, 3),
        torch.tensor([0, 2]),
        deltas=outputs,
        anchors=CELLS,
        box_coder=coder,
        gt_boxes=BOXES.clamp(min=0),
    )
    terms = Criterion("focal", box_loss="dfl")(samples)
    assert 0 < terms["bbox_regression"] < 0.3  # only the entropy of distances between two bins
    terms["bbox_regression"].backward()
    assert outputs.grad.abs().sum() > 0
    torch.testing.assert_close(samples.pos_ious, torch.ones(2), rtol=0, atol=1e-4)


def test_box_losses__another_number_of_outputs_is_refused():
    target = torch.zeros(2, 4)
    said = (
        r"DFLLoss reads 68 outputs for the box of an anchor, not 4. With DFLLoss, give DenseSamples.of deltas=\[A, 68\]"
    )
    with pytest.raises(UsageError, match=said):
        DFLLoss()(target, target)
    for name in ("l1", "giou"):
        with pytest.raises(UsageError, match=r"Loss reads 4 outputs for the box of an anchor, not 68\.$"):
            BOX_LOSSES.build(name)(torch.zeros(2, 68), target)
    samples = DenseSamples.of(
        torch.randn(2, 3),
        torch.tensor([0, 2]),
        deltas=target,
        anchors=CELLS,
        box_coder=DFLLoss().box_coder,
        gt_boxes=BOXES,
    )
    with pytest.raises(UsageError, match="DFLLoss reads 68"):
        Criterion("focal", box_loss="dfl")(samples)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"iou_loss": "nwd"}, "iou_loss must be an IoU loss .*such as giou.*; NWDLoss is none"),
        ({"iou_loss": "mpdiou"}, "MPDIoULoss is none"),
        ({"iou_loss": "l1"}, "L1Loss is none"),
        ({"iou_loss": "gious"}, "Did you mean 'giou'"),
        ({"reg_max": 0}, "dfl: reg_max must be at least 1"),
        ({"dfl_weight": -1}, "dfl: dfl_weight must be at least 0"),
        ({"iou_weight": -1}, "dfl: iou_weight must be at least 0"),
    ],
)
def test_dfl__rejects(arguments, said):
    with pytest.raises(UsageError, match=said):
        DFLLoss(**arguments)


def test_dfl__its_spec_rebuilds_it_with_the_iou_loss():
    spec = DFLLoss({"class_path": "diou", "init_args": {"inner": 0.8}}, 8).spec
    again = BOX_LOSSES.build(spec)
    assert again.spec == spec
    assert (again.box_outputs, again.iou_loss.variant.inner) == (36, 0.8)
